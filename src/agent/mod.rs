//! The agent: runs the requests that are bound to its node.
//!
//! One file a step, in the order of a request's way: watch, work (decide and
//! dispatch), prepare, commit, start, pump, settle, report; and beside a command
//! that runs: witness, oversee, kill. Then what outlives a step: journal, spool,
//! the engine's `exec_die` events, the Lease.
//! The agent never reads pods, and writes nothing but the status of requests,
//! its Lease and Events.

pub mod command;
pub mod gate;
pub mod handover;
pub mod heartbeat;
pub mod intake;
pub mod memory;
pub mod node;
pub mod serve;
pub mod streams;

mod request;

use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::FutureExt as _;
use kube::{Api, Client};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    gate::Gate,
    handover::give::{HandedOver, Receiver, Sender},
    heartbeat::Heartbeat,
    intake::desk::{self, Intake},
    memory::{
        disk::Folder,
        exec_exits::{self, ExecExits},
        journal::{Journal, JournalError, Record},
    },
    node::{Node, World},
    serve::{StreamServer, admission::Admission, identity::IdentityError, limits::Pace},
    streams::{hub::Hubs, log_writer::Writers, spool::Spool},
};
use crate::{
    api::names,
    core::{
        admission::ServiceAccount,
        ids::{NodeName, ProcessRef, RequestUid},
        kill::Signal,
        queue::Limits,
    },
    engine::{Container, ContainerState, Engine, EngineError},
    infra::{
        audit::{
            Audit, Policy,
            file::Retention,
            published::{self, Before},
            writer::{Log, Sink},
        },
        clock::Clock,
        events::Events,
        health::{self, Readiness},
        kernel::Linux,
        metrics::Metrics,
        policies::{Policies, Rules},
        process,
        requests::KubeRequests,
    },
};

/// Pause before an engine that does not answer is asked again.
const ENGINE_RETRY: Duration = Duration::from_secs(2);
/// Pause before a journal that another agent has is tried again.
const JOURNAL_RETRY: Duration = Duration::from_millis(500);
/// The same, once that agent is about to end.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// How long an agent is called ready that stands by for the journal: longer than any agent drains. What
/// keeps it for longer is no predecessor.
const STAND_BY: Duration = Duration::from_secs(600);
/// How long those who watch may take to go, once this agent ends: its successor waits.
const GOODBYE: Duration = Duration::from_millis(500);
/// Folder of the journal, below that of the state.
const JOURNAL_FOLDER: &str = "journal";
/// Names in `/readyz`.
const JOURNAL_CHECK: &str = "journal";
const ENGINE_CHECK: &str = "engine";

/// What the agent is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node that it runs on.
    pub node: NodeName,
    /// Namespace of its Lease.
    pub namespace: String,
    /// Folder of the journal.
    pub state_dir: PathBuf,
    /// Folder of the spool.
    pub log_dir: PathBuf,
    /// How many run at the same time.
    pub limits: Limits,
    /// Folder of the audit log.
    pub audit_dir: PathBuf,
    /// How much of it is kept.
    pub audit_retention: Retention,
    /// What is recorded, and how strict that is.
    pub audit_policy: Policy,
    /// Most bytes that the spool may take.
    pub spool_total_bytes: u64,
    /// How long, once told to stop, it goes on with what runs.
    pub drain_timeout: Duration,
    /// What the admission policies must be.
    pub rules: Rules,
    /// How streams are served, if they are.
    pub streams: Option<StreamsConfig>,
}

/// What the stream server is told.
#[derive(Clone, Debug)]
pub struct StreamsConfig {
    /// Where the manager reaches it.
    pub endpoint: SocketAddr,
    /// The manager's service account.
    pub manager: ServiceAccount,
}

/// Why the agent cannot go on.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The engine is not fit.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The spool or procfs cannot be used.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The stream server cannot begin.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A task that must run for ever has ended.
    #[error("a part of the agent ended: {0}")]
    Task(String),
}

/// The edges of the agent, so that a test can give it others.
pub struct Edges<E> {
    /// The engine of this node.
    pub engine: Arc<E>,
    /// The API server.
    pub client: Client,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Where health and metrics are served.
    pub listener: TcpListener,
    /// Where streams are served, if they are.
    pub streams: Option<TcpListener>,
    /// When to stop.
    pub shutdown: CancellationToken,
}

/// A node as it is.
struct Real<E>(std::marker::PhantomData<E>);

impl<E: Engine> World for Real<E> {
    type Engine = E;
    type Requests = KubeRequests;
    type Kernel = Linux;
    type Disk = Folder;
    type Trail = Log;
}

