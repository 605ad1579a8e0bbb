//! Calls for requests: each bounded, each with what it was for.

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;

use crate::{
    api::{ExecRequest, Requester},
    cli::{cluster::connection::Cluster, error::Error},
};

/// The requests of one namespace.
#[derive(Clone)]
pub struct Requests {
    cluster: Cluster,
    /// For what is not a single call: a watch.
    pub api: Api<ExecRequest>,
}

impl Requests {
    /// Those of the cluster's chosen namespace.
    pub fn new(cluster: &Cluster) -> Self {
        let api = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        Self { cluster: cluster.clone(), api }
    }

    /// Reads one.
    pub async fn get(&self, name: &str) -> Result<ExecRequest, Error> {
        self.cluster.call(format!("getting {name}"), self.api.get(name)).await
    }

    /// Creates one, or only asks whether it could be.
    pub async fn create(&self, request: &ExecRequest, dry_run: bool) -> Result<ExecRequest, Error> {
        let params = PostParams { dry_run, ..PostParams::default() };
        let created = self.api.create(&params, request);
        self.cluster.call("creating the request", created).await
    }

    /// Has it end its command, or never start it.
    pub async fn cancel(&self, name: &str) -> Result<ExecRequest, Error> {
        let params = PatchParams::default();
        let patch = Patch::Merge(json!({"spec": {"cancel": true}}));
        let patched = self.api.patch(name, &params, &patch);
        self.cluster.call(format!("canceling {name}"), patched).await
    }

    /// Deletes it, if it still is the one that is meant.
    pub async fn delete(&self, request: &ExecRequest) -> Result<(), Error> {
        let name = request.metadata.name.as_deref().unwrap_or_default();
        let preconditions = Preconditions { uid: request.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let deleted = self.api.delete(name, &params);
        match self.cluster.call(format!("deleting {name}"), deleted).await {
            Ok(_) => Ok(()),
            // Gone already, or another one by now.
            Err(error) if matches!(error.answer(), Some(404 | 409)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Who the API server takes us for; `None` if it does not say.
    pub async fn myself(&self) -> Result<Option<Requester>, Error> {
        let api: Api<SelfSubjectReview> = Api::all(self.cluster.client.clone());
        let (params, question) = (PostParams::default(), SelfSubjectReview::default());
        let answer = match self.cluster.call("asking who I am", api.create(&params, &question)).await {
            Ok(answer) => answer,
            // It may be forbidden, or the server too old to be asked.
            Err(error) if matches!(error.answer(), Some(403 | 404)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let user = answer.status.and_then(|status| status.user_info).unwrap_or_default();
        Ok(Some(Requester {
            username: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        }))
    }
}
