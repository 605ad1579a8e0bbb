//! Start: spend the exec's one start, and stay with it to its end.

use std::time::Instant as StdInstant;

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::{
    node::{Node, StepError},
    pump::{self, Received},
    settle, witness,
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

/// Starts the committed exec; the journal says `starting` already. Gives the outcome,
/// or `None` if what happened has to be found out by looking again.
pub(super) async fn start<E: Engine>(
    node: &Node<E>,
    request: &BoundRequest,
    exec: &ExecRef,
    created: Timestamp,
    sole: bool,
) -> Result<Option<Outcome>, StepError> {
    // Subscribed before the start, or a quick end would be missed.
    let death = node.deaths.of(&exec.id);
    let begun = StdInstant::now();
    let stream = match node.engine.start_exec(&exec.id, request.spec.tty).await {
        Ok(stream) => stream,
        Err(EngineError::NoSuchExec(message)) if sole => {
            let message = format!("the container was restarted before the command could start: {message}");
            return Ok(Some(Outcome::refused(Reason::ContainerDied, message, node.clock.now())));
        }
        Err(EngineError::AlreadyStarted(message)) => {
            tracing::info!(request = %request.key, uid = %request.key.uid, message, "the exec was started before");
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    node.metrics.step(Step::Start, begun.elapsed());
    tracing::info!(request = %request.key, uid = %request.key.uid, exec = %exec.id, sole, "started");
    node.metrics.running.inc();
    let outcome = attend(node, request, exec, created, sole, stream, death).await;
    node.metrics.running.dec();
    Ok(Some(outcome))
}

async fn attend<E: Engine>(
    node: &Node<E>,
    request: &BoundRequest,
    exec: &ExecRef,
    created: Timestamp,
    sole: bool,
    stream: ExecStream,
    death: super::deaths::Death,
) -> Outcome {
    let begun = StdInstant::now();
    let received = pump(node, request, exec, created, sole, stream).await;
    node.metrics.step(Step::Pump, begun.elapsed());
    let begun = StdInstant::now();
    // Only the stream of a start that nobody can have made before tells anything.
    let end = if sole { received.end } else { StreamEnd::Broken };
    let outcome = settle::settle(node, &exec.id, &death, end, received).await;
    node.metrics.step(Step::Settle, begun.elapsed());
    outcome
}

async fn pump<E: Engine>(
    node: &Node<E>,
    request: &BoundRequest,
    exec: &ExecRef,
    created: Timestamp,
    sole: bool,
    stream: ExecStream,
) -> Received {
    let (told, exited) = tokio::sync::watch::channel(None::<Instant>);
    let watching = async {
        let at = witness::watch(node, &request.key, created, exec).await;
        told.send_replace(Some(at));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        received = pump::pump(node, request, stream, exited, sole) => received,
        () = watching => std::future::pending().await,
    }
}
