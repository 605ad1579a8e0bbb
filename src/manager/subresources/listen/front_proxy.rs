//! Who calls: the API server, by its client certificate, for the user that its headers name.
//!
//! The authority of that certificate, its allowed names and the names of the headers are in the `ConfigMap` that every
//! API server keeps for its extensions. Without such a certificate the headers count for nothing.

use std::{fmt, sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use futures::StreamExt;
use k8s_openapi::{api::core::v1::ConfigMap, jiff::Timestamp};
use kube::{Api, Client, runtime::watcher};
use percent_encoding::percent_decode_str;
use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use thiserror::Error;
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    api::Requester,
    infra::{self, health::Readiness, refusal::Refusal, retry},
};

const CONFIG_NAMESPACE: &str = "kube-system";
const CONFIG_NAME: &str = "extension-apiserver-authentication";
/// Name in `/readyz`.
pub(crate) const CHECK: &str = "front-proxy";
/// The header of the UID, which API servers set from 1.32 on, and strip from clients' calls. Most have no flag that puts
/// its name into the `ConfigMap`.
const UID_HEADER: HeaderName = HeaderName::from_static("x-remote-uid");

#[derive(Debug, Error)]
pub(crate) enum Unusable {
    #[error("it has no {0}: the API server runs without that flag of its aggregation layer")]
    Missing(&'static str),
    #[error("{0} is not a list of names")]
    NotAList(&'static str),
    #[error("{0} names no header: {1:?}")]
    NotAHeader(&'static str, String),
    #[error("requestheader-client-ca-file: {0}")]
    Authority(String),
}

pub(crate) struct FrontProxy {
    authority: Arc<dyn ClientCertVerifier>,
    /// If empty, any name that the authority has signed.
    allowed_names: Vec<String>,
    username: Vec<HeaderName>,
    uid: Vec<HeaderName>,
    groups: Vec<HeaderName>,
    /// In lower case.
    extra_prefixes: Vec<String>,
}

impl fmt::Debug for FrontProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrontProxy").field("allowed_names", &self.allowed_names).finish_non_exhaustive()
    }
}

/// None as long as none is usable.
pub(crate) type Current = watch::Receiver<Option<Arc<FrontProxy>>>;

impl FrontProxy {
    pub(crate) fn parse(config: &ConfigMap, provider: &Arc<CryptoProvider>) -> Result<Self, Unusable> {
        let data = config.data.as_ref();
        let text = |key: &'static str| data.and_then(|data| data.get(key)).map(String::as_str);
        let list = |key: &'static str| match text(key) {
            Some(text) => serde_json::from_str::<Vec<String>>(text).map(Some).map_err(|_| Unusable::NotAList(key)),
            None => Ok(None),
        };
        let headers = |key: &'static str| {
            let names = list(key)?.unwrap_or_default();
            let parse = |name: String| HeaderName::try_from(&name).map_err(|_| Unusable::NotAHeader(key, name));
            names.into_iter().map(parse).collect::<Result<Vec<_>, _>>()
        };
        let username = headers("requestheader-username-headers")?;
        if username.is_empty() {
            return Err(Unusable::Missing("requestheader-username-headers"));
        }
        let mut uid = headers("requestheader-uid-headers")?;
        if uid.is_empty() {
            uid.push(UID_HEADER);
        }
        let prefixes = list("requestheader-extra-headers-prefix")?.unwrap_or_default();
        let authority =
            text("requestheader-client-ca-file").ok_or(Unusable::Missing("requestheader-client-ca-file"))?;
        Ok(Self {
            authority: verifier(authority, provider).map_err(Unusable::Authority)?,
            allowed_names: list("requestheader-allowed-names")?.unwrap_or_default(),
            username,
            uid,
            groups: headers("requestheader-group-headers")?,
            extra_prefixes: prefixes.iter().map(|prefix| prefix.to_ascii_lowercase()).collect(),
        })
    }

    /// Checks that this certificate, whose key the client holds, is the API server's.
    pub(crate) fn admit(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<(), String> {
        let Some((certificate, intermediates)) = chain.split_first() else {
            return Err("no client certificate".to_owned());
        };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().try_into().unwrap_or_default()));
        self.authority
            .verify_client_cert(certificate, intermediates, now)
            .map_err(|error| format!("the client certificate is not the front proxy's: {error}"))?;
        let name = common_name(certificate);
        if self.allowed_names.is_empty() || name.as_ref().is_some_and(|name| self.allowed_names.contains(name)) {
            return Ok(());
        }
        Err(format!("the client certificate is for {:?}, which is no allowed name", name.unwrap_or_default()))
    }

    /// The user for whom the API server calls. All of it must be readable: without a group or an extra it would be
    /// another user.
    pub(crate) fn requester(&self, headers: &HeaderMap) -> Result<Requester, String> {
        let all = |names: &[HeaderName]| {
            let values =
                names.iter().flat_map(|name| headers.get_all(name).into_iter().map(move |value| (name, value)));
            values.map(|(name, value)| text(name, value)).collect::<Result<Vec<_>, _>>()
        };
        let first = |names: &[HeaderName]| Ok::<_, String>(all(names)?.into_iter().find(|value| !value.is_empty()));
        let mut requester = Requester {
            username: first(&self.username)?.ok_or("the front proxy names no user")?,
            uid: first(&self.uid)?.unwrap_or_default(),
            groups: all(&self.groups)?,
            ..Requester::default()
        };
        for (name, value) in headers {
            let Some(key) = self.extra_prefixes.iter().find_map(|prefix| name.as_str().strip_prefix(prefix.as_str()))
            else {
                continue;
            };
            let key = percent_decode_str(key).decode_utf8().map_err(|_| not_utf8(name))?.into_owned();
            requester.extra.entry(key).or_default().push(text(name, value)?);
        }
        Ok(requester)
    }

    pub(crate) fn authenticate(
        &self,
        chain: &[CertificateDer<'_>],
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Requester, Refusal> {
        self.admit(chain, now).and_then(|()| self.requester(headers)).map_err(|why| {
            Refusal::new(StatusCode::UNAUTHORIZED, format!("{why}: this API is reached through the API server only"))
        })
    }
}

/// Names may be in any script.
fn text(name: &HeaderName, value: &HeaderValue) -> Result<String, String> {
    str::from_utf8(value.as_bytes()).map(str::to_owned).map_err(|_| not_utf8(name))
}

fn not_utf8(name: &HeaderName) -> String {
    format!("header {name} is not UTF-8")
}

fn verifier(pem: &str, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| error.to_string())
}

fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}

/// Keeps `known` as the `ConfigMap` is. Never returns.
pub(crate) async fn watch_config(
    client: Client,
    provider: Arc<CryptoProvider>,
    known: watch::Sender<Option<Arc<FrontProxy>>>,
    readiness: Readiness,
) {
    let api: Api<ConfigMap> = Api::namespaced(client, CONFIG_NAMESPACE);
    let selector = format!("metadata.name={CONFIG_NAME}");
    let mut events = infra::watch::watch(api, retry::watching().fields(&selector)).boxed();
    let mut listed = false;
    while let Some(event) = events.next().await {
        let config = match event {
            Ok(watcher::Event::Init) => {
                listed = false;
                continue;
            }
            Ok(watcher::Event::Apply(config) | watcher::Event::InitApply(config)) => {
                listed = true;
                Some(config)
            }
            Ok(watcher::Event::InitDone) if listed => continue,
            Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => None,
            Err(error) => {
                tracing::warn!(%error, "the watch of ConfigMap {CONFIG_NAMESPACE}/{CONFIG_NAME} ended; reopening it");
                if known.borrow().is_none() {
                    readiness.not_ready(CHECK, error.to_string());
                }
                continue;
            }
        };
        let parsed = config.ok_or_else(|| "there is none".to_owned());
        match parsed.and_then(|config| FrontProxy::parse(&config, &provider).map_err(|error| error.to_string())) {
            Ok(front_proxy) => {
                tracing::info!(allowed_names = ?front_proxy.allowed_names, "the front proxy's authority is known");
                known.send_replace(Some(Arc::new(front_proxy)));
                readiness.ready(CHECK);
            }
            // Nobody is trusted any more.
            Err(why) => {
                let why = format!("ConfigMap {CONFIG_NAMESPACE}/{CONFIG_NAME}: {why}");
                tracing::error!(why, "nobody is admitted to the aggregated API");
                known.send_replace(None);
                readiness.not_ready(CHECK, why);
            }
        }
    }
}

#[cfg(test)]
#[path = "front_proxy_tests.rs"]
mod tests;
