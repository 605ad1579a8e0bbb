//! Killing a running command: why, since when, and which signal is due.
//!
//! The processes are found and signalled elsewhere.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{family::Member, ids::ProcessRef};
use crate::api::Reason;

/// How long a process may live on after SIGKILL before it counts as a survivor.
pub const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// Time between SIGTERM and SIGKILL where the request is gone and its own value unknown.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// How many survivors are named.
const NAMED: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    Canceled,
    DeadlineExceeded,
    Deleted,
    /// The client with the input disconnected, and the request says that this ends the command.
    Disconnected,
    /// Somebody else finished the status while the command ran.
    GivenUp,
}

impl Cause {
    pub const fn reason(self) -> Reason {
        match self {
            Self::Canceled | Self::Disconnected => Reason::Canceled,
            Self::DeadlineExceeded => Reason::DeadlineExceeded,
            Self::Deleted => Reason::Deleted,
            Self::GivenUp => Reason::NodeLost,
        }
    }

    pub const fn words(self) -> &'static str {
        match self {
            Self::Canceled => "the request was canceled",
            Self::DeadlineExceeded => "activeDeadlineSeconds passed",
            Self::Deleted => "the request was deleted",
            Self::Disconnected => "the client with the input disconnected (stdin.attach.onDisconnect=Cancel)",
            Self::GivenUp => "the request was given up as lost",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kill {
    pub cause: Cause,
    /// Time since boot.
    pub since: Duration,
    pub grace: Duration,
    /// The exec's process, if it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessRef>,
    /// Inodes of the pipes for its output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pipes: Vec<u64>,
    /// The outcome was reported although processes live on; they are killed for as long as they do.
    #[serde(default)]
    pub survivors: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Term,
    Kill,
}

#[derive(Clone, Debug)]
pub struct Course {
    since: Duration,
    grace: Duration,
    terminated: Vec<ProcessRef>,
    empty_looks: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Then look again.
    Signal(Signal, Vec<ProcessRef>),
    /// Nothing was found for the first time.
    LookAgain,
    /// Two looks in a row found nothing.
    Gone,
}

impl Kill {
    pub fn new(cause: Cause, since: Duration, grace: Duration) -> Self {
        Self { cause, since, grace, process: None, pipes: Vec::new(), survivors: false }
    }
}

impl Course {
    /// `grace` is the time between SIGTERM and SIGKILL.
    pub fn new(since: Duration, grace: Duration) -> Self {
        Self { since, grace, terminated: Vec::new(), empty_looks: 0 }
    }

    pub fn step(&mut self, living: &[Member], now: Duration) -> Step {
        if living.is_empty() {
            self.empty_looks += 1;
            return if self.empty_looks >= 2 { Step::Gone } else { Step::LookAgain };
        }
        self.empty_looks = 0;
        let all = living.iter().map(|member| member.process);
        if now.saturating_sub(self.since) >= self.grace {
            return Step::Signal(Signal::Kill, all.collect());
        }
        // Each gets SIGTERM once: also those that are only seen later.
        let new: Vec<ProcessRef> = all.filter(|process| !self.terminated.contains(process)).collect();
        self.terminated.extend(&new);
        Step::Signal(Signal::Term, new)
    }

    /// Whether processes have survived SIGKILL long enough to report them.
    pub fn is_vain(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= self.grace + KILL_PATIENCE
    }
}

pub fn name_survivors(living: &[Member]) -> String {
    let named: Vec<String> = living
        .iter()
        .take(NAMED)
        .map(|member| format!("{} (PID {} on the node, state {})", member.command, member.process.pid, member.state))
        .collect();
    let named = named.join(", ");
    match living.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(pid: u32) -> Member {
        Member { process: ProcessRef { pid, start_ticks: 1 }, command: "sleep".into(), state: 'D' }
    }

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn each_process_is_asked_once_and_killed_when_the_grace_period_is_over() {
        let mut course = Course::new(at(100), at(10));
        let process = |pid| member(pid).process;
        assert_eq!(course.step(&[member(1)], at(100)), Step::Signal(Signal::Term, vec![process(1)]));
        assert_eq!(
            course.step(&[member(1), member(2)], at(105)),
            Step::Signal(Signal::Term, vec![process(2)]),
            "a child that came later"
        );
        assert_eq!(
            course.step(&[member(1), member(2)], at(110)),
            Step::Signal(Signal::Kill, vec![process(1), process(2)])
        );
        assert!(!course.is_vain(at(119)));
        assert!(course.is_vain(at(120)));
    }

    #[test]
    fn one_empty_look_proves_nothing() {
        let mut course = Course::new(at(0), at(0));
        assert_eq!(course.step(&[], at(0)), Step::LookAgain);
        assert_eq!(course.step(&[member(1)], at(0)), Step::Signal(Signal::Kill, vec![member(1).process]));
        assert_eq!(course.step(&[], at(1)), Step::LookAgain);
        assert_eq!(course.step(&[], at(1)), Step::Gone);
    }

    #[test]
    fn survivors_are_named_but_not_without_end() {
        assert_eq!(name_survivors(&[member(7)]), "sleep (PID 7 on the node, state D)");
        let many: Vec<Member> = (0..8).map(member).collect();
        assert!(name_survivors(&many).ends_with("and 3 more"));
    }
}
