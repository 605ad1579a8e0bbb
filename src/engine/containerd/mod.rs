//! containerd, as the kubelet uses it: what its calls mean.
//!
//! It is asked over its own API, not over the kubelet's, which gives an exec neither a name nor an end. Callers name its
//! execs; it keeps codes until they are deleted, and survives a client that goes away. `docs/containerd.md` has what it
//! really does.

pub mod calls;
pub mod connection;
mod containers;
mod custody;
pub mod evidence;
mod exits;
mod failure;
mod fence;
pub mod folder;
pub mod holder;
mod hole;
mod input;
#[cfg(test)]
mod kill_lab;
pub mod messages;
pub mod output;
pub mod pid_file;
mod prepare;
pub mod process;
pub mod root;
mod start;
pub mod user;

use std::{collections::HashMap, io, path::PathBuf, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture, stream::BoxStream};
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::sleep;

use self::{
    calls::Calls,
    custody::Custody,
    folder::{About, Folder},
    input::Input,
    output::{
        pipe::{self, Pipe},
        room::Room,
        source::{Kept, Source},
    },
};
use crate::{
    core::{
        evidence::Patience,
        execution::{Author, Heard},
        ids::{ContainerId, ContainerRef, ExecId, ExecName, ExecRef},
        offsets::StreamOffsets,
    },
    engine::{
        Container, ContainerQuery, ContainerState, Engine, EngineError, ExecExit, ExecSpec, ExecState, ExecStream,
        Fenced, Habits, InputSink, Parts, Prepared, Reopened, ReopenedInput, StartError, Started, Surroundings,
        Version, fifo, runc,
    },
    wire::OutputStream,
};

/// As the kubelet calls it in the Node.
pub const NAME: &str = "containerd";
/// What versions are worked with.
pub const WANTED: &str = "containerd 1.7 or later (1.6 from 1.6.20 on)";
/// The oldest version that was tried.
const MIN_VERSION: (u32, u32, u32) = (1, 6, 20);

pub const HABITS: Habits = Habits {
    fences: true,
    keeps_output: true,
    // A child that holds it may go on to write until the exec is deleted.
    cuts_after: None,
    // The kernel's FIFO, beside what is kept.
    keeps_unread: 64 * 1024,
    closes_within: Duration::from_secs(10),
    patience: Patience {
        notices_within: Duration::from_secs(60),
        notices_over_within: Duration::from_secs(10),
        tells_within: Duration::from_secs(2),
        first_word: Duration::from_secs(1),
        recalls_within: Duration::from_secs(2),
    },
};
/// Pause before an engine that does not answer is asked again whether an exec has ended.
const ASK_AGAIN: Duration = Duration::from_millis(500);

pub struct ContainerdEngine {
    calls: Calls,
    /// Where the folders of execs are.
    base: PathBuf,
    custody: Custody,
    /// Of the execs whose output is read here.
    rooms: Mutex<HashMap<ExecId, Arc<Room>>>,
}

impl ContainerdEngine {
    /// The engine behind a Unix socket, which need not be there yet. `base` is a folder of the node's memory, seen by the
    /// engine at the same path, that ends with the node's run. `holder`: the name of the holder beside this agent.
    pub fn new(socket: impl Into<PathBuf>, base: impl Into<PathBuf>, holder: Option<&str>) -> Self {
        let base = base.into();
        let custody = Custody::new(base.clone(), holder);
        Self { calls: Calls::new(socket), base, custody, rooms: Mutex::default() }
    }

    fn folder(&self, exec: &ExecRef) -> Result<Folder, EngineError> {
        Folder::of(&self.base, exec).ok_or_else(|| EngineError::Invalid(format!("{} is no name of an exec", exec.id)))
    }

    fn stream(&self, exec: &ExecRef, pipes: Vec<Pipe>, from: StreamOffsets, kept: Kept) -> Source {
        let room = Arc::new(Room::from(from));
        self.rooms.lock().insert(exec.id.clone(), Arc::clone(&room));
        Source::new(pipes, room, kept, ended(self.calls.clone(), exec.clone()))
    }

