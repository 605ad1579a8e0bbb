//! What is known of an exec, and what that means.
//!
//! That the engine shows no process of one proves nothing: a start may be on its way, or may have run something of which the
//! engine has lost sight. What proves that nothing has run is that nobody has ever tried to start it, or that all that a
//! start leaves behind is missing.

use std::{fs, time::Duration};

use tokio::time::{sleep, timeout};

use super::{
    calls::Calls,
    folder::Folder,
    messages::{Moment, Process, Status},
    pid_file::{self, PidFile},
};
use crate::{
    api::names::UID_ENV,
    core::{
        ids::{ExecName, ExecRef},
        outcome::{EngineWord, Testimony},
    },
    engine::{EngineError, ExecState},
};

/// A wait that can be answered is answered within this.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_millis(500);
/// What the processes of the runtime call themselves, before they become the command's.
const RUNTIME: &str = "runc:[";
/// The runtime is at work for others, too: each time for a moment.
const LOOKS: u32 = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// Of an exec of which the engine shows no process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Whether who waits for it gets an answer, as after a runtime that failed.
    pub answers: bool,
    pub pid_file: PidFile,
    pub traces: bool,
}

impl Evidence {
    pub const fn judge(self) -> ExecState {
        match self {
            Self { answers: false, pid_file: PidFile::Missing, traces: false } => ExecState::Untouched,
            Self { .. } => ExecState::Spent,
        }
    }
}

/// What the engine says of an exec, by itself: `None` if it shows no process.
pub(super) fn shown(calls: &Calls, process: &Process) -> Result<Option<ExecState>, EngineError> {
    let pid = Some(process.pid).filter(|pid| *pid > 0);
    if process.status() == Status::Unknown {
        return Err(calls.unreachable("get process", &std::io::Error::other("the shim does not answer")));
    }
    if process.exited_at.is_some_and(Moment::has_come) {
        let code = i32::try_from(process.exit_status).unwrap_or(i32::MAX);
        let word = EngineWord { testimony: Testimony { code, certain: true }, ran: true };
        return Ok(Some(ExecState::Ended { word, pid }));
    }
    Ok(pid.map(|pid| ExecState::Running { pid: Some(pid) }))
}

/// While it is being started nothing is told of it: that is an error, for as long as it takes.
pub(super) async fn state(calls: &Calls, folder: &Folder, exec: &ExecRef) -> Result<ExecState, EngineError> {
    let (container, id) = (exec.container.id.as_str(), exec.id.as_str());
    // A start that is on its way fails for want of a reader, after it has run the command.
    let _readers = folder.hold_outputs();
    let Some(process) = calls.process(container, id).await? else {
        let of_container = calls.process(container, "").await?;
        // Whoever has taken it away was not us, and has not said whether it had run.
        let spent = of_container.is_some() && folder.may_have_been_started();
        return Ok(if spent { ExecState::Spent } else { ExecState::Absent });
    };
    if let Some(state) = shown(calls, &process)? {
        return Ok(state);
    }
    if folder.was_never_started() {
        return Ok(ExecState::Untouched);
    }
    let evidence = gather(calls, exec).await?;
    // It may have been on its way.
    match calls.process(container, id).await? {
        Some(process) => Ok(shown(calls, &process)?.unwrap_or_else(|| evidence.judge())),
        None => Ok(ExecState::Spent),
    }
}

async fn gather(calls: &Calls, exec: &ExecRef) -> Result<Evidence, EngineError> {
    let (container, id) = (exec.container.id.as_str(), exec.id.as_str());
    let answers = match timeout(ANSWERS_WITHIN, calls.wait(container, id)).await {
        Ok(answer) => answer.map(|_| true)?,
        Err(_) => false,
    };
    let traces = has_traces(calls, exec).await?;
    let pid_file = pid_file::look(calls.socket().parent(), exec);
    Ok(Evidence { answers, pid_file, traces })
}

