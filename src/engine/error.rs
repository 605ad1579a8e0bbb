//! What the engine refused, or failed to do.

use thiserror::Error;

#[derive(Debug, Error)]
pub enum EngineError {
    /// It does not answer. Whether it did what was asked is not known.
    #[error("the engine at {socket} does not answer: {message}")]
    Unreachable { socket: String, message: String },
    /// It lacks what the agent needs.
    #[error("the engine at {socket} is {found}; wanted is {wanted}: upgrade it")]
    TooOld { socket: String, found: String, wanted: String },
    /// What it needs of the node is not there.
    #[error("{0}")]
    Unfit(String),
    /// In such a container this engine's execs are not what is known of them here.
    #[error("{0}")]
    Unsupported(String),
    #[error("no such container: {0}")]
    NoSuchContainer(String),
    /// Never created, forgotten, or of an earlier run of the container or the engine.
    #[error("no such exec: {0}")]
    NoSuchExec(String),
    #[error("the container is not running: {0}")]
    ContainerNotRunning(String),
    /// What was asked can never be done, in the engine's own words.
    #[error("the engine refused: {0}")]
    Invalid(String),
    /// It has not done what was asked, in its own words. It may do it later.
    #[error("the engine failed: {0}")]
    Failed(String),
    #[error("the engine's answer to {call} was not understood: {message}")]
    Protocol { call: &'static str, message: String },
}

#[derive(Debug, Error)]
pub enum StartError {
    /// Nothing was started, and the exec can still be started.
    #[error(transparent)]
    Refused(EngineError),
    #[error("no such exec: {0}")]
    Absent(String),
    /// The command could not be started, and never will be. The words are the engine's.
    #[error("the engine could not start the command: {0}")]
    Failed(String),
    /// Whether anything was started is not known.
    #[error(transparent)]
    Unclear(EngineError),
}
