//! Keeps the certificate that all replicas serve in one Secret, and its authorities in the `caBundle` of the
//! `APIService`.
//!
//! Every replica does so, leader or not. Each write is a compare-and-swap; who loses looks again. Both objects are the
//! chart's: the manager needs no right to create any, and both go with the release.

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
use tokio::time::sleep;

use super::{
    pair::{Pair, PairError, Usable},
    plan::{Lifetimes, Next, Step, plan},
    serving::{CHECK, Serving},
    store::Stored,
};
use crate::infra::{
    call::{ApiError, within},
    clock::Clock,
    health::Readiness,
};

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// Of Secret and Service.
    pub(crate) namespace: String,
    pub(crate) secret: String,
    pub(crate) service: String,
    pub(crate) api_service: String,
}

impl Names {
    /// The first is the one that the API server asks for.
    fn dns(&self) -> Vec<String> {
        let Self { namespace, service, .. } = self;
        vec![format!("{service}.{namespace}.svc"), format!("{service}.{namespace}")]
    }
}

pub(crate) struct Keeper {
    pub(crate) client: Client,
    pub(crate) names: Names,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) serving: Serving,
    pub(crate) ends: Gauge,
}

#[derive(Debug, Error)]
enum KeepError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("there is no {0}: it is part of the chart, and helm upgrade creates it again")]
    Missing(String),
    #[error(transparent)]
    Pair(#[from] PairError),
}

impl Keeper {
    /// Never returns.
    pub(crate) async fn run(self, readiness: Readiness) {
        loop {
            let pause = self.look(&readiness).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the certificate of the aggregated API could not be kept; retrying");
                RETRY
            });
            sleep(pause).await;
        }
    }

    /// 1. read the Secret, and serve its certificate;
    /// 2. let the API server trust its authorities;
    /// 3. decide what is due, and write it.
    ///
    /// Gives how long there is nothing to do: not at all if something was written, by this replica or another.
    async fn look(&self, readiness: &Readiness) -> Result<Duration, KeepError> {
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
            Step::Keep if trusted? => return Ok(self.lifetimes.pause(current, now)),
            Step::Keep => return Ok(Duration::ZERO),
            Step::Begin => stored.begin(make()?, now),
            Step::MakeNext => stored.with_next(make()?, now),
            Step::Promote => stored.promoted(),
        };
        self.write(secret, &wanted, due).await?;
        Ok(Duration::ZERO)
    }

    fn unready(&self, readiness: &Readiness, error: &KeepError) {
        // With a certificate in memory the API is served, whatever has become of the Secret.
        if !self.serving.is_set() {
            readiness.not_ready(CHECK, error.to_string());
        }
    }

    fn usable(&self, pair: Option<&Pair>) -> Option<Usable> {
        let name = self.names.dns().swap_remove(0);
        pair?
            .read(&name, &self.provider)
            .inspect_err(
                |error| tracing::warn!(%error, "the Secret holds a certificate that cannot be used; it is replaced"),
            )
            .ok()
    }

    async fn secret(&self) -> Result<Secret, KeepError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.names.namespace);
        let object = format!("Secret {}", self.names.secret);
        let found = within(CALL_TIMEOUT, format!("get {object}"), api.get_opt(&self.names.secret)).await?;
        found.ok_or(KeepError::Missing(object))
    }

    async fn write(&self, read: Secret, wanted: &Stored, due: Step) -> Result<(), KeepError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.names.namespace);
        // The version that was read goes with it: whoever has written since wins.
        let mut next = read;
        next.data.get_or_insert_default().extend(wanted.write());
        let call = format!("update Secret {}", self.names.secret);
        let params = PostParams::default();
        if won(within(CALL_TIMEOUT, call, api.replace(&self.names.secret, &params, &next)).await)? {
            tracing::info!(step = ?due, "the Secret of the aggregated API's certificate was updated");
        }
        Ok(())
    }

    /// Lets the API server trust what is stored. False if somebody else has written meanwhile.
    async fn trust(&self, stored: &Stored) -> Result<bool, KeepError> {
        let bundle = ByteString(stored.bundle().into_bytes());
        if bundle.0.is_empty() {
            return Ok(true);
        }
        let api: Api<APIService> = Api::all(self.client.clone());
        let name = &self.names.api_service;
        let object = format!("APIService {name}");
        let found = within(CALL_TIMEOUT, format!("get {object}"), api.get_opt(name)).await?;
        let found = found.ok_or_else(|| KeepError::Missing(object.clone()))?;
        if found.spec.is_some_and(|spec| spec.ca_bundle.as_ref() == Some(&bundle)) {
            return Ok(true);
        }
        let patch =
            json!({"metadata": {"resourceVersion": found.metadata.resource_version}, "spec": {"caBundle": bundle}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let patched = api.patch(name, &params, &patch);
        let won = won(within(CALL_TIMEOUT, format!("patch {object}"), patched).await)?;
        if won {
            tracing::info!(authorities = stored.authorities.len(), "the caBundle of the APIService was updated");
        }
        Ok(won)
    }
}

/// Whether a write won; if not, somebody else has written.
fn won<T>(written: Result<T, ApiError>) -> Result<bool, ApiError> {
    match written {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some(409) => Ok(false),
        Err(error) => Err(error),
    }
}
