//! Start: spend the exec's one start, and stay with it to its end.

use std::{sync::OnceLock, time::Instant as StdInstant};

use tokio::sync::watch;

use super::{
    deaths::Death,
    memory::Memory,
    node::{Node, StepError, World},
    oversee::{News, Overseen},
    pump::{self, Received},
    settle::{self, Ending},
    witness::{self, Seen},
    work::Watched,
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
pub(super) async fn start<W: World>(
    node: &Node<W>,
    request: &BoundRequest,
    exec: &ExecRef,
    memory: &Memory<W>,
    news: &mut watch::Receiver<News>,
    sole: bool,
) -> Result<Watched, StepError> {
    // Subscribed before the start, or a quick end would be missed.
    let death = node.deaths.of(&exec.id);
    let begun = StdInstant::now();
    let stream = match node.engine.start_exec(&exec.id, request.spec.tty).await {
        Ok(stream) => stream,
        Err(EngineError::NoSuchExec(message)) if sole => {
            let message = format!("the container was restarted before the command could start: {message}");
            return Ok(Watched::Ended(Outcome::refused(Reason::ContainerDied, message, node.clock.now())));
        }
        Err(error) => return Err(error.into()),
    };
    node.metrics.step(Step::Start, begun.elapsed());
    tracing::info!(request = %request.key, uid = %request.key.uid, exec = %exec.id, sole, "started");
    node.metrics.running.inc();
    let (tell, seen) = watch::channel(Seen::default());
    let ended_by = OnceLock::new();
    let overseen =
        Overseen { node, request: Some(request), exec, memory, news, seen: seen.clone(), ended_by: &ended_by };
    let outcome = tokio::select! {
        biased;
        outcome = attend(node, request, exec, sole, stream, death, seen, &ended_by) => outcome,
        never = witness::watch(node, memory, exec, &tell) => match never {},
        survivors = overseen.oversee() => settle::survived(node, Some(request), &survivors).await,
    };
    node.metrics.running.dec();
    Ok(Watched::Ended(outcome))
}

#[allow(clippy::too_many_arguments, reason = "the two halves of one step, told everything")]
async fn attend<W: World>(
    node: &Node<W>,
    request: &BoundRequest,
    exec: &ExecRef,
    sole: bool,
    stream: ExecStream,
    death: Death,
    seen: watch::Receiver<Seen>,
    ended_by: &OnceLock<crate::core::kill::Cause>,
) -> Outcome {
    let begun = StdInstant::now();
    let received = pump::pump(node, request, stream, seen.clone(), sole).await;
    node.metrics.step(Step::Pump, begun.elapsed());
    let begun = StdInstant::now();
    // Only the stream of a start that nobody can have made before tells anything.
    let received = if sole {
        received
    } else {
        let output = pump::recall(node, &request.key, &request.spec.output).await;
        Received { end: StreamEnd::Broken, output, head: String::new() }
    };
    let ending = Ending { exec, death: &death, received };
    let outcome = settle::settle(node, ending, seen, ended_by).await;
    node.metrics.step(Step::Settle, begun.elapsed());
    outcome
}
