//! The calls of containerd's API that are needed, and what its errors mean.

use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use prost::Message;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use super::{
    connection::{Channel, Connection},
    messages::{
        Close, Container, ContainerId, Containers, Deleted, Envelope, Exited, Filters, NewExec, OneContainer,
        OneProcess, Pids, Process, ProcessId, Size, Started, Version,
    },
};
use crate::engine::EngineError;

/// How long the engine may take for one call. While an exec starts, nothing is told of it.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for what may take long: it waits for the runtime, or for output that somebody holds.
const LONG_CALL_TIMEOUT: Duration = Duration::from_secs(60);

const GET_VERSION: &str = "/containerd.services.version.v1.Version/Version";
const GET_CONTAINER: &str = "/containerd.services.containers.v1.Containers/Get";
const LIST_CONTAINERS: &str = "/containerd.services.containers.v1.Containers/List";
const GET: &str = "/containerd.services.tasks.v1.Tasks/Get";
const EXEC: &str = "/containerd.services.tasks.v1.Tasks/Exec";
const START: &str = "/containerd.services.tasks.v1.Tasks/Start";
const WAIT: &str = "/containerd.services.tasks.v1.Tasks/Wait";
const DELETE: &str = "/containerd.services.tasks.v1.Tasks/DeleteProcess";
const RESIZE: &str = "/containerd.services.tasks.v1.Tasks/ResizePty";
const CLOSE: &str = "/containerd.services.tasks.v1.Tasks/CloseIO";
const LIST_PIDS: &str = "/containerd.services.tasks.v1.Tasks/ListPids";
const SUBSCRIBE: &str = "/containerd.services.events.v1.Events/Subscribe";

#[derive(Clone)]
pub struct Calls(Arc<Connection>);

/// What came of the creation of an exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    New,
    /// There is one of this name.
    Existed,
}

