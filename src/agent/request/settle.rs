//! Settle: collect the evidence of an exec's end, and conclude by the trust rule.

use std::{sync::OnceLock, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    agent::{
        command::{
            oversee::Survivors,
            pump::{self, InputEnd, Received},
            witness::{self, Seen},
        },
        memory::{exec_exits::ExecExit, request::Memory},
        node::{Node, World},
        streams::recall,
    },
    api::{OutputStatus, Reason},
    core::{
        ids::ExecRef,
        kill::{Cause, name_survivors},
        outcome::{Evidence, Exit, Inspected, Outcome, StreamEnd, Verdict, judge},
        pauses::Pauses,
        request::BoundRequest,
    },
    engine::{Container, ContainerState, Engine, EngineError, ExecState},
};

/// How long evidence may take to come, once the engine has taken note of the end: the event of one
/// exec waits for those of its container's other execs.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the engine may take for its own word, where the kernel has told the code already.
const ENGINE_FIRST: Duration = Duration::from_secs(1);
/// How long it may take if the engine knows no such exec: it was restarted, or the container is gone.
const FORGOTTEN_PATIENCE: Duration = Duration::from_secs(2);
/// How long the engine may take for that. It handles the ends of one container one after another,
/// and spends up to 4 s on each whose output a child still holds.
const ENGINE_PATIENCE: Duration = Duration::from_secs(600);
/// First pause between two looks; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The code of a process that was killed, as all are whose container ends.
const KILLED: i32 = 128 + 9;
/// How long the end of a container may take to show after that of its processes.
const CONTAINER_END: Duration = Duration::from_millis(500);

/// An exec whose output was received here.
pub(crate) struct Ending<'a> {
    pub(crate) exec: &'a ExecRef,
    pub(crate) exec_exit: &'a ExecExit,
    pub(crate) received: Received,
}

/// Concludes for an exec whose output was received here. `seen` tells of its process, `ended_by`
/// why it was ended, if it was.
pub(crate) async fn settle<W: World>(
    node: &Node<W>,
    memory: &Memory<W>,
    ending: Ending<'_>,
    mut seen: watch::Receiver<Seen>,
    ended_by: &OnceLock<Cause>,
) -> Outcome {
    let Ending { exec, exec_exit, received } = ending;
    if seen.borrow().process.is_some() {
        // A stream may end before its process: ours broke, or the engine went away.
        drop(seen.wait_for(|seen| seen.ended.is_some()).await);
    }
    let Received { end, mut output, head, input } = received;
    let (verdict, knew) = verdict(node, memory, exec, exec_exit, end, &seen).await;
    if knew != Knew::Always && end == StreamEnd::Clean {
        // An engine that is killed ends the stream as cleanly as a command does.
        output.complete = false;
        output.incomplete_reason = Some(pump::STREAM_BROKEN.to_owned());
    }
    let outcome = conclude(node, exec, (verdict, knew), output, &head, ended_by).await;
    match input {
        InputEnd::Lost => outcome.with_input_lost(),
        // A command may end before it has read all; one whose engine went away was cut off.
        InputEnd::Open if knew != Knew::Always => outcome.with_input_lost(),
        InputEnd::Open | InputEnd::Whole => outcome,
    }
}

/// Concludes for an exec whose output was not received here. `seen` tells of its process, as far as it was seen.
pub(crate) async fn unseen<W: World>(
    node: &Node<W>,
    memory: &Memory<W>,
    exec: &ExecRef,
    request: Option<&BoundRequest>,
    seen: &watch::Receiver<Seen>,
    ended_by: &OnceLock<Cause>,
) -> Outcome {
    let exec_exit = node.exec_exits.of(&exec.id);
    let found = verdict(node, memory, exec, &exec_exit, StreamEnd::Broken, seen).await;
    let output = recall(node, request).await;
    conclude(node, exec, found, output, "", ended_by).await
}

/// Concludes for an exec of which processes do not die.
pub(crate) async fn survived<W: World>(
    node: &Node<W>,
    request: Option<&BoundRequest>,
    survivors: &Survivors,
) -> Outcome {
    let output = recall(node, request).await;
    Outcome::kill_failed(survivors.cause, &name_survivors(&survivors.living), output, node.clock.now())
}

async fn recall<W: World>(node: &Node<W>, request: Option<&BoundRequest>) -> OutputStatus {
    match request {
        Some(request) => recall::recall(&node.spool, &request.key, &request.spec.output).await,
        // Nobody will read it.
        None => OutputStatus { incomplete_reason: Some(recall::STREAM_LOST.to_owned()), ..OutputStatus::default() },
    }
}

