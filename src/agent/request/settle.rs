//! Settle: conclude how a command has ended, by the trust rule, once the evidence is there.

use std::{sync::OnceLock, time::Duration};

use k8s_openapi::jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    evidence::{Found, Knew, collect},
    executed,
};
use crate::{
    agent::{
        command::{
            container,
            received::{InputEnd, Received, STREAM_BROKEN},
            running::{RunningCommand, Survivors},
            seen::Seen,
        },
        memory::exec_exits::AwaitedExit,
        node::{Node, World},
        streams::recall::{STREAM_LOST, recall},
    },
    api::{OutputStatus, Reason},
    core::{
        execution::{Execution, Heard},
        ids::ExecRef,
        kill::{Cause, name_survivors},
        outcome::{Exit, Outcome, StreamEnd, Verdict},
        request::BoundRequest,
    },
    engine::{Engine, EngineError},
};

/// The code of a process that was killed, as all are whose container ends.
const KILLED: i32 = 128 + 9;
/// How long the end of a container may take to show after that of its processes.
const CONTAINER_END: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Its process was seen to end, and its code was told to nobody here.
const FOREIGN: &str = "the command has ended, in another container engine than the one that runs this node's containers now, \
     which cannot tell its exit code";

/// What came over the stream.
#[derive(Default)]
struct Said {
    /// The beginning of standard output.
    head: String,
    /// All of it, if that is known.
    heard: Option<Heard>,
}

pub(crate) struct Ending<'a> {
    pub(crate) exit: &'a AwaitedExit,
    pub(crate) received: Received,
}

/// Concludes for an exec whose output was received here. `seen` tells of its process, `ended_by`
/// why it was ended, if it was.
pub(crate) async fn settle<W: World>(
    attended: &RunningCommand<'_, W>,
    ending: Ending<'_>,
    mut seen: watch::Receiver<Seen>,
    ended_by: &OnceLock<Cause>,
) -> Outcome {
    let Ending { exit, received: Received { end, mut output, head, heard, input } } = ending;
    if seen.borrow().process.is_some() {
        // A stream may end before its process: ours broke, or the engine went away.
        drop(seen.wait_for(|seen| seen.ended.is_some()).await);
    }
    let found = collect(attended, exit, end, &seen).await;
    // An engine that loses output when it is killed ends the stream as cleanly as a command does.
    let cut_off = found.knew != Knew::Always && !attended.node.engine.habits().keeps_output;
    if cut_off && end == StreamEnd::Clean {
        output.complete = false;
        output.incomplete_reason = Some(STREAM_BROKEN.to_owned());
    }
    let said = Said { head, heard: heard.filter(|_| !cut_off) };
    let outcome = conclude(attended, found, output, &said, &seen, ended_by).await;
    match input {
        InputEnd::Lost => outcome.with_input_lost(),
        // A command may end before it has read all; one whose engine went away was cut off.
        InputEnd::Open if cut_off => outcome.with_input_lost(),
        InputEnd::Open | InputEnd::Whole => outcome,
    }
}

/// Concludes for an exec whose output was not received here. `seen` tells of its process, as far as it was seen.
pub(crate) async fn unseen<W: World>(
    attended: &RunningCommand<'_, W>,
    seen: &watch::Receiver<Seen>,
    ended_by: &OnceLock<Cause>,
) -> Outcome {
    let exit = attended.node.exec_exits.of(&attended.exec.id);
    let found = collect(attended, &exit, StreamEnd::Broken, seen).await;
    let output = spooled(attended.node, attended.wanted.request()).await;
    conclude(attended, found, output, &Said::default(), seen, ended_by).await
}

/// Concludes for an exec of which processes do not die.
pub(crate) async fn survived<W: World>(
    node: &Node<W>,
    request: Option<&BoundRequest>,
    survivors: &Survivors,
) -> Outcome {
    let output = spooled(node, request).await;
    Outcome::kill_failed(survivors.cause, &name_survivors(&survivors.living), output, node.clock.now())
}

async fn spooled<W: World>(node: &Node<W>, request: Option<&BoundRequest>) -> OutputStatus {
    match request {
        Some(request) => recall(&node.spool, &request.key, &request.spec.output).await,
        // Nobody will read it.
        None => OutputStatus { incomplete_reason: Some(STREAM_LOST.to_owned()), ..OutputStatus::default() },
    }
}

