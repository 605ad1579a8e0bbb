//! The aggregated API `subresources.execlet.dev`: attach to the command of a request, and read its log.
//!
//! The API server passes calls on to here; every replica answers, leader or not. A call goes
//! `server` (TLS) -> `front_proxy` (who asks) -> `serve` -> `query` and `websocket` (what) -> `authorize`
//! (may they) -> `locate` (where) -> `agent` -> `join`. What is said over the joined connections is
//! between client and agent: nothing here knows it. Neither does anything here know what a request
//! means, beyond its node.

mod agent;
mod call;
mod certificate;
mod discovery;
mod listen;
mod metrics;

use std::{path::PathBuf, sync::Arc, time::Duration};

use kube::Client;
use prometheus_client::registry::Registry;
use rustls::crypto::ring::default_provider;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    agent::{connect::Agents, locate::Locator, tokens::Tokens},
    call::{limits::Streams, serve::Api},
    certificate::{Files, Keeper, Lifetimes, Serving},
    listen::server::Server,
    metrics::Metrics,
};
use crate::{
    api::names::{SUBRESOURCES_GROUP, SUBRESOURCES_VERSION},
    core::admission::ServiceAccount,
    infra::{clock::Clock, health::Readiness},
};

/// How long new connections are still taken once told to stop: until everybody knows that this replica
/// is no end of the Service any more.
const STILL_SERVED: Duration = Duration::from_secs(3);
/// How long what was cut may take to end.
const LAST_CALLS: Duration = Duration::from_secs(2);

/// What the aggregated API is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespace of the agents' Leases, of the Service and of the Secret.
    pub namespace: String,
    /// Where the certificate comes from.
    pub certificate: CertificateSource,
    /// The manager's own, of which agents admit tokens.
    pub account: ServiceAccount,
    /// Name of the manager's pod, with which those tokens end.
    pub pod: String,
    /// How long a call waits for its request to be bound, and for the agent.
    pub wait: Duration,
    /// Streams at a time.
    pub most_streams: usize,
    /// Streams of one user at a time.
    pub most_streams_per_user: usize,
    /// How long client and command may both be silent.
    pub idle: Duration,
    /// How long streams may go on once told to stop.
    pub drain: Duration,
}

/// Where the serving certificate comes from.
#[derive(Clone, Debug)]
pub enum CertificateSource {
    /// Made here, and told to the API server.
    Own {
        /// Name of the Secret.
        secret: String,
        /// Name of the Service.
        service: String,
        /// How long each certificate lives.
        life: Duration,
    },
    /// Made by somebody else: a folder with `tls.crt` and `tls.key`.
    Mounted(PathBuf),
}

/// The edges of the aggregated API.
pub(super) struct Edges {
    pub(super) client: Client,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) listener: TcpListener,
    pub(super) readiness: Readiness,
    pub(super) metrics: Counters,
    pub(super) shutdown: CancellationToken,
}

/// What is counted here.
pub(super) struct Counters(Metrics);

impl Counters {
    /// In this registry.
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self(Metrics::register(registry))
    }
}

/// Serves until told to stop, and then the streams that are open for as long as they may.
///
/// # Errors
/// When TLS cannot be set up.
pub(super) async fn run(config: Config, edges: Edges) -> Result<(), rustls::Error> {
    let Edges { client, clock, listener, readiness, metrics: Counters(metrics), shutdown } = edges;
    let provider = Arc::new(default_provider());
    readiness.expect(listen::front_proxy::CHECK);
    readiness.expect(certificate::CHECK);
    let mut keeping = JoinSet::new();

    let (known, front_proxy) = watch::channel(None);
    keeping.spawn(listen::front_proxy::watch_config(client.clone(), Arc::clone(&provider), known, readiness.clone()));

    let serving = Serving::default();
    let ends = metrics.certificate_ends.clone();
    match config.certificate {
        CertificateSource::Own { secret, service, life } => {
            let names = certificate::Names {
                namespace: config.namespace.clone(),
                secret,
                service,
                api_service: format!("{SUBRESOURCES_VERSION}.{SUBRESOURCES_GROUP}"),
            };
            let keeper = Keeper {
                client: client.clone(),
                names,
                lifetimes: Lifetimes::of(life),
                provider: Arc::clone(&provider),
                clock: Arc::clone(&clock),
                serving: serving.clone(),
                ends,
            };
            keeping.spawn(keeper.run(readiness));
        }
        CertificateSource::Mounted(folder) => {
            let files = Files { folder, provider: Arc::clone(&provider), serving: serving.clone(), ends };
            keeping.spawn(files.run(readiness));
        }
    }

    let (stop, cut, joined) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
    let tokens = Tokens::new(client.clone(), &config.account, &config.pod);
    let api = Api {
        locator: Locator { client: client.clone(), namespace: config.namespace },
        agents: Agents::new(Arc::clone(&provider), tokens, joined.clone()),
        streams: Streams::new(config.most_streams, config.most_streams_per_user, metrics.streams.clone()),
        front_proxy: front_proxy.clone(),
        clock: Arc::clone(&clock),
        metrics: metrics.clone(),
        wait: config.wait,
        idle: config.idle,
        joined: joined.clone(),
        cut: cut.clone(),
        client,
    };
    let tls = listen::server::tls(serving, provider)?;
    let most_connections = listen::server::MOST_CONNECTIONS;
    let server = Server { listener, tls, router: api.router(), front_proxy, clock, metrics, most_connections };
    let mut serving = JoinSet::new();
    serving.spawn(server.run(stop.clone(), cut.clone()));
    tokio::select! {
        () = shutdown.cancelled() => {}
        // Neither ends by itself: it would be a panic.
        _ = serving.join_next() => return Err(ended("the listener")),
        _ = keeping.join_next() => return Err(ended("what keeps certificate and front proxy")),
    }
    sleep(STILL_SERVED).await;
    stop.cancel();
    joined.close();
    let drained = async {
        joined.wait().await;
        while serving.join_next().await.is_some() {}
    };
    if timeout(config.drain, drained).await.is_err() {
        tracing::warn!(streams = joined.len(), "streams are cut: they went on for as long as they may");
        cut.cancel();
        let last = async {
            joined.wait().await;
            while serving.join_next().await.is_some() {}
        };
        if timeout(LAST_CALLS, last).await.is_err() {
            tracing::warn!("connections did not end in time");
        }
    }
    Ok(())
}

fn ended(what: &str) -> rustls::Error {
    rustls::Error::General(format!("{what} ended"))
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
