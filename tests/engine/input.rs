//! Input of a command, and the size of its terminal.

use execlet::{
    core::ids::ExecId,
    engine::{EngineError, ExecInput, ExecSpec, ExecStream},
};
use sha2::{Digest, Sha256};

use crate::lab::{Lab, TestContainer, command, on_a_terminal, read, shell, until, within};

fn fed(spec: ExecSpec) -> ExecSpec {
    ExecSpec { stdin: true, ..spec }
}

async fn start(lab: &Lab, container: &TestContainer, spec: &ExecSpec) -> (ExecId, ExecStream, ExecInput) {
    let exec = lab.create(container, spec).await;
    let stream = lab.engine.start_exec(&exec, spec.tty).await.expect("a started exec");
    let input = stream.input().expect("a way in");
    (exec, stream, input)
}

async fn write(input: &ExecInput, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let written = within("room for input", input.write(bytes)).await.expect("a command that reads");
        bytes = &bytes[written..];
    }
}

#[tokio::test]
async fn input_goes_through_a_command_whole_and_its_end_ends_it() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let (exec, stream, input) = start(&lab, &container, &fed(shell("cat; exit 7"))).await;
    let sent = vec![b'x'; 300_000];
    let feeding = tokio::spawn(async move {
        write(&input, &sent).await;
        input.close().await.expect("closed");
    });
    let output = read(stream).await.expect("an unbroken stream");
    within("the end of the input", feeding).await.expect("fed");
    assert_eq!(output.stdout.len(), 300_000);
    assert_eq!(lab.code(&exec).await, 7);
}

#[tokio::test]
async fn a_hundred_mebibytes_go_in_and_come_out_the_same() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let (exec, mut stream, input) = start(&lab, &container, &fed(shell("cat"))).await;
    let block: Vec<u8> = (0..1_000_003_u32).map(|n| u8::try_from(n * 31 % 251).expect("a byte")).collect();
    let feeding = tokio::spawn(async move {
        let mut digest = Sha256::new();
        for _ in 0..105 {
            write(&input, &block).await;
            digest.update(&block);
        }
        input.close().await.expect("closed");
        digest.finalize()
    });
    let (mut digest, mut length) = (Sha256::new(), 0);
    while let Some(chunk) = within("output", stream.next()).await.expect("an unbroken stream") {
        digest.update(&chunk.bytes);
        length += chunk.bytes.len();
    }
    let sent = within("the end of the input", feeding).await.expect("fed");
    assert_eq!(length, 105 * 1_000_003);
    assert_eq!(digest.finalize(), sent);
    assert_eq!(lab.code(&exec).await, 0);
}

#[tokio::test]
async fn input_that_a_command_does_not_read_is_no_error_of_the_command() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let (exec, stream, input) = start(&lab, &container, &fed(shell("head -n 1; exit 4"))).await;
    write(&input, b"first\nsecond\n").await;
    let output = read(stream).await.expect("an unbroken stream");
    assert_eq!(output.stdout, b"first\n");
    assert_eq!(lab.code(&exec).await, 4);
}

#[tokio::test]
async fn input_that_is_cut_off_by_a_lost_client_looks_like_its_end_and_the_command_like_a_success() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let (exec, mut stream, input) = start(&lab, &container, &fed(command(["cat"]))).await;
    write(&input, b"the first half").await;
    let mut echo = Vec::new();
    while echo.len() < b"the first half".len() {
        echo.extend(within("the echo", stream.next()).await.expect("a stream").expect("output").bytes);
    }
    // Both hold the connection. All output was read, so nothing but the input is cut.
    drop((stream, input));
    assert_eq!((lab.death(&exec).await.code, lab.code(&exec).await), (0, 0));
}

#[tokio::test]
async fn without_input_a_command_finds_its_end_at_once() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    assert_eq!(lab.run(&container, &shell("cat; exit 3")).await.state.code, Some(3));
}

#[tokio::test]
async fn the_end_of_input_on_a_terminal_is_the_terminals() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let (exec, stream, input) = start(&lab, &container, &fed(on_a_terminal("cat; exit 5"))).await;
    write(&input, b"hello\n\x04").await;
    let output = read(stream).await.expect("an unbroken stream");
    assert_eq!(output.stdout, b"hello\r\nhello\r\n", "its echo and itself");
    assert_eq!(lab.code(&exec).await, 5);
}

#[tokio::test]
async fn to_close_the_input_of_a_terminal_takes_its_output_too() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let script = "echo ready; read line < /gate; echo late; exit 6";
    let exec = lab.create(&container, &fed(on_a_terminal(script))).await;
    let mut stream = lab.engine.start_exec(&exec, true).await.expect("a started exec");
    within("first output", stream.next()).await.expect("a stream").expect("output");
    stream.input().expect("a way in").close().await.expect("closed");
    let rest = read(stream).await.expect("a stream that ends as if all were well");
    let state = lab.inspect(&exec).await;
    container.open_gate();
    // The stream has ended before the command, which waits at the gate: what it writes from now on is lost.
    assert_eq!(rest.stdout, b"");
    assert_ne!(state.code, Some(6));
}

#[tokio::test]
async fn a_terminal_has_the_size_that_it_was_told_once_its_process_runs() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let spec = fed(on_a_terminal("echo ready; read line; stty size"));
    let exec = lab.create(&container, &spec).await;
    let early = lab.engine.resize_exec(&exec, 132, 43).await;
    assert!(matches!(early, Err(EngineError::Failed(_) | EngineError::Invalid(_))), "before the start: {early:?}");
    let mut stream = lab.engine.start_exec(&exec, true).await.expect("a started exec");
    let input = stream.input().expect("a way in");
    until("a terminal that takes its size", async || lab.engine.resize_exec(&exec, 132, 43).await.ok()).await;
    within("first output", stream.next()).await.expect("a stream").expect("output");
    write(&input, b"\n").await;
    let output = read(stream).await.expect("an unbroken stream");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("43 132"), "{text:?}");
}
