//! Settle: collect the evidence of an exec's end, and conclude by the trust rule.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    deaths::Death,
    node::Node,
    pump::{self, Received},
};
use crate::{
    api::{OutputStatus, Reason},
    core::{
        ids::ExecId,
        outcome::{Evidence, Inspected, Outcome, StreamEnd, Verdict, judge},
        request::BoundRequest,
    },
    engine::{Engine, EngineError, ExecState},
    infra::process,
};

/// How long evidence may take to come, once the process has ended.
const PATIENCE: Duration = Duration::from_secs(30);
/// First pause between two looks; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Concludes for an exec whose output was received here.
pub(super) async fn settle<E: Engine>(
    node: &Node<E>,
    exec: &ExecId,
    death: &Death,
    end: StreamEnd,
    received: Received,
) -> Outcome {
    let verdict = verdict(node, exec, death, end).await;
    conclude(node, verdict, received.output, &received.head)
}

/// Concludes for an exec whose end nobody saw.
pub(super) async fn unseen<E: Engine>(node: &Node<E>, exec: &ExecId, request: &BoundRequest) -> Outcome {
    let death = node.deaths.of(exec);
    let verdict = verdict(node, exec, &death, StreamEnd::Broken).await;
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

/// Waits until the evidence decides, or until no more of it can be expected.
async fn verdict<E: Engine>(node: &Node<E>, exec: &ExecId, death: &Death, end: StreamEnd) -> Verdict {
    let mut until = Instant::now() + PATIENCE;
    let mut pause = FIRST_PAUSE;
    loop {
        let state = node.engine.inspect_exec(exec).await;
        let inspect = state.as_ref().ok().copied().and_then(inspected);
        match judge(&Evidence { inspect, event: death.code(), stream: end }) {
            Verdict::Undecided => {}
            verdict => return verdict,
        }
        match state {
            // The clock runs only once there is nothing left to wait for.
            Ok(ExecState { pid: Some(pid), code: None, .. }) if process::find(pid).is_some() => {
                until = Instant::now() + PATIENCE;
            }
            Err(EngineError::Unreachable { .. }) => {
                tracing::warn!(%exec, "waiting for the engine to tell the exit code");
                until = Instant::now() + PATIENCE;
            }
            Ok(_) | Err(_) => {}
        }
        if Instant::now() >= until {
            return Verdict::Undecided;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn inspected(state: ExecState) -> Option<Inspected> {
    state.code.map(|code| Inspected { code, had_process: state.pid.is_some() })
}
