//! Keeps the certificate that every replica serves: in one Secret, which whoever is first writes, and
//! its authorities in the `caBundle` of the `APIService`.
//!
//! Every replica looks, leader or not, and each write is a compare-and-swap: the loser looks again.
//! Both objects are the chart's, so that no right to create any is needed and both go with the release.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{ByteString, api::core::v1::Secret, kube_aggregator::pkg::apis::apiregistration::v1::APIService};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use prometheus_client::metrics::gauge::Gauge;
use rustls::crypto::CryptoProvider;
use serde_json::json;
use thiserror::Error;
use tokio::time::{sleep, timeout};

use super::{
    CHECK, Serving,
    pair::{Pair, PairError, Usable},
    plan::{Lifetimes, Next, Step, plan},
    store::Stored,
};
use crate::infra::{clock::Clock, health::Readiness};

/// How long the API server may take for one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon it is looked again after a failure or a lost write.
const RETRY: Duration = Duration::from_secs(1);

/// The objects.
#[derive(Clone, Debug)]
pub(in crate::manager::subresources) struct Names {
    /// Namespace of Secret and Service.
    pub(in crate::manager::subresources) namespace: String,
    pub(in crate::manager::subresources) secret: String,
    pub(in crate::manager::subresources) service: String,
    pub(in crate::manager::subresources) api_service: String,
}

impl Names {
    /// The first is the one that the API server asks for.
    fn dns(&self) -> Vec<String> {
        let Self { namespace, service, .. } = self;
        vec![format!("{service}.{namespace}.svc"), format!("{service}.{namespace}")]
    }
}

/// See the module.
pub(in crate::manager::subresources) struct Keeper {
    pub(in crate::manager::subresources) client: Client,
    pub(in crate::manager::subresources) names: Names,
    pub(in crate::manager::subresources) lifetimes: Lifetimes,
    pub(in crate::manager::subresources) provider: Arc<CryptoProvider>,
    pub(in crate::manager::subresources) clock: Arc<dyn Clock>,
    pub(in crate::manager::subresources) serving: Serving,
    /// When the served one ends, in Unix seconds.
    pub(in crate::manager::subresources) ends: Gauge,
}

#[derive(Debug, Error)]
enum KeepError {
    #[error("{call} {object}: {source}")]
    Call {
        call: &'static str,
        object: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("{call} {object}: no answer from the API server in time")]
    Timeout { call: &'static str, object: String },
    #[error("there is no {0}: it is part of the chart, helm upgrade makes it again")]
    Missing(String),
    #[error(transparent)]
    Pair(#[from] PairError),
}

/// What a look left to be done.
enum Looked {
    /// Nothing for so long.
    Well(Duration),
    /// Something was written, by us or by another: look again.
    Changed,
}

impl Keeper {
    /// Looks for as long as it is polled.
    pub(in crate::manager::subresources) async fn run(self, readiness: Readiness) {
        loop {
            let pause = match self.look(&readiness).await {
                Ok(Looked::Well(pause)) => pause,
                Ok(Looked::Changed) => Duration::ZERO,
                Err(error) => {
                    tracing::warn!(%error, "the certificate of the aggregated API could not be looked after, it will be tried again");
                    RETRY
                }
            };
            sleep(pause).await;
        }
    }

    /// 1. read the Secret, and serve what it has;
    /// 2. let the API server trust what it has;
    /// 3. decide what is due, and write it.
    async fn look(&self, readiness: &Readiness) -> Result<Looked, KeepError> {
        let secret = self.secret().await.inspect_err(|error| self.unready(readiness, error))?;
        let stored = Stored::read(secret.data.as_ref());
        let now = self.clock.now();
        let current = self.usable(stored.current.as_ref());
        if let Some(usable) = &current {
            self.serving.set(Arc::clone(&usable.serving));
            self.ends.set(usable.validity.not_after.as_second());
            readiness.ready(CHECK);
        }
        let trusted = self.trust(&stored).await;
        let next = self.usable(stored.next.as_ref());
        let next = next.map(|usable| Next { validity: usable.validity, trusted: matches!(trusted, Ok(true)) });
        let current = current.map(|usable| usable.validity);
        let due = plan(current, next, now, self.lifetimes);
        let make = || Pair::make(&self.names.dns(), now, self.lifetimes.life);
        let wanted = match due {
            Step::Keep if trusted? => return Ok(Looked::Well(self.lifetimes.pause(current, now))),
            Step::Keep => return Ok(Looked::Changed),
            Step::Begin => stored.begin(make()?, now),
            Step::MakeNext => stored.with_next(make()?, now),
            Step::Promote => stored.promoted(),
        };
        self.write(secret, &wanted, due).await?;
        Ok(Looked::Changed)
    }

    fn unready(&self, readiness: &Readiness, error: &KeepError) {
        // With a certificate at hand the API is served, whatever has become of the Secret.
        if !self.serving.is_set() {
            readiness.not_ready(CHECK, error.to_string());
        }
    }

    fn usable(&self, pair: Option<&Pair>) -> Option<Usable> {
        let name = self.names.dns().swap_remove(0);
        pair?
            .read(&name, &self.provider)
            .inspect_err(|error| tracing::warn!(%error, "what the Secret holds is of no use, it is replaced"))
            .ok()
    }

    async fn secret(&self) -> Result<Secret, KeepError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.names.namespace);
        let object = format!("Secret {}", self.names.secret);
        let found = call("get", &object, api.get_opt(&self.names.secret)).await?;
        found.ok_or(KeepError::Missing(object))
    }

