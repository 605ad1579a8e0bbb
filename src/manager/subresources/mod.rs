//! The aggregated API `subresources.execlet.dev`: attach to the command of a request, and read its log.
//!
//! The API server passes calls on to here; every replica answers, leader or not. A call goes
//! `listen` (TLS, and who asks) -> `call` (what, whether they may) -> `agent` (where, and joined with it). What is
//! said over joined connections is between client and agent. What a request means, beyond its node, is not known here.

mod agent;
mod call;
mod certificate;
mod discovery;
mod listen;
mod metrics;
mod target;

use std::{path::PathBuf, pin::pin, sync::Arc, time::Duration};

use kube::Client;
use rustls::crypto::{CryptoProvider, ring::default_provider};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(super) use self::metrics::Metrics;
use self::{
    agent::{connect::Agents, locate::Locator, tokens::Tokens},
    call::{limits::StreamLimits, serve::Api},
    certificate::{
        files::Files,
        keeper::{Keeper, Names},
        plan::Lifetimes,
        serving::Serving,
    },
    listen::{
        front_proxy::{self, FrontProxy},
        server::Server,
    },
};
use crate::{
    api::names::{SUBRESOURCES_GROUP, SUBRESOURCES_VERSION},
    core::admission::ServiceAccount,
    infra::{clock::Clock, health::Readiness},
};

/// How long connections are still accepted once told to stop: until everybody knows that this replica is not an
/// endpoint of the Service any more.
const STILL_SERVED: Duration = Duration::from_secs(3);
const LAST_CALLS: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub struct Config {
    /// Namespace of the agents' Leases, of the Service and of the Secret.
    pub namespace: String,
    pub certificate: CertificateSource,
    /// The manager's own, of which agents admit tokens.
    pub account: ServiceAccount,
    /// Name of the manager's pod, with which those tokens end.
    pub pod: String,
    /// How long a call waits for its request to be bound, and for the agent.
    pub wait: Duration,
    pub most_streams: usize,
    pub most_streams_per_user: usize,
    /// How long client and command may both be silent.
    pub idle: Duration,
    /// How long streams may go on once told to stop.
    pub drain: Duration,
}

#[derive(Clone, Debug)]
pub enum CertificateSource {
    Own {
        secret: String,
        service: String,
        life: Duration,
    },
    /// Made by somebody else: a folder with `tls.crt` and `tls.key`.
    Mounted(PathBuf),
}

pub(super) struct Edges {
    pub(super) client: Client,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) listener: TcpListener,
    pub(super) readiness: Readiness,
    pub(super) metrics: Metrics,
    pub(super) shutdown: CancellationToken,
}

/// Serves until told to stop, and then the streams that are open for as long as they may.
pub(super) async fn run(config: Config, edges: Edges) -> Result<(), rustls::Error> {
    let provider = Arc::new(default_provider());
    let (known, front_proxy) = watch::channel(None);
    let serving = Serving::default();
    let mut keeping = keep(&config, &edges, &provider, known, &serving);
    let streams = Joined::default();
    let tls = listen::server::tls(serving, Arc::clone(&provider))?;
    let router = api(&config, &edges, provider, front_proxy.clone(), &streams).router();
    let Edges { clock, listener, metrics, shutdown, .. } = edges;
    let most_connections = listen::server::MOST_CONNECTIONS;
    let server = Server { listener, tls, router, front_proxy, clock, metrics, most_connections };
    let stop = CancellationToken::new();
    let mut server = JoinSet::from_iter([server.run(stop.clone(), streams.cut.clone())]);
    tokio::select! {
        () = shutdown.cancelled() => {}
        // Neither ends by itself: it has panicked.
        _ = server.join_next() => return Err(ended("the listener")),
        _ = keeping.join_next() => return Err(ended("what keeps certificate and front proxy")),
    }
    sleep(STILL_SERVED).await;
    stop.cancel();
    streams.drain(server, config.drain).await;
    Ok(())
}

fn keep(
    config: &Config,
    edges: &Edges,
    provider: &Arc<CryptoProvider>,
    known: watch::Sender<Option<Arc<FrontProxy>>>,
    serving: &Serving,
) -> JoinSet<()> {
    let Edges { client, clock, readiness, metrics, .. } = edges;
    readiness.expect(front_proxy::CHECK);
    readiness.expect(certificate::serving::CHECK);
    let mut keeping = JoinSet::new();
    keeping.spawn(front_proxy::watch_config(client.clone(), Arc::clone(provider), known, readiness.clone()));
    let (provider, serving, ends) = (Arc::clone(provider), serving.clone(), metrics.certificate_ends.clone());
    match &config.certificate {
        CertificateSource::Own { secret, service, life } => {
            let names = Names {
                namespace: config.namespace.clone(),
                secret: secret.clone(),
                service: service.clone(),
                api_service: format!("{SUBRESOURCES_VERSION}.{SUBRESOURCES_GROUP}"),
            };
            let (client, clock, lifetimes) = (client.clone(), Arc::clone(clock), Lifetimes::of(*life));
            let keeper = Keeper { client, names, lifetimes, provider, clock, serving, ends };
            keeping.spawn(keeper.run(readiness.clone()));
        }
        CertificateSource::Mounted(folder) => {
            let files = Files { folder: folder.clone(), provider, serving, ends };
            keeping.spawn(files.run(readiness.clone()));
        }
    }
    keeping
}

fn api(
    config: &Config,
    edges: &Edges,
    provider: Arc<CryptoProvider>,
    front_proxy: front_proxy::Current,
    joined: &Joined,
) -> Api {
    let Edges { client, clock, metrics, .. } = edges;
    let tokens = Tokens::new(client.clone(), &config.account, &config.pod);
    Api {
        client: client.clone(),
        front_proxy,
        locator: Locator { client: client.clone(), namespace: config.namespace.clone() },
        agents: Agents::new(provider, tokens, joined.streams.clone()),
        streams: StreamLimits::new(config.most_streams, config.most_streams_per_user, metrics.streams.clone()),
        clock: Arc::clone(clock),
        metrics: metrics.clone(),
        wait: config.wait,
        idle: config.idle,
        joined: joined.streams.clone(),
        cut: joined.cut.clone(),
    }
}

#[derive(Default)]
struct Joined {
    streams: TaskTracker,
    cut: CancellationToken,
}

impl Joined {
    /// Lets streams and connections end by themselves for so long, and then cuts them.
    async fn drain(&self, mut server: JoinSet<()>, patience: Duration) {
        self.streams.close();
        let mut drained = pin!(async {
            self.streams.wait().await;
            while server.join_next().await.is_some() {}
        });
        if timeout(patience, &mut drained).await.is_ok() {
            return;
        }
        tracing::warn!(streams = self.streams.len(), "streams are cut: they have not ended in time");
        self.cut.cancel();
        if timeout(LAST_CALLS, drained).await.is_err() {
            tracing::warn!("connections did not end in time");
        }
    }
}

fn ended(what: &str) -> rustls::Error {
    rustls::Error::General(format!("{what} ended"))
}

#[cfg(test)]
mod tests;