    /// Nothing of an exec is needed any more, neither there nor here.
    async fn remove(&self, exec: &ExecRef) -> Result<(), EngineError> {
        let folder = self.folder(exec)?;
        // The shim goes on with what it has open of a terminal for as long as it has not been told that its input is over.
        if folder.about().is_some_and(|about| about.input)
            && let Err(error) = self.calls.close_input(exec.container.id.as_str(), exec.id.as_str()).await
        {
            tracing::debug!(exec = %exec.id, %error, "the input could not be closed");
        }
        self.calls.delete(exec.container.id.as_str(), exec.id.as_str()).await?;
        self.rooms.lock().remove(&exec.id);
        let failed =
            |error| EngineError::Failed(format!("the folder of exec {} could not be removed: {error}", exec.id));
        folder.remove().map_err(failed)?;
        self.custody.let_go(&folder).await;
        Ok(())
    }

    /// The output of an exec from there on, and whether all of it is there.
    async fn reopen_pipes(&self, folder: &Folder, about: &About, from: StreamOffsets) -> io::Result<(Vec<Pipe>, bool)> {
        let mut pipes = Vec::new();
        let mut unbroken = true;
        for (stream, from) in [(OutputStream::Stdout, from.stdout), (OutputStream::Stderr, from.stderr)] {
            if stream == OutputStream::Stderr && about.tty {
                continue;
            }
            let held = self.custody.held(&folder.fifo(stream)).await;
            let opened = Pipe::reopen(folder, stream, from, held)?;
            unbroken &= opened.is_ok();
            pipes.push(opened.unwrap_or_else(|broken| broken));
        }
        // What was taken from another holder, or was without one.
        if let Err(why) = self.custody.hold(pipes.iter().filter_map(Pipe::end)).await {
            tracing::debug!(why, "what was opened again is held by nobody else");
        }
        Ok((pipes, unbroken))
    }

    /// The input of an exec, if it goes on. Otherwise it ends: the command would wait for that for ever.
    async fn reopen_input(
        &self,
        folder: &Folder,
        exec: &ExecRef,
        about: &About,
        unbroken: bool,
    ) -> (Option<Arc<dyn InputSink>>, ReopenedInput) {
        if !about.input {
            return (None, ReopenedInput::Over);
        }
        let has_ended = folder.has_input_ended();
        if unbroken && !has_ended {
            match self.go_on_with_input(folder, exec).await {
                Ok(Some((input, from))) => return (Some(input), ReopenedInput::GoesOn { from }),
                Ok(None) => {}
                Err(error) => tracing::warn!(exec = %exec.id, %error, "the input cannot be gone on with"),
            }
        }
        // A terminal has no end of input, but a character.
        if !about.tty {
            let closed = self.calls.close_input(exec.container.id.as_str(), exec.id.as_str()).await;
            if let Err(error) = closed {
                tracing::debug!(exec = %exec.id, %error, "the input could not be closed");
            }
        }
        (None, if has_ended { ReopenedInput::Ended } else { ReopenedInput::Over })
    }

    /// The way to the input of an exec, and how much of it was taken. `None`: how much of it was given nobody knows.
    async fn go_on_with_input(&self, folder: &Folder, exec: &ExecRef) -> io::Result<Option<(Arc<dyn InputSink>, u64)>> {
        let Some(place) = self.custody.held(&folder.input_backlog()).await else { return Ok(None) };
        let (input, taken) = Input::reopen(folder, exec, &self.calls, place)?;
        let held = self.custody.hold([input.place()]).await;
        input.set_held(held.is_ok());
        Ok(Some((Arc::new(input), taken)))
    }
}

