//! The certificate that the server presents.

use std::{fmt, sync::Arc};

use parking_lot::RwLock;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// Name in `/readyz`.
pub(crate) const CHECK: &str = "subresources-certificate";

#[derive(Clone, Default)]
pub(crate) struct Serving(Arc<RwLock<Option<Arc<CertifiedKey>>>>);

impl Serving {
    /// Presents this one from now on. Open connections are not touched.
    pub(super) fn set(&self, key: Arc<CertifiedKey>) {
        *self.0.write() = Some(key);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.read().is_some()
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Serving")
    }
}

impl ResolvesServerCert for Serving {
    /// Whatever name is asked for: the API server asks for the Service's, a probe for an address.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().clone()
    }
}
