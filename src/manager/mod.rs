//! The manager: binds requests to nodes, and serves the aggregated API. Every replica is ready and
//! serves; the leader binds.
//!
//! It never calls an engine, and shares with the agent only the API and the names in the cluster.

mod agents;
pub mod controller;
mod gate;
mod heads;
mod lease;
pub mod subresources;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use kube::{Api, Client};
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use self::{agents::LiveAgents, controller::write::Leader};
use crate::{
    api::names,
    infra::{
        access::Access,
        audit::{
            Audit, Policy,
            file::Retention,
            published::{self, Before},
            writer::{Log, Sink},
        },
        clock::Clock,
        events::Events,
        health::{self, Readiness},
        metrics::Metrics,
        policies::Rules,
        requests::KubeRequests,
    },
};

const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct Config {
    /// Of the Leases.
    pub namespace: String,
    /// Name of this replica, unlike every other's.
    pub identity: String,
    /// How long an agent may be silent before it is taken for dead.
    pub agent_timeout: Duration,
    /// Folder of the audit logs, in which each replica has one of its own; `None` writes to standard output.
    pub audit_dir: Option<PathBuf>,
    pub audit_retention: Retention,
    pub audit_policy: Policy,
    /// How long an agent may be silent before what it runs is given up as lost.
    pub node_lost: Duration,
    /// None: without the aggregated API.
    pub subresources: Option<subresources::Config>,
    pub rules: Rules,
}

pub struct Edges {
    pub client: Client,
    pub clock: Arc<dyn Clock>,
    pub listener: TcpListener,
    pub subresources: Option<TcpListener>,
    pub shutdown: CancellationToken,
}