/// Waits until the engine says that an exec has ended in good order: then its shim has lived until all was read.
fn ended(calls: Calls, exec: ExecRef) -> BoxFuture<'static, io::Result<()>> {
    async move {
        loop {
            match calls.wait(exec.container.id.as_str(), exec.id.as_str()).await {
                Ok(exited) if exited.has_run() => return Ok(()),
                Ok(_) => return Err(io::Error::other("the engine knows of no process of the command")),
                Err(EngineError::Unreachable { .. }) => sleep(ASK_AGAIN).await,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
    .boxed()
}

impl Engine for ContainerdEngine {
    fn habits(&self) -> &Habits {
        &HABITS
    }

    async fn version(&self) -> Result<Version, EngineError> {
        let engine = self.calls.version().await?.version;
        if number(&engine).is_none_or(|version| version < MIN_VERSION) {
            return Err(EngineError::TooOld {
                socket: self.calls.socket().display().to_string(),
                found: format!("version {engine}"),
                wanted: WANTED.to_owned(),
            });
        }
        Ok(Version { name: NAME, engine, api: "v1".to_owned() })
    }

    async fn look_at_node(&self) -> Result<(), EngineError> {
        folder::look_at_base(&self.base).map_err(EngineError::Unfit)
    }

    async fn leftovers(&self) -> Result<Vec<ExecRef>, EngineError> {
        let failed = |error| EngineError::Failed(format!("{} cannot be listed: {error}", self.base.display()));
        folder::all(&self.base).map_err(failed)
    }

    /// Whoever creates one names it.
    fn is_own(&self, exec: &ExecRef) -> bool {
        ExecName::of(&exec.id).is_some()
    }

    async fn find_containers(&self, query: &ContainerQuery) -> Result<Vec<Container>, EngineError> {
        containers::find(&self.calls, query).await
    }

    async fn container(&self, id: &ContainerId) -> Result<Option<Container>, EngineError> {
        containers::look(&self.calls, id).await
    }

    async fn prepare(
        &self,
        container: &ContainerRef,
        name: &ExecName,
        exec: &ExecSpec,
    ) -> Result<Prepared, EngineError> {
        prepare::prepare(&self.calls, |made| self.folder(made), container, name, exec).await
    }

    async fn start(&self, exec: &ExecRef, tty: bool) -> Result<Started, StartError> {
        let folder = self.folder(exec).map_err(StartError::Unclear)?;
        let running = start::start(&self.calls, &self.custody, &folder, exec).await?;
        let source = self.stream(exec, running.pipes, StreamOffsets::default(), Kept::UntilReleased);
        let input = running.input.map(|input| input as Arc<dyn InputSink>);
        let stream = ExecStream::from_source(source, input, tty);
        Ok(Started { pid: Some(running.pid), stream, unheld: running.unheld })
    }

    async fn reopen(&self, exec: &ExecRef, tty: bool, from: StreamOffsets) -> Result<Option<Reopened>, EngineError> {
        let folder = self.folder(exec)?;
        let Some(about) = folder.about().filter(|_| folder.may_have_been_started() && folder.has_output()) else {
            return Ok(None);
        };
        let failed =
            |error| EngineError::Failed(format!("the output of exec {} could not be opened: {error}", exec.id));
        let (pipes, unbroken) = self.reopen_pipes(&folder, &about, from).await.map_err(failed)?;
        let (way_in, input) = self.reopen_input(&folder, exec, &about, unbroken).await;
        let kept = if unbroken { Kept::UntilReleased } else { Kept::UntilRead };
        if !unbroken {
            folder.give_output_up().map_err(failed)?;
        }
        let stream = ExecStream::from_source(self.stream(exec, pipes, from, kept), way_in, tty);
        Ok(Some(Reopened { stream, unbroken, input }))
    }

    async fn release(&self, exec: &ExecRef, before: StreamOffsets) -> Result<(), EngineError> {
        let released = pipe::release(&self.folder(exec)?, before);
        // Whether there is a hole or not, who reads on will not go back.
        let room = self.rooms.lock().get(&exec.id).cloned();
        if let Some(room) = room {
            room.release(before);
        }
        released
            .map_err(|error| EngineError::Failed(format!("output of exec {} could not be released: {error}", exec.id)))
    }

    async fn hold_output(&self) {
        self.custody.follow().await;
    }

    async fn drain(&self, exec: &ExecRef) {
        let Ok(folder) = self.folder(exec) else { return };
        if let Err(error) = folder.give_output_up() {
            tracing::debug!(exec = %exec.id, %error, "it has no folder");
            return;
        }
        let drain = async |stream| {
            let path = folder.fifo(stream);
            match fifo::empty(&path).await {
                Ok(bytes) => tracing::debug!(path = %path.display(), bytes, "read to its end"),
                Err(error) => tracing::debug!(path = %path.display(), %error, "what is written to it cannot be read"),
            }
        };
        tokio::join!(drain(OutputStream::Stdout), drain(OutputStream::Stderr));
    }

    /// Output is gone on with by opening it again, never by a connection.
    fn take_over(&self, _: Parts) -> io::Result<ExecStream> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Before its process runs the engine takes a size, and forgets it.
    async fn resize(&self, exec: &ExecRef, width: u16, height: u16) -> Result<(), EngineError> {
        let (container, id) = (exec.container.id.as_str(), exec.id.as_str());
        let process = self.calls.process(container, id).await?;
        let process = process.ok_or_else(|| EngineError::NoSuchExec(id.to_owned()))?;
        match evidence::shown(&self.calls, &process)? {
            Some(ExecState::Running { .. }) => self.calls.resize(container, id, width, height).await,
            Some(_) | None => Err(EngineError::Failed(format!("exec {id} does not run"))),
        }
    }

    async fn state(&self, exec: &ExecRef) -> Result<ExecState, EngineError> {
        evidence::state(&self.calls, &self.folder(exec)?, exec).await
    }

    fn author(&self, program: &str, code: i32, heard: Option<&Heard>) -> Author {
        runc::author(program, code, heard)
    }

    fn surely_failed(&self, words: &str) -> bool {
        runc::surely_failed(words)
    }

    async fn surroundings(&self, container: &ContainerRef) -> Result<Option<Surroundings>, EngineError> {
        let id = container.id.as_str();
        let Some(found) = self.calls.container(id).await? else { return Ok(None) };
        let process = self.calls.process(id, "").await?;
        let runs = !matches!(containers::state(&self.calls, process.as_ref())?, ContainerState::Stopped(_));
        let Some(process) = process.filter(|_| runs && containers::reference(&found).is_same_run(container)) else {
            return Ok(None);
        };
        let (search_path, folder) = process::surroundings(&prepare::spec_of(&found)?);
        let folder = folder.unwrap_or_else(|| "/".to_owned());
        Ok(Some(Surroundings { main: process.pid, folder, search_path }))
    }

    async fn wait(&self, exec: &ExecRef) -> Result<(), EngineError> {
        self.calls.wait(exec.container.id.as_str(), exec.id.as_str()).await.map(|_| ())
    }

    async fn fence(&self, exec: &ExecRef) -> Result<Fenced, EngineError> {
        let folder = self.folder(exec)?;
        let fenced = fence::fence(&self.calls, &folder, exec).await?;
        if fenced == Fenced::NeverRan {
            self.custody.let_go(&folder).await;
        }
        Ok(fenced)
    }

    fn exits(&self, _: Option<Timestamp>) -> BoxStream<'static, Result<ExecExit, EngineError>> {
        exits::exits(self.calls.clone())
    }

    async fn forget(&self, exec: &ExecRef) -> Result<(), EngineError> {
        self.remove(exec).await
    }
}

/// Of `2.4.2` or `1.6.20~ds1`, the three numbers.
fn number(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>();
    let patch = parts.next().map_or(Some(0), |part| digits(part).parse().ok())?;
    Some((major, minor, patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        for fine in ["1.6.20~ds1", "1.6.100", "1.7.0-rc.1", "1.7", "v2.4.2", "1.10.0", "2.0.0+k3s1"] {
            assert!(number(fine) >= Some(MIN_VERSION), "{fine}");
        }
        for old in ["1.5.18", "1.6.19", "1.6", "1.6.2-20"] {
            assert!(number(old).is_some_and(|number| number < MIN_VERSION), "{old}");
        }
        for unknown in ["newest", "", "2", "1.x.1"] {
            assert_eq!(number(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn an_exec_that_has_the_engines_own_number_for_a_name_is_another_engines() {
        let engine = ContainerdEngine::new("/s", "/b", None);
        let own = |id: &str| {
            let container = ContainerRef { id: "c".into(), started_at: None };
            engine.is_own(&ExecRef { id: id.into(), container })
        };
        assert!(own("6f9619ff-8b86-d011-b42d-00c04fc964ff.1"));
        assert!(!own(&"0123456789abcdef".repeat(4)));
    }
}
