//! Exit codes: what inspect says after an unbroken stream, and what the event says.

use execlet::{
    api::ExitCodeSource,
    core::outcome::{Evidence, Exit, StreamEnd, Verdict, judge},
    engine::{EngineError, ExecSpec, docker::Inspected},
};
use futures::{StreamExt, stream};

use crate::lab::{Lab, TestContainer, command, exit, read, shell, word};

fn told_by_the_engine(code: i32) -> Verdict {
    Verdict::Exited(Exit { code, source: ExitCodeSource::Engine })
}

#[tokio::test]
async fn inspect_and_the_event_tell_the_code_of_a_command_whose_stream_was_whole() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let rows = [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 3", 3),
        // The two codes that the engine also invents.
        ("exit 126", 126),
        ("exit 127", 127),
        ("no-such-command", 127),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
        ("exit 255", 255),
    ];
    for (script, code) in rows {
        let run = lab.run(&container, &shell(script)).await;
        assert_eq!((run.state.running, run.state.code), (false, Some(code)), "{script}");
        assert!(run.state.pid.is_some(), "{script}: {:?}", run.state);
        assert_eq!(lab.death(&run.exec).await.code, code, "{script}");

        let word = word(run.state);
        for event in [None, Some(code)] {
            let evidence = Evidence { word, exit: event.map(exit), kernel: None, stream: StreamEnd::Clean };
            assert_eq!(judge(&evidence), told_by_the_engine(code), "{script}: {evidence:?}");
        }
    }
}

#[tokio::test]
async fn a_command_that_could_not_be_started_has_a_code_but_no_process_and_no_event() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let rows = [
        (command(["/no/such/program"]), "no such file"),
        (command(["no-such-program"]), "not found"),
        (command(["/etc/passwd"]), "permission denied"),
        (ExecSpec { working_dir: Some("/no/such/folder".into()), ..shell("true") }, "/no/such/folder"),
        (ExecSpec { tty: true, ..command(["no-such-program"]) }, "not found"),
    ];
    let mut failed = Vec::new();
    // A user that is not there is found at the start, or in a current engine at the creation already.
    let stranger = ExecSpec { user: Some("nobody-here".into()), ..shell("true") };
    let known = lab.engine.create_exec(&container.id, &stranger).await;
    assert_eq!(known.is_ok(), lab.is_old().await, "{known:?}");
    if let Err(error) = &known {
        assert!(matches!(error, EngineError::Invalid(message) if message.contains("nobody-here")));
    }
    let stranger = known.is_ok().then_some((stranger, "nobody-here"));
    for (spec, words) in rows.into_iter().chain(stranger) {
        let run = lab.run(&container, &spec).await;
        assert!(matches!(run.state, Inspected { running: false, code: Some(126 | 127), pid: None }), "{:?}", run.state);
        let evidence = Evidence { word: word(run.state), exit: None, kernel: None, stream: StreamEnd::Clean };
        assert_eq!(judge(&evidence), Verdict::StartFailed, "{spec:?}");
        // The reason comes as if the command had written it.
        let text = String::from_utf8_lossy(&run.output.stdout);
        assert!(text.contains(words), "{text}");
        assert_eq!(run.output.stderr, b"");
        failed.push(run.exec);
    }
    // The engine tells the ends of a container's execs in their order: theirs would be here by now.
    let last = lab.run(&container, &shell("exit 0")).await;
    lab.death(&last.exec).await;
    for exec in failed {
        assert_eq!(lab.died(&exec), None);
    }
}

/// Runs a command, and looks at it all the time.
async fn quick(lab: &Lab, container: &TestContainer, code: i32) {
    let exec = lab.create(container, &shell(&format!("exit {code}"))).await;
    let stream = lab.start(&exec).await;
    let seen = async {
        loop {
            let state = lab.inspect(&exec).await;
            match state.code {
                None => assert!(state.pid.is_none() || state.running, "{state:?}"),
                Some(told) => {
                    assert_eq!(told, code);
                    assert!(state.pid.is_some(), "a code without a process would be a failed start: {state:?}");
                    return;
                }
            }
            tokio::task::yield_now().await;
        }
    };
    let ended = async {
        read(stream).await.expect("an unbroken stream");
        assert_eq!(lab.inspect(&exec).await.code, Some(code), "straight after the end of the stream");
    };
    tokio::join!(seen, ended);
}

#[tokio::test]
async fn the_code_of_a_quick_command_is_there_with_the_end_of_its_stream() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    stream::iter(0..60).for_each_concurrent(4, |number| quick(&lab, &container, number % 4)).await;
}
