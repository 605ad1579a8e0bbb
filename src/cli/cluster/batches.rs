//! Calls for the batches of a namespace and their requests, each with a deadline.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::connection::Cluster;
use crate::{
    api::{ExecBatch, ExecRequest, batch::Actor},
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

    pub async fn create_batch(&self, batch: &ExecBatch, dry_run: bool) -> Result<ExecBatch, Error> {
        let params = PostParams { dry_run, ..PostParams::default() };
        self.call("creating the batch", self.batches().create(&params, batch)).await
    }

    /// Ends what runs of it, and keeps the rest from running.
    pub async fn cancel_batch(&self, name: &str) -> Result<ExecBatch, Error> {
        self.patch_batch(format!("canceling xb/{name}"), name, json!({"spec": {"cancel": true}})).await
    }

    /// Lets the plan with this digest run.
    pub async fn approve_batch(&self, batch: &ExecBatch, digest: &str) -> Result<ExecBatch, Error> {
        let name = batch.name_any();
        let spec = json!({"approval": {"planDigest": digest, "by": self.actor().await?}});
        self.patch_batch(format!("approving xb/{name}"), &name, this_very(batch, &spec)).await
    }

    /// Lets so many targets run, and ends its suspension.
    pub async fn resume_batch(&self, batch: &ExecBatch, limit: &IntOrString) -> Result<ExecBatch, Error> {
        let name = batch.name_any();
        let spec = json!({"releaseLimit": limit, "suspend": false, "releasedBy": self.actor().await?});
        self.patch_batch(format!("resuming xb/{name}"), &name, this_very(batch, &spec)).await
    }

    /// Who changes a batch: where the cluster has a policy that fills it in, the policy overwrites it.
    async fn actor(&self) -> Result<Option<Actor>, Error> {
        Ok(self.myself().await?.map(|by| Actor { username: by.username, uid: by.uid }))
    }

    async fn patch_batch(&self, what: String, name: &str, patch: Value) -> Result<ExecBatch, Error> {
        self.call(what, self.batches().patch(name, &PatchParams::default(), &Patch::Merge(patch))).await
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

/// A patch of this spec, for this batch and no other that has its name by now.
fn this_very(batch: &ExecBatch, spec: &Value) -> Value {
    json!({"metadata": {"uid": batch.uid()}, "spec": spec})
}