/// Runs the agent until it is told to stop.
///
/// # Errors
/// When it cannot begin, or a part of it fails for good.
pub async fn run<E: Engine>(config: Config, edges: Edges<E>) -> Result<(), AgentError> {
    let Edges { engine, client, clock, listener, streams, shutdown } = edges;
    let (metrics, registry) = Metrics::for_agent();
    let readiness = Readiness::default();
    for check in [JOURNAL_CHECK, ENGINE_CHECK, exec_exits::CHECK, desk::CHECK, heartbeat::CHECK] {
        readiness.expect(check);
    }
    // The endpoints outlast the drain, so that a probe does not cut it short.
    let ended = CancellationToken::new();
    let mut parts = JoinSet::new();
    let mut viewers = None;
    health_endpoints(&mut parts, listener, &readiness, registry, &ended);

    let opened = open_journal(&*engine, &config.state_dir, &readiness, &shutdown).await?;
    let Some((journal, records, handed_over)) = opened else { return Ok(()) };
    let handover = Arc::new(Sender::default());
    let unfinished: HashSet<RequestUid> = records.iter().map(|record| record.request.uid.clone()).collect();
    let spool = Spool::open(&config.log_dir, config.spool_total_bytes, &unfinished, metrics.spool_bytes.clone())
        .map_err(|source| AgentError::Io { what: format!("spool folder {}", config.log_dir.display()), source })?;
    let boot = process::boot_id().map_err(|source| AgentError::Io { what: "boot ID".to_owned(), source })?;
    let Some(()) = wait_for_engine(&*engine, &readiness, &shutdown).await? else { return Ok(()) };

    let (log, before) = begin_audit(&config, client.clone(), Arc::clone(&clock)).await?;
    let exec_exits = ExecExits::default();
    let listening = exec_exits.clone().listen(Arc::clone(&engine), readiness.clone(), ended.clone());
    parts.spawn(async {
        listening.await;
        Ok(())
    });
    let hubs = Arc::new(Hubs::default());
    let mut published = None;
    if let (Some(told), Some(listener)) = (&config.streams, streams) {
        let (tls, where_and_who) = serve::identity::make(told.endpoint)?;
        published = Some(where_and_who);
        let streams = StreamServer {
            node: config.node.clone(),
            requests: KubeRequests::new(client.clone()),
            admission: Admission::new(client.clone(), &told.manager, &config.node),
            hubs: Arc::clone(&hubs),
            spool: spool.clone(),
            audit: Audit::new(log.clone(), config.audit_policy, Arc::clone(&clock), metrics.clone()),
            metrics: metrics.clone(),
            clock: Arc::clone(&clock),
            pace: Pace::default(),
            shutdown: ended.clone(),
        };
        viewers = Some(tokio::spawn(serve::serve(listener, tls, streams)));
    }
    let chain = (log.clone(), before);
    let heartbeat = Heartbeat::new(client.clone(), &config.namespace, &config.node, chain, published);
    let beating = heartbeat.run(Arc::clone(&clock), readiness.clone(), shutdown.clone());
    parts.spawn(async {
        beating.await;
        Ok(())
    });
    let node = Arc::new(Node::<Real<E>> {
        name: config.node.clone(),
        boot,
        engine,
        kernel: Linux,
        requests: KubeRequests::new(client.clone()),
        gate: Gate::new(config.rules.clone(), Policies::new(client.clone(), &config.namespace)),
        audit: Audit::new(log.clone(), config.audit_policy, Arc::clone(&clock), metrics.clone()),
        events: Events::new(client.clone(), names::AGENT_CONTROLLER, config.node.as_str()),
        journal,
        spool,
        writers: Writers::default(),
        hubs,
        exec_exits,
        metrics,
        pulse: Arc::default(),
        clock,
        handover: Arc::clone(&handover),
        handed_over: Mutex::new(handed_over),
        stopping: shutdown.clone(),
    });
    parts.spawn(Arc::clone(&node.pulse).take().map(Ok));
    let state = config.state_dir.clone();
    parts.spawn(async move {
        if let Err(error) = handover.expect(&state).await {
            tracing::warn!(%error, "no successor can take over the engine's connections");
        }
        Ok(())
    });
    let intake = Intake { limits: config.limits, drain: config.drain_timeout };
    let news = desk::news(client, &config.node);
    let watching = desk::run(node, news, intake, records, readiness, shutdown.clone());
    let result = tokio::select! {
        () = watching => Ok(()),
        part = first_failure(&mut parts) => Err(part),
    };
    ended.cancel();
    if let Some(viewers) = viewers
        && timeout(GOODBYE, viewers).await.is_err()
    {
        tracing::debug!("not every viewer said goodbye");
    }
    log.flush().await;
    result
}

