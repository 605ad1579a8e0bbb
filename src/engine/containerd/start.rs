//! Start: the one call that starts an exec.
//!
//! A second start of an exec whose first one has failed ends the whole pod, and one that seems to have failed may have run
//! the command: so there is one in the life of an exec, whatever it answers. It takes a [`Claim`], which nobody gets twice.

use std::{fs, io, path::Path, sync::Arc};

use tonic::{Code, Status};

use super::{
    calls::{Calls, is_answer},
    connection::Channel,
    containers,
    custody::Custody,
    failure::has_failed,
    folder::{About, Claim, Folder},
    input::Input,
    messages::Process,
    output::pipe::{Pipe, leads_to},
};
use crate::{
    core::ids::ExecRef,
    engine::{ContainerState, EngineError, StartError},
    wire::OutputStream,
};

/// An exec that runs, with all that leads to it.
pub(super) struct Running {
    pub(super) pid: u32,
    pub(super) pipes: Vec<Pipe>,
    pub(super) input: Option<Arc<Input>>,
    /// Why nobody else has its output open, and the place of its input.
    pub(super) unheld: Option<String>,
}

pub(super) async fn start(
    calls: &Calls,
    custody: &Custody,
    folder: &Folder,
    exec: &ExecRef,
) -> Result<Running, StartError> {
    let spent = |why: &dyn std::fmt::Display| {
        StartError::Unclear(EngineError::Failed(format!("exec {} may have been started before: {why}", exec.id)))
    };
    let Some(about) = folder.about() else { return Err(spent(&"its folder is gone")) };
    if folder.may_have_been_started() {
        return Err(spent(&"its start was tried"));
    }
    let refused = |error: io::Error| {
        StartError::Refused(EngineError::Failed(format!("the output of exec {} could not be opened: {error}", exec.id)))
    };
    let (pipes, input) = open(calls, folder, exec, &about).map_err(refused)?;
    let process = calls.process(exec.container.id.as_str(), "").await.map_err(StartError::Refused)?;
    may_start(calls, process.as_ref(), folder, &pipes).map_err(StartError::Refused)?;
    let channel = calls.open().await.map_err(StartError::Refused)?;
    // Before there is anything to lose. Without it the command runs all the same.
    let ends = pipes.iter().filter_map(Pipe::end).chain(input.as_deref().map(Input::place));
    let unheld = custody.hold(ends).await.err();
    if let Some(input) = &input {
        input.set_held(unheld.is_none());
    }
    let claim = folder.claim().map_err(|error| spent(&error))?;
    let pid = spend(claim, calls, &channel, exec, &about).await?;
    Ok(Running { pid, pipes, input, unheld })
}

/// Whatever it answers, the exec's start is spent.
async fn spend(_: Claim, calls: &Calls, channel: &Channel, exec: &ExecRef, about: &About) -> Result<u32, StartError> {
    match calls.start(channel, exec.container.id.as_str(), exec.id.as_str()).await {
        Some(Ok(started)) => Ok(started.pid),
        Some(Err(status)) => Err(failed(calls, &status, about)),
        None => {
            let silent = io::Error::new(io::ErrorKind::TimedOut, "no answer came in time");
            Err(StartError::Unclear(calls.unreachable("start exec", &silent)))
        }
    }
}

/// Only the runtime's words about this very exec say that nothing ran. That there is none such, the engine may say of one
/// that runs.
fn failed(calls: &Calls, status: &Status, about: &About) -> StartError {
    if is_answer(status) && status.code() == Code::Unknown && has_failed(status.message(), about) {
        return StartError::Failed(status.message().to_owned());
    }
    StartError::Unclear(match calls.error("start exec", status) {
        EngineError::NoSuchExec(message) => EngineError::Failed(message),
        other => other,
    })
}

type Opened = (Vec<Pipe>, Option<Arc<Input>>);

fn open(calls: &Calls, folder: &Folder, exec: &ExecRef, about: &About) -> io::Result<Opened> {
    let mut pipes = vec![Pipe::open(folder, OutputStream::Stdout)?];
    if !about.tty {
        pipes.push(Pipe::open(folder, OutputStream::Stderr)?);
    }
    let input = if about.input { Some(Arc::new(Input::open(folder, exec, calls)?)) } else { None };
    Ok((pipes, input))
}

