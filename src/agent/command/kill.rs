//! Kill: end all processes of a command, and no others.
//!
//! SIGTERM, the grace period, SIGKILL, until two looks in a row find nothing.
//! It needs no engine. Which signal is due is `core::kill`'s to say, who belongs
//! to the command `core::family`'s.

use std::{sync::OnceLock, time::Duration};

use tokio::{sync::watch, time::sleep};

use super::{running::RunningCommand, seen::Seen};
use crate::{
    agent::node::{Node, World},
    core::{
        entry::{Entry, Stage},
        family::{Family, Member, ticks},
        ids::{ExecRef, ProcessRef, RequestKey},
        kill::{Cause, Course, Kill, Signal, Step},
        pauses::Pauses,
    },
    infra::kernel::Kernel,
};

/// Pauses between two looks.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Pause between two looks for processes that would not die.
const SURVIVORS_PAUSE: Duration = Duration::from_secs(2);

struct Killing<'a, W: World> {
    node: &'a Node<W>,
    key: &'a RequestKey,
    exec: &'a ExecRef,
    kill: &'a Kill,
}

/// When a killing is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// When processes do not die.
    InVain,
    /// Then, or when nothing is left.
    Done,
    /// When nothing is left.
    Gone,
}

/// Kills a command that is watched, whose first signal sets `ended_by`. Returns only those that do not die; when all are
/// gone, the watching ends by itself.
pub(crate) async fn watched<W: World>(
    attended: &RunningCommand<'_, W>,
    kill: &Kill,
    seen: &watch::Receiver<Seen>,
    ended_by: &OnceLock<Cause>,
) -> Vec<Member> {
    let RunningCommand { node, exec, memory, .. } = *attended;
    let killing = Killing { node, key: memory.key(), exec, kill };
    let known = || {
        let seen = seen.borrow();
        (seen.process, family(memory.key(), seen.process, seen.pipes.clone(), memory.entry().and_then(|e| e.started)))
    };
    // What the command leaves behind may be ended when it has ended by itself.
    let signalled = |leader: Option<ProcessRef>| {
        if leader.is_none_or(|process| node.kernel.alive(process)) { Some(ended_by) } else { None }
    };
    // It may be about to start: as long as it is watched, it is looked for.
    killing.run(Over::InVain, Pauses::new(FIRST_PAUSE, LONGEST_PAUSE), known, signalled).await
}

/// Goes on with a killing after the command's own process has ended: what it has started may live on.
/// Gives those that do not die.
pub(crate) async fn finish<W: World>(
    node: &Node<W>,
    key: &RequestKey,
    exec: &ExecRef,
    entry: &Entry,
    kill: &Kill,
) -> Vec<Member> {
    let killing = Killing { node, key, exec, kill };
    let pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
    killing.run(Over::Done, pauses, || (None, left_behind(key, entry, kill)), |_| None).await
}

/// Kills what has survived an earlier killing, until nothing is left of it.
pub(crate) async fn to_the_last<W: World>(node: &Node<W>, key: &RequestKey, entry: &Entry) {
    let (Some(kill), Some(exec)) = (&entry.kill, &entry.exec) else { return };
    tracing::warn!(request = %key, uid = %key.uid, cause = ?kill.cause, "going on to kill what has survived");
    let killing = Killing { node, key, exec, kill };
    let pauses = Pauses::new(SURVIVORS_PAUSE, SURVIVORS_PAUSE);
    killing.run(Over::Gone, pauses, || (None, left_behind(key, entry, kill)), |_| None).await;
    tracing::info!(request = %key, uid = %key.uid, "nothing of the command is left");
}

impl<W: World> Killing<'_, W> {
    /// Looks and signals what is due, until it is over. Gives those that do not die.
    async fn run<'s>(
        &self,
        over: Over,
        mut pauses: Pauses,
        known: impl Fn() -> (Option<ProcessRef>, Family),
        signalled: impl Fn(Option<ProcessRef>) -> Option<&'s OnceLock<Cause>>,
    ) -> Vec<Member> {
        let mut course = Course::new(self.kill.since, self.kill.grace);
        loop {
            let (leader, family) = known();
            let (step, living) = self.look(&mut course, family).await;
            match step {
                Step::Signal(signal, processes) => {
                    let ended_by = signalled(leader);
                    for process in processes {
                        if self.send(process, signal)
                            && let Some(ended_by) = ended_by
                        {
                            ended_by.get_or_init(|| self.kill.cause);
                        }
                    }
                    if over != Over::Gone && course.is_vain(self.node.kernel.uptime()) {
                        return living;
                    }
                }
                Step::Gone if over != Over::InVain => return Vec::new(),
                Step::Gone | Step::LookAgain => {}
            }
            sleep(pauses.next_pause()).await;
        }
    }

    async fn look(&self, course: &mut Course, family: Family) -> (Step, Vec<Member>) {
        match self.node.kernel.family(family, self.exec.container.id.clone()).await {
            Ok(living) => (course.step(&living, self.node.kernel.uptime()), living),
            Err(error) => {
                tracing::error!(exec = %self.exec.id, %error, "the node's processes cannot be read");
                (Step::LookAgain, Vec::new())
            }
        }
    }

    fn send(&self, process: ProcessRef, signal: Signal) -> bool {
        let Self { node, key, exec, .. } = self;
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
}

fn family(key: &RequestKey, leader: Option<ProcessRef>, pipes: Vec<u64>, started: Option<Duration>) -> Family {
    let since_ticks = leader.map(|leader| leader.start_ticks).or(started.map(ticks)).unwrap_or(0);
    Family { uid: Some(key.uid.clone()), leader, pipes, since_ticks }
}

fn left_behind(key: &RequestKey, entry: &Entry, kill: &Kill) -> Family {
    let (process, pipes) = match &entry.stage {
        Stage::Running { process, pipes, .. } => (Some(*process), pipes.clone()),
        Stage::Prepared | Stage::Fencing | Stage::Starting | Stage::Ended { .. } => (kill.process, kill.pipes.clone()),
    };
    family(key, process, pipes, entry.started)
}
