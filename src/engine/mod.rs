//! The container engine, as far as execlet needs it.
//!
//! Each engine has a folder of its own here, the only place that knows what it is, how it is spoken to and what it
//! really does. All that differs between engines and matters to others is a value: a state, a testimony, a habit.

pub mod containerd;
pub mod docker;

pub mod error;
mod fifo;
pub mod framing;
pub mod labels;
pub mod runc;
pub mod stream;

use std::{fmt, future::Future, io, time::Duration};

use futures::stream::BoxStream;
use k8s_openapi::jiff::Timestamp;

pub use self::{
    error::{EngineError, StartError},
    framing::Chunk,
    stream::{ExecInput, ExecStream, InputSink, OutputSource, Parts, READ_BYTES, REST_BYTES, StreamError},
};
use crate::core::{
    evidence::Patience,
    execution::{Author, Heard},
    ids::{ContainerId, ContainerRef, ExecId, ExecName, ExecRef},
    offsets::StreamOffsets,
    outcome::{EngineWord, Testimony},
};

/// What the agent asks of the engine. Every call has a deadline of its own, but [`Engine::wait`].
pub trait Engine: Send + Sync + 'static {
    fn habits(&self) -> &Habits;

    /// Which engine it is. Also how to find out whether it answers.
    fn version(&self) -> impl Future<Output = Result<Version, EngineError>> + Send;

    /// Whether the node has what this engine needs beside itself. An error says what is missing, and what to do.
    fn look_at_node(&self) -> impl Future<Output = Result<(), EngineError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Execs of which this engine still keeps something on the node, whoever has made them.
    fn leftovers(&self) -> impl Future<Output = Result<Vec<ExecRef>, EngineError>> + Send {
        std::future::ready(Ok(Vec::new()))
    }

    /// Whether an exec of this name can be one of this engine at all. If not, it was made by the engine that ran this node's
    /// containers before, and nobody here knows anything of it.
    fn is_own(&self, _exec: &ExecRef) -> bool {
        true
    }

    /// Every container, in any state, that the kubelet made for this name in pods of this name.
    fn find_containers(
        &self,
        query: &ContainerQuery,
    ) -> impl Future<Output = Result<Vec<Container>, EngineError>> + Send;

    /// One container; `None` if there is none.
    fn container(&self, id: &ContainerId) -> impl Future<Output = Result<Option<Container>, EngineError>> + Send;

    /// Creates an exec. Nothing runs yet. It has this name, if the engine lets its callers name them.
    fn prepare(
        &self,
        container: &ContainerRef,
        name: &ExecName,
        exec: &ExecSpec,
    ) -> impl Future<Output = Result<Prepared, EngineError>> + Send;

    /// Starts a prepared exec and gives its output. An exec starts at most one process, ever.
    ///
    /// An engine whose output can be opened apart from the start opens it first. After an error that leaves it unclear
    /// whether anything was started, only [`Engine::state`] tells more.
    fn start(&self, exec: &ExecRef, tty: bool) -> impl Future<Output = Result<Started, StartError>> + Send;

    /// Opens the output of an exec again, from a place on up to which it was received; and its input, if that can go on.
    /// Otherwise the input ends. `None`: this engine cannot, or knows no such exec any more.
    fn reopen(
        &self,
        _exec: &ExecRef,
        _tty: bool,
        _from: StreamOffsets,
    ) -> impl Future<Output = Result<Option<Reopened>, EngineError>> + Send {
        std::future::ready(Ok(None))
    }

    /// What comes before this place is kept by the agent: the engine need not keep it any more.
    fn release(&self, _exec: &ExecRef, _before: StreamOffsets) -> impl Future<Output = Result<(), EngineError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Sees to it, for as long as it is polled, that what commands write outlives this agent, where that takes somebody else.
    /// Of the node's one agent alone.
    fn hold_output(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Reads and throws away what an exec goes on to write, where this engine may have ceased to: its processes would wait
    /// for that for ever. Ends with the output at the earliest, or when none can be had. Asked only once nobody can get
    /// that output any more.
    fn drain(&self, _exec: &ExecRef) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Goes on with a stream of this engine that another process has begun to read.
    fn take_over(&self, parts: Parts) -> io::Result<ExecStream>;

    /// Tells the terminal of an exec its size, in characters. Refused before its process runs, which is
    /// a little after the start.
    fn resize(&self, exec: &ExecRef, width: u16, height: u16) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// What the engine says of an exec. An error of it, [`EngineError::Unreachable`] above all, says nothing.
    fn state(&self, exec: &ExecRef) -> impl Future<Output = Result<ExecState, EngineError>> + Send;

    /// Whose a code may be, of a command whose program goes by this name: its own, or that of the engine's runtime, in whose
    /// process it was to be executed. `heard`: all that was written, if that is known.
    fn author(&self, _program: &str, _code: i32, _heard: Option<&Heard>) -> Author {
        Author::Command
    }

    /// Whether a failed start has surely started nothing, of which the engine says this in place of output.
    fn surely_failed(&self, _words: &str) -> bool {
        true
    }

    /// Where programs are found in a container. `None`: it does not run, or nobody can look into it.
    fn surroundings(
        &self,
        _container: &ContainerRef,
    ) -> impl Future<Output = Result<Option<Surroundings>, EngineError>> + Send {
        std::future::ready(Ok(None))
    }

    /// Whether the kernel has killed anything in the container since, for want of memory.
    fn ran_out_of_memory(
        &self,
        _container: &ContainerId,
        _since: Timestamp,
    ) -> impl Future<Output = Result<bool, EngineError>> + Send {
        std::future::ready(Ok(false))
    }

    /// Waits until an exec that runs runs no more. An engine without such a call never answers: its exits tell.
    fn wait(&self, _exec: &ExecRef) -> impl Future<Output = Result<(), EngineError>> + Send {
        std::future::pending()
    }

    /// Takes an exec away that was never started, so that a start of it that is still on its way starts nothing. Asked
    /// again, the answer is the same. Asked of engines alone that say so in [`Habits::fences`].
    fn fence(&self, _exec: &ExecRef) -> impl Future<Output = Result<Fenced, EngineError>> + Send {
        std::future::ready(Ok(Fenced::Started))
    }

    /// The ends of all execs from now on, and those since `since` that the engine still remembers.
    fn exits(&self, since: Option<Timestamp>) -> BoxStream<'static, Result<ExecExit, EngineError>>;

    /// Nothing of this exec is needed any more: what the engine keeps of it may go. Asked again, it does no harm.
    fn forget(&self, _exec: &ExecRef) -> impl Future<Output = Result<(), EngineError>> + Send {
        std::future::ready(Ok(()))
    }
}

