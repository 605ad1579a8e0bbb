//! Which processes belong to one exec.
//!
//! There are three marks, because each can be lost: a child that calls `setsid`
//! leaves the session, a cleared environment loses the tag, redirected output the
//! pipe. A process that loses all three is not found: `docs/engines.md`.

use std::time::Duration;

use super::ids::{ProcessRef, RequestUid};

/// Clock ticks a second in which the kernel counts a process's start, on every architecture.
const TICKS: u64 = 100;

/// A time since boot, as the kernel counts the start of a process.
pub fn ticks(at: Duration) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX) * TICKS / 1000
}

/// The same time, of such a count.
pub fn since_boot(ticks: u64) -> Duration {
    Duration::from_millis(ticks.saturating_mul(1000 / TICKS))
}

/// The marks of an exec's processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// Of its request: the tag in the environment. `None`: the tag does not matter.
    pub uid: Option<RequestUid>,
    /// The process that the engine started; it leads a session of its own.
    pub leader: Option<ProcessRef>,
    /// Inodes of the pipes for its output.
    pub pipes: Vec<u64>,
    /// No process of it is older, in the kernel's clock ticks since boot.
    pub since_ticks: u64,
}

/// What can be seen of a process in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub process: ProcessRef,
    /// PID of the session's leader.
    pub session: u32,
    /// The tag in its initial environment, if there is one and it can be read.
    pub tag: Option<RequestUid>,
    /// Inodes of all pipes that it has open.
    pub pipes: Vec<u64>,
}

/// A living process of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub process: ProcessRef,
    pub command: String,
    /// The kernel's letter for its state.
    pub state: char,
}

impl Family {
    /// Drops the pipes that older processes of the container hold: they were not made for this exec,
    /// which may write into another's, such as `/proc/1/fd/1`.
    #[must_use]
    pub fn without_pipes_of(mut self, older: impl IntoIterator<Item = u64>) -> Self {
        for pipe in older {
            self.pipes.retain(|own| *own != pipe);
        }
        self
    }

    pub fn claims(&self, facts: &Facts) -> bool {
        // The leader may have ended and another exec's process have taken its PID.
        let tagged = facts.tag.as_ref().zip(self.uid.as_ref()).map(|(tag, uid)| tag == uid);
        facts.process.start_ticks >= self.since_ticks
            && (self.leader.is_some_and(|leader| facts.session == leader.pid && tagged != Some(false))
                || tagged == Some(true)
                || facts.pipes.iter().any(|pipe| self.pipes.contains(pipe)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_of_the_three_marks_is_enough_but_nothing_older_is_claimed() {
        let family = Family {
            uid: Some("u".into()),
            leader: Some(ProcessRef { pid: 7, start_ticks: 100 }),
            pipes: vec![11, 12],
            since_ticks: 100,
        };
        let rows = [
            ("the leader itself", 7, 100, 7, None, vec![], true),
            ("a child in the session", 8, 101, 7, None, vec![], true),
            ("a setsid child with the tag", 8, 101, 8, Some("u"), vec![], true),
            ("env -i setsid that holds the output", 8, 101, 8, None, vec![3, 12], true),
            ("the container's own process", 1, 50, 1, None, vec![], false),
            ("a process of another exec", 8, 101, 8, Some("other"), vec![13], false),
            (
                "another exec's process with the PID of the leader that has ended",
                7,
                150,
                7,
                Some("other"),
                vec![],
                false,
            ),
            ("an older session of the same PID", 7, 99, 7, None, vec![], false),
            ("an older process with the tag", 8, 99, 8, Some("u"), vec![], false),
            ("env -i setsid with an output of its own", 8, 101, 8, None, vec![3], false),
        ];
        for (name, pid, start_ticks, session, tag, pipes, expected) in rows {
            let process = ProcessRef { pid, start_ticks };
            let facts = Facts { process, session, tag: tag.map(RequestUid::from), pipes };
            assert_eq!(family.claims(&facts), expected, "{name}");
        }
    }

    #[test]
    fn a_pipe_that_is_older_than_the_exec_is_no_mark() {
        let family = Family { uid: Some("u".into()), leader: None, pipes: vec![11, 12], since_ticks: 100 };
        let family = family.without_pipes_of([3, 12]);
        let worker = |pipes| Facts { process: ProcessRef { pid: 9, start_ticks: 200 }, session: 1, tag: None, pipes };
        assert!(!family.claims(&worker(vec![12])), "a worker that the container's own process has started");
        assert!(family.claims(&worker(vec![11])));
    }

    #[test]
    fn nothing_is_claimed_by_marks_that_are_not_known() {
        let family = Family { uid: None, leader: None, pipes: vec![], since_ticks: 0 };
        let process = ProcessRef { pid: 1, start_ticks: 1 };
        assert!(!family.claims(&Facts { process, session: 0, tag: None, pipes: vec![1] }));
    }
}
