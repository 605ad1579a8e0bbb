//! A client that goes away in mid-stream: the command goes on, and the engine may falsify its code.

use std::time::Duration;

use execlet::{
    core::{
        ids::{ContainerRef, ExecRef},
        outcome::{Exit, StreamEnd, Verdict},
    },
    engine::{Engine as _, ExecSpec},
    infra::process,
};
use tokio::time::timeout;

use crate::lab::{Lab, kernel_keeps_codes, on_a_terminal, shell, until, watched, within};

/// How long a command is watched that waits for somebody who reads.
const WATCHED: Duration = Duration::from_secs(5);
/// By then the engine has noticed that its client is gone, for what was written meanwhile.
const NOTICED: Duration = Duration::from_secs(1);

/// What the kernel says of a command that was hung up on: killed by SIGHUP.
pub const HUNG_UP: i32 = 129;

pub fn is_seven(verdict: Verdict) -> bool {
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
async fn one_that_writes_to_both_streams_without_its_client_has_no_code_that_is_told() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    for noise in ["seq 3; seq 3 >&2", "seq 3 >&2; seq 100000"] {
        let script = format!("echo begun; read _ < /gate; {noise}; read _ < /gate; exit 7");
        let (exec, stream) = lab.begin(&container, &shell(&script)).await;
        drop(stream);
        container.open_gate();
        // It ends only when the engine has tried to pass it on.
        tokio::time::sleep(NOTICED).await;
        container.open_gate();
        let told = (lab.death(&exec).await.code, lab.code(&exec).await);
        assert!(!lab.is_old().await || told == (127, 126), "{noise}: {told:?}");
        let verdict = lab.verdict(&exec, StreamEnd::Broken).await;
        assert!(verdict == Verdict::Undecided || is_seven(verdict), "{noise}: nothing is made up: {verdict:?}");
    }
}

#[tokio::test]
async fn a_terminal_whose_input_is_attached_may_keep_its_code_without_its_client_and_may_wait_once_much_is_unread() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    for (lines, may_wait) in [(1000, false), (400_000, true)] {
        let script = format!("echo begun; read _ < /gate; seq {lines}; exit 7");
        let (exec, stream) = lab.begin(&container, &on_a_terminal(&script)).await;
        let process = process::find(lab.pid(&exec).await).expect("a process of this machine");
        drop(stream);
        container.open_gate();
        let mut ended = tokio::spawn(process::ended(process));
        // The engine reads on, for a megabyte at least: how long, is not always the same.
        let mut over = if may_wait { timeout(WATCHED, &mut ended).await.ok() } else { None };
        if may_wait && over.is_none() {
            assert!(lab.inspect(&exec).await.running);
            let exec =
                ExecRef { id: exec.clone(), container: ContainerRef { id: container.id.clone(), started_at: None } };
            within("the end of the output", lab.engine.drain(&exec)).await;
        }
        if over.is_none() {
            over = Some(within("the end", ended).await);
        }
        over.unwrap().unwrap().expect("a handle");
        // As the engine has tried to write to the client that is gone, and has found its input ended.
        let told = (lab.death(&exec).await.code, lab.code(&exec).await);
        assert!([(7, 7), (7, 126), (127, 126)].contains(&told), "{lines}: {told:?}");
        let verdict = lab.verdict(&exec, StreamEnd::Broken).await;
        assert_eq!(is_seven(verdict), told.0 == 7, "{lines}: nothing is made up: {verdict:?}");
    }
}

#[tokio::test]
async fn a_terminal_without_its_client_may_be_hung_up_when_it_is_written_to_and_only_then() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let (keeps, _) = kernel_keeps_codes();
    for (noise, may_be_hung_up) in [("", false), ("trap '' HUP; seq 10;", false), ("seq 10;", true)] {
        // With time for the engine to notice, before it ends of itself.
        let script = format!("echo begun; read _ < /gate; {noise} read _ < /gate; exit 7");
        let (exec, stream) = lab.begin(&container, &on_a_terminal(&script)).await;
        let process = process::find(lab.pid(&exec).await).expect("a process of this machine");
        let mut ended = watched(process).await;
        drop(stream);
        container.open_gate();
        let told = match timeout(NOTICED, &mut ended).await {
            Ok(hung_up) => {
                assert!(may_be_hung_up, "{noise:?}");
                hung_up
            }
            Err(_goes_on) => {
                container.open_gate();
                within("the end", ended).await
            }
        };
        let event = lab.death(&exec).await.code;
        match told.unwrap().expect("a handle") {
            Some(HUNG_UP) => assert!(may_be_hung_up && event == 127, "{noise:?}: {event}"),
            code => assert_eq!(code, keeps.then_some(7), "{noise:?}"),
        }
        let verdict = lab.verdict(&exec, StreamEnd::Broken).await;
        assert_eq!(is_seven(verdict), event == 7, "{noise:?}: nothing is made up: {verdict:?} {event}");
    }
}

#[tokio::test]
async fn a_terminal_without_its_client_is_said_to_have_ended_while_its_process_lives() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let script = "echo begun; read _ < /gate; echo noise; read _ < /gate; echo done > /done; exit 7";
    let exec = lab.create_without_input(&container, script).await;
    let stream = lab.begin_created(&exec, true).await;
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
