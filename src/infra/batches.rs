//! What an agent asks of the API server about a batch: the batch itself, and what its requester may do.

use std::time::Duration;

use kube::{Api, Client};

use super::{
    access::Access,
    call::{ApiError, within},
};
use crate::{
    api::{ExecBatch, Requester},
    core::access::Right,
};

const CALL_TIMEOUT: Duration = Duration::from_secs(15);

pub trait Batches: Send + Sync + 'static {
    /// The batch of this name as it is now, if there is one.
    fn get(&self, namespace: &str, name: &str) -> impl Future<Output = Result<Option<ExecBatch>, ApiError>> + Send;

    /// The first of these rights that somebody has not, as every authorizer of the cluster sees it now.
    fn lacks(&self, who: &Requester, rights: &[Right]) -> impl Future<Output = Result<Option<Right>, ApiError>> + Send;
}

pub struct KubeBatches {
    client: Client,
    access: Access,
}

impl KubeBatches {
    /// The client's user must be allowed to get `execbatches` and to create `subjectaccessreviews`.
    pub fn new(client: Client) -> Self {
        Self { access: Access::new(client.clone()), client }
    }
}

impl Batches for KubeBatches {
    async fn get(&self, namespace: &str, name: &str) -> Result<Option<ExecBatch>, ApiError> {
        // Without a resource version: from a quorum, not from a cache. Where the kind is not installed there is none either.
        let api: Api<ExecBatch> = Api::namespaced(self.client.clone(), namespace);
        within(CALL_TIMEOUT, format!("get ExecBatch {namespace}/{name}"), api.get_opt(name)).await
    }

    async fn lacks(&self, who: &Requester, rights: &[Right]) -> Result<Option<Right>, ApiError> {
        Ok(self.access.first_lacking(who, rights).await?.cloned())
    }
}