#[derive(Debug, Error)]
pub enum ManagerError {
    #[error("health endpoints: {0}")]
    Io(#[from] io::Error),
    #[error("a part of the manager ended: {0}")]
    Task(String),
    #[error("the aggregated API: {0}")]
    Subresources(#[from] rustls::Error),
}

pub async fn run(mut config: Config, mut edges: Edges) -> Result<(), ManagerError> {
    let (metrics, mut registry) = Metrics::for_manager();
    let readiness = Readiness::default();
    readiness.expect(lease::CHECK);
    readiness.expect(gate::CHECK);
    let (log, before) = begin_audit(&config, edges.client.clone(), Arc::clone(&edges.clock)).await?;
    // Apart from the other parts, because streams may go on for longer.
    let mut streams = serve_subresources(&mut config, &mut edges, &readiness, &mut registry);
    let Edges { client, clock, listener, shutdown, .. } = edges;
    let mut parts = Parts::new();
    let serving = health::serve(listener, readiness.clone(), Arc::new(registry), shutdown.clone());
    parts.spawn(async { Ok(serving.await?) });

    let candidate = lease::Candidate {
        client: client.clone(),
        namespace: config.namespace.clone(),
        identity: config.identity.clone(),
        readiness: readiness.clone(),
    };
    let (tell, leading) = watch::channel(false);
    spawn(&mut parts, candidate.stand(tell));
    let namespace = config.namespace.clone();
    spawn(&mut parts, heads::publish(client.clone(), namespace, log.clone(), before, shutdown.clone()));

    let events = Events::new(client.clone(), names::MANAGER_CONTROLLER, &config.identity);
    let keeper = gate::Keeper {
        client: client.clone(),
        namespace: config.namespace.clone(),
        identity: config.identity.clone(),
        rules: config.rules.clone(),
        events: events.clone(),
        metrics: metrics.clone(),
        readiness,
        clock: Arc::clone(&clock),
    };
    let (gate, keeping) = keeper.open(shutdown.clone());
    spawn(&mut parts, keeping);
    let binder = Leader {
        requests: KubeRequests::new(client.clone()),
        access: Access::new(client.clone()),
        audit: Audit::new(log.clone(), config.audit_policy, Arc::clone(&clock), metrics.clone()),
        events,
        gate,
        agents: LiveAgents::new(config.agent_timeout, metrics.agents.clone(), Arc::clone(&clock)),
        metrics,
        clock,
        node_lost: config.node_lost,
        client,
    };
    lead(&config, binder, leading, (&mut parts, &mut streams), &shutdown).await?;
    end(parts, streams, &log).await
}

/// Ends what is left, in order: the Lease is given back, the audit log flushed, and streams drained.
async fn end(mut parts: Parts, mut streams: Parts, log: &Log) -> Result<(), ManagerError> {
    let release = async { while parts.join_next().await.is_some() {} };
    if timeout(RELEASE_TIMEOUT, release).await.is_err() {
        tracing::warn!("the leader's Lease could not be given back in time; it runs out by itself");
    }
    log.flush().await;
    // It stops within bounds of its own.
    while let Some(part) = streams.join_next().await {
        part.map_err(|error| ManagerError::Task(error.to_string()))??;
    }
    Ok(())
}

type Parts = JoinSet<Result<(), ManagerError>>;

fn spawn(parts: &mut Parts, part: impl Future<Output = ()> + Send + 'static) {
    parts.spawn(async {
        part.await;
        Ok(())
    });
}

fn serve_subresources(config: &mut Config, edges: &mut Edges, readiness: &Readiness, registry: &mut Registry) -> Parts {
    let mut parts = Parts::new();
    if let (Some(config), Some(listener)) = (config.subresources.take(), edges.subresources.take()) {
        let edges = subresources::Edges {
            client: edges.client.clone(),
            clock: Arc::clone(&edges.clock),
            listener,
            readiness: readiness.clone(),
            metrics: subresources::Metrics::register(registry),
            shutdown: edges.shutdown.clone(),
        };
        parts.spawn(async { Ok(subresources::run(config, edges).await?) });
    }
    parts
}

/// Binds while this replica leads, until `shutdown`. Who drops `leading` gives the Lease back, so that another replica
/// leads at once.
async fn lead(
    config: &Config,
    binder: Leader,
    mut leading: watch::Receiver<bool>,
    (parts, streams): (&mut Parts, &mut Parts),
    shutdown: &CancellationToken,
) -> Result<(), ManagerError> {
    loop {
        let leads = *leading.borrow_and_update();
        binder.metrics.leader.set(i64::from(leads));
        tracing::info!(leads, identity = config.identity, "leadership");
        if !leads {
            binder.metrics.agents.set(0);
        }
        let term = CancellationToken::new();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            changed = leading.changed() => if changed.is_err() {
                return Err(ManagerError::Task("the election ended".to_owned()));
            },
            part = parts.join_next() => return Err(failure(part)),
            Some(part) = streams.join_next() => return Err(failure(Some(part))),
            () = binder.clone().lead(&config.namespace, term.clone()), if leads => {}
        }
        term.cancel();
    }
}

/// Begins to write the audit log. The first record tells the head that the Lease has of it. What goes to
/// standard output is a chain for each process, because nobody can read it back, and has none.
async fn begin_audit(config: &Config, client: Client, clock: Arc<dyn Clock>) -> io::Result<(Log, Before)> {
    let identity = &config.identity;
    let Some(folder) = &config.audit_dir else {
        let writer = format!("manager/{identity}@{}", clock.now());
        return Ok((Log::begin(Sink::Stdout, &writer, clock, None)?, Before::Told));
    };
    let writer = format!("manager/{identity}");
    let leases = Api::namespaced(client, &config.namespace);
    let (before, published) = published::ask(&leases, names::LEADER_LEASE, &writer).await;
    let sink = Sink::Folder(folder.join(identity), config.audit_retention);
    Ok((Log::begin(sink, &writer, clock, published.as_ref())?, before))
}

fn failure(part: Option<Result<Result<(), ManagerError>, tokio::task::JoinError>>) -> ManagerError {
    match part {
        Some(Ok(Err(error))) => error,
        Some(Err(error)) => ManagerError::Task(error.to_string()),
        Some(Ok(Ok(()))) | None => ManagerError::Task("it ended early".to_owned()),
    }
}
