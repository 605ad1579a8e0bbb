//! Every file in `examples/` does what its first lines say.

use std::fs;

use crate::lab::{Lab, root, wait_for};

/// The line in an example that says how it ends.
const EXPECT: &str = "# Ends as: ";

#[tokio::test]
async fn every_example_ends_as_it_says() {
    let lab = Lab::new().await;
    let mut files: Vec<_> =
        fs::read_dir(root().join("examples")).expect("examples").map(|f| f.expect("a file").path()).collect();
    files.sort();
    assert!(files.len() >= 5, "{files:?}");
    for path in files {
        let file = path.to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("a text");
        let expected = text
            .lines()
            .find_map(|line| line.strip_prefix(EXPECT))
            .unwrap_or_else(|| panic!("{file} has no line {EXPECT:?}"));
        // A new namespace gets its service account a moment later.
        wait_for(&format!("{file} to be taken"), async || {
            crate::lab::kubectl_raw(&["-n", &lab.namespace, "apply", "-f", &file]).status.success().then_some(())
        })
        .await;
        let names = lab.kubectl(&["get", "-f", &file, "-o", "name"]);
        let request = names.lines().find_map(|name| name.strip_prefix("execrequest.execlet.dev/")).expect("a request");
        let done = lab.finished(request).await;
        let ended = match done.status.exit_code {
            Some(code) => format!("{} with exit code {code}", done.status.phase),
            None => format!("{}, {}", done.status.phase, done.reason()),
        };
        assert_eq!(ended, expected, "{file}: {}", done.message());
        lab.kubectl(&["delete", "--wait=false", "-f", &file]);
        wait_for("the example to be gone", async || {
            lab.kubectl(&["get", "-f", &file, "--ignore-not-found", "-o", "name"]).is_empty().then_some(())
        })
        .await;
    }
}