async fn conclude<W: World>(
    node: &Node<W>,
    exec: &ExecRef,
    (verdict, knew): (Verdict, Knew),
    output: OutputStatus,
    head: &str,
    ended_by: &OnceLock<Cause>,
) -> Outcome {
    match (verdict, ended_by.get().copied()) {
        (Verdict::StartFailed, _) => {
            let hint = if head.is_empty() { "it gave no reason" } else { head };
            let message = format!("the engine could not start the command: {hint}");
            Outcome::refused(Reason::StartFailed, message, node.clock.now())
        }
        (Verdict::Exited(exit), Some(cause)) => Outcome::killed(cause, Some(exit), output, node.clock.now()),
        (Verdict::Undecided, Some(cause)) => Outcome::killed(cause, None, output, node.clock.now()),
        (Verdict::Exited(exit @ Exit { code: KILLED, .. }), None) if container_ended(node, exec).await => {
            Outcome::died_with_container(exit, output, node.clock.now())
        }
        (Verdict::Exited(exit), None) => Outcome::exited(exit, output, node.clock.now()),
        (Verdict::Undecided, None) => {
            let message = match knew {
                Knew::Always | Knew::Sometimes => {
                    "the command has ended, but the engine no longer tells its true exit code"
                }
                Knew::Forgot => {
                    "the engine no longer knows the exec, and none of its events tells the exit code: the engine was \
                     restarted, or the command ended long ago"
                }
            };
            Outcome::lost(message, Some(output), node.clock.now())
        }
    }
}

/// Whether the run of the container that the exec was in has ended.
async fn container_ended<W: World>(node: &Node<W>, exec: &ExecRef) -> bool {
    let begun = Instant::now();
    loop {
        match node.engine.container(&exec.container.id).await {
            Ok(Some(Container { state: ContainerState::Running | ContainerState::Paused, reference, .. })) => {
                if reference != exec.container && !exec.container.started_at.is_empty() {
                    return true;
                }
            }
            Ok(Some(Container { state: ContainerState::Stopped(_), .. }) | None) => return true,
            Err(error) => {
                tracing::debug!(exec = %exec.id, %error, "whether the container ended too is not known");
                return false;
            }
        }
        if begun.elapsed() >= CONTAINER_END {
            return false;
        }
        sleep(FIRST_PAUSE * 10).await;
    }
}

/// Whether the engine knew of the exec when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knew {
    Always,
    Sometimes,
    /// No longer in the end.
    Forgot,
}

/// Waits until the evidence decides, or until no more of it can be expected.
async fn verdict<W: World>(
    node: &Node<W>,
    memory: &Memory<W>,
    exec: &ExecRef,
    exec_exit: &ExecExit,
    end: StreamEnd,
    seen: &watch::Receiver<Seen>,
) -> (Verdict, Knew) {
    let begun = Instant::now();
    let mut until = begun + PATIENCE;
    let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut knew = Knew::Always;
    loop {
        let state = node.engine.inspect_exec(&exec.id).await;
        match state {
            Ok(_) => {}
            Err(EngineError::NoSuchExec(_)) => knew = Knew::Forgot,
            Err(_) => knew = Knew::Sometimes,
        }
        let inspect = state.as_ref().ok().copied().and_then(inspected);
        let event = exec_exit.code();
        // The engine takes some living processes for ended ones.
        let pid = state.as_ref().ok().and_then(|state| state.pid);
        let found = pid.is_some_and(|pid| witness::process_of(node, memory, exec, pid).is_some());
        let (kernel, lives) = {
            let seen = seen.borrow();
            (seen.exit, found || seen.process.is_some() && seen.ended.is_none())
        };
        // Nothing more will come.
        let spoken = inspect.is_some() && event.is_some() && !lives;
        // An engine that is down knows nothing of it any more when it is back, and may take the agent along.
        let down = matches!(state, Err(EngineError::Unreachable { .. }));
        let counts = spoken || down || begun.elapsed() >= ENGINE_FIRST;
        match judge(&Evidence { inspect, event, kernel: kernel.filter(|_| counts), stream: end }) {
            Verdict::Undecided if spoken => return (Verdict::Undecided, knew),
            Verdict::Undecided => {}
            // The kernel has seen it run.
            Verdict::StartFailed if kernel.is_some() => {}
            verdict => return (verdict, knew),
        }
        // The clock runs only once there is nothing left to wait for.
        let wait = match state {
            Ok(_) if lives => true,
            Ok(ExecState { running: true, code: None, .. }) => begun.elapsed() < ENGINE_PATIENCE,
            // Of the past its events tell as soon as they are heard.
            Err(EngineError::NoSuchExec(_)) if node.exec_exits.are_heard() => {
                until = until.min(Instant::now() + FORGOTTEN_PATIENCE);
                false
            }
            Ok(_) | Err(EngineError::NoSuchExec(_)) => false,
            Err(error) => {
                tracing::warn!(exec = %exec.id, %error, "waiting for the engine to tell the exit code");
                matches!(error, EngineError::Unreachable { .. })
            }
        };
        if wait {
            until = Instant::now() + PATIENCE;
        }
        if Instant::now() >= until {
            return (Verdict::Undecided, knew);
        }
        sleep(pauses.next()).await;
    }
}

fn inspected(state: ExecState) -> Option<Inspected> {
    state.code.map(|code| Inspected { code, had_process: state.pid.is_some() })
}
