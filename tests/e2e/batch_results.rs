//! What came of a batch, told apart by every byte: which targets ended the same, in its status and as the plugin shows them.

use execlet::api::batch::Group;
use serde_json::json;

use crate::{
    batch_lab::everywhere,
    clients::execlet,
    lab::{Lab, text},
    output::sha256,
};

/// By its index, what each target writes and ends with. Tails have 13 bytes, and logs 20,000.
const SCRIPT: &str = r#"
many() { head -c "$2" /dev/zero | tr '\0' "$1"; echo; echo the same end; }
case $EXECLET_BATCH_INDEX in
0 | 1) echo a ;;
2) echo a; exit 3 ;;
3) printf '\377\000' ;;
4) printf '\377\001' ;;
5 | 6) many x 5000 ;;
7) many y 5000 ;;
8) echo a >&2 ;;
9 | 10) many z 50000 ;;
esac"#;

fn many(letter: u8, count: usize) -> Vec<u8> {
    [&vec![letter; count][..], b"\nthe same end\n"].concat()
}

#[tokio::test]
async fn targets_are_together_that_ended_the_same_to_the_last_byte_and_no_others() {
    let lab = Lab::new().await;
    lab.pods_named("web", 11).await;
    let template = json!({"spec": {"output": {"tailBytes": 13, "spoolBytes": 20_000}}});
    let fields = json!({"parallelism": 11, "failurePolicy": {"maxFailed": "100%"}, "template": template});
    let name = lab.batch(everywhere(SCRIPT, fields));
    let done = lab.batch_ended(&name).await;
    done.ended("Failed", "TargetsFailed", [10, 1, 0, 0, 0]);
    let children = lab.children(&done).await;
    let group = |indexes: &str, code: i32, stdout: &[u8], stderr: &[u8], complete: bool| {
        let first: i32 = indexes.split('-').next().and_then(|first| first.parse().ok()).expect("an index");
        Group {
            count: 1 + i32::from(indexes.contains('-')),
            indexes: indexes.to_owned(),
            reason: if code == 0 { "Completed" } else { "NonZeroExitCode" }.to_owned(),
            exit_code: Some(code),
            stdout_sha256: Some(sha256(stdout)),
            stderr_sha256: Some(sha256(stderr)),
            output_complete: Some(complete),
            example: children[&first].metadata.name.clone().expect("a name"),
        }
    };
    let wanted = [
        group("0-1", 0, b"a\n", b"", true),
        group("5-6", 0, &many(b'x', 5_000), b"", true),
        group("9-10", 0, &many(b'z', 50_000), b"", false),
        group("2", 3, b"a\n", b"", true),
        group("3", 0, b"\xff\0", b"", true),
        group("4", 0, b"\xff\x01", b"", true),
        group("7", 0, &many(b'y', 5_000), b"", true),
        group("8", 0, b"", b"a\n", true),
    ];
    assert_eq!((done.status.groups.as_slice(), done.status.others), (&wanted[..], Some(0)));

    let shown = execlet(&lab, &["attach", &format!("xb/{name}"), "--group"]).await;
    let (out, err) = (text(&shown.stdout), text(&shown.stderr));
    assert_eq!(shown.code, 1, "{err}");
    let end = "  standard output (end):\n  the same end\n";
    let wanted = [
        ("web-[0-1] (2): Completed, exit code 0", "  a\n"),
        ("web-[5-6] (2): Completed, exit code 0", end),
        ("web-[9-10] (2): Completed, exit code 0", end),
        ("web-2 (1): NonZeroExitCode, exit code 3", "  a\n"),
        ("web-3 (1): Completed, exit code 0", "  \u{fffd}\u{fffd}\n"),
        ("web-4 (1): Completed, exit code 0", "  \u{fffd}\u{fffd}\n"),
        ("web-7 (1): Completed, exit code 0", end),
        ("web-8 (1): Completed, exit code 0", "  standard error:\n  a\n"),
    ];
    let headings: Vec<&str> = out.lines().filter(|line| !line.starts_with(' ') && !line.starts_with("---")).collect();
    assert_eq!(headings, wanted.map(|(heading, _)| heading), "{out}");
    for (heading, output) in wanted {
        let after = out.split_once(&format!("{heading}\n")).expect(heading).1;
        let body = after.split_once('\n').expect("a rule").1;
        assert!(body.starts_with(output), "{heading}: {body}");
    }
}