/// What an engine does by its nature, where the steps of a request depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Habits {
    /// An exec that was never started can be taken away from under a start that is on its way. Otherwise an exec is a
    /// token: it can be started again, and starts at most one process.
    pub fences: bool,
    /// It keeps output until it is released, and holds the command up rather than lose any.
    pub keeps_output: bool,
    /// So long after the end of a process it ends the process's output, whoever still holds that; `None`: it does not.
    pub cuts_after: Option<Duration>,
    /// Bytes of output that it keeps for a reader that is away.
    pub keeps_unread: u64,
    /// A stream that is still open so long after the end of its process will not end.
    pub closes_within: Duration,
    pub patience: Patience,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Which engine it is: as the kubelet calls it.
    pub name: &'static str,
    /// Version of the engine, for people.
    pub engine: String,
    pub api: String,
}

/// As the kubelet writes it into the Node.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.name, self.engine)
    }
}

#[derive(Clone, Debug)]
pub struct ContainerQuery {
    pub namespace: String,
    pub pod_name: String,
    /// Name of the container in the pod.
    pub container: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub reference: ContainerRef,
    /// UID of the pod, as the kubelet has told the engine.
    pub pod_uid: String,
    pub state: ContainerState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    Running,
    /// It runs, but its processes are frozen.
    Paused,
    /// It does not run; the engine's word for its state.
    Stopped(String),
}

/// What the name of a program means in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// PID on the node of the container's main process.
    pub main: u32,
    /// Folder of a command for which none is asked.
    pub folder: String,
    /// The container's own `PATH`; `None`: it is not told.
    pub search_path: Option<String>,
}

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
    pub tty: bool,
    /// Whether it gets input; else it finds it empty.
    pub stdin: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepared {
    Created(ExecRef),
    /// There is one of this name already, of which nothing else is known: it may have been started.
    Existed,
}

pub struct Started {
    /// Its PID on the node, if the engine tells it at once.
    pub pid: Option<u32>,
    pub stream: ExecStream,
    /// Why what it writes does not outlive this agent, where this engine sees to that.
    pub unheld: Option<String>,
}

pub struct Reopened {
    pub stream: ExecStream,
    /// Whether nothing is missing between the place asked for and what comes.
    pub unbroken: bool,
    pub input: ReopenedInput,
}

/// What became of the input of an exec whose output is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReopenedInput {
    /// It goes on, behind so many bytes that were handed over before.
    GoesOn { from: u64 },
    /// Its end was handed over.
    Ended,
    /// It was ended now: how much of it the command was given is not known. Or there is none.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecState {
    /// It knows none such.
    Absent,
    /// It was surely never started.
    Untouched,
    /// A start may have run something, and nothing runs of it.
    Spent,
    /// It takes it for running.
    Running {
        /// PID on the node, as soon as it tells.
        pid: Option<u32>,
    },
    /// It takes it for ended. Some engines are wrong in that now and then: the kernel knows.
    Ended {
        word: EngineWord,
        /// PID on the node that its process had, if it had any.
        pid: Option<u32>,
    },
}

impl ExecState {
    pub const fn pid(self) -> Option<u32> {
        match self {
            Self::Running { pid } | Self::Ended { pid, .. } => pid,
            Self::Absent | Self::Untouched | Self::Spent => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fenced {
    /// It never ran, and never will.
    NeverRan,
    /// It was started before: nothing was changed.
    Started,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecExit {
    pub exec: ExecId,
    pub testimony: Testimony,
    /// When the engine noticed.
    pub at: Timestamp,
}