impl Calls {
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Connection::new(socket.into())))
    }

    pub fn socket(&self) -> &Path {
        self.0.socket()
    }

    pub async fn version(&self) -> Result<Version, EngineError> {
        let answer = self.call("version", GET_VERSION, (), CALL_TIMEOUT).await?;
        answer.map_err(|status| self.error("version", &status))
    }

    /// `None`: there is none.
    pub async fn container(&self, id: &str) -> Result<Option<Container>, EngineError> {
        let question = ContainerId { id: id.to_owned() };
        let answer = self.call("get container", GET_CONTAINER, question, CALL_TIMEOUT).await?;
        Ok(self.unless_missing("get container", answer)?.and_then(|OneContainer { container }| container))
    }

    /// Those that one filter lets through.
    pub async fn containers(&self, filter: String) -> Result<Vec<Container>, EngineError> {
        let question = Filters { filters: vec![filter] };
        let answer: Result<Containers, Status> =
            self.call("list containers", LIST_CONTAINERS, question, CALL_TIMEOUT).await?;
        Ok(answer.map_err(|status| self.error("list containers", &status))?.containers)
    }

    /// A process, or the container's own if `exec` is empty. `None`: the engine knows none such, or its shim has gone.
    pub async fn process(&self, container: &str, exec: &str) -> Result<Option<Process>, EngineError> {
        let answer = self.call("get process", GET, process(container, exec), CALL_TIMEOUT).await?;
        Ok(self.unless_missing("get process", answer)?.and_then(|OneProcess { process }| process))
    }

    pub async fn create(&self, exec: NewExec) -> Result<Made, EngineError> {
        match self.call::<_, ()>("create exec", EXEC, exec, CALL_TIMEOUT).await? {
            Ok(()) => Ok(Made::New),
            Err(status) if status.code() == Code::AlreadyExists => Ok(Made::Existed),
            Err(status) => Err(self.error("create exec", &status)),
        }
    }

    /// A connection for one start. An error proves that nothing was sent.
    pub async fn open(&self) -> Result<Channel, EngineError> {
        self.0.open().await.map_err(|error| self.unreachable("connect", &error))
    }

    /// The start itself, which `start` alone may make. `None`: no answer came in time.
    pub(super) async fn start(
        &self,
        channel: &Channel,
        container: &str,
        exec: &str,
    ) -> Option<Result<Started, Status>> {
        timeout(LONG_CALL_TIMEOUT, channel.call(START, process(container, exec))).await.ok()
    }

    /// Answers when the process has ended; or at once, if it failed to start. Has no deadline.
    pub async fn wait(&self, container: &str, exec: &str) -> Result<Exited, EngineError> {
        let channel = self.0.shared().await.map_err(|error| self.unreachable("wait", &error))?;
        let answer: Result<Exited, Status> = channel.call(WAIT, process(container, exec)).await;
        answer.map_err(|status| self.error("wait", &status))
    }

    /// What it reads meanwhile is cut off: its output must have ended, or be given up. `None`: there is none such.
    pub async fn delete(&self, container: &str, exec: &str) -> Result<Option<Deleted>, EngineError> {
        let answer = self.call("delete exec", DELETE, process(container, exec), LONG_CALL_TIMEOUT).await?;
        self.unless_missing("delete exec", answer)
    }

    pub async fn resize(&self, container: &str, exec: &str, width: u16, height: u16) -> Result<(), EngineError> {
        let ProcessId { container_id, exec_id } = process(container, exec);
        let size = Size { container_id, exec_id, width: width.into(), height: height.into() };
        let answer = self.call("resize exec", RESIZE, size, CALL_TIMEOUT).await?;
        answer.map_err(|status| self.error("resize exec", &status))
    }

    /// The engine's own hold on the input. The command sees its end once no writer is left, either.
    pub async fn close_input(&self, container: &str, exec: &str) -> Result<(), EngineError> {
        let ProcessId { container_id, exec_id } = process(container, exec);
        let close = Close { container_id, exec_id, stdin: true };
        let answer = self.call("close input", CLOSE, close, CALL_TIMEOUT).await?;
        answer.map_err(|status| self.error("close input", &status))
    }

    /// Every process in the container's control group.
    pub async fn pids(&self, container: &str) -> Result<Vec<u32>, EngineError> {
        let question = ContainerId { id: container.to_owned() };
        let answer: Result<Pids, Status> = self.call("list processes", LIST_PIDS, question, CALL_TIMEOUT).await?;
        let pids = answer.map_err(|status| self.error("list processes", &status))?;
        Ok(pids.processes.into_iter().map(|process| process.pid).collect())
    }

    /// What happens from now on, in every namespace. Answers with the first event: before there is none, nothing tells that
    /// they are heard.
    pub async fn events(&self, filter: &str) -> Result<Streaming<Envelope>, EngineError> {
        let channel = self.open().await?;
        let opened = channel.stream(SUBSCRIBE, Filters { filters: vec![filter.to_owned()] }).await;
        opened.map_err(|status| self.error("events", &status))
    }

    async fn call<Q, A>(
        &self,
        call: &'static str,
        path: &'static str,
        question: Q,
        within: Duration,
    ) -> Result<Result<A, Status>, EngineError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let asked = async {
            let channel = self.0.shared().await.map_err(|error| self.unreachable(call, &error))?;
            Ok(channel.call(path, question).await)
        };
        timeout(within, asked).await.unwrap_or_else(|elapsed| Err(self.unreachable(call, &elapsed)))
    }

    fn unless_missing<A>(&self, call: &'static str, answer: Result<A, Status>) -> Result<Option<A>, EngineError> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(self.error(call, &status)),
        }
    }

    /// What an answer means that is not what was asked for.
    pub fn error(&self, call: &'static str, status: &Status) -> EngineError {
        if !is_answer(status) {
            return self.unreachable(call, status);
        }
        let message = status.message().to_owned();
        match status.code() {
            Code::NotFound => EngineError::NoSuchExec(message),
            Code::FailedPrecondition => EngineError::ContainerNotRunning(message),
            Code::InvalidArgument => EngineError::Invalid(message),
            Code::Internal => EngineError::Protocol { call, message },
            _ => EngineError::Failed(message),
        }
    }

    pub fn unreachable(&self, call: &str, error: &dyn Error) -> EngineError {
        let mut message = format!("{call}: {error}");
        for cause in std::iter::successors(error.source(), |cause| (**cause).source()) {
            message.push_str(": ");
            message.push_str(&cause.to_string());
        }
        EngineError::Unreachable { socket: self.socket().display().to_string(), message }
    }
}

/// Whether the engine itself has said so, and not the connection to it, or its own one to the shim.
pub fn is_answer(status: &Status) -> bool {
    let cut_off = matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded);
    status.source().is_none() && !cut_off
}

fn process(container: &str, exec: &str) -> ProcessId {
    ProcessId { container_id: container.to_owned(), exec_id: exec.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_engine_says_itself_is_its_answer() {
        let calls = Calls::new("/s");
        let error = |status: &Status| calls.error("get process", status);
        assert!(matches!(error(&Status::not_found("x")), EngineError::NoSuchExec(_)));
        assert!(matches!(error(&Status::unknown("x")), EngineError::Failed(_)));
        for status in [Status::unavailable("x"), Status::cancelled("x"), Status::from_error("broken".into())] {
            assert!(matches!(error(&status), EngineError::Unreachable { .. }), "{status:?}");
        }
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_unreachable_and_its_socket_is_named() {
        let error = Calls::new("/no/such/containerd.sock").version().await.expect_err("no engine");
        assert!(
            matches!(&error, EngineError::Unreachable { socket, .. } if socket == "/no/such/containerd.sock"),
            "{error}"
        );
    }
}
