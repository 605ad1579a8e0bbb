//! The manager: binds requests to nodes, and serves the aggregated API. Every replica is ready and
//! serves; the leader binds.
//!
//! It never speaks to an engine and knows nothing of the agent's insides; the
//! two share the API and the cluster's names only.

mod agents;
mod controller;
mod gate;
mod heads;
mod lease;
pub mod subresources;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use kube::{Api, Client};
use thiserror::Error;
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use self::agents::LiveAgents;
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

/// How long giving the Lease back may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the manager is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespace of the Leases.
    pub namespace: String,
    /// Name of this replica, unlike every other's.
    pub identity: String,
    /// How long an agent may be silent before it is taken for dead.
    pub agent_timeout: Duration,
    /// Folder of the audit logs, in which each replica has one of its own; `None` writes to standard output.
    pub audit_dir: Option<PathBuf>,
    /// How much of it is kept.
    pub audit_retention: Retention,
    /// What is recorded, and how strict that is.
    pub audit_policy: Policy,
    /// How long it may be silent before what it runs is given up as lost.
    pub node_lost: Duration,
    /// The aggregated API; none: it is left out.
    pub subresources: Option<subresources::Config>,
    /// What the admission policies must be.
    pub rules: Rules,
}

/// The edges of the manager.
pub struct Edges {
    /// The API server.
    pub client: Client,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Where health and metrics are served.
    pub listener: TcpListener,
    /// Where the aggregated API is served.
    pub subresources: Option<TcpListener>,
    /// When to stop.
    pub shutdown: CancellationToken,
}

/// Why the manager cannot go on.
#[derive(Debug, Error)]
pub enum ManagerError {
    /// The endpoints failed.
    #[error("health endpoints: {0}")]
    Io(#[from] io::Error),
    /// A task that must run for ever has ended.
    #[error("a part of the manager ended: {0}")]
    Task(String),
    /// TLS cannot be set up, or a part of the aggregated API has ended.
    #[error("the aggregated API: {0}")]
    Subresources(#[from] rustls::Error),
}

/// Runs the manager until it is told to stop.
///
/// # Errors
/// When it cannot begin, or a part of it fails for good.
pub async fn run(mut config: Config, edges: Edges) -> Result<(), ManagerError> {
    let Edges { client, clock, listener, subresources, shutdown } = edges;
    let (metrics, mut registry) = Metrics::for_manager();
    let readiness = Readiness::default();
    readiness.expect(lease::CHECK);
    readiness.expect(gate::CHECK);
    let mut parts: JoinSet<Result<(), ManagerError>> = JoinSet::new();
    let (log, before) = begin_audit(&config, client.clone(), Arc::clone(&clock)).await?;
    // Apart, because its streams may go on for longer than anything else here.
    let mut serving_api: JoinSet<Result<(), ManagerError>> = JoinSet::new();
    if let (Some(config), Some(listener)) = (config.subresources.take(), subresources) {
        let edges = subresources::Edges {
            client: client.clone(),
            clock: Arc::clone(&clock),
            listener,
            readiness: readiness.clone(),
            metrics: subresources::Counters::register(&mut registry),
            shutdown: shutdown.clone(),
        };
        serving_api.spawn(async { Ok(subresources::run(config, edges).await?) });
    }
    let serving = health::serve(listener, readiness.clone(), Arc::new(registry), shutdown.clone());
    parts.spawn(async { Ok(serving.await?) });

    let (tell, mut leading) = watch::channel(false);
    let candidate = lease::Candidate {
        client: client.clone(),
        namespace: config.namespace.clone(),
        identity: config.identity.clone(),
        readiness: readiness.clone(),
    };
    parts.spawn(async {
        candidate.stand(tell).await;
        Ok(())
    });
    let publishing = heads::publish(client.clone(), config.namespace.clone(), log.clone(), before, shutdown.clone());
    parts.spawn(async {
        publishing.await;
        Ok(())
    });

    let events = Events::new(client.clone(), names::MANAGER_CONTROLLER, &config.identity);
    let keeper = gate::Keeper {
        client: client.clone(),
        namespace: config.namespace.clone(),
        identity: config.identity.clone(),
        rules: config.rules.clone(),
        events: events.clone(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        clock: Arc::clone(&clock),
    };
    let (gate, keeping) = keeper.open(shutdown.clone());
    parts.spawn(async {
        keeping.await;
        Ok(())
    });

    let binder = controller::write::Binder {
        requests: KubeRequests::new(client.clone()),
        access: Access::new(client.clone()),
        audit: Audit::new(log.clone(), config.audit_policy, Arc::clone(&clock), metrics.clone()),
        events,
        gate,
        agents: LiveAgents::new(config.agent_timeout, metrics.agents.clone(), Arc::clone(&clock)),
        metrics: metrics.clone(),
        clock,
        node_lost: config.node_lost,
        client,
    };
    loop {
        let leads = *leading.borrow_and_update();
        metrics.leader.set(i64::from(leads));
        tracing::info!(leads, identity = config.identity, "leadership");
        if !leads {
            metrics.agents.set(0);
        }
        let term = CancellationToken::new();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            changed = leading.changed() => if changed.is_err() {
                return Err(ManagerError::Task("the election ended".to_owned()));
            },
            part = parts.join_next() => return Err(failure(part)),
            Some(part) = serving_api.join_next() => return Err(failure(Some(part))),
            () = binder.clone().lead(&config.namespace, term.clone()), if leads => {}
        }
        term.cancel();
    }
    // The election sees that nobody listens any more and gives the Lease back, so that another
    // replica leads at once.
    drop(leading);
    let release = async { while parts.join_next().await.is_some() {} };
    if timeout(RELEASE_TIMEOUT, release).await.is_err() {
        tracing::warn!("the leader's Lease could not be given back in time; it runs out by itself");
    }
    log.flush().await;
    // It has bounds of its own.
    while let Some(part) = serving_api.join_next().await {
        part.map_err(|error| ManagerError::Task(error.to_string()))??;
    }
    Ok(())
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