/// In a container that is paused a start fails for good. Where the shim does not find the FIFOs that are held here, the
/// command runs, and the start fails all the same.
fn may_start(calls: &Calls, process: Option<&Process>, folder: &Folder, pipes: &[Pipe]) -> Result<(), EngineError> {
    match (containers::state(calls, process)?, process) {
        (ContainerState::Running, Some(process)) => {
            let shim =
                parent(process.pid).ok_or_else(|| EngineError::ContainerNotRunning("its shim has gone".into()))?;
            for pipe in pipes {
                let path = folder.fifo(pipe.stream());
                let there = Path::new(&format!("/proc/{shim}/root")).join(path.strip_prefix("/").unwrap_or(&path));
                if !pipe.receiver().is_some_and(|receiver| leads_to(&there, receiver)) {
                    let path = path.display();
                    return Err(EngineError::Failed(format!(
                        "the engine's shim does not find {path} there: mount the folder from the node, at the same path"
                    )));
                }
            }
            Ok(())
        }
        (ContainerState::Paused, _) => Err(EngineError::ContainerNotRunning("the container is paused".to_owned())),
        (ContainerState::Running | ContainerState::Stopped(_), _) => {
            Err(EngineError::ContainerNotRunning("the container does not run".to_owned()))
        }
    }
}

/// That of a container's main process is its shim.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name, which may contain anything, is in parentheses.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::containerd::messages::{Moment, Status as MessageStatus};

    #[test]
    fn the_parent_of_a_process_is_found_whatever_it_is_called() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        assert_eq!(parent(child.id()), Some(std::process::id()));
        child.kill().expect("killed");
        child.wait().expect("reaped");
        assert_eq!(parent(child.id()), None);
    }

    #[tokio::test]
    async fn a_start_is_refused_that_would_fail_after_it_has_run_the_command() {
        let base = tempfile::tempdir().expect("a folder");
        let calls = Calls::new("/s");
        let about = About { program: "x".into(), working_dir: "/".into(), tty: false, input: false };
        let folder = |container: &str| {
            let container = crate::core::ids::ContainerRef { id: container.into(), started_at: None };
            let folder = Folder::of(base.path(), &ExecRef { id: "u.1".into(), container }).expect("names");
            folder.make(&about).expect("made");
            folder
        };
        let (held, other) = (folder("held"), folder("other"));
        let pipes =
            [OutputStream::Stdout, OutputStream::Stderr].map(|stream| Pipe::open(&held, stream).expect("opened"));
        // The parent of the main process is its shim: here it is this program.
        let mut main = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let process = |status: MessageStatus, seconds| Process {
            pid: main.id(),
            status: status.into(),
            exit_status: 0,
            exited_at: Some(Moment { seconds, nanos: 0 }),
        };
        let running = process(MessageStatus::Running, 0);
        let refused = |process: Option<&Process>, folder| may_start(&calls, process, folder, &pipes).is_err();
        assert!(!refused(Some(&running), &held));
        assert!(refused(Some(&running), &other), "the shim finds other FIFOs than those that are held");
        assert!(refused(Some(&process(MessageStatus::Paused, 0)), &held));
        assert!(refused(Some(&process(MessageStatus::Running, 9)), &held), "it has ended");
        assert!(refused(None, &held));
        main.kill().expect("killed");
        main.wait().expect("reaped");
        assert!(refused(Some(&running), &held), "nobody knows where its shim is");
    }

    #[test]
    fn no_error_of_a_start_but_the_runtimes_own_words_says_that_nothing_ran() {
        let about = About { program: "/no/such".into(), working_dir: "/".into(), tty: false, input: false };
        let calls = Calls::new("/s");
        let words = "OCI runtime exec failed: exec failed: exec: \"/no/such\": stat /no/such: no such file: unknown";
        let fails = |status: Status| matches!(failed(&calls, &status, &about), StartError::Failed(_));
        assert!(fails(Status::unknown(words)));
        for status in [
            Status::not_found("process u.1: not found"),
            Status::unknown("cannot start a stopped process: unknown"),
            Status::unavailable(words),
            Status::not_found(words),
            Status::deadline_exceeded("context deadline exceeded"),
            Status::from_error(words.into()),
        ] {
            let error = failed(&calls, &status, &about);
            assert!(matches!(error, StartError::Unclear(_)), "{status:?}: {error:?}");
        }
    }
}