/// Begins to write the audit log, which nobody else does once this agent has the journal. The first
/// record tells the head that the Lease has of it, so that a cut tail shows.
async fn begin_audit(config: &Config, client: Client, clock: Arc<dyn Clock>) -> Result<(Log, Before), AgentError> {
    let writer = format!("agent/{}", config.node);
    let leases = Api::namespaced(client, &config.namespace);
    let (before, published) = published::ask(&leases, &names::agent_lease(config.node.as_str()), &writer).await;
    let sink = Sink::Folder(config.audit_dir.clone(), config.audit_retention);
    let log = Log::begin(sink, &writer, clock, published.as_ref());
    let log = log.map_err(|source| AgentError::Io { what: "audit log".to_owned(), source })?;
    Ok((log, before))
}

fn health_endpoints(
    parts: &mut JoinSet<Result<(), AgentError>>,
    listener: TcpListener,
    readiness: &Readiness,
    registry: Registry,
    ended: &CancellationToken,
) {
    let serving = health::serve(listener, readiness.clone(), Arc::new(registry), ended.clone());
    parts.spawn(async {
        serving.await.map_err(|source| AgentError::Io { what: "health endpoints".to_owned(), source })
    });
}

/// Waits for a part to fail. Parts that end well were told to.
async fn first_failure(parts: &mut JoinSet<Result<(), AgentError>>) -> AgentError {
    loop {
        match parts.join_next().await {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => return error,
            Some(Err(error)) => return AgentError::Task(error.to_string()),
            None => std::future::pending().await,
        }
    }
}

/// Opens the journal as soon as no other agent has it: during an update the one before this may
/// still be with its last commands. `None` if told to stop before.
async fn open_journal<E: Engine>(
    engine: &E,
    state: &Path,
    readiness: &Readiness,
    shutdown: &CancellationToken,
) -> Result<Option<(Journal<Folder>, Vec<Record>, HandedOver)>, AgentError> {
    let mut receiver = Receiver::new(state);
    let (begun, mut told) = (Instant::now(), false);
    let me = serde_json::to_string(&process::find(std::process::id())).unwrap_or_default();
    loop {
        let opened = Folder::open(state, JOURNAL_FOLDER, &me).map_err(JournalError::from).and_then(Journal::open);
        match opened {
            Ok((journal, records)) => {
                readiness.ready(JOURNAL_CHECK);
                readiness.stand_by(false);
                return Ok(Some((journal, records, receiver.handed_over().await)));
            }
            Err(JournalError::Locked { path }) => {
                let error = JournalError::Locked { path: path.clone() };
                if !std::mem::replace(&mut told, true) {
                    tracing::info!(%error, "standing by for the journal");
                }
                readiness.not_ready(JOURNAL_CHECK, error.to_string());
                receiver.connect();
                // An agent that is replaced ends only when the one beside it is ready.
                readiness.stand_by(begun.elapsed() < STAND_BY);
                end_orphan(engine, &path).await;
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            // It is about to end.
            () = receiver.predecessor_gone() => sleep(LOCK_RETRY).await,
            () = sleep(JOURNAL_RETRY) => {}
        }
    }
}

/// Ends the agent that has the lock, if the engine no longer knows that it runs. An engine that is
/// killed while it starts a container may leave one behind: it is cut off from the network, and
/// nobody else would ever end it. One that is still with its last commands is never touched.
async fn end_orphan<E: Engine>(engine: &E, lock: &Path) {
    let holder = std::fs::read_to_string(lock).ok().and_then(|text| serde_json::from_str::<ProcessRef>(&text).ok());
    let Some(holder) = holder.filter(|holder| process::alive(*holder)) else { return };
    let Some(container) = process::container_of(holder) else { return };
    match engine.container(&container).await {
        Ok(Some(Container { state: ContainerState::Running | ContainerState::Paused, .. })) | Err(_) => {}
        Ok(Some(Container { state: ContainerState::Stopped(_), .. }) | None) => {
            let ended = process::signal(holder, &container, Signal::Kill);
            tracing::warn!(pid = holder.pid, %container, ?ended, "the agent that has the journal was left behind by the engine: ended it");
        }
    }
}

/// Waits until the engine answers. `None` if told to stop before.
async fn wait_for_engine<E: Engine>(
    engine: &E,
    readiness: &Readiness,
    shutdown: &CancellationToken,
) -> Result<Option<()>, AgentError> {
    loop {
        match engine.version().await {
            Ok(version) => {
                tracing::info!(engine = version.engine, api = version.api, "the engine answers");
                readiness.ready(ENGINE_CHECK);
                return Ok(Some(()));
            }
            Err(error @ EngineError::Unreachable { .. }) => {
                tracing::warn!(%error, "waiting for the engine");
                readiness.not_ready(ENGINE_CHECK, error.to_string());
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            () = sleep(ENGINE_RETRY) => {}
        }
    }
}
