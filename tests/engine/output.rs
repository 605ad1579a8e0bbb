//! Output without a terminal: two streams, each whole.

use crate::lab::{Lab, TestContainer, shell};

/// Fills `/blob` with bytes of every value, in a number that is no power of two.
async fn with_blob(lab: &Lab) -> TestContainer {
    let container = lab.container().await;
    lab.sh(&container, "head -c 1000003 /dev/urandom > /blob").await;
    container
}

/// The output must be, byte for byte, what the engine's own client gives.
async fn same_as_docker_exec(lab: &Lab, container: &TestContainer, script: &str) -> (usize, usize) {
    let run = lab.run(container, &shell(script)).await;
    let (expected, code) = lab.docker_exec(container, script).await;
    let lengths = (run.output.stdout.len(), run.output.stderr.len());
    assert_eq!(lengths, (expected.stdout.len(), expected.stderr.len()), "{script}");
    // Not `assert_eq`, which would print it.
    assert!(run.output == expected, "{script}: bytes differ");
    assert_eq!(run.state.code, code, "{script}");
    lengths
}

#[tokio::test]
async fn stdout_and_stderr_arrive_apart_and_whole() {
    let lab = Lab::open().await;
    let container = with_blob(&lab).await;
    let rows = [
        ("true", (0, 0)),
        ("printf x", (1, 0)),
        ("printf x >&2; exit 4", (0, 1)),
        ("printf 'no newline'; printf 'here neither' >&2", (10, 12)),
        (r"printf '\000\001\002\n\r\n\377'", (7, 0)),
        ("head -c 65536 /blob; head -c 65536 /blob >&2", (65536, 65536)),
        ("cat /blob; tac /blob >&2; exit 5", (1_000_003, 1_000_003)),
        ("cat /blob & tac /blob >&2; wait", (1_000_003, 1_000_003)),
    ];
    for (script, lengths) in rows {
        assert_eq!(same_as_docker_exec(&lab, &container, script).await, lengths, "{script}");
    }
}

#[tokio::test]
async fn a_hundred_mebibytes_arrive_whole_and_with_the_code() {
    let lab = Lab::open().await;
    let container = with_blob(&lab).await;
    let script = "for i in $(seq 105); do cat /blob; done; cat /blob >&2; exit 3";
    let lengths = same_as_docker_exec(&lab, &container, script).await;
    assert_eq!(lengths, (105 * 1_000_003, 1_000_003));
    assert!(lengths.0 > 100 << 20);
}
