//! Calls for the requests of a namespace, each with a deadline.

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;

use super::connection::Cluster;
use crate::{
    api::{ExecRequest, Requester},
    cli::error::Error,
};

impl Cluster {
    pub fn requests(&self) -> Api<ExecRequest> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn get(&self, name: &str) -> Result<ExecRequest, Error> {
        self.call(format!("getting {name}"), self.requests().get(name)).await
    }

    pub async fn create(&self, request: &ExecRequest, dry_run: bool) -> Result<ExecRequest, Error> {
        let params = PostParams { dry_run, ..PostParams::default() };
        self.call("creating the request", self.requests().create(&params, request)).await
    }

    /// Ends the command, or keeps it from starting.
    pub async fn cancel(&self, name: &str) -> Result<ExecRequest, Error> {
        let (params, patch) = (PatchParams::default(), Patch::Merge(json!({"spec": {"cancel": true}})));
        self.call(format!("canceling {name}"), self.requests().patch(name, &params, &patch)).await
    }

    /// Deletes this very request, not another that has its name by now.
    pub async fn delete(&self, request: &ExecRequest) -> Result<(), Error> {
        let name = request.name_any();
        let preconditions = Preconditions { uid: request.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.call(format!("deleting {name}"), self.requests().delete(&name, &params)).await {
            Ok(_) => Ok(()),
            // Gone already, or another one by now.
            Err(error) if matches!(error.answer(), Some(404 | 409)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Who the API server says we are; `None` if it does not say.
    pub async fn myself(&self) -> Result<Option<Requester>, Error> {
        let api: Api<SelfSubjectReview> = Api::all(self.client.clone());
        let (params, question) = (PostParams::default(), SelfSubjectReview::default());
        let answer = match self.call("asking who I am", api.create(&params, &question)).await {
            Ok(answer) => answer,
            // It may be forbidden, or the API server too old.
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
