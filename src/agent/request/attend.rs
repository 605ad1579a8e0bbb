//! Attend: stay with a command to its end, and conclude. With one whose stream is here, and with one that an earlier
//! agent started and whose output from then on is lost: its end is not, and what may end it still does.

use std::{future::pending, sync::OnceLock, time::Instant as StdInstant};

use tokio::sync::watch;

use super::settle::{self, Ending};
use crate::{
    agent::{
        command::{
            drain::drain,
            kill,
            oversee::Overseen,
            pump,
            received::Origin,
            resize,
            running::{News, RunningCommand, WatchEnd},
            seen::Seen,
            witness,
        },
        memory::exec_exits::AwaitedExit,
        node::World,
        streams::{log_writer::LogWriter, ring::Written},
    },
    api::Reason,
    core::{
        entry::{Entry, Stage},
        execution::Sighting,
        ids::ProcessRef,
        kill::Cause,
        outcome::Outcome,
        request::BoundRequest,
    },
    engine::ExecStream,
    infra::{events::PodRef, kernel::Kernel, metrics::Step},
    wire::words::InputError,
};

pub(crate) struct Task<'a> {
    pub(crate) request: &'a BoundRequest,
    pub(crate) stream: ExecStream,
    /// Of its process, if the engine has told.
    pub(crate) pid: Option<u32>,
    pub(crate) origin: Origin,
    /// Awaited from before the start, or a quick end would be missed.
    pub(crate) exit: AwaitedExit,
}

/// Stays with a command whose output is read here.
pub(crate) async fn with_output<W: World>(
    attended: &RunningCommand<'_, W>,
    news: &mut watch::Receiver<News>,
    task: Task<'_>,
) -> WatchEnd {
    let RunningCommand { node, hub, .. } = *attended;
    let (request, tty, pid) = (task.request, task.request.spec.tty, task.pid);
    node.metrics.running.inc();
    let (tell, seen) = watch::channel(Seen::default());
    let ended_by = OnceLock::new();
    let mut log_writer = None;
    let overseen = Overseen { attended: *attended, news, seen: seen.clone(), ended_by: &ended_by };
    let outcome = tokio::select! {
        biased;
        never = resize::follow(attended, seen.clone()), if tty => match never {},
        outcome = to_the_end(attended, task, seen, &ended_by, &mut log_writer) => outcome,
        never = witness::watch(attended, &tell, pid) => match never {},
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
    outcome.map_or(WatchEnd::Left, WatchEnd::Ended)
}

/// Receives everything and concludes. `None`: the next agent does.
async fn to_the_end<W: World>(
    attended: &RunningCommand<'_, W>,
    task: Task<'_>,
    seen: watch::Receiver<Seen>,
    ended_by: &OnceLock<Cause>,
    log_writer: &mut Option<LogWriter>,
) -> Option<Outcome> {
    let node = attended.node;
    let Task { request, stream, origin, exit, .. } = task;
    let begun = StdInstant::now();
    // The pod's people are told while the output is drained: nothing waits for an Event.
    let fresh = matches!(origin, Origin::Sole | Origin::Shared);
    let pumping = pump::pump(attended, request, stream, seen.clone(), origin, log_writer);
    let (received, ()) = tokio::join!(biased; pumping, async {
        if fresh {
            tell_pod(attended, request).await;
        }
    });
    let received = received?;
    node.metrics.step(Step::Pump, begun.elapsed());
    let begun = StdInstant::now();
    let outcome = tokio::select! {
        biased;
        outcome = settle::settle(attended, Ending { exit: &exit, received }, seen, ended_by) => outcome,
        never = drain(attended) => match never {},
    };
    node.metrics.step(Step::Settle, begun.elapsed());
    Some(outcome)
}

/// Stays with a command whose output nobody reads. The agent may be told to stop before: nothing is lost by
/// leaving it to the next one.
pub(crate) async fn without_output<W: World>(
    attended: &RunningCommand<'_, W>,
    news: &mut watch::Receiver<News>,
    process: Option<ProcessRef>,
) -> WatchEnd {
    let RunningCommand { node, wanted, exec, memory, hub } = *attended;
    let key = memory.key();
    hub.log_only(node.spool.size(key), Written::UNKNOWN);
    hub.input.close(InputError::Lost);
    tracing::info!(request = %key, uid = %key.uid, exec = %exec.id, ?process, "adopted");
    node.metrics.running.inc();
    let exit = node.exec_exits.of(&exec.id);
    let entry = memory.entry();
    let lost = entry.is_none();
    let noted = entry.as_ref().is_some_and(Entry::was_executed);
    let executed = if noted { Sighting::Executed } else { Sighting::Unseen };
    let pipes = match entry {
        Some(Entry { stage: Stage::Running { pipes, .. }, .. }) => pipes,
        Some(_) | None => process.map(|process| node.kernel.output_pipes(process)).unwrap_or_default(),
    };
    if lost {
        memory.note_adopted(exec, process, pipes.clone()).await;
    }
    let (tell, seen) = watch::channel(Seen { process, executed, pipes, ..Seen::default() });
    let mut ending = seen.clone();
    let ended_by = OnceLock::new();
    let overseen = Overseen { attended: *attended, news, seen, ended_by: &ended_by };
    let watched = tokio::select! {
        biased;
        () = node.stopping.cancelled() => WatchEnd::Left,
        outcome = async {
            drop(ending.wait_for(|seen| seen.ended.is_some()).await);
            settle::unseen(attended, &ending, &ended_by).await
        } => WatchEnd::Ended(outcome),
        never = witness::watch(attended, &tell, None) => match never {},
        never = drain(attended) => match never {},
        survivors = overseen.oversee() => {
            WatchEnd::Ended(settle::survived(node, wanted.request(), &survivors).await)
        }
    };
    drop(exit);
    node.metrics.running.dec();
    watched
}

/// Sees to it that a command ends in time, and that the killing of what is left of one goes on, for as long as nothing else
/// can be done about it. Returns only if processes of it do not die.
pub(crate) async fn guard<W: World>(
    attended: &RunningCommand<'_, W>,
    news: &mut watch::Receiver<News>,
    process: Option<ProcessRef>,
) -> Outcome {
    let RunningCommand { node, wanted, memory, .. } = *attended;
    if let Some(entry) = memory.entry().filter(Entry::has_survivors) {
        kill::to_the_last(node, memory.key(), &entry).await;
        return pending().await;
    }
    let pipes = process.map(|process| node.kernel.output_pipes(process)).unwrap_or_default();
    let (tell, seen) = watch::channel(Seen { process, pipes, ..Seen::default() });
    let ended_by = OnceLock::new();
    let overseen = Overseen { attended: *attended, news, seen, ended_by: &ended_by };
    tokio::select! {
        biased;
        never = witness::watch(attended, &tell, None) => match never {},
        survivors = overseen.oversee() => settle::survived(node, wanted.request(), &survivors).await,
    }
}

/// Who looks after the pod sees who runs something in it. What it is, only who may read the request.
async fn tell_pod<W: World>(attended: &RunningCommand<'_, W>, request: &BoundRequest) {
    let pod = PodRef { name: request.pod_name.clone(), uid: request.pod_uid.to_string() };
    let by = request.spec.requested_by.as_ref().map_or("somebody unknown", |by| by.username.as_str());
    let words = format!("ExecRequest {} of {by} runs a command in container {}", request.key.name, request.container);
    attended.node.events.publish_on_pod(&pod, &request.key, "Exec", Reason::Running, &words).await;
}
