//! What the steps share: this node, its engine, and the agent's memory.

use std::sync::Arc;

use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::{
    deaths::Deaths,
    journal::{Journal, JournalError},
    spool::Spool,
};
use crate::{
    core::ids::{BootId, NodeName},
    engine::EngineError,
    infra::{
        clock::Clock,
        events::Events,
        metrics::Metrics,
        requests::{ApiError, Requests},
    },
};

/// This node.
pub(super) struct Node<E> {
    pub(super) name: NodeName,
    pub(super) boot: BootId,
    pub(super) engine: Arc<E>,
    pub(super) requests: Requests,
    pub(super) events: Events,
    pub(super) journal: Journal,
    pub(super) spool: Spool,
    pub(super) deaths: Deaths,
    pub(super) metrics: Metrics,
    pub(super) clock: Arc<dyn Clock>,
    /// The agent was told to stop: what its successor can do as well is left to it.
    pub(super) stopping: CancellationToken,
}

/// A step could not be done now. Nothing is lost: what is to be done is decided anew.
#[derive(Debug, Error)]
pub(super) enum StepError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the API server refuses the commit, so the command may not start: {0}")]
    Refused(String),
}