async fn conclude<W: World>(
    attended: &RunningCommand<'_, W>,
    Found { verdict, knew }: Found,
    output: OutputStatus,
    said: &Said,
    seen: &watch::Receiver<Seen>,
    ended_by: &OnceLock<Cause>,
) -> Outcome {
    let RunningCommand { node, exec, .. } = *attended;
    let cause = ended_by.get().copied();
    match (verdict, cause) {
        (Verdict::StartFailed, _) => not_started(node, &said.head),
        (Verdict::Exited(exit), _) => exited(attended, exit, output, (said.heard.as_ref(), seen), cause).await,
        (Verdict::Undecided, Some(cause)) => Outcome::killed(cause, None, output, node.clock.now()),
        // Such an engine forgets nothing before it is told to, unless the container ends.
        (Verdict::Undecided, None)
            if knew == Knew::Forgot && node.engine.habits().keeps_output && is_gone(node, exec).await =>
        {
            Outcome::gone_with_container(output, node.clock.now())
        }
        (Verdict::Undecided, None) if !node.engine.is_own(exec) => {
            Outcome::lost(FOREIGN, Some(output), node.clock.now())
        }
        (Verdict::Undecided, None) => {
            let message = match knew {
                Knew::Always | Knew::Sometimes => {
                    "the command has ended, but the engine no longer tells its true exit code"
                }
                Knew::Forgot => {
                    "the engine no longer knows the exec, and none of its events tells the exit code: the engine was \
                     restarted, the container's runtime was killed, or the command ended long ago"
                }
            };
            Outcome::lost(message, Some(output), node.clock.now())
        }
    }
}

/// The engine says that there never was a process. `words`: why.
fn not_started<W: World>(node: &Node<W>, words: &str) -> Outcome {
    if !node.engine.surely_failed(words) {
        let message = format!(
            "it is not known whether the command ran: the engine lost its runtime while that was to start it \
             ({words}): look for it in the container"
        );
        return Outcome { in_doubt: true, ..Outcome::lost(message, None, node.clock.now()) };
    }
    start_failed(if words.is_empty() { "it gave no reason" } else { words }, node.clock.now())
}

fn start_failed(why: &str, at: Timestamp) -> Outcome {
    Outcome::refused(Reason::StartFailed, format!("the engine could not start the command: {why}"), at)
}

/// Its process ended with this code, which may be that of the runtime that was to execute it.
async fn exited<W: World>(
    attended: &RunningCommand<'_, W>,
    exit: Exit,
    output: OutputStatus,
    (heard, seen): (Option<&Heard>, &watch::Receiver<Seen>),
    cause: Option<Cause>,
) -> Outcome {
    let RunningCommand { node, exec, .. } = *attended;
    let killed = exit.code == KILLED && cause.is_none();
    let died = killed && container_ended(node, exec).await.is_ok_and(|ended| ended);
    let execution = executed::check(attended, exit, heard, seen, died || cause.is_some()).await;
    let now = node.clock.now();
    match (execution, cause) {
        (Execution::Never(why), _) => start_failed(&why, now),
        (Execution::Executed, Some(cause)) => Outcome::killed(cause, Some(exit), output, now),
        (Execution::Executed, None) if died => Outcome::died_with_container(exit, output, now),
        (Execution::Executed, None) => Outcome::exited(exit, output, now),
        (Execution::Doubtful(_), Some(cause)) => {
            Outcome { in_doubt: true, ..Outcome::killed(cause, None, output, now) }
        }
        (Execution::Doubtful(_), None) if died => Outcome::died_early(output, now),
        (Execution::Doubtful(why), None) => Outcome::doubtful(why, output, now),
    }
}

/// The same, as soon as the engine answers.
async fn is_gone<W: World>(node: &Node<W>, exec: &ExecRef) -> bool {
    loop {
        match container_ended(node, exec).await {
            Err(EngineError::Unreachable { .. }) => sleep(CONTAINER_END).await,
            ended => return ended.is_ok_and(|ended| ended),
        }
    }
}

/// Whether the run of the container that the exec was in has ended, or does so at once.
async fn container_ended<W: World>(node: &Node<W>, exec: &ExecRef) -> Result<bool, EngineError> {
    let begun = Instant::now();
    loop {
        if container::is_over(node, exec).await? {
            return Ok(true);
        }
        if begun.elapsed() >= CONTAINER_END {
            return Ok(false);
        }
        sleep(LOOK_AGAIN).await;
    }
}
