//! Start: spend the exec's one start, or go on with the output of one that was started.

use std::time::Instant;

use tokio::sync::watch;

use super::attend::{self, Task};
use crate::{
    agent::{
        command::{
            received::Origin,
            running::{News, RunningCommand, WatchEnd},
        },
        memory::noted::Noted,
        node::{StepError, World},
        streams::{
            input::InputState,
            state::{OutputState, StreamState},
        },
    },
    api::Reason,
    core::{outcome::Outcome, output::LogState, request::BoundRequest},
    engine::{Engine, EngineError, ExecStream, Reopened, ReopenedInput, StartError, Started},
    infra::{kernel::Kernel, metrics::Step},
};

#[allow(clippy::large_enum_variant, reason = "one for each request in hand")]
pub(crate) enum Attempt {
    WatchEnd(WatchEnd),
    /// Nothing runs, and the exec's one start is not spent.
    Refused(StepError),
}

/// Starts the committed exec; the journal says `starting` already. After an error, what happened
/// has to be found out by looking again.
pub(crate) async fn start<W: World>(
    attended: &RunningCommand<'_, W>,
    request: &BoundRequest,
    news: &mut watch::Receiver<News>,
    sole: bool,
) -> Result<Attempt, StepError> {
    let RunningCommand { node, exec, .. } = *attended;
    let exit = node.exec_exits.of(&exec.id);
    let begun = Instant::now();
    let refused = |reason, message| {
        let outcome = Outcome::refused(reason, message, node.clock.now());
        Ok(Attempt::WatchEnd(WatchEnd::Ended(outcome)))
    };
    let Started { pid, stream, unheld } = match node.engine.start(exec, request.spec.tty).await {
        Ok(started) => started,
        Err(StartError::Absent(message)) if sole => {
            let message = format!("the container was restarted before the command could start: {message}");
            return refused(Reason::ContainerDied, message);
        }
        Err(StartError::Failed(words)) => {
            return refused(Reason::StartFailed, format!("the engine could not start the command: {words}"));
        }
        Err(StartError::Refused(error)) if sole => return Ok(Attempt::Refused(error.into())),
        Err(error) => return Err(error.into()),
    };
    node.metrics.step(Step::Start, begun.elapsed());
    tracing::info!(request = %request.key, uid = %request.key.uid, exec = %exec.id, sole, "started");
    if let Some(why) = unheld {
        node.metrics.unheld.inc();
        tracing::warn!(request = %request.key, uid = %request.key.uid, exec = %exec.id, why, "nobody else holds its output: if this agent is killed, what the command writes just before its end can be lost");
    }
    let origin = if sole { Origin::Sole } else { Origin::Shared };
    Ok(Attempt::WatchEnd(attend::with_output(attended, news, Task { request, stream, pid, origin, exit }).await))
}

/// The output of a command that an agent before this one has started, if it can still be had.
pub(crate) async fn output<W: World>(
    attended: &RunningCommand<'_, W>,
    request: &BoundRequest,
) -> Result<Option<(ExecStream, Origin)>, StepError> {
    let RunningCommand { node, exec, memory, .. } = *attended;
    let limits = &request.spec.output;
    let handed_over = node.take_handed_over(&request.key.uid);
    if let Some((stream, state)) = handed_over.and_then(|stream| stream.open(&*node.engine, &exec.id, limits)) {
        tracing::info!(request = %request.key, uid = %request.key.uid, exec = %exec.id, "taken over");
        return Ok(Some((stream, Origin::HandedOver(Box::new(state)))));
    }
    if !node.engine.habits().keeps_output {
        return Ok(None);
    }
    let noted = memory.noted_output(exec, limits);
    let from = noted.as_ref().map(|noted| noted.output.streams.position()).unwrap_or_default();
    let reopened = node.engine.reopen(exec, request.spec.tty, from).await;
    let Reopened { stream, unbroken, input } = match reopened {
        Ok(Some(reopened)) => reopened,
        Ok(None) => return Ok(None),
        Err(error @ EngineError::Unreachable { .. }) => return Err(error.into()),
        // The command is looked after all the same.
        Err(error) => {
            tracing::error!(request = %request.key, uid = %request.key.uid, exec = %exec.id, %error, "the output cannot be opened again");
            return Ok(None);
        }
    };
    tracing::info!(request = %request.key, uid = %request.key.uid, exec = %exec.id, unbroken, "opened again");
    if !unbroken {
        return Ok(Some((stream, Origin::Shared)));
    }
    let (mut received, mut fed, file) = match noted {
        Some(Noted { output, file, input }) => (output, input, file),
        None => (OutputState::new(limits), InputState::default(), 0),
    };
    fed.ended |= memory.entry().is_some_and(|entry| entry.fed);
    // What was taken from a client and not handed over is the client's: it was not told that it has arrived.
    fed = match input {
        ReopenedInput::GoesOn { from } => InputState { delivered: from, ended: fed.ended, ..InputState::default() },
        ReopenedInput::Ended => InputState { ended: true, ..fed },
        ReopenedInput::Over => fed,
    };
    let input_lost = !fed.ended && input == ReopenedInput::Over;
    // What is in the log beyond that comes again.
    if !node.spool.cut_back(&request.key, file) {
        received.log = LogState::Failed;
    }
    let received = Some(received);
    let state = StreamState { received, fed, given: node.kernel.uptime() };
    Ok(Some((stream, Origin::Reopened { state: Box::new(state), input_lost })))
}

pub(crate) async fn go_on<W: World>(
    attended: &RunningCommand<'_, W>,
    request: &BoundRequest,
    news: &mut watch::Receiver<News>,
    (stream, origin): (ExecStream, Origin),
) -> WatchEnd {
    let exit = attended.node.exec_exits.of(&attended.exec.id);
    attend::with_output(attended, news, Task { request, stream, pid: None, origin, exit }).await
}
