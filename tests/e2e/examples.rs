//! Every request in `examples/` does what its first lines say, and `examples/access/` is accepted.

use std::{fs, path::PathBuf};

use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::{
    kubectl::server_stamps,
    lab::{Lab, kubectl_raw, kubectl_with, root, text, wait_for},
};

/// The line in an example that says how it ends.
const EXPECT: &str = "# Ends as: ";
/// A line in an example that says what to type once it was applied.
const THEN: &str = "# Then: kubectl ";

/// The YAML files of a folder.
fn files(folder: &str) -> Vec<PathBuf> {
    let found = fs::read_dir(root().join(folder)).expect(folder).map(|file| file.expect("a file").path());
    let mut files: Vec<_> = found.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    files.sort();
    files
}

/// Applies a file. Where the API server cannot set who asks, its objects are created, with who does.
fn applied(lab: &Lab, file: &str) -> bool {
    if server_stamps() {
        return kubectl_raw(&["-n", &lab.namespace, "apply", "-f", file]).status.success();
    }
    let yaml = fs::read_to_string(file).expect("a text");
    let all = serde_yaml_ng::Deserializer::from_str(&yaml).map(|document| Value::deserialize(document).expect("YAML"));
    let items: Vec<_> = all.filter(|object| !object.is_null()).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let said = text(&kubectl_with(&["-n", &lab.namespace, "create", "-f", "-"], &list).stderr);
    said.lines().all(|line| line.contains("AlreadyExists"))
}

/// Types what an example says to type.
fn follow(lab: &Lab, text: &str) {
    for line in text.lines().filter_map(|line| line.strip_prefix(THEN)) {
        lab.kubectl(&line.split(' ').map(|word| word.trim_matches('\'')).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn every_example_ends_as_it_says() {
    let lab = Lab::new().await;
    let files = files("examples");
    assert!(files.len() >= 10, "{files:?}");
    for path in files {
        let file = path.to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("a text");
        let expected = text
            .lines()
            .find_map(|line| line.strip_prefix(EXPECT))
            .unwrap_or_else(|| panic!("{file} has no line {EXPECT:?}"));
        // A new namespace gets its service account a moment later.
        wait_for(&format!("{file} to be taken"), async || applied(&lab, &file).then_some(())).await;
        let names = lab.kubectl(&["get", "-f", &file, "-o", "name"]);
        let request = names.lines().find_map(|name| name.strip_prefix("execrequest.execlet.dev/")).expect("a request");
        follow(&lab, &text);
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

#[tokio::test]
async fn every_batch_of_the_examples_ends_as_it_says() {
    let lab = Lab::new().await;
    let folder = root().join("examples/batches");
    let pods = folder.join("pods.yaml").to_string_lossy().into_owned();
    wait_for("the namespace to take pods", async || applied(&lab, &pods).then_some(())).await;
    lab.kubectl(&["rollout", "status", "statefulset/shop", "--timeout=180s"]);
    let files = files("examples/batches");
    assert!(files.len() >= 7, "{files:?}");
    for path in files.iter().filter(|path| !path.ends_with("pods.yaml")) {
        let file = path.to_string_lossy().into_owned();
        let text = fs::read_to_string(path).expect("a text");
        let expected = text.lines().find_map(|line| line.strip_prefix(EXPECT)).expect("how it ends");
        assert!(applied(&lab, &file), "{file}");
        follow(&lab, &text);
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
        let done = lab.batch_ended(name).await;
        let ended = format!("{}, {}, {}", done.phase(), done.reason(), done.status.done);
        assert!(ended.starts_with(expected), "{file}: {ended}: {}", done.message());
    }
}

#[tokio::test]
async fn roles_and_policies_of_the_examples_are_accepted() {
    let lab = Lab::new().await;
    let files = files("examples/access");
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        lab.kubectl(&["apply", "--dry-run=server", "-f", &file.to_string_lossy()]);
    }
}
