//! Processes of this node, as the kernel knows them.
//!
//! The agent runs in the node's PID namespace, so the engine's PIDs are valid here.

mod exit;
mod family;

use std::{fs, io, path::PathBuf, time::Duration};

use rustix::{
    process::{Pid, PidfdFlags, pidfd_open},
    time::{ClockId, clock_gettime},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep},
};

use self::exit::Told;
pub use self::family::{family, leader, output_pipes, signal};
use crate::core::ids::{BootId, ContainerId, ProcessRef};

/// Positions in `/proc/PID/stat`, counted from the field after the command's name.
const SESSION_FIELD: usize = 3;
const THREADS_FIELD: usize = 17;
const START_TIME_FIELD: usize = 19;
/// Characters of the engine's ID of a container.
const CONTAINER_ID: usize = 64;
/// A process has ended before its parent has taken note of it, and only then its code is told.
const PARENT_PATIENCE: Duration = Duration::from_secs(1);
/// First pause before the code is asked for again; doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// The kernel's ID of this boot.
///
/// # Errors
/// When procfs is not there.
pub fn boot_id() -> io::Result<BootId> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().into())
}

/// Time since boot, suspend included.
pub fn uptime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// What `/proc/PID/stat` says of a process that has not ended.
struct Stat {
    process: ProcessRef,
    session: u32,
    state: char,
    command: String,
}

fn stat(pid: u32) -> Option<Stat> {
    let stat = fs::read_to_string(proc_path(pid, "stat")).ok()?;
    // The command's name is in parentheses and may itself hold anything.
    let (head, tail) = stat.rsplit_once(')')?;
    let command = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    let state = fields.first()?.chars().next()?;
    let start_ticks = fields.get(START_TIME_FIELD)?.parse().ok()?;
    let session = fields.get(SESSION_FIELD)?.parse().ok()?;
    let threads: u32 = fields.get(THREADS_FIELD)?.parse().ok()?;
    // Its first thread may end before the others.
    let ended = matches!(state, 'X' | 'x') || state == 'Z' && threads <= 1;
    (!ended).then_some(Stat { process: ProcessRef { pid, start_ticks }, session, state, command })
}

/// The process that has this PID now, unless it has ended.
pub fn find(pid: u32) -> Option<ProcessRef> {
    stat(pid).map(|stat| stat.process)
}

/// Whether this very process still lives.
pub fn alive(process: ProcessRef) -> bool {
    find(process.pid) == Some(process)
}

/// Whether the process lives, and in this container: its control group has the container's ID in its path.
pub fn is_in(pid: u32, container: &ContainerId) -> bool {
    let id = container.as_str();
    let groups = || fs::read_to_string(proc_path(pid, "cgroup")).unwrap_or_default();
    !id.is_empty() && find(pid).is_some() && groups().contains(id)
}

/// The container that a process is in, by the engine's ID in the path of its control group.
pub fn container_of(process: ProcessRef) -> Option<ContainerId> {
    let groups = fs::read_to_string(proc_path(process.pid, "cgroup")).ok().filter(|_| alive(process))?;
    let id = groups.split(|c: char| !c.is_ascii_hexdigit()).find(|word| word.len() == CONTAINER_ID)?;
    Some(id.into())
}

/// Waits until this very process has ended. Gives its exit code, 128 + N for signal N, if the
/// kernel tells: Linux 6.15 and later do, of a process that still lived when this was called.
///
/// # Errors
/// When the kernel gives no handle on a process that lives.
pub async fn ended(process: ProcessRef) -> io::Result<Option<i32>> {
    let Some(pid) = pid_of(process) else { return Ok(None) };
    let handle = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Between the two look-ups the PID may have passed to another process.
    if !alive(process) {
        return Ok(None);
    }
    #[expect(
        deprecated,
        reason = "an OwnedFd keeps its one descriptor, which is all that the unsafe successor asks for"
    )]
    let handle = AsyncFd::with_interest(handle, Interest::READABLE)?;
    handle.readable().await?.retain_ready();
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match exit::ask(handle.get_ref()) {
            Told::Code(code) => return Ok(Some(code)),
            Told::NotYet if begun.elapsed() < PARENT_PATIENCE => {}
            Told::NotYet | Told::Never => return Ok(None),
        }
        sleep(pause).await;
        pause *= 2;
    }
}

fn pid_of(process: ProcessRef) -> Option<Pid> {
    i32::try_from(process.pid).ok().and_then(Pid::from_raw)
}

fn proc_path(pid: u32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

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

    /// Whether this kernel keeps the exit code: Linux 6.15 and later do.
    fn tells() -> bool {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
        (numbers.next(), numbers.next()) >= (Some(6), Some(15))
    }

    #[tokio::test]
    async fn the_kernel_tells_the_exit_code_of_a_process() {
        for (script, code) in [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -TERM $$", 143)] {
            let script = format!("read _; {script}");
            let mut child = Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().expect("a shell");
            let process = find(child.id()).expect("a process");
            let wait = tokio::spawn(ended(process));
            tokio::task::yield_now().await;
            drop(child.stdin.take());
            let reaped = tokio::task::spawn_blocking(move || child.wait());
            let told = wait.await.expect("a task").expect("a pidfd");
            reaped.await.expect("a task").expect("reaped");
            assert_eq!(told, tells().then_some(code), "{script}");
        }
    }

    /// Its first thread ends at once, the other one with code 3 when its input does.
    const HEADLESS: &str = "
        #include <pthread.h>
        #include <stdlib.h>
        #include <unistd.h>
        static void *rest(void *none) { char byte; while (read(0, &byte, 1) > 0); exit(3); }
        int main(void) { pthread_t it; pthread_create(&it, 0, rest, 0); pthread_exit(0); }";

    #[tokio::test]
    async fn a_process_whose_first_thread_has_ended_lives_until_the_others_have() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("headless");
        // The linker of Rust programs.
        let mut cc = Command::new("cc");
        cc.args(["-pthread", "-x", "c", "-", "-o"]).arg(&program).stdin(Stdio::piped());
        let mut cc = cc.spawn().expect("a C compiler");
        cc.stdin.take().expect("its input").write_all(HEADLESS.as_bytes()).expect("written");
        assert!(cc.wait().expect("ended").success());

        let mut child = Command::new(program).stdin(Stdio::piped()).spawn().expect("the program");
        let process = find(child.id()).expect("a process");
        let headless = || fs::read_to_string(proc_path(child.id(), "stat")).is_ok_and(|stat| stat.contains(") Z "));
        while !headless() {
            sleep(FIRST_PAUSE).await;
        }
        assert!(alive(process), "the other thread goes on");
        let wait = tokio::spawn(ended(process));
        sleep(Duration::from_millis(100)).await;
        assert!(!wait.is_finished(), "nor has it ended for whoever waits");
        drop(child.stdin.take());
        let reaped = tokio::task::spawn_blocking(move || child.wait());
        let told = wait.await.expect("a task").expect("a pidfd");
        assert_eq!(reaped.await.expect("a task").expect("reaped").code(), Some(3));
        assert_eq!(told, tells().then_some(3), "not that of the first thread");
    }

    #[test]
    fn this_process_is_in_no_container_of_another_name() {
        assert!(!is_in(std::process::id(), &"0123456789abcdef".into()));
        assert!(!is_in(std::process::id(), &"".into()), "no ID is not every ID");
    }
}
