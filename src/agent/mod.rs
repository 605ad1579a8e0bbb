//! The agent: runs the requests that are bound to its node.
//!
//! `intake` takes the requests, `request` has one file a step of a request's way, `command` what goes on beside a command
//! that runs, `streams` what lies between it and its viewers, `memory` and `handover` what outlives an agent. The agent
//! never reads pods, and writes nothing but the status of requests, its Lease and Events. Of batches it reads the one that a
//! request names.

pub mod batches;
pub mod command;
pub mod gate;
pub mod intake;
pub mod memory;
pub mod node;
pub mod serve;
pub mod streams;

mod error;
mod handover;
mod heartbeat;
mod leftovers;
mod refusal;
mod request;
mod runtime;
mod standby;

use std::{collections::HashSet, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use futures::{FutureExt as _, Stream};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use self::{
    batches::Batches,
    gate::Gate,
    handover::{give::Sender, message::HandedOver},
    heartbeat::Heartbeat,
    intake::{
        desk::{self, Intake},
        watch,
    },
    memory::{
        disk::Folder,
        exec_exits::{self, ExecExits},
        journal::Journal,
        record::Record,
    },
    node::{Node, World},
    refusal::{ENGINE_CHECK, Mark},
    serve::{StreamServer, admission::Admission, identity::Published, limits::Pace},
    standby::{EngineSaid, EngineWait, JOURNAL_CHECK, Opened, open_journal},
    streams::{hub::Hubs, spool::Spool, turns::Writers},
};
pub use self::{
    error::AgentError,
    refusal::Refusal,
    runtime::{Named, NodeRuntime},
};
use crate::{
    api::names,
    core::{
        admission::ServiceAccount,
        ids::{BootId, NodeName, RequestUid},
        queue::Limits,
    },
    engine::Engine,
    infra::{
        audit::{
            Audit, Policy,
            file::Retention,
            published::{self, Before},
            writer::{Log, Sink},
        },
        batches::KubeBatches,
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

/// How long viewers may take to leave once this agent ends: its successor waits.
const GOODBYE: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
pub struct Config {
    pub node: NodeName,
    /// Namespace of its Lease.
    pub namespace: String,
    /// Of the journal.
    pub state_dir: PathBuf,
    /// Of the spool.
    pub log_dir: PathBuf,
    pub limits: Limits,
    pub audit_dir: PathBuf,
    pub audit_retention: Retention,
    pub audit_policy: Policy,
    pub spool_total_bytes: u64,
    /// How long, once told to stop, it goes on with what runs.
    pub drain_timeout: Duration,
    pub rules: Rules,
    /// How streams are served, if they are.
    pub streams: Option<StreamsConfig>,
}

#[derive(Clone, Debug)]
pub struct StreamsConfig {
    /// Where the manager reaches it.
    pub endpoint: SocketAddr,
    pub manager: ServiceAccount,
}

/// The edges of the agent, so that a test can give it others.
pub struct Edges {
    pub client: Client,
    pub clock: Arc<dyn Clock>,
    pub endpoints: Endpoints,
    /// What the Node has said of the engine, if it was asked.
    pub named: Option<Named>,
    /// Where streams are served, if they are.
    pub streams: Option<TcpListener>,
    pub shutdown: CancellationToken,
}

/// Health and metrics, which are served from the first moment on.
pub struct Endpoints {
    metrics: Metrics,
    readiness: Readiness,
    ended: CancellationToken,
    parts: Parts,
}

impl Endpoints {
    pub fn serve(listener: TcpListener) -> Self {
        let (metrics, registry) = Metrics::for_agent();
        let readiness = Readiness::default();
        for check in [JOURNAL_CHECK, ENGINE_CHECK, exec_exits::CHECK, desk::CHECK, heartbeat::CHECK] {
            readiness.expect(check);
        }
        let ended = CancellationToken::new();
        let mut parts = Parts::default();
        let health = health::serve(listener, readiness.clone(), Arc::new(registry), ended.clone());
        parts.0.spawn(health.map(|served| served.map_err(AgentError::io("health endpoints"))));
        Self { metrics, readiness, ended, parts }
    }

    /// What says, here and in the Lease of the agent on `node`, that an engine is not one to work with.
    pub fn refusal(&self, client: Client, namespace: &str, node: &NodeName) -> Refusal {
        Refusal::new(Mark::new(client, namespace, node), self.readiness.clone(), self.metrics.clone())
    }
}

struct Real<E>(std::marker::PhantomData<E>);

impl<E: Engine> World for Real<E> {
    type Engine = E;
    type Requests = KubeRequests;
    type Batches = KubeBatches;
    type Kernel = Linux;
    type Disk = Folder;
    type Trail = Log;
}

/// Runs the agent until it is told to stop.
pub async fn run<E: Engine>(config: Config, engine: Arc<E>, edges: Edges) -> Result<(), AgentError> {
    let Edges { client, clock, endpoints, named, streams, shutdown } = edges;
    let refusal = endpoints.refusal(client.clone(), &config.namespace, &config.node);
    // The endpoints outlast the drain, so that a probe does not cut it short.
    let Endpoints { metrics, readiness, ended, mut parts } = endpoints;
    let agent = Agent { config, engine, client, clock, metrics, readiness, shutdown, ended };

    // 1. Be the only agent of this node.
    let opened = open_journal(&*agent.engine, &agent.config.state_dir, &agent.readiness, &agent.shutdown).await?;
    let Some(Opened { journal, records, handed_over }) = opened else { return Ok(()) };
    let spool = agent.open_spool(&records)?;
    let boot = process::boot_id().map_err(AgentError::io("boot ID"))?;
    let (log, before) = agent.begin_audit().await?;

    // 2. Start what goes on beside the requests. Nothing new comes before the engine has answered.
    let (answers, said) = (CancellationToken::new(), EngineSaid::default());
    let exec_exits = ExecExits::default();
    parts.spawn(exec_exits.clone().listen(Arc::clone(&agent.engine), agent.readiness.clone(), agent.ended.clone()));
    let hubs = Arc::new(Hubs::default());
    let (viewers, published) = agent.serve_streams(streams, &log, &spool, &hubs)?;
    let heartbeat = Heartbeat::new(
        agent.client.clone(),
        &agent.config.namespace,
        &agent.config.node,
        (log.clone(), before),
        published,
        said.clone(),
    );
    let beating = heartbeat.run(Arc::clone(&agent.clock), agent.readiness.clone(), agent.shutdown.clone());
    parts.spawn(answers.clone().cancelled_owned().then(|()| beating));
    let state = NodeState { journal, handed_over, boot, spool, hubs, exec_exits };
    let node = Arc::new(agent.node(&log, state));
    let open = records.iter().map(|record| record.request.uid.clone()).collect();
    let (waiting, readiness) = (Arc::clone(&node), agent.readiness.clone());
    let wait = EngineWait { node: waiting, readiness, refusal, named, said, open };
    parts.0.spawn(wait.run(answers.clone()));
    parts.spawn(Arc::clone(&node.pulse).take());
    let holding = Arc::clone(&node);
    parts.spawn(async move { holding.engine.hold_output().await });
    parts.spawn(accept_successors(Arc::clone(&node.handover), agent.config.state_dir.clone()));

    // 3. Work until told to stop. What runs already is looked after at once.
    let intake = Intake { limits: agent.config.limits, drain: agent.config.drain_timeout };
    let events = agent.events_after(answers);
    let result = tokio::select! {
        () = desk::run(node, events, intake, records, agent.readiness.clone(), agent.shutdown.clone()) => Ok(()),
        failure = parts.first_failure() => Err(failure),
    };

    // 4. Say goodbye.
    agent.ended.cancel();
    if let Some(viewers) = viewers
        && timeout(GOODBYE, viewers).await.is_err()
    {
        tracing::debug!("not every viewer has left in time");
    }
    log.flush().await;
    result
}

/// What the parts of an agent are made from.
struct Agent<E> {
    config: Config,
    engine: Arc<E>,
    client: Client,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    readiness: Readiness,
    /// The agent is told to stop.
    shutdown: CancellationToken,
    /// Its last command is done.
    ended: CancellationToken,
}

impl<E: Engine> Agent<E> {
    fn open_spool(&self, records: &[Record]) -> Result<Spool, AgentError> {
        let unfinished: HashSet<RequestUid> = records.iter().map(|record| record.request.uid.clone()).collect();
        let (folder, gauge) = (&self.config.log_dir, self.metrics.spool_bytes.clone());
        Spool::open(folder, self.config.spool_total_bytes, &unfinished, gauge)
            .map_err(AgentError::io(&format!("spool folder {}", folder.display())))
    }

    /// Begins to write the audit log, which nobody else does once this agent has the journal. The first record tells the
    /// head that the Lease has of it, so that a cut tail shows.
    async fn begin_audit(&self) -> Result<(Log, Before), AgentError> {
        let writer = format!("agent/{}", self.config.node);
        let leases = Api::namespaced(self.client.clone(), &self.config.namespace);
        let lease = names::agent_lease(self.config.node.as_str());
        let (before, published) = published::ask(&leases, &lease, &writer).await;
        let sink = Sink::Folder(self.config.audit_dir.clone(), self.config.audit_retention);
        let log = Log::begin(sink, &writer, Arc::clone(&self.clock), published.as_ref());
        Ok((log.map_err(AgentError::io("audit log"))?, before))
    }

    /// The requests of this node, once that has happened.
    fn events_after(
        &self,
        answers: CancellationToken,
    ) -> impl Stream<Item = Result<watch::Event, String>> + Send + Unpin {
        let events = watch::events(self.client.clone(), &self.config.node);
        Box::pin(answers.cancelled_owned().map(|()| events).flatten_stream())
    }

    fn audit(&self, log: &Log) -> Audit<Log> {
        Audit::new(log.clone(), self.config.audit_policy, Arc::clone(&self.clock), self.metrics.clone())
    }

    /// Starts the stream server, if there is to be one. Returns what the Lease tells of it.
    fn serve_streams(
        &self,
        listener: Option<TcpListener>,
        log: &Log,
        spool: &Spool,
        hubs: &Arc<Hubs>,
    ) -> Result<(Option<JoinHandle<()>>, Option<Published>), AgentError> {
        let Some((config, listener)) = self.config.streams.as_ref().zip(listener) else { return Ok((None, None)) };
        let (tls, published) = serve::identity::make(config.endpoint)?;
        let server = StreamServer {
            node: self.config.node.clone(),
            requests: KubeRequests::new(self.client.clone()),
            admission: Admission::new(self.client.clone(), &config.manager, &self.config.node),
            hubs: Arc::clone(hubs),
            spool: spool.clone(),
            audit: self.audit(log),
            metrics: self.metrics.clone(),
            clock: Arc::clone(&self.clock),
            pace: Pace::default(),
            shutdown: self.ended.clone(),
        };
        Ok((Some(tokio::spawn(serve::serve(listener, tls, server))), Some(published)))
    }

    fn node(&self, log: &Log, state: NodeState) -> Node<Real<E>> {
        let NodeState { journal, handed_over, boot, spool, hubs, exec_exits } = state;
        let (config, client) = (&self.config, &self.client);
        Node {
            name: config.node.clone(),
            boot,
            engine: Arc::clone(&self.engine),
            kernel: Linux,
            requests: KubeRequests::new(client.clone()),
            batches: Batches::new(KubeBatches::new(client.clone())),
            gate: Gate::new(config.rules.clone(), Policies::new(client.clone(), &config.namespace)),
            audit: self.audit(log),
            events: Events::new(client.clone(), names::AGENT_CONTROLLER, config.node.as_str()),
            journal,
            spool,
            writers: Writers::default(),
            hubs,
            exec_exits,
            metrics: self.metrics.clone(),
            pulse: Arc::default(),
            clock: Arc::clone(&self.clock),
            handover: Arc::default(),
            handed_over: Mutex::new(handed_over),
            stopping: self.shutdown.clone(),
        }
    }
}

struct NodeState {
    journal: Journal<Folder>,
    handed_over: HandedOver,
    boot: BootId,
    spool: Spool,
    hubs: Arc<Hubs>,
    exec_exits: ExecExits,
}

#[derive(Default)]
struct Parts(JoinSet<Result<(), AgentError>>);

impl Parts {
    fn spawn(&mut self, part: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(part.map(Ok));
    }

    /// Waits for a part to fail. Parts that end well were told to.
    async fn first_failure(&mut self) -> AgentError {
        loop {
            match self.0.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => return error,
                Some(Err(error)) => return AgentError::Task(error.to_string()),
                None => std::future::pending().await,
            }
        }
    }
}

async fn accept_successors(handover: Arc<Sender>, state: PathBuf) {
    if let Err(error) = handover.listen(&state).await {
        tracing::warn!(%error, "no successor can take over the engine's connections");
    }
}
