//! The kernel's witness of a running exec: which process it is, whether it has executed the command, when it ended, and how.

use std::{
    convert::Infallible,
    future::{Future as _, poll_fn},
    pin::pin,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{container, running::RunningCommand, seen::Seen};
use crate::{
    agent::{
        memory::request::Memory,
        node::{Node, World},
    },
    core::{
        execution::Sighting,
        family::{Family, ticks},
        ids::{ExecRef, ProcessRef},
        pauses::Pauses,
    },
    engine::{Engine, EngineError, ExecState},
    infra::kernel::Kernel,
};

/// First pause between two looks for the process; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// First pause between two looks at a process that has executed nothing yet; doubles, too.
const FIRST_LOOK: Duration = Duration::from_millis(2);
/// A stream that is still open so long after its process ended is held by another process.
const STILL_OPEN: Duration = Duration::from_millis(200);
/// How long after the engine has forgotten an exec its process may still come up.
const COMES_UP_WITHIN: Duration = Duration::from_secs(2);
/// How often it is looked at whether a process lives, at most, when there is something else to do anyway.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Finds the process of an exec and notes it in the journal, unless it is told already, waits for its end,
/// and tells all of it as soon as it is known. Never returns. `pid`: of the process, if the engine has told it at the start.
pub(crate) async fn watch<W: World>(
    attended: &RunningCommand<'_, W>,
    tell: &watch::Sender<Seen>,
    pid: Option<u32>,
) -> Infallible {
    let RunningCommand { node, exec, memory, .. } = *attended;
    let known = tell.borrow().process;
    if let Some(process) = known {
        tokio::join!(biased; end(node, process, tell), execution(attended, process, tell));
        return std::future::pending().await;
    }
    match find(attended, pid).await {
        Ok((process, alive)) => {
            let pipes = node.kernel.output_pipes(process);
            let executed = node.kernel.sighting(process);
            tell.send_modify(|seen| {
                (seen.process, seen.pipes, seen.alive) = (Some(process), pipes.clone(), Some(alive));
                seen.executed = executed;
            });
            let ending = async {
                end(node, process, tell).await;
                sleep(STILL_OPEN).await;
                let held = holders(node, exec, process, pipes.clone()).await;
                tell.send_modify(|seen| (seen.held, seen.whole) = (held, true));
            };
            // A slow disk must not make the end look later than it was.
            let noting = memory.note_process(exec, process, pipes.clone(), executed == Sighting::Executed);
            tokio::join!(biased; ending, noting, execution(attended, process, tell));
        }
        Err(before) => tell.send_modify(|seen| {
            (seen.ended, seen.noticed, seen.whole) = (Some(before), Some(Instant::now()), true);
        }),
    }
    std::future::pending().await
}

async fn end<W: World>(node: &Node<W>, process: ProcessRef, tell: &watch::Sender<Seen>) {
    let mut ended = pin!(node.kernel.ended(process));
    let mut looked = Instant::now();
    let exit = poll_fn(|context| {
        let exit = ended.as_mut().poll(context);
        let now = Instant::now();
        // That the kernel has not yet told of an end does not mean that there is none.
        if exit.is_pending() && now >= looked + LOOK_EVERY {
            looked = now;
            if node.kernel.alive(process) {
                // Nobody is woken for that.
                tell.send_if_modified(|seen| {
                    seen.alive = Some(now);
                    false
                });
            }
        }
        exit
    })
    .await;
    let now = Some(Instant::now());
    // Its parent may not have taken note yet.
    let last = node.kernel.sighting(process);
    tell.send_modify(|seen| {
        (seen.ended, seen.noticed, seen.exit) = (now, now, exit);
        if seen.executed == Sighting::Unseen {
            seen.executed = last;
        }
    });
}

/// Looks until it has executed the command, or has ended, and notes it.
async fn execution<W: World>(attended: &RunningCommand<'_, W>, process: ProcessRef, tell: &watch::Sender<Seen>) {
    let RunningCommand { node, exec, memory, .. } = *attended;
    let mut pauses = Pauses::new(FIRST_LOOK, LONGEST_PAUSE);
    while tell.borrow().executed == Sighting::Unseen && tell.borrow().ended.is_none() {
        match node.kernel.sighting(process) {
            Sighting::Unseen => sleep(pauses.next_pause()).await,
            seen @ (Sighting::Executed | Sighting::Never) => {
                tell.send_modify(|all| all.executed = seen);
                if seen == Sighting::Executed {
                    memory.note_executed(exec).await;
                }
            }
        }
    }
}

/// Whether a process of the container holds one of the pipes of this one, which has ended.
async fn holders<W: World>(node: &Node<W>, exec: &ExecRef, process: ProcessRef, pipes: Vec<u64>) -> Option<bool> {
    if pipes.is_empty() {
        return None;
    }
    let family = Family { uid: None, leader: None, pipes, since_ticks: process.start_ticks };
    match node.kernel.family(family, exec.container.id.clone()).await {
        Ok(living) => Some(!living.is_empty()),
        Err(error) => {
            tracing::debug!(exec = %exec.id, %error, "who holds the output cannot be seen");
            None
        }
    }
}

/// The process, and a moment before it was seen to live; or, if it had ended before it could be found, one before its
/// end. As late as they are known.
async fn find<W: World>(attended: &RunningCommand<'_, W>, pid: Option<u32>) -> Result<(ProcessRef, Instant), Instant> {
    let RunningCommand { node, exec, memory, .. } = *attended;
    let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut not_ended = Instant::now();
    if let Some(process) = pid.and_then(|pid| process_of(node, memory, exec, pid)) {
        return Ok((process, not_ended));
    }
    let mut forgotten: Option<Instant> = None;
    loop {
        let pause = pauses.next_pause();
        sleep(pause).await;
        let looked = Instant::now();
        let answer = node.engine.state(exec).await;
        if let Some(process) = living(node, memory, exec, &answer).await {
            return Ok((process, looked));
        }
        match answer {
            Ok(ExecState::Ended { .. } | ExecState::Spent) => return Err(not_ended),
            // Nothing of it runs on in a container that does not.
            Ok(ExecState::Untouched | ExecState::Running { .. })
                if pause >= LONGEST_PAUSE && container::is_over(node, exec).await.unwrap_or(false) =>
            {
                return Err(not_ended);
            }
            Ok(ExecState::Untouched | ExecState::Running { .. }) => not_ended = looked,
            Ok(ExecState::Absent) => match forgotten {
                Some(since) if looked >= since + COMES_UP_WITHIN => return Err(not_ended),
                Some(_) => {}
                None => (forgotten, pauses) = (Some(looked), Pauses::new(FIRST_PAUSE, LONGEST_PAUSE)),
            },
            Err(error) => tracing::debug!(exec = %exec.id, %error, "the exec could not be looked at"),
        }
    }
}

/// The process that the exec began with, if it lives: by the PID that the engine has told, though it takes some living
/// processes for ended ones; by its tag where the engine knows nothing of it, or does not answer.
pub(crate) async fn living<W: World>(
    node: &Node<W>,
    memory: &Memory<W>,
    exec: &ExecRef,
    answer: &Result<ExecState, EngineError>,
) -> Option<ProcessRef> {
    match answer {
        Ok(ExecState::Absent) | Err(EngineError::Unreachable { .. }) => {}
        Ok(state) => return state.pid().and_then(|pid| process_of(node, memory, exec, pid)),
        Err(_) => return None,
    }
    match node.kernel.began(exec.container.id.clone(), memory.key().uid.clone()).await {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(exec = %exec.id, %error, "the node's processes cannot be read");
            None
        }
    }
}

/// The process that the exec began with, if this PID is still that one's: the engine goes on to name it for minutes after
/// its end, and the kernel gives it to others.
pub(crate) fn process_of<W: World>(node: &Node<W>, memory: &Memory<W>, exec: &ExecRef, pid: u32) -> Option<ProcessRef> {
    let noted = memory.entry().filter(|entry| entry.is_current(exec, &node.boot));
    let started = noted.and_then(|entry| entry.started).map_or(0, ticks);
    let process = node.kernel.leader(pid, &exec.container.id, &memory.key().uid);
    process.filter(|process| process.start_ticks >= started)
}
