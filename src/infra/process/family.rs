//! Finding and signalling the processes of one exec.

use std::{fs, io};

use rustix::process::{PidfdFlags, Signal as LinuxSignal, pidfd_send_signal};

use super::{
    end::handle,
    stat::{Stat, alive, depth, find, is_in, proc_path, stat},
};
use crate::{
    api::names::UID_ENV,
    core::{
        family::{Facts, Family, Member},
        ids::{ContainerId, ProcessRef, RequestUid},
        kill::Signal,
    },
};

/// Inodes of the pipes at descriptors 1 and 2; none for a terminal, or where it may not be read.
pub fn output_pipes(process: ProcessRef) -> Vec<u64> {
    let pipes = [1, 2].iter().filter_map(|fd| pipe(&fs::read_link(proc_path(process.pid, &format!("fd/{fd}"))).ok()?));
    let mut pipes: Vec<u64> = pipes.collect();
    pipes.dedup();
    if alive(process) { pipes } else { Vec::new() }
}

/// All living processes of a family, in one look at procfs. A process that goes away meanwhile is
/// passed over; of one that may not be read wholly, what can be read counts.
pub fn family(of: &Family, container: &ContainerId) -> io::Result<Vec<Member>> {
    // The kernel gives nobody a PID that is still a session's: if another process has the leader's, its session is gone.
    let taken = of.leader.is_some_and(|leader| find(leader.pid).is_some_and(|now| now != leader));
    let of = Family { leader: of.leader.filter(|_| !taken), ..of.clone() };
    let mut own = Vec::new();
    let mut pipes_of_older = Vec::new();
    for found in processes()? {
        let pid = found.process.pid;
        let older = found.process.start_ticks < of.since_ticks;
        if older && of.pipes.is_empty() || !is_in(pid, container) {
            continue;
        }
        if older {
            pipes_of_older.extend(pipes(pid, &of));
        } else {
            own.push(found);
        }
    }
    let of = of.without_pipes_of(pipes_of_older);
    let members = own.into_iter().filter_map(|Stat { process, session, state, command, .. }| {
        let facts = Facts { process, session, tag: tag(process.pid), pipes: pipes(process.pid, &of) };
        of.claims(&facts).then_some(Member { process, command, state })
    });
    Ok(members.collect())
}

/// The living process that an exec of this request began with, by its tag alone. `None` too where it cannot be told from
/// what it has started.
pub fn began(container: &ContainerId, uid: &RequestUid) -> io::Result<Option<ProcessRef>> {
    let mut found = processes()?.filter(|found| {
        let pid = found.process.pid;
        found.session == pid
            && is_in(pid, container)
            && tag(pid).as_ref() == Some(uid)
            && came_from_outside(found, container)
            && alive(found.process)
    });
    let first = found.next().map(|found| found.process);
    Ok(first.filter(|_| found.next().is_none()))
}

/// Whether it was put into the container: its parent is in another one or none, and in fewer PID namespaces. A child of
/// the container whose own parent has ended is given to another process of its namespace, which is the container's
/// unless that shares the node's: there such a child looks the same.
fn came_from_outside(found: &Stat, container: &ContainerId) -> bool {
    !is_in(found.parent, container)
        && depth(found.parent).zip(depth(found.process.pid)).is_some_and(|(out, own)| out < own)
}

/// All processes that have not ended.
fn processes() -> io::Result<impl Iterator<Item = Stat>> {
    let names = fs::read_dir("/proc")?.collect::<io::Result<Vec<_>>>()?.into_iter().map(|entry| entry.file_name());
    Ok(names.filter_map(|name| stat(name.to_str()?.parse().ok()?)))
}

