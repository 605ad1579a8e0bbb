//! What procfs says of one process.

use std::{fs, path::PathBuf};

use rustix::process::Pid;

use super::groups;
use crate::core::{
    execution::Sighting,
    ids::{ContainerId, ProcessRef},
};

/// Positions in `/proc/PID/stat`, counted from the field after the command's name.
const PARENT_FIELD: usize = 1;
const SESSION_FIELD: usize = 3;
const FLAGS_FIELD: usize = 6;
const THREADS_FIELD: usize = 17;
const START_TIME_FIELD: usize = 19;
/// `PF_FORKNOEXEC` of linux/sched.h: it is a copy of another process and has executed nothing since.
const NOTHING_EXECUTED: u32 = 0x40;

/// What `/proc/PID/stat` says of a process.
pub(super) struct Stat {
    pub(super) process: ProcessRef,
    pub(super) parent: u32,
    pub(super) session: u32,
    pub(super) state: char,
    pub(super) command: String,
    /// Whether it has executed anything since it was made.
    executed: bool,
    ended: bool,
}

impl Stat {
    /// Of one that may have ended.
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(proc_path(pid, "stat")).ok()?;
        // The command's name is in parentheses and may itself hold anything.
        let (head, tail) = stat.rsplit_once(')')?;
        let command = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        let state = fields.first()?.chars().next()?;
        let start_ticks = fields.get(START_TIME_FIELD)?.parse().ok()?;
        let parent = fields.get(PARENT_FIELD)?.parse().ok()?;
        let session = fields.get(SESSION_FIELD)?.parse().ok()?;
        let threads: u32 = fields.get(THREADS_FIELD)?.parse().ok()?;
        let executed = fields.get(FLAGS_FIELD)?.parse::<u32>().ok()? & NOTHING_EXECUTED == 0;
        // Its first thread may end before the others.
        let ended = matches!(state, 'X' | 'x') || state == 'Z' && threads <= 1;
        Some(Self { process: ProcessRef { pid, start_ticks }, parent, session, state, command, executed, ended })
    }
}

pub(super) fn stat(pid: u32) -> Option<Stat> {
    Stat::of(pid).filter(|stat| !stat.ended)
}

pub fn sighting(process: ProcessRef) -> Sighting {
    match Stat::of(process.pid).filter(|stat| stat.process == process) {
        Some(Stat { executed: true, .. }) => Sighting::Executed,
        Some(Stat { ended: true, .. }) => Sighting::Never,
        Some(_) | None => Sighting::Unseen,
    }
}

pub fn find(pid: u32) -> Option<ProcessRef> {
    stat(pid).map(|stat| stat.process)
}

pub fn alive(process: ProcessRef) -> bool {
    find(process.pid) == Some(process)
}

/// Whether the process lives, and in this container, or in one that was made in it.
pub fn is_in(pid: u32, container: &ContainerId) -> bool {
    find(pid).is_some() && groups::are_of(&groups_of(pid), container)
}

/// The container that a process is in, by the engine's ID in the name of its control group.
pub fn container_of(process: ProcessRef) -> Option<ContainerId> {
    let groups = groups_of(process.pid);
    groups::innermost(&groups).filter(|_| alive(process))
}

/// Whether it cannot be seen which container this program itself is in: it is in none, or in a cgroup namespace of its own.
pub fn own_is_hidden() -> bool {
    groups::innermost(&groups_of(std::process::id())).is_none()
}

/// Whether a container's processes can be told from others, as its main process shows. Of one that has ended nothing is said.
pub fn is_recognised(main: u32, container: &ContainerId) -> bool {
    find(main).is_none_or(|process| is_in(main, container) || !alive(process))
}

fn groups_of(pid: u32) -> String {
    fs::read_to_string(proc_path(pid, "cgroup")).unwrap_or_default()
}

/// How many PID namespaces a process is in, from ours on.
pub(super) fn depth(pid: u32) -> Option<usize> {
    let status = fs::read_to_string(proc_path(pid, "status")).ok()?;
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    Some(pids.split_ascii_whitespace().count())
}

pub(super) fn pid_of(process: ProcessRef) -> Option<Pid> {
    i32::try_from(process.pid).ok().and_then(Pid::from_raw)
}

pub(super) fn proc_path(pid: u32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}
