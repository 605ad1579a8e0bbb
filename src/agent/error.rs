//! Why the agent cannot go on.

use std::io;

use thiserror::Error;

use super::{memory::record::JournalError, serve::identity::IdentityError};
use crate::engine::EngineError;

#[derive(Debug, Error)]
pub enum AgentError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("{what}: {source}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
    /// The stream server cannot begin.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The agent was begun for another engine than the node has.
    #[error("node {node} names {now} as its engine, and this agent was begun for {was}: it ends, to begin anew")]
    EngineChanged { node: String, was: String, now: String },
    /// A task that never ends has ended.
    #[error("a part of the agent ended: {0}")]
    Task(String),
}

impl AgentError {
    pub(super) fn io(what: &str) -> impl FnOnce(io::Error) -> Self + use<> {
        let what = what.to_owned();
        move |source| Self::Io { what, source }
    }
}
