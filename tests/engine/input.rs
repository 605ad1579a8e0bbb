//! Input of a command, where it is cut off.

use execlet::{
    core::ids::ExecId,
    engine::{ExecInput, ExecSpec, ExecStream},
};

use crate::lab::{Lab, TestContainer, command, fed, on_a_terminal, read, within, write};

async fn start(lab: &Lab, container: &TestContainer, spec: &ExecSpec) -> (ExecId, ExecStream, ExecInput) {
    let exec = lab.create(container, spec).await;
    let stream = lab.engine.start_exec(&exec, spec.tty).await.expect("a started exec");
    let input = stream.input().expect("a way in");
    (exec, stream, input)
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
