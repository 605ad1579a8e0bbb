//! Prepare: the exec is created, with all that its start will need. Nothing runs yet.

use serde_json::Value;

use super::{
    calls::{Calls, Made},
    containers,
    folder::{About, Folder},
    messages::{Any, Container, Moment, NewExec},
    process,
    root::Main,
    user::{Identity, User},
};
use crate::{
    core::ids::{ContainerRef, ExecName, ExecRef},
    engine::{ContainerState, EngineError, ExecSpec, Prepared},
    wire::OutputStream,
};

/// The one runtime whose ways are known here.
const RUNTIME: &str = "io.containerd.runc.v2";
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// Where a container's users are.
const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

pub(super) async fn prepare(
    calls: &Calls,
    folder: impl Fn(&ExecRef) -> Result<Folder, EngineError>,
    container: &ContainerRef,
    name: &ExecName,
    exec: &ExecSpec,
) -> Result<Prepared, EngineError> {
    let made = ExecRef { id: name.to_string().into(), container: container.clone() };
    let folder = folder(&made)?;
    let found = running(calls, container).await?;
    let spec = spec_of(&found)?;
    let user = identity(calls, container, exec).await?;
    let no_process = || EngineError::Invalid(format!("container {} has no process to copy", container.id));
    let process = process::of(&spec, exec, user.as_ref()).ok_or_else(no_process)?;
    // What is there may be on its way to be started.
    let id = made.id.as_str();
    if calls.process(container.id.as_str(), id).await?.is_some() {
        return Ok(Prepared::Existed);
    }
    let about = About {
        program: exec.command.first().cloned().unwrap_or_default(),
        working_dir: process.get("cwd").and_then(Value::as_str).unwrap_or("/").to_owned(),
        tty: exec.tty,
        input: exec.stdin,
    };
    match folder.make(&about) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(Prepared::Existed),
        Err(error) => return Err(EngineError::Failed(format!("the folder of exec {id} could not be made: {error}"))),
        Ok(()) => {}
    }
    let path = |stream| folder.fifo(stream).to_string_lossy().into_owned();
    let new = NewExec {
        container_id: container.id.to_string(),
        stdin: if about.input { folder.input().to_string_lossy().into_owned() } else { String::new() },
        stdout: path(OutputStream::Stdout),
        // Both or none, but of a terminal.
        stderr: if about.tty { String::new() } else { path(OutputStream::Stderr) },
        terminal: about.tty,
        spec: Some(Any { type_url: PROCESS_TYPE.to_owned(), value: process.to_string().into_bytes() }),
        exec_id: id.to_owned(),
    };
    match calls.create(new).await {
        Ok(Made::New) => Ok(Prepared::Created(made)),
        Ok(Made::Existed) => Ok(Prepared::Existed),
        Err(EngineError::NoSuchExec(message)) => Err(EngineError::NoSuchContainer(message)),
        Err(error) => Err(error),
    }
}

/// The container, if it is one in which an exec can be made.
async fn running(calls: &Calls, container: &ContainerRef) -> Result<Container, EngineError> {
    let id = container.id.as_str();
    let missing = || EngineError::NoSuchContainer(id.to_owned());
    let found = calls.container(id).await?.ok_or_else(missing)?;
    if !containers::reference(&found).is_same_run(container) {
        return Err(missing());
    }
    let runtime = found.runtime.as_ref().map_or("", |runtime| runtime.name.as_str());
    if runtime != RUNTIME {
        return Err(EngineError::Unsupported(format!(
            "container {id} has the runtime {runtime}; wanted is {RUNTIME}: run the command by other means, such as kubectl \
             exec, or the pod without its RuntimeClass"
        )));
    }
    let process = calls.process(id, "").await?;
    match containers::state(calls, process.as_ref())? {
        ContainerState::Running => Ok(found),
        ContainerState::Paused => Err(EngineError::ContainerNotRunning(format!("container {id} is paused"))),
        ContainerState::Stopped(word) => Err(EngineError::ContainerNotRunning(format!("container {id} is {word}"))),
    }
}

pub(super) fn spec_of(found: &Container) -> Result<Value, EngineError> {
    let bytes = found.spec.as_ref().map_or(&[][..], |spec| &spec.value);
    serde_json::from_slice(bytes)
        .map_err(|error| EngineError::Protocol { call: "get container", message: format!("its spec: {error}") })
}

/// The user that is asked for, as the container's files know it. An error of it is the request's: it would be the same again.
async fn identity(calls: &Calls, container: &ContainerRef, exec: &ExecSpec) -> Result<Option<Identity>, EngineError> {
    let Some(text) = &exec.user else { return Ok(None) };
    let user = User::parse(text).map_err(EngineError::Invalid)?;
    if let Some(identity) = user.known() {
        return Ok(Some(identity));
    }
    let id = container.id.as_str();
    let pid = |process: &super::messages::Process| {
        let ended = process.exited_at.is_some_and(Moment::has_come);
        Some(process.pid).filter(|pid| *pid > 0 && !ended)
    };
    let not_running = || EngineError::ContainerNotRunning(format!("container {id} has no process"));
    let found = calls.process(id, "").await?.as_ref().and_then(pid).ok_or_else(not_running)?;
    let main = Main::of(found).map_err(EngineError::Failed)?;
    // It still has that number: the handle is its own.
    let still = calls.process(id, "").await?.as_ref().and_then(pid);
    if still != Some(found) {
        return Err(not_running());
    }
    let unreadable =
        |error| EngineError::Invalid(format!("user {text} could not be looked up in the container: {error}"));
    let [passwd, group] = main.read([PASSWD, GROUP]).await.map_err(unreadable)?;
    user.resolve(passwd.as_deref(), group.as_deref()).map(Some).map_err(EngineError::Invalid)
}
