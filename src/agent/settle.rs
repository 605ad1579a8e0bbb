//! Settle: collect the evidence of an exec's end, and conclude by the trust rule.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    deaths::Death,
    node::Node,
    pump::{self, Received},
    witness,
};
use crate::{
    api::{OutputStatus, Reason},
    core::{
        ids::{ExecRef, ProcessRef},
        outcome::{Evidence, Inspected, Outcome, StreamEnd, Verdict, judge},
        request::BoundRequest,
    },
    engine::{Engine, EngineError, ExecState},
    infra::process,
};

/// How long evidence may take to come, once the engine has taken note of the end.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the engine may take for that. It handles the ends of one container one after another,
/// and spends up to 4 s on each whose output a child still holds.
const ENGINE_PATIENCE: Duration = Duration::from_secs(600);
/// First pause between two looks; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Concludes for an exec whose output was received here. `process` is known if it was seen.
pub(super) async fn settle<E: Engine>(
    node: &Node<E>,
    exec: &ExecRef,
    process: Option<ProcessRef>,
    death: &Death,
    received: Received,
) -> Outcome {
    if let Some(process) = process {
        // A stream may end before its process: ours broke, or the engine went away.
        witness::ended(process).await;
    }
    let Received { end, mut output, head } = received;
    let (verdict, engine) = verdict(node, exec, death, end).await;
    if engine == Stayed::No && output.complete {
        // An engine that is killed ends the stream as cleanly as a command does.
        output.complete = false;
        output.incomplete_reason = Some(pump::STREAM_BROKEN.to_owned());
    }
    conclude(node, verdict, output, &head)
}

/// Concludes for an exec whose end nobody saw.
pub(super) async fn unseen<E: Engine>(node: &Node<E>, exec: &ExecRef, request: &BoundRequest) -> Outcome {
    let death = node.deaths.of(&exec.id);
    let (verdict, _) = verdict(node, exec, &death, StreamEnd::Broken).await;
    let output = pump::recall(node, request).await;
    conclude(node, verdict, output, "")
}

fn conclude<E: Engine>(node: &Node<E>, verdict: Verdict, output: OutputStatus, head: &str) -> Outcome {
    let now = node.clock.now();
    match verdict {
        Verdict::Exited(exit) => Outcome::exited(exit, output, now),
        Verdict::StartFailed => {
            let hint = if head.is_empty() { "it gave no reason" } else { head };
            Outcome::refused(Reason::StartFailed, format!("the engine could not start the command: {hint}"), now)
        }
        Verdict::Undecided => {
            let message = "the command has ended, but the engine no longer tells its true exit code";
            Outcome::lost(message, Some(output), now)
        }
    }
}

/// Whether the engine knew of the exec each time it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stayed {
    Yes,
    No,
}

/// Waits until the evidence decides, or until no more of it can be expected.
async fn verdict<E: Engine>(node: &Node<E>, exec: &ExecRef, death: &Death, end: StreamEnd) -> (Verdict, Stayed) {
    let begun = Instant::now();
    let mut until = begun + PATIENCE;
    let mut pause = FIRST_PAUSE;
    let mut engine = Stayed::Yes;
    loop {
        let state = node.engine.inspect_exec(&exec.id).await;
        let inspect = state.as_ref().ok().copied().and_then(inspected);
        match judge(&Evidence { inspect, event: death.code(), stream: end }) {
            Verdict::Undecided => {}
            verdict => return (verdict, engine),
        }
        // The clock runs only once there is nothing left to wait for.
        let wait = match state {
            // The engine takes some living processes for ended ones.
            Ok(ExecState { pid: Some(pid), .. }) if process::is_in(pid, &exec.container.id) => true,
            Ok(ExecState { running: true, code: None, .. }) => begun.elapsed() < ENGINE_PATIENCE,
            Ok(_) => false,
            Err(error) => {
                engine = Stayed::No;
                tracing::warn!(exec = %exec.id, %error, "waiting for the engine to tell the exit code");
                matches!(error, EngineError::Unreachable { .. })
            }
        };
        if wait {
            until = Instant::now() + PATIENCE;
        }
        if Instant::now() >= until {
            return (Verdict::Undecided, engine);
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn inspected(state: ExecState) -> Option<Inspected> {
    state.code.map(|code| Inspected { code, had_process: state.pid.is_some() })
}
