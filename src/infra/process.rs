//! Processes of this node, as the kernel knows them.
//!
//! The agent runs in the node's PID namespace, so the engine's PIDs are valid here.

use std::{fs, io, path::PathBuf};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::{Interest, unix::AsyncFd};

use crate::core::ids::{BootId, ContainerId, ProcessRef};

/// Position of the start time in `/proc/PID/stat`, counted from the field after the command's name.
const START_TIME_FIELD: usize = 19;

/// The kernel's ID of this boot.
///
/// # Errors
/// When procfs is not there.
pub fn boot_id() -> io::Result<BootId> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().into())
}

/// The process that has this PID now, unless it has ended.
#[must_use]
pub fn find(pid: u32) -> Option<ProcessRef> {
    let stat = fs::read_to_string(proc_path(pid, "stat")).ok()?;
    // The command's name is in parentheses and may itself hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X" | "x");
    let start_ticks = fields.nth(START_TIME_FIELD - 1)?.parse().ok()?;
    (!ended).then_some(ProcessRef { pid, start_ticks })
}

/// Whether this very process still lives.
#[must_use]
pub fn alive(process: ProcessRef) -> bool {
    find(process.pid) == Some(process)
}

/// Whether the process lives, and in this container: its control group has the container's ID in its path.
#[must_use]
pub fn is_in(pid: u32, container: &ContainerId) -> bool {
    let id = container.as_str();
    let groups = || fs::read_to_string(proc_path(pid, "cgroup")).unwrap_or_default();
    !id.is_empty() && find(pid).is_some() && groups().contains(id)
}

/// Waits until this very process has ended.
///
/// # Errors
/// When the kernel gives no handle on a process that lives.
pub async fn ended(process: ProcessRef) -> io::Result<()> {
    let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let handle = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    // Between the two look-ups the PID may have passed to another process.
    if !alive(process) {
        return Ok(());
    }
    #[expect(
        deprecated,
        reason = "an OwnedFd keeps its one descriptor, which is all that the unsafe successor asks for"
    )]
    let handle = AsyncFd::with_interest(handle, Interest::READABLE)?;
    handle.readable().await.map(|_| ())
}

fn proc_path(pid: u32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn this_process_lives_and_one_with_another_start_time_does_not() {
        let me = find(std::process::id()).expect("this process");
        assert!(alive(me));
        assert!(!alive(ProcessRef { start_ticks: me.start_ticks + 1, ..me }));
    }

    #[tokio::test]
    async fn the_end_of_a_process_that_is_not_awaited_by_its_parent_is_seen() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat");
        let process = find(child.id()).expect("a process");
        let wait = tokio::spawn(ended(process));
        assert!(alive(process));
        drop(child.stdin.take());
        wait.await.expect("a task").expect("a pidfd");
        assert!(!alive(process), "a zombie has ended");
        child.wait().expect("reaped");
        ended(process).await.expect("already gone");
    }

    #[test]
    fn this_process_is_in_no_container_of_another_name() {
        assert!(!is_in(std::process::id(), &"0123456789abcdef".into()));
        assert!(!is_in(std::process::id(), &"".into()), "no ID is not every ID");
    }
}
