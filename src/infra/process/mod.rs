//! Processes of this node, as the kernel knows them.
//!
//! The agent runs in the node's PID namespace, so the engine's PIDs are valid here.

mod end;
mod exit;
mod family;
mod groups;
mod stat;

use std::{fs, io, time::Duration};

use rustix::time::{ClockId, clock_gettime};

pub use self::{
    end::ended,
    family::{began, family, leader, output_pipes, signal},
    stat::{alive, container_of, find, is_in, is_recognised, own_is_hidden, sighting},
};
use crate::core::ids::BootId;

pub fn boot_id() -> io::Result<BootId> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().into())
}

pub fn uptime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, Write as _},
        process::{Command, Stdio},
    };

    use rustix::process::{Pid, Signal, kill_process};

    use super::stat::proc_path;
    use super::*;
    use crate::core::{execution::Sighting, ids::ProcessRef};

    #[test]
    fn this_process_lives_and_one_with_another_start_time_does_not() {
        let me = find(std::process::id()).expect("this process");
        assert!(alive(me));
        assert!(!alive(ProcessRef { start_ticks: me.start_ticks + 1, ..me }));
    }

    #[test]
    fn a_process_is_seen_to_have_executed_something_or_never_to_have() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell")
        };
        // It is its shell's copy, and waits as such; it has ended before that one takes note of it.
        let mut parent = shell("exec 3<&0; (read _ <&3; :) & echo $!; read _; wait");
        let mut line = String::new();
        std::io::BufReader::new(parent.stdout.take().expect("a pipe")).read_line(&mut line).expect("a PID");
        let copy = find(line.trim().parse().expect("a PID")).expect("a process");
        assert_eq!(sighting(find(parent.id()).expect("a process")), Sighting::Executed);
        assert_eq!(sighting(copy), Sighting::Unseen);
        assert_eq!(sighting(ProcessRef { start_ticks: copy.start_ticks + 1, ..copy }), Sighting::Unseen);
        // A parent that is stopped takes note of nothing.
        signal_to(parent.id(), Signal::STOP);
        signal_to(copy.pid, Signal::KILL);
        while alive(copy) {
            std::thread::yield_now();
        }
        assert_eq!(sighting(copy), Sighting::Never, "a zombie");
        signal_to(parent.id(), Signal::CONT);
        drop(parent.stdin.take());
        parent.wait().expect("reaped");
        assert_eq!(sighting(copy), Sighting::Unseen, "gone");
    }

    fn signal_to(pid: u32, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(pid).expect("a PID")).expect("a PID");
        kill_process(pid, signal).expect("signalled");
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

    /// Linux 6.1 has another error for it than for a PID that nobody has.
    #[tokio::test]
    async fn a_process_that_has_left_others_in_its_session_is_gone_like_any_other() {
        let mut leader = Command::new("setsid");
        leader.args(["sh", "-c", "sleep 60 & echo $!; read _"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut leader = leader.spawn().expect("a shell");
        let mut line = String::new();
        std::io::BufReader::new(leader.stdout.take().expect("a pipe")).read_line(&mut line).expect("a PID");
        let process = find(leader.id()).expect("a process");
        drop(leader.stdin.take());
        leader.wait().expect("reaped");
        assert_eq!(ended(process).await.expect("no error"), None);
        assert!(!signal(process, &"c".into(), crate::core::kill::Signal::Kill).expect("no error"));
        signal_to(line.trim().parse().expect("a PID"), Signal::KILL);
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
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(alive(process), "the other thread goes on");
        let wait = tokio::spawn(ended(process));
        tokio::time::sleep(Duration::from_millis(100)).await;
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
        assert!(
            !is_recognised(std::process::id(), &"0123456789abcdef".into()),
            "it is seen not to be its main process"
        );
        assert!(is_recognised(u32::MAX, &"0123456789abcdef".into()), "of a process that is gone nothing is said");
    }
}
