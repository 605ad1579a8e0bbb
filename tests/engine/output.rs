//! Output without a terminal: two streams, each whole.

use std::{path::Path, time::Duration};

use execlet::engine::ExecStream;
use futures::future::join_all;
use tokio::time::{sleep, timeout};

use crate::lab::{Lab, TestContainer, patient, shell, until};

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

/// Reads to the end, with a pause before each piece.
async fn read_slowly(mut stream: ExecStream, first: Duration, each: Duration) -> usize {
    sleep(first).await;
    let mut bytes = 0;
    while let Some(chunk) = stream.next().await.expect("a stream without errors") {
        bytes += chunk.bytes.len();
        sleep(each).await;
    }
    bytes
}

/// How long a command that can end may take for it.
const MAY_END: Duration = Duration::from_secs(8);
/// Longer than the engine waits after the end of a command for whoever reads its output.
const CUT: Duration = Duration::from_secs(3);

#[tokio::test]
async fn what_is_not_read_within_two_seconds_of_the_end_is_lost_and_the_code_is_right() {
    let lab = Lab::open().await;
    // So much that the command can end, and that the engine cannot keep all of it. A container each: the engine
    // handles the ends of one container one after another.
    let tries = (0..16).map(|step| 1_000_003 + step * 50_000).map(async |bytes: usize| {
        let container = with_blob(&lab).await;
        let script = format!("cat /blob /blob | head -c {bytes}; exit 3");
        let exec = lab.create(&container, &shell(&script)).await;
        let stream = lab.start(&exec).await;
        let process = Path::new("/proc").join(lab.pid(&exec).await.to_string());
        // Those that write too much never end.
        timeout(patient(MAY_END), until("the end", async || (!process.exists()).then_some(()))).await.ok();
        sleep(CUT).await;
        let ended = !process.exists();
        let read = read_slowly(stream, Duration::ZERO, Duration::ZERO).await;
        (bytes, ended, read, lab.code(&exec).await)
    });
    let all = join_all(tries).await;
    println!("(written, ended unread, read, code): {all:?}");
    for (bytes, ended, read, code) in &all {
        assert!(read == bytes || *ended, "a command that has not ended loses nothing: {bytes} {read}");
        assert_eq!(*code, 3, "{bytes}");
    }
    assert!(all.iter().any(|(bytes, _, read, _)| read < bytes));
}
