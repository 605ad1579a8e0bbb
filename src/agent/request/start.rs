//! Start: spend the exec's one start, and stay with it to its end.

use std::{
    sync::{Arc, OnceLock},
    time::Instant as StdInstant,
};

use tokio::sync::watch;

use super::{
    settle::{self, Ending},
    work::Watched,
};
use crate::{
    agent::{
        command::{
            oversee::{News, Overseen},
            pump::{self, Origin},
            resize,
            witness::{self, Seen},
        },
        handover::message::StreamState,
        memory::{exec_exits::ExecExit, request::Memory},
        node::{Node, StepError, World},
        streams::{hub::Hub, log_writer::LogWriter},
    },
    api::Reason,
    core::{decide::Wanted, ids::ExecRef, kill::Cause, outcome::Outcome, request::BoundRequest},
    engine::{Engine, EngineError, ExecStream},
    infra::{events::PodRef, metrics::Step},
};

/// A command that is started, or goes on, and what belongs to it.
pub(crate) struct Attended<'a, W: World> {
    pub(crate) node: &'a Node<W>,
    pub(crate) request: &'a BoundRequest,
    pub(crate) exec: &'a ExecRef,
    pub(crate) memory: &'a Memory<W>,
    pub(crate) hub: &'a Arc<Hub>,
}

/// Starts the committed exec; the journal says `starting` already. After an error, what happened
/// has to be found out by looking again.
pub(crate) async fn start<W: World>(
    attended: &Attended<'_, W>,
    news: &mut watch::Receiver<News>,
    sole: bool,
) -> Result<Watched, StepError> {
    let Attended { node, request, exec, .. } = *attended;
    // Subscribed before the start, or a quick end would be missed.
    let exec_exit = node.exec_exits.of(&exec.id);
    let begun = StdInstant::now();
    let origin = if sole { Origin::Sole } else { Origin::Shared };
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
    Ok(stay(attended, news, Task { stream, origin, exec_exit }).await)
}

/// Goes on with a stream that the agent before this one has handed over.
pub(crate) async fn resume<W: World>(
    attended: &Attended<'_, W>,
    news: &mut watch::Receiver<News>,
    (stream, stream_state): (ExecStream, StreamState),
) -> Watched {
    let Attended { node, request, exec, .. } = *attended;
    tracing::info!(request = %request.key, uid = %request.key.uid, exec = %exec.id, "inherited");
    let exec_exit = node.exec_exits.of(&exec.id);
    let origin = Origin::HandedOver(Box::new(stream_state));
    stay(attended, news, Task { stream, origin, exec_exit }).await
}

/// What there is to attend to.
struct Task {
    stream: ExecStream,
    origin: Origin,
    exec_exit: ExecExit,
}

/// Stays with a command to its end.
async fn stay<W: World>(attended: &Attended<'_, W>, news: &mut watch::Receiver<News>, task: Task) -> Watched {
    let Attended { node, request, exec, memory, hub } = *attended;
    node.metrics.running.inc();
    let (tell, seen) = watch::channel(Seen::default());
    let ended_by = OnceLock::new();
    let mut log_writer = None;
    let overseen = Overseen {
        node,
        wanted: Wanted::Request(request),
        exec,
        memory,
        news,
        hub,
        seen: seen.clone(),
        ended_by: &ended_by,
    };
    let outcome = tokio::select! {
        biased;
        never = resize::follow(node, exec, hub, seen.clone()), if request.spec.tty => match never {},
        outcome = attend(attended, task, seen, &ended_by, &mut log_writer) => outcome,
        never = witness::watch(node, memory, exec, &tell) => match never {},
        survivors = overseen.oversee() => {
            // Nobody reads on: what was read goes to those who watch, and into the log.
            hub.close();
            if let Some(log_writer) = &mut log_writer {
                log_writer.finish().await;
            }
            Some(settle::survived(node, Some(request), &survivors).await)
        }
    };
    node.metrics.running.dec();
    outcome.map_or(Watched::Left, Watched::Ended)
}

/// Receives everything and concludes. `None`: the next agent does.
async fn attend<W: World>(
    attended: &Attended<'_, W>,
    task: Task,
    seen: watch::Receiver<Seen>,
    ended_by: &OnceLock<Cause>,
    log_writer: &mut Option<LogWriter>,
) -> Option<Outcome> {
    let Attended { node, request, exec, memory, .. } = *attended;
    let Task { stream, origin, exec_exit } = task;
    let begun = StdInstant::now();
    // The pod's people are told while the output is drained: nothing waits for an Event.
    let fresh = !matches!(origin, Origin::HandedOver(_));
    let (received, ()) = tokio::join!(biased; pump::pump(attended, stream, seen.clone(), origin, log_writer), async {
        if fresh {
            tell_pod(node, request).await;
        }
    });
    let received = received?;
    node.metrics.step(Step::Pump, begun.elapsed());
    let begun = StdInstant::now();
    let ending = Ending { exec, exec_exit: &exec_exit, received };
    let outcome = settle::settle(node, memory, ending, seen, ended_by).await;
    node.metrics.step(Step::Settle, begun.elapsed());
    Some(outcome)
}

/// Who looks after the pod sees who runs something in it. What it is, only who may read the request.
async fn tell_pod<W: World>(node: &Node<W>, request: &BoundRequest) {
    let pod = PodRef { name: request.pod_name.clone(), uid: request.pod_uid.to_string() };
    let by = request.spec.requested_by.as_ref().map_or("somebody unknown", |by| by.username.as_str());
    let words = format!("ExecRequest {} of {by} runs a command in container {}", request.key.name, request.container);
    node.events.publish_on_pod(&pod, &request.key, "Exec", Reason::Running, &words).await;
}
