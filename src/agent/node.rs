//! What the steps share: this node, what it stands on, and the agent's memory.

use std::sync::Arc;

use parking_lot::Mutex;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::{
    batches::Batches,
    gate::Gate,
    handover::{
        give::Sender,
        message::{HandedOver, HandedOverStream},
    },
    memory::{disk::Disk, exec_exits::ExecExits, journal::Journal, record::JournalError},
    streams::{hub::Hubs, spool::Spool, turns::Writers},
};
use crate::{
    core::ids::{BootId, NodeName, RequestUid},
    engine::{Engine, EngineError, StartError},
    infra::{
        audit::{Audit, Trail, Unavailable},
        batches,
        clock::Clock,
        events::Events,
        kernel::Kernel,
        metrics::Metrics,
        pulse::Pulse,
        requests::{ApiError, Requests},
    },
};

/// What the agent stands on: the real things, or a model of them that fails on purpose.
pub trait World: Send + Sync + 'static {
    type Engine: Engine;
    type Requests: Requests;
    type Batches: batches::Batches;
    type Kernel: Kernel;
    /// The disk of the journal.
    type Disk: Disk;
    /// Where audit records go.
    type Trail: Trail;
}

pub struct Node<W: World> {
    pub name: NodeName,
    pub boot: BootId,
    pub engine: Arc<W::Engine>,
    pub kernel: W::Kernel,
    pub requests: W::Requests,
    pub batches: Batches<W::Batches>,
    /// Whether what is bound may be believed.
    pub gate: Gate,
    pub audit: Audit<W::Trail>,
    pub events: Events,
    pub journal: Journal<W::Disk>,
    pub spool: Spool,
    pub writers: Writers,
    pub hubs: Arc<Hubs>,
    pub exec_exits: ExecExits,
    pub metrics: Metrics,
    /// How late its tasks have their turn.
    pub pulse: Arc<Pulse>,
    pub clock: Arc<dyn Clock>,
    pub handover: Arc<Sender>,
    /// Connections that a predecessor has left.
    pub handed_over: Mutex<HandedOver>,
    /// The agent was told to stop: what its successor can do as well is left to it.
    pub stopping: CancellationToken,
}

impl<W: World> Node<W> {
    /// What a predecessor has handed over for a request, once.
    pub(super) fn take_handed_over(&self, uid: &RequestUid) -> Option<HandedOverStream> {
        self.handed_over.lock().remove(uid)
    }
}

/// A step could not be done now. Nothing is lost: what is to be done is decided anew.
#[derive(Debug, Error)]
pub(super) enum StepError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Audit(#[from] Unavailable),
    #[error("nothing starts until every admission policy stands: {0}")]
    Admission(String),
    #[error("it cannot be held against its batch: {0}")]
    Batch(String),
    #[error("the API server refuses the commit, so the command may not start: {0}")]
    Refused(String),
}
