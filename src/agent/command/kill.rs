//! Kill: end all processes of a command, and no others.
//!
//! SIGTERM, the grace period, SIGKILL, until two looks in a row find nothing.
//! It needs no engine. Which signal is due is `core::kill`'s to say, who belongs
//! to the command `core::family`'s.

use std::time::Duration;

use tokio::time::sleep;

use super::oversee::Overseen;
use crate::{
    agent::node::{Node, World},
    core::{
        decide::{Entry, Stage},
        family::{Family, Member},
        ids::{ExecRef, ProcessRef, RequestKey},
        kill::{Course, Kill, Signal, Step},
        pauses::Pauses,
    },
    infra::kernel::Kernel,
};

/// First pause between two looks; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Pause between two looks for processes that would not die.
const SURVIVORS_PAUSE: Duration = Duration::from_secs(2);
/// Clock ticks a second in which the kernel counts a process's start, on every architecture.
const TICKS: u64 = 100;

/// Kills a command that is watched. Returns only those that do not die; when all are gone, the
/// watching ends by itself.
pub(crate) async fn kill<W: World>(overseen: &Overseen<'_, W>, kill: &Kill) -> Vec<Member> {
    let Overseen { node, exec, memory, ended_by, .. } = overseen;
    let mut course = Course::new(kill.since, kill.grace);
    let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let (process, pipes) = {
            let seen = overseen.seen.borrow();
            (seen.process, seen.pipes.clone())
        };
        let started = memory.entry().and_then(|entry| entry.started);
        let family = family(memory.key(), process, pipes, started);
        let (step, living) = look(node, &mut course, family, exec).await;
        match step {
            Step::Signal(signal, processes) => {
                // What the command leaves behind may be ended when it has ended by itself.
                let lives = process.is_none_or(|process| node.kernel.alive(process));
                for process in processes {
                    if send(node, memory.key(), exec, process, signal) && lives {
                        ended_by.get_or_init(|| kill.cause);
                    }
                }
                if course.is_vain(node.kernel.uptime()) {
                    return living;
                }
            }
            // It may be about to start: as long as it is watched, it is looked for.
            Step::LookAgain | Step::Gone => {}
        }
        sleep(pauses.next()).await;
    }
}

/// Goes on with a killing after the command's own process has ended: what it has started may live on.
/// Gives those that do not die.
pub(crate) async fn finish<W: World>(node: &Node<W>, key: &RequestKey, entry: &Entry, kill: &Kill) -> Vec<Member> {
    let mut course = Course::new(kill.since, kill.grace);
    let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
    while let Some(living) = round(node, key, entry, kill, &mut course).await {
        if course.is_vain(node.kernel.uptime()) && !living.is_empty() {
            return living;
        }
        sleep(pauses.next()).await;
    }
    Vec::new()
}

/// Kills what has survived an earlier killing, until nothing is left of it.
pub(crate) async fn to_the_last<W: World>(node: &Node<W>, key: &RequestKey, entry: &Entry) {
    let Some(kill) = &entry.kill else { return };
    tracing::warn!(request = %key, uid = %key.uid, cause = ?kill.cause, "going on to kill what has survived");
    let mut course = Course::new(kill.since, kill.grace);
    while round(node, key, entry, kill, &mut course).await.is_some() {
        sleep(SURVIVORS_PAUSE).await;
    }
    tracing::info!(request = %key, uid = %key.uid, "nothing of the command is left");
}

/// Looks once, and signals what is due. Gives those that live; `None` if nothing is left.
async fn round<W: World>(
    node: &Node<W>,
    key: &RequestKey,
    entry: &Entry,
    kill: &Kill,
    course: &mut Course,
) -> Option<Vec<Member>> {
    let (process, pipes) = match &entry.stage {
        Stage::Running { process, pipes } => (Some(*process), pipes.clone()),
        Stage::Prepared | Stage::Starting | Stage::Ended { .. } => (kill.process, kill.pipes.clone()),
    };
    let family = family(key, process, pipes, entry.started);
    let (step, living) = look(node, course, family, &entry.exec).await;
    match step {
        Step::Signal(signal, processes) => {
            for process in processes {
                send(node, key, &entry.exec, process, signal);
            }
            Some(living)
        }
        Step::LookAgain => Some(living),
        Step::Gone => None,
    }
}

/// A time since boot, as the kernel counts the start of a process.
pub(crate) fn ticks(at: Duration) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX) * TICKS / 1000
}

fn family(key: &RequestKey, leader: Option<ProcessRef>, pipes: Vec<u64>, started: Option<Duration>) -> Family {
    let since_ticks = leader.map(|leader| leader.start_ticks).or(started.map(ticks)).unwrap_or(0);
    Family { uid: key.uid.clone(), leader, pipes, since_ticks }
}

async fn look<W: World>(node: &Node<W>, course: &mut Course, family: Family, exec: &ExecRef) -> (Step, Vec<Member>) {
    match node.kernel.family(family, exec.container.id.clone()).await {
        Ok(living) => (course.step(&living, node.kernel.uptime()), living),
        Err(error) => {
            tracing::error!(exec = %exec.id, %error, "the node's processes cannot be read");
            (Step::LookAgain, Vec::new())
        }
    }
}

fn send<W: World>(node: &Node<W>, key: &RequestKey, exec: &ExecRef, process: ProcessRef, signal: Signal) -> bool {
    match node.kernel.signal(process, &exec.container.id, signal) {
        Ok(sent) => {
            tracing::debug!(request = %key, uid = %key.uid, pid = process.pid, ?signal, sent, "signal");
            sent
        }
        Err(error) => {
            tracing::error!(request = %key, uid = %key.uid, pid = process.pid, ?signal, %error, "a process of the command could not be signalled");
            false
        }
    }
}
