//! Adopt: a command that an earlier agent started runs on. Its output from then
//! on is lost, its end is not.

use std::time::Duration;

use tokio::time::sleep;

use super::{node::Node, settle, witness};
use crate::{
    core::{
        ids::{ExecId, ExecRef, ProcessRef},
        outcome::Outcome,
        request::BoundRequest,
    },
    engine::{Engine, EngineError},
};

/// Pause between two looks at an exec whose process is not known.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Waits for the end and concludes. `None` if the agent is told to stop before: nothing is lost by
/// leaving it to the next one.
pub(super) async fn adopt<E: Engine>(
    node: &Node<E>,
    request: &BoundRequest,
    exec: &ExecRef,
    process: Option<ProcessRef>,
) -> Option<Outcome> {
    tracing::info!(request = %request.key, uid = %request.key.uid, exec = %exec.id, ?process, "adopted");
    node.metrics.running.inc();
    let death = node.deaths.of(&exec.id);
    let outcome = tokio::select! {
        () = node.stopping.cancelled() => None,
        outcome = async {
            until_end(node, &exec.id, process).await;
            settle::unseen(node, exec, request).await
        } => Some(outcome),
    };
    drop(death);
    node.metrics.running.dec();
    outcome
}

/// Waits until the process has ended, or the engine says that there is none.
pub(super) async fn until_end<E: Engine>(node: &Node<E>, exec: &ExecId, process: Option<ProcessRef>) {
    if let Some(process) = process {
        return witness::ended(process).await;
    }
    let mut death = node.deaths.of(exec);
    loop {
        match node.engine.inspect_exec(exec).await {
            Ok(state) if state.code.is_some() => return,
            Err(EngineError::NoSuchExec(_)) => return,
            Ok(_) | Err(_) => {}
        }
        tokio::select! {
            _ = death.wait() => return,
            () = sleep(LOOK_EVERY) => {}
        }
    }
}
