//! Calls for the batches of a namespace and their requests, each with a deadline.

use kube::{Api, ResourceExt as _, api::ListParams};

use super::connection::Cluster;
use crate::{
    api::{ExecBatch, ExecRequest},
    cli::error::Error,
};

/// How many requests are read at once: each may have tails of its output.
const PAGE: u32 = 500;

/// Selects the requests of a batch.
pub fn of_batch(uid: &str) -> String {
    format!("spec.batch.uid={uid}")
}

impl Cluster {
    pub fn batches(&self) -> Api<ExecBatch> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn batch(&self, name: &str) -> Result<ExecBatch, Error> {
        self.call(format!("getting xb/{name}"), self.batches().get(name)).await
    }

    /// Reads all requests of a batch, whichever plan they belong to, a page at a time.
    pub async fn children(&self, batch: &ExecBatch, mut each: impl FnMut(ExecRequest)) -> Result<(), Error> {
        let what = format!("listing the requests of xb/{}", batch.name_any());
        let mut params = ListParams::default().fields(&of_batch(&batch.uid().unwrap_or_default())).limit(PAGE);
        loop {
            let page = self.call(&what, self.requests().list(&params)).await?;
            page.items.into_iter().for_each(&mut each);
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(());
            }
        }
    }
}
