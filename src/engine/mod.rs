//! The container engine, as far as execlet needs it.
//!
//! `docker.rs` is the only file that knows which engine it is and how it is
//! spoken to. What the engine really does with an exec is in `docs/engine.md`.

pub mod docker;
pub mod stream;

use std::future::Future;

use futures::stream::BoxStream;
use k8s_openapi::jiff::Timestamp;
use thiserror::Error;

pub use self::stream::{Chunk, ExecInput, ExecStream, Parts, READ_BYTES, REST_BYTES, StreamError};
use crate::core::ids::{ContainerId, ContainerRef, ExecId};

/// What the agent asks of the engine. Every call has a deadline of its own.
pub trait Engine: Send + Sync + 'static {
    /// Which engine it is. Also how to find out whether it answers.
    fn version(&self) -> impl Future<Output = Result<Version, EngineError>> + Send;

    /// Every container, in any state, that the kubelet made for this name in pods of this name.
    fn find_containers(
        &self,
        query: &ContainerQuery,
    ) -> impl Future<Output = Result<Vec<Container>, EngineError>> + Send;

    /// One container; `None` if there is none.
    fn container(&self, id: &ContainerId) -> impl Future<Output = Result<Option<Container>, EngineError>> + Send;

    /// Creates an exec. Nothing runs yet.
    fn create_exec(
        &self,
        container: &ContainerId,
        exec: &ExecSpec,
    ) -> impl Future<Output = Result<ExecId, EngineError>> + Send;

    /// Starts an exec and gives its output. An exec starts at most once, ever. A second start runs
    /// nothing, but is not refused: its stream has the engine's complaint in place of output.
    fn start_exec(&self, exec: &ExecId, tty: bool) -> impl Future<Output = Result<ExecStream, EngineError>> + Send;

    /// Tells the terminal of an exec its size, in characters. Refused before its process runs, which is
    /// a little after the start.
    fn resize_exec(
        &self,
        exec: &ExecId,
        width: u16,
        height: u16,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// What the engine says of an exec. Not to be believed in everything: see `core::outcome`.
    fn inspect_exec(&self, exec: &ExecId) -> impl Future<Output = Result<ExecState, EngineError>> + Send;

    /// The ends of all execs from now on, and those since `since` that the engine still remembers.
    fn exec_deaths(&self, since: Option<Timestamp>) -> BoxStream<'static, Result<ExecDied, EngineError>>;
}

/// Which engine, and which API it speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Version of the engine, for people.
    pub engine: String,
    /// Version of its API.
    pub api: String,
}

/// Which containers to find.
#[derive(Clone, Debug)]
pub struct ContainerQuery {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod_name: String,
    /// Name of the container in the pod.
    pub container: String,
}

/// One container of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// ID and start time.
    pub reference: ContainerRef,
    /// UID of the pod, from the kubelet's label.
    pub pod_uid: String,
    /// Whether it runs.
    pub state: ContainerState,
}

/// Whether a container runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// It runs.
    Running,
    /// It runs, but its processes are frozen.
    Paused,
    /// It does not run; the engine's word for its state.
    Stopped(String),
}

/// What to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// `NAME=VALUE`, added to the container's environment.
    pub env: Vec<String>,
    /// Folder to run in; the container's own if `None`.
    pub working_dir: Option<String>,
    /// User to run as; the container's own if `None`.
    pub user: Option<String>,
    /// Whether to give it a terminal.
    pub tty: bool,
    /// Whether it gets input; else it finds it empty.
    pub stdin: bool,
}

/// What the engine says of an exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecState {
    /// Whether the engine takes it for running. It may be wrong both ways.
    pub running: bool,
    /// Exit code. `None` is not 0: the engine has none yet.
    pub code: Option<i32>,
    /// PID on the node; `None` before the start, and for ever if the start failed.
    pub pid: Option<u32>,
}

/// An exec ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecDied {
    /// Which exec.
    pub exec: ExecId,
    /// Exit code as the event has it; 127 may stand for anything.
    pub code: i32,
    /// When the engine noticed.
    pub at: Timestamp,
}

/// What the engine refused, or failed to do.
#[derive(Debug, Error)]
pub enum EngineError {
    /// It does not answer. Whether it did what was asked is not known.
    #[error("the engine at {socket} does not answer: {message}")]
    Unreachable {
        /// Path of its socket.
        socket: String,
        /// What was tried and what went wrong.
        message: String,
    },
    /// No connection to it can be had: nothing was asked of it.
    #[error("the engine at {socket} does not answer: {message}")]
    Unasked {
        /// Path of its socket.
        socket: String,
        /// What was tried and what went wrong.
        message: String,
    },
    /// It is too old.
    #[error(
        "the engine at {socket} is version {engine} with API {api}; wanted is API {wanted} or newer (Docker Engine 20.10): upgrade it"
    )]
    TooOld {
        /// Path of its socket.
        socket: String,
        /// Version found.
        engine: String,
        /// API version found.
        api: String,
        /// Least API version.
        wanted: String,
    },
    /// 404 on a container.
    #[error("no such container: {0}")]
    NoSuchContainer(String),
    /// 404 on an exec: never created, expired, or of an earlier life of the container or the engine.
    #[error("no such exec: {0}")]
    NoSuchExec(String),
    /// 409: the container is paused or does not run.
    #[error("the container is not running: {0}")]
    ContainerNotRunning(String),
    /// It answers with another error status, and has not done it.
    #[error("the engine refused with HTTP status {status}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The engine's own words.
        message: String,
    },
    /// The answer makes no sense.
    #[error("the engine's answer to {call} was not understood: {message}")]
    Protocol {
        /// Which call.
        call: &'static str,
        /// What was wrong with it.
        message: String,
    },
}

impl EngineError {
    /// Whether what was asked has certainly not been done: the engine says so, or was never asked.
    pub const fn is_refusal(&self) -> bool {
        match self {
            Self::NoSuchContainer(_)
            | Self::NoSuchExec(_)
            | Self::ContainerNotRunning(_)
            | Self::Refused { .. }
            | Self::Unasked { .. } => true,
            Self::Unreachable { .. } | Self::TooOld { .. } | Self::Protocol { .. } => false,
        }
    }
}
