//! Standby: before the agent can begin it waits for the journal, and before it takes new work for the engine.

use std::{collections::HashSet, path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    error::AgentError,
    handover::{message::HandedOver, receive::Receiver},
    leftovers,
    memory::{
        disk::Folder,
        journal::Journal,
        record::{JournalError, Record},
    },
    node::{Node, World},
    refusal::{ENGINE_CHECK, Refusal},
    runtime::Named,
};
use crate::{
    core::{
        ids::{ProcessRef, RequestUid},
        kill::Signal,
    },
    engine::{Container, ContainerState, Engine, EngineError, Version},
    infra::{health::Readiness, process},
};

/// Name in `/readyz`.
pub(super) const JOURNAL_CHECK: &str = "journal";
/// Folder of the journal, in that of the state.
const JOURNAL_FOLDER: &str = "journal";
/// Pause before an engine that does not answer is asked again.
const ENGINE_RETRY: Duration = Duration::from_secs(2);
/// The same, where it is one that cannot be worked with.
const REFUSED_RETRY: Duration = Duration::from_secs(10);
/// It was asked so often in vain, and the Node is asked whether it is the right one.
const ASK_NODE_EVERY: u32 = 5;
/// An engine may be updated while its containers run on.
const VERSION_CHECK: Duration = Duration::from_secs(60);
/// Pause before a journal that another agent has is tried again.
const JOURNAL_RETRY: Duration = Duration::from_millis(500);
/// The same, once that agent is about to end.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// How long an agent that waits for the journal is called ready: longer than any agent drains. Whoever keeps it for
/// longer is no predecessor.
const STAND_BY: Duration = Duration::from_secs(600);

pub(super) struct Opened {
    pub(super) journal: Journal<Folder>,
    pub(super) records: Vec<Record>,
    pub(super) handed_over: HandedOver,
}

/// Opens the journal as soon as no other agent has it: during an update, the agent before this one may still be busy
/// with its last commands. `None` if told to stop before.
pub(super) async fn open_journal<E: Engine>(
    engine: &E,
    state: &Path,
    readiness: &Readiness,
    shutdown: &CancellationToken,
) -> Result<Option<Opened>, AgentError> {
    let mut receiver = Receiver::new(state);
    let (begun, mut told) = (Instant::now(), false);
    let me = serde_json::to_string(&process::find(std::process::id())).unwrap_or_default();
    loop {
        let opened = Folder::open(state, JOURNAL_FOLDER, &me).map_err(JournalError::from).and_then(Journal::open);
        let error = match opened {
            Ok((journal, records)) => {
                readiness.ready(JOURNAL_CHECK);
                readiness.stand_by(false);
                let handed_over = receiver.handed_over().await;
                return Ok(Some(Opened { journal, records, handed_over }));
            }
            Err(error) => error,
        };
        let JournalError::Locked { path } = &error else { return Err(error.into()) };
        if !std::mem::replace(&mut told, true) {
            tracing::info!(%error, "standing by for the journal");
        }
        readiness.not_ready(JOURNAL_CHECK, error.to_string());
        receiver.connect();
        // During a rolling update the other agent ends only when this one is ready.
        readiness.stand_by(begun.elapsed() < STAND_BY);
        end_orphan(engine, path).await;
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            () = receiver.predecessor_gone() => sleep(LOCK_RETRY).await,
            () = sleep(JOURNAL_RETRY) => {}
        }
    }
}

/// Ends the agent that has the lock if the engine does not know that it runs. An engine that is killed while it starts a
/// container may leave one behind: it is cut off from the network, and nobody else would ever end it. An agent that is
/// busy with its last commands is never touched.
async fn end_orphan<E: Engine>(engine: &E, lock: &Path) {
    let holder = std::fs::read_to_string(lock).ok().and_then(|text| serde_json::from_str::<ProcessRef>(&text).ok());
    let Some(holder) = holder.filter(|holder| process::alive(*holder)) else { return };
    let Some(container) = process::container_of(holder) else { return };
    match engine.container(&container).await {
        Ok(Some(Container { state: ContainerState::Running | ContainerState::Paused, .. })) | Err(_) => {}
        Ok(Some(Container { state: ContainerState::Stopped(_), .. }) | None) => {
            let ended = process::signal(holder, &container, Signal::Kill);
            tracing::warn!(pid = holder.pid, %container, ?ended, "killed the agent that had the journal: the engine had left it behind");
        }
    }
}

/// What the engine has said of itself, as `NAME://VERSION`.
#[derive(Clone, Default)]
pub(super) struct EngineSaid(Arc<Mutex<Option<String>>>);

impl EngineSaid {
    pub(super) fn said(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

/// Waits for the engine, and goes on to ask for its version.
pub(super) struct EngineWait<W: World> {
    pub(super) node: Arc<Node<W>>,
    pub(super) readiness: Readiness,
    pub(super) refusal: Refusal,
    /// What the Node has said of it, if it was asked.
    pub(super) named: Option<Named>,
    pub(super) said: EngineSaid,
    /// The requests that the journal has in hand.
    pub(super) open: HashSet<RequestUid>,
}

impl<W: World> EngineWait<W> {
    /// Waits until the engine answers, and tells. While it is one that cannot be worked with, nothing is taken, and it is
    /// said why. Ends only with an error: that the Node names another one.
    pub(super) async fn run(mut self, answers: CancellationToken) -> Result<(), AgentError> {
        if let Some(named) = &mut self.named {
            named.confirm(&self.refusal).await?;
        }
        let mut asked: u32 = 0;
        loop {
            match self.look().await {
                Ok(version) => {
                    if !answers.is_cancelled() {
                        tracing::info!(engine = %version, api = version.api, "the engine answers");
                        leftovers::clear(&self.node, &self.open).await;
                        self.readiness.ready(ENGINE_CHECK);
                    }
                    self.tell(&version);
                    answers.cancel();
                    sleep(VERSION_CHECK).await;
                    // Where a node has both, the wrong one answers as well.
                    self.ask_node().await?;
                }
                Err(_) if answers.is_cancelled() => sleep(VERSION_CHECK).await,
                Err(error @ (EngineError::TooOld { .. } | EngineError::Unfit(_))) => {
                    self.refusal.refuse(&error.to_string()).await;
                    sleep(REFUSED_RETRY).await;
                }
                // It may only have begun to start.
                Err(
                    error @ (EngineError::Unreachable { .. }
                    | EngineError::Unsupported(_)
                    | EngineError::NoSuchContainer(_)
                    | EngineError::NoSuchExec(_)
                    | EngineError::ContainerNotRunning(_)
                    | EngineError::Invalid(_)
                    | EngineError::Failed(_)
                    | EngineError::Protocol { .. }),
                ) => {
                    self.refusal.wait(&error.to_string());
                    asked += 1;
                    if asked.is_multiple_of(ASK_NODE_EVERY) {
                        self.ask_node().await?;
                    }
                    sleep(ENGINE_RETRY).await;
                }
            }
        }
    }

    /// Whether the Node still names this engine, if it can be asked.
    async fn ask_node(&mut self) -> Result<(), AgentError> {
        if let Some(named) = &mut self.named
            && let Err(why) = named.check().await?
        {
            tracing::debug!(why, "the Node cannot be asked again");
        }
        Ok(())
    }

    async fn look(&self) -> Result<Version, EngineError> {
        let version = self.node.engine.version().await?;
        self.node.engine.look_at_node().await?;
        Ok(version)
    }

    fn tell(&self, version: &Version) {
        *self.said.0.lock() = Some(version.to_string());
        self.node.metrics.engine(version.name, &version.engine);
    }
}
