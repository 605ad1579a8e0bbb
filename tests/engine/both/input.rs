//! Input of a command, and the size of its terminal.

use execlet::{
    core::{ids::ExecRef, offsets::StreamOffsets},
    engine::{Engine as _, EngineError, ExecInput, ExecSpec, ExecStream},
};
use sha2::{Digest, Sha256};

use crate::{
    lab::{fed, on_a_terminal, shell, until, within, write},
    stage::{Stage, on_the_engine},
};

async fn start<S: Stage>(stage: &S, container: &S::Container, spec: &ExecSpec) -> (ExecRef, ExecStream, ExecInput) {
    let exec = stage.make(container, spec).await;
    let stream = stage.go(&exec, spec.tty).await;
    let input = stream.input().expect("a way in");
    (exec, stream, input)
}

#[tokio::test]
async fn input_goes_through_a_command_whole_and_its_end_ends_it() {
    on_the_engine!(stage => {
        let container = stage.gated().await;
        let (exec, stream, input) = start(&stage, &container, &fed(shell("cat; exit 7"))).await;
        let sent = vec![b'x'; 300_000];
        let feeding = tokio::spawn(async move {
            write(&input, &sent).await;
            input.close().await.expect("closed");
        });
        let output = stage.rest_of(&exec, stream).await.expect("an unbroken stream");
        within("the end of the input", feeding).await.expect("fed");
        assert_eq!(output.stdout.len(), 300_000);
        assert_eq!(stage.code_of(&exec).await, 7);
    });
}

#[tokio::test]
async fn a_hundred_mebibytes_go_in_and_come_out_the_same() {
    on_the_engine!(stage => {
        let container = stage.gated().await;
        let (exec, mut stream, input) = start(&stage, &container, &fed(shell("cat"))).await;
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
            let position = StreamOffsets { stdout: length as u64, stderr: 0 };
            stage.engine().release(&exec, position).await.expect("released");
        }
        let sent = within("the end of the input", feeding).await.expect("fed");
        assert_eq!(length, 105 * 1_000_003);
        assert_eq!(digest.finalize(), sent);
        assert_eq!(stage.code_of(&exec).await, 0);
    });
}

#[tokio::test]
async fn input_that_a_command_does_not_read_is_no_error_of_the_command() {
    on_the_engine!(stage => {
        let container = stage.gated().await;
        let (exec, stream, input) = start(&stage, &container, &fed(shell("head -n 1; exit 4"))).await;
        write(&input, b"first\nsecond\n").await;
        let output = stage.rest_of(&exec, stream).await.expect("an unbroken stream");
        assert_eq!(output.stdout, b"first\n");
        assert_eq!(stage.code_of(&exec).await, 4);
    });
}

#[tokio::test]
async fn without_input_a_command_finds_its_end_at_once() {
    on_the_engine!(stage => {
        let container = stage.gated().await;
        assert_eq!(stage.all_of(&container, &shell("cat; exit 3")).await.code, 3);
    });
}

#[tokio::test]
async fn the_end_of_input_on_a_terminal_is_the_terminals() {
    on_the_engine!(stage => {
        let container = stage.gated().await;
        let (exec, stream, input) = start(&stage, &container, &fed(on_a_terminal("cat; exit 5"))).await;
        write(&input, b"hello\n\x04").await;
        let output = stage.rest_of(&exec, stream).await.expect("an unbroken stream");
        assert_eq!(output.stdout, b"hello\r\nhello\r\n", "its echo and itself");
        assert_eq!(stage.code_of(&exec).await, 5);
    });
}

#[tokio::test]
async fn a_terminal_has_the_size_that_it_was_told_once_its_process_runs() {
    on_the_engine!(stage => {
        let container = stage.gated().await;
        let spec = fed(on_a_terminal("echo ready; read line; stty size"));
        let exec = stage.make(&container, &spec).await;
        let early = stage.engine().resize(&exec, 132, 43).await;
        assert!(matches!(early, Err(EngineError::Failed(_) | EngineError::Invalid(_))), "before the start: {early:?}");
        let mut stream = stage.go(&exec, true).await;
        let input = stream.input().expect("a way in");
        until("a terminal that takes its size", async || stage.engine().resize(&exec, 132, 43).await.ok()).await;
        within("first output", stream.next()).await.expect("a stream").expect("output");
        write(&input, b"\n").await;
        let output = stage.rest_of(&exec, stream).await.expect("an unbroken stream");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("43 132"), "{text:?}");
    });
}
