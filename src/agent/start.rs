//! Start: spend the exec's one start, and stay with it to its end.

use std::time::Instant as StdInstant;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;

use super::{
    deaths::Death,
    node::{Node, StepError},
    pump::{self, Received},
    settle,
    witness::{self, Seen},
};
use crate::{
    api::Reason,
    core::{
        ids::ExecRef,
        outcome::{Outcome, StreamEnd},
        request::BoundRequest,
    },
    engine::{Engine, EngineError, ExecStream},
    infra::metrics::Step,
};

/// Starts the committed exec; the journal says `starting` already. After an error, what happened
/// has to be found out by looking again.
pub(super) async fn start<E: Engine>(
    node: &Node<E>,
    request: &BoundRequest,
    exec: &ExecRef,
    created: Timestamp,
    sole: bool,
) -> Result<Outcome, StepError> {
    // Subscribed before the start, or a quick end would be missed.
    let death = node.deaths.of(&exec.id);
    let begun = StdInstant::now();
    let stream = match node.engine.start_exec(&exec.id, request.spec.tty).await {
        Ok(stream) => stream,
        Err(EngineError::NoSuchExec(message)) if sole => {
            let message = format!("the container was restarted before the command could start: {message}");
            return Ok(Outcome::refused(Reason::ContainerDied, message, node.clock.now()));
        }
        Err(error) => return Err(error.into()),
    };
    node.metrics.step(Step::Start, begun.elapsed());
    tracing::info!(request = %request.key, uid = %request.key.uid, exec = %exec.id, sole, "started");
    node.metrics.running.inc();
    let outcome = attend(node, request, exec, created, sole, stream, death).await;
    node.metrics.running.dec();
    Ok(outcome)
}

async fn attend<E: Engine>(
    node: &Node<E>,
    request: &BoundRequest,
    exec: &ExecRef,
    created: Timestamp,
    sole: bool,
    stream: ExecStream,
    death: Death,
) -> Outcome {
    let begun = StdInstant::now();
    let (tell, told) = watch::channel(Seen::default());
    let received = tokio::select! {
        received = pump::pump(node, request, stream, told.clone(), sole) => received,
        never = witness::watch(node, &request.key, created, exec, &tell) => match never {},
    };
    node.metrics.step(Step::Pump, begun.elapsed());
    let begun = StdInstant::now();
    // Only the stream of a start that nobody can have made before tells anything.
    let received = if sole {
        received
    } else {
        Received { end: StreamEnd::Broken, output: pump::recall(node, request).await, head: String::new() }
    };
    let process = told.borrow().process;
    let outcome = settle::settle(node, exec, process, &death, received).await;
    node.metrics.step(Step::Settle, begun.elapsed());
    outcome
}
