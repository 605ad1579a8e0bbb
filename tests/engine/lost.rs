//! A client that goes away in mid-stream: the command goes on, and the engine may falsify its code.

use execlet::{
    core::outcome::{Exit, StreamEnd, Verdict},
    engine::ExecSpec,
    infra::process,
};

use crate::lab::{Lab, on_a_terminal, shell, until};

fn is_seven(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Exited(Exit { code: 7, .. }))
}

#[tokio::test]
async fn a_silent_command_keeps_its_code_without_its_client() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    for tty in [false, true] {
        let spec = ExecSpec { tty, ..shell("echo begun; read _ < /gate; exit 7") };
        let (exec, stream) = lab.begin(&container, &spec).await;
        drop(stream);
        container.open_gate();
        assert_eq!((lab.death(&exec).await.code, lab.code(&exec).await), (7, 7), "tty: {tty}");
        assert!(is_seven(lab.verdict(&exec, StreamEnd::Broken).await), "tty: {tty}");
    }
}

#[tokio::test]
async fn a_noisy_command_goes_on_without_its_client_and_only_the_event_tells_its_code() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let script = "echo begun; read _ < /gate; seq 100000; echo done > /done; exit 7";
    let (exec, stream) = lab.begin(&container, &shell(script)).await;
    drop(stream);
    container.open_gate();
    assert_eq!(lab.death(&exec).await.code, 7);
    assert_eq!(lab.sh(&container, "cat /done").await, "done\n");
    // The true code may be seen for a moment, before the false one.
    let expected = if lab.is_old().await { 126 } else { 7 };
    until("the code that stays", async || (lab.code(&exec).await == expected).then_some(())).await;
    assert!(is_seven(lab.verdict(&exec, StreamEnd::Broken).await));
}

#[tokio::test]
async fn a_terminal_without_its_client_is_said_to_have_ended_while_its_process_lives() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let script = "echo begun; read _ < /gate; echo noise; read _ < /gate; echo done > /done; exit 7";
    let (exec, stream) = lab.begin(&container, &on_a_terminal(script)).await;
    let process = process::find(lab.pid(&exec).await).expect("a process of this machine");
    drop(stream);
    container.open_gate();
    assert_eq!(lab.code(&exec).await, 126);
    assert!(!lab.inspect(&exec).await.running);
    assert!(process::alive(process));

    container.open_gate();
    process::ended(process).await.unwrap();
    assert_eq!(lab.sh(&container, "cat /done").await, "done\n");
    assert_eq!((lab.death(&exec).await.code, lab.code(&exec).await), (127, 126));
    let verdict = lab.verdict(&exec, StreamEnd::Broken).await;
    assert_eq!(verdict, Verdict::Undecided, "with both falsified there is no telling, and nothing is made up");
}