    async fn write(&self, read: Secret, wanted: &Stored, due: Step) -> Result<(), KeepError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.names.namespace);
        let object = format!("Secret {}", self.names.secret);
        // The version that was read goes with it: whoever wrote since has won.
        let mut next = read;
        next.data.get_or_insert_default().extend(wanted.write());
        let params = PostParams::default();
        match call("update", &object, api.replace(&self.names.secret, &params, &next)).await {
            Ok(_) => {
                tracing::info!(step = ?due, "the certificate of the aggregated API goes on");
                Ok(())
            }
            Err(error) if is_conflict(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether it does; if not, somebody else has written.
    async fn trust(&self, stored: &Stored) -> Result<bool, KeepError> {
        let bundle = ByteString(stored.bundle().into_bytes());
        if bundle.0.is_empty() {
            return Ok(true);
        }
        let api: Api<APIService> = Api::all(self.client.clone());
        let name = &self.names.api_service;
        let object = format!("APIService {name}");
        let found = call("get", &object, api.get_opt(name)).await?.ok_or(KeepError::Missing(object.clone()))?;
        if found.spec.is_some_and(|spec| spec.ca_bundle.as_ref() == Some(&bundle)) {
            return Ok(true);
        }
        let patch =
            json!({"metadata": {"resourceVersion": found.metadata.resource_version}, "spec": {"caBundle": bundle}});
        let params = PatchParams::default();
        match call("patch", &object, api.patch(name, &params, &Patch::Merge(patch))).await {
            Ok(_) => {}
            Err(error) if is_conflict(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        tracing::info!(authorities = stored.authorities.len(), "the API server was told whom to trust");
        Ok(true)
    }
}

fn is_conflict(error: &KeepError) -> bool {
    matches!(error, KeepError::Call { source, .. } if matches!(**source, kube::Error::Api(ref status) if status.code == 409))
}

async fn call<T>(
    call: &'static str,
    object: &str,
    future: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, KeepError> {
    match timeout(CALL_TIMEOUT, future).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(KeepError::Call { call, object: object.to_owned(), source: Box::new(source) }),
        Err(_) => Err(KeepError::Timeout { call, object: object.to_owned() }),
    }
}
