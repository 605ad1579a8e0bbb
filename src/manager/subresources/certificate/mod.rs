//! The certificate that the API server sees: made here, or mounted.
//!
//! `plan` says what is due, `pair` makes and reads, `store` is the Secret, `keeper` does it, `files`
//! takes what somebody else makes. `Serving` is what the server shows at a handshake.

mod files;
mod keeper;
mod pair;
mod plan;
mod store;

use std::{fmt, sync::Arc};

use parking_lot::RwLock;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

pub(super) use self::{
    files::Files,
    keeper::{Keeper, Names},
    plan::Lifetimes,
};

/// Name in `/readyz`.
pub(super) const CHECK: &str = "subresources-certificate";

/// The certificate of now; none at first.
#[derive(Clone, Default)]
pub(super) struct Serving(Arc<RwLock<Option<Arc<CertifiedKey>>>>);

impl Serving {
    /// From now on this one. Connections that are open keep theirs.
    fn set(&self, key: Arc<CertifiedKey>) {
        *self.0.write() = Some(key);
    }

    /// Whether there has been one yet.
    fn is_set(&self) -> bool {
        self.0.read().is_some()
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Serving")
    }
}

impl ResolvesServerCert for Serving {
    /// Whatever name is asked for: the API server says the Service's, a probe an address.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().clone()
    }
}

/// Serves a new certificate for this name, and gives the authority to trust for it.
#[cfg(test)]
pub(super) fn serve_new(
    serving: &Serving,
    name: &str,
    now: k8s_openapi::jiff::Timestamp,
    provider: &rustls::crypto::CryptoProvider,
) -> String {
    let pair = pair::Pair::make(&[name.to_owned()], now, std::time::Duration::from_secs(3600)).expect("a pair");
    serving.set(pair.read(name, provider).expect("usable").serving);
    pair.authority
}