/// Signals that very process. `false`: it is gone, or another has its PID, or it is not in this
/// container, and nothing was signalled.
pub fn signal(process: ProcessRef, container: &ContainerId, signal: Signal) -> io::Result<bool> {
    let Some(handle) = handle(process, PidfdFlags::empty())? else { return Ok(false) };
    // The handle stands for whoever had the PID when it was opened: looked at now, after that.
    if !alive(process) || !is_in(process.pid, container) {
        return Ok(false);
    }
    let signal = match signal {
        Signal::Term => LinuxSignal::TERM,
        Signal::Kill => LinuxSignal::KILL,
    };
    match pidfd_send_signal(handle, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub fn leader(pid: u32, container: &ContainerId, uid: &RequestUid) -> Option<ProcessRef> {
    find(pid).filter(|process| is_in(pid, container) && leads(*process, uid))
}

/// Whether it leads its session, and has no tag but this request's.
fn leads(process: ProcessRef, uid: &RequestUid) -> bool {
    let leads = stat(process.pid).is_some_and(|stat| stat.process == process && stat.session == process.pid);
    leads && tag(process.pid).is_none_or(|tag| tag == *uid)
}

fn tag(pid: u32) -> Option<RequestUid> {
    let environment = fs::read(proc_path(pid, "environ")).ok()?;
    let of = |variable: &[u8]| {
        let value = variable.strip_prefix(UID_ENV.as_bytes())?.strip_prefix(b"=")?;
        Some(RequestUid::from(String::from_utf8_lossy(value).into_owned()))
    };
    environment.split(|byte| *byte == 0).find_map(of)
}

/// Inodes of all pipes that a process has open, if any matters.
fn pipes(pid: u32, of: &Family) -> Vec<u64> {
    if of.pipes.is_empty() {
        return Vec::new();
    }
    let descriptors = fs::read_dir(proc_path(pid, "fd")).into_iter().flatten().flatten();
    descriptors.filter_map(|descriptor| pipe(&fs::read_link(descriptor.path()).ok()?)).collect()
}

/// The inode in a link such as `pipe:[1234]`.
fn pipe(link: &std::path::Path) -> Option<u64> {
    link.to_str()?.strip_prefix("pipe:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Command, Stdio},
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn the_pipes_of_a_process_are_those_that_it_writes_to() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cat");
        let process = find(child.id()).expect("a process");
        let found = output_pipes(process);
        assert!(!found.is_empty(), "{found:?}");
        let family = Family { uid: None, leader: None, pipes: found.clone(), since_ticks: 0 };
        assert!(pipes(child.id(), &family).contains(&found[0]));
        drop(child.stdin.take());
        child.wait().expect("ended");
        assert_eq!(output_pipes(process), Vec::<u64>::new());
    }

    #[test]
    fn the_tag_is_read_from_the_environment() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).env(UID_ENV, "u-1").spawn().expect("cat");
        // A process that has just been started has no environment for a moment.
        let until = Instant::now() + Duration::from_secs(10);
        while tag(child.id()).is_none() && Instant::now() < until {
            std::thread::yield_now();
        }
        assert_eq!(tag(child.id()), Some("u-1".into()));
        assert_eq!(tag(std::process::id()), None);
        drop(child.stdin.take());
        child.wait().expect("ended");
    }

    #[test]
    fn an_exec_began_with_none_that_leads_no_session_or_is_tagged_as_of_another_request() {
        for (program, tag_of, own) in [
            ("setsid", Some("u-1"), true),
            ("setsid", None, true),
            ("setsid", Some("u-2"), false),
            ("env", Some("u-1"), false),
        ] {
            let mut command = Command::new(program);
            command.arg("cat").stdin(Stdio::piped()).env_remove(UID_ENV);
            let mut child = command.envs(tag_of.map(|uid| (UID_ENV, uid))).spawn().expect("cat");
            let until = Instant::now() + Duration::from_secs(10);
            // Its name is there before its environment is.
            let is_there =
                |pid| stat(pid).is_some_and(|stat| stat.command == "cat") && tag(pid).is_some() == tag_of.is_some();
            while !is_there(child.id()) && Instant::now() < until {
                std::thread::yield_now();
            }
            let process = find(child.id()).expect("a process");
            assert_eq!(leads(process, &"u-1".into()), own, "{program} {tag_of:?}");
            let later = ProcessRef { start_ticks: process.start_ticks + 1, ..process };
            assert!(!leads(later, &"u-1".into()), "another start time");
            drop(child.stdin.take());
            child.wait().expect("ended");
        }
    }

    #[test]
    fn no_stranger_is_signalled() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat");
        let process = find(child.id()).expect("a process");
        let later = ProcessRef { start_ticks: process.start_ticks + 1, ..process };
        assert!(!signal(later, &"c".into(), Signal::Kill).expect("not forbidden"), "another start time");
        assert!(
            !signal(process, &"0123456789abcdef".into(), Signal::Kill).expect("not forbidden"),
            "another container"
        );
        assert!(alive(process));
        drop(child.stdin.take());
        child.wait().expect("ended");
    }
}