/// Whether anything in the container may be of this exec.
async fn has_traces(calls: &Calls, exec: &ExecRef) -> Result<bool, EngineError> {
    let Some(name) = ExecName::of(&exec.id) else { return Ok(true) };
    let tag = format!("{UID_ENV}={}", name.request);
    for look in 0..LOOKS {
        let pids = calls.pids(exec.container.id.as_str()).await?;
        if pids.iter().any(|pid| is_tagged(*pid, &tag)) {
            return Ok(true);
        }
        if !pids.iter().any(|pid| is_of_runtime(*pid)) {
            return Ok(false);
        }
        if look + 1 < LOOKS {
            sleep(BETWEEN_LOOKS).await;
        }
    }
    Ok(true)
}

fn is_tagged(pid: u32, tag: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == tag.as_bytes())
}

fn is_of_runtime(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with(RUNTIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exec_has_surely_not_run_only_if_all_that_a_start_leaves_behind_is_missing() {
        let untouched = Evidence { answers: false, pid_file: PidFile::Missing, traces: false };
        assert_eq!(untouched.judge(), ExecState::Untouched);
        for spent in [
            // A failed start: the runtime may have been killed after it had started the command.
            Evidence { answers: true, ..untouched },
            // The command ran, and the shim could not open its output: a wait still blocks.
            Evidence { pid_file: PidFile::There, ..untouched },
            Evidence { pid_file: PidFile::Unseen, ..untouched },
            Evidence { traces: true, ..untouched },
        ] {
            assert_eq!(spent.judge(), ExecState::Spent, "{spent:?}");
        }
    }

    #[test]
    fn what_runs_and_what_has_ended_is_told_by_pid_and_moment_alone() {
        let calls = Calls::new("/s");
        let never = Some(Moment { seconds: -62_135_596_800, nanos: 0 });
        let ended = Some(Moment { seconds: 9, nanos: 0 });
        let process = |status: Status, pid, exit_status, exited_at| Process {
            pid,
            status: status.into(),
            exit_status,
            exited_at,
        };
        let code = |code, pid| {
            let word = EngineWord { testimony: Testimony { code, certain: true }, ran: true };
            Some(ExecState::Ended { word, pid })
        };
        let running = Some(ExecState::Running { pid: Some(7) });
        for (found, expected) in [
            (process(Status::Created, 0, 0, never), None),
            (process(Status::Running, 7, 0, never), running),
            (process(Status::Stopped, 7, 137, ended), code(137, Some(7))),
            (process(Status::Stopped, 0, 0, ended), code(0, None)),
            // A failed start: no end, whatever its status.
            (process(Status::Stopped, 0, 0, never), None),
            // The container is paused.
            (process(Status::Paused, 0, 0, never), None),
            (process(Status::Paused, 7, 0, None), running),
            (process(Status::Paused, 7, 3, ended), code(3, Some(7))),
        ] {
            assert_eq!(shown(&calls, &found).expect("an answer"), expected, "{found:?}");
        }
        assert!(shown(&calls, &process(Status::Unknown, 7, 0, ended)).is_err());
    }

    #[test]
    fn a_process_with_the_tag_is_a_trace() {
        let mut child = std::process::Command::new("sleep").arg("60").env("EXECLET_UID", "u").spawn().expect("sleep");
        // The kernel shows it a moment after it has executed the program.
        let until = std::time::Instant::now() + Duration::from_secs(30);
        while !is_tagged(child.id(), "EXECLET_UID=u") {
            assert!(std::time::Instant::now() < until, "it has no such variable");
            std::thread::yield_now();
        }
        assert!(!is_tagged(child.id(), "EXECLET_UID="));
        assert!(!is_of_runtime(child.id()));
        child.kill().expect("killed");
        child.wait().expect("reaped");
        assert!(!is_tagged(child.id(), "EXECLET_UID=u"));
    }
}
