//! A certificate that somebody else makes and mounts, cert-manager above all: read again when it changes.

use std::{path::PathBuf, sync::Arc, time::Duration};

use prometheus_client::metrics::gauge::Gauge;
use rustls::crypto::CryptoProvider;
use tokio::time::sleep;

use super::{
    CHECK, Serving,
    pair::{self, PairError, Usable},
};
use crate::infra::health::Readiness;

/// How often the files are read. The kubelet takes longer to bring a change.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// See the module.
pub(in crate::manager::subresources) struct Files {
    /// Holds `tls.crt` and `tls.key`.
    pub(in crate::manager::subresources) folder: PathBuf,
    pub(in crate::manager::subresources) provider: Arc<CryptoProvider>,
    pub(in crate::manager::subresources) serving: Serving,
    /// When the served one ends, in Unix seconds.
    pub(in crate::manager::subresources) ends: Gauge,
}

impl Files {
    /// Looks for as long as it is polled.
    pub(in crate::manager::subresources) async fn run(self, readiness: Readiness) {
        let mut served = None;
        loop {
            match self.read().await {
                Ok(usable) => {
                    if served.replace(usable.validity) != Some(usable.validity) {
                        tracing::info!(ends = %usable.validity.not_after, "the mounted certificate is served");
                    }
                    self.ends.set(usable.validity.not_after.as_second());
                    self.serving.set(usable.serving);
                    readiness.ready(CHECK);
                }
                Err(error) if served.is_none() => readiness.not_ready(CHECK, error.to_string()),
                Err(error) => {
                    tracing::warn!(%error, "the mounted certificate cannot be read, the last one is served on");
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn read(&self) -> Result<Usable, PairError> {
        let file = async |name: &'static str| {
            let path = self.folder.join(name);
            tokio::fs::read(&path)
                .await
                .map_err(|error| PairError::Unreadable(name, format!("{}: {error}", path.display())))
        };
        pair::read(&file("tls.crt").await?, &file("tls.key").await?, &self.provider)
    }
}
