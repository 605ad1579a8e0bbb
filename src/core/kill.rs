//! Ending a command that runs: why, since when, and what follows next.
//!
//! The processes are found and signalled elsewhere. Here is which signal is due.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{family::Member, ids::ProcessRef};
use crate::api::Reason;

/// How long after SIGKILL a process may live before it is said to survive.
pub const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// Time between SIGTERM and SIGKILL where the request is gone and cannot say.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// Most survivors that are named.
const NAMED: usize = 5;

/// Why a command is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// `spec.cancel`.
    Canceled,
    /// `spec.activeDeadlineSeconds`.
    DeadlineExceeded,
    /// The request was deleted.
    Deleted,
    /// The client that held the input went away, and the request says that the command ends with it.
    Disconnected,
    /// The status was finished by somebody else, while the command ran.
    GivenUp,
}

impl Cause {
    /// The reason of a request whose command was ended so.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Canceled | Self::Disconnected => Reason::Canceled,
            Self::DeadlineExceeded => Reason::DeadlineExceeded,
            Self::Deleted => Reason::Deleted,
            Self::GivenUp => Reason::NodeLost,
        }
    }

    /// Why, for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Canceled => "the request was canceled",
            Self::DeadlineExceeded => "activeDeadlineSeconds passed",
            Self::Deleted => "the request was deleted",
            Self::Disconnected => "the client that held the input went away (stdin.attach.onDisconnect=Cancel)",
            Self::GivenUp => "the request was given up as lost",
        }
    }
}

/// A killing that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kill {
    /// Why.
    pub cause: Cause,
    /// Since when, as time since boot.
    pub since: Duration,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// The process of the exec, as far as it was known in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessRef>,
    /// Inodes of the pipes that it wrote to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pipes: Vec<u64>,
    /// Whether it was given up as an outcome: processes live on, and are killed for as long as they do.
    #[serde(default)]
    pub survivors: bool,
}

/// A signal that ends processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: a request.
    Term,
    /// SIGKILL: no choice.
    Kill,
}

/// The course of one killing, from look to look.
#[derive(Clone, Debug)]
pub struct Course {
    since: Duration,
    grace: Duration,
    asked: Vec<ProcessRef>,
    empty_looks: u32,
}

/// What a look at the living processes leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Signal these, then look again.
    Signal(Signal, Vec<ProcessRef>),
    /// Nothing was found, once: look again.
    LookAgain,
    /// Two looks in a row found nothing: all are gone.
    Gone,
}

impl Kill {
    /// Begins now.
    pub fn new(cause: Cause, since: Duration, grace: Duration) -> Self {
        Self { cause, since, grace, process: None, pipes: Vec::new(), survivors: false }
    }
}

impl Course {
    /// Begun at `since`, with so much time between SIGTERM and SIGKILL.
    pub fn new(since: Duration, grace: Duration) -> Self {
        Self { since, grace, asked: Vec::new(), empty_looks: 0 }
    }

    /// What is due, given the processes that live now.
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
        // Each is asked once; those that come later are asked when they are seen.
        let new: Vec<ProcessRef> = all.filter(|process| !self.asked.contains(process)).collect();
        self.asked.extend(&new);
        Step::Signal(Signal::Term, new)
    }

    /// Whether everything that can be done was done in vain, for long enough to say so.
    pub fn is_vain(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= self.grace + KILL_PATIENCE
    }
}

/// Names the processes that cannot be killed.
pub fn name_survivors(living: &[Member]) -> String {
    let named: Vec<String> = living
        .iter()
        .take(NAMED)
        .map(|member| format!("{} (PID {} on the node, state {})", member.command, member.process.pid, member.state))
        .collect();
    let more = living.len().saturating_sub(NAMED);
    match more {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
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
