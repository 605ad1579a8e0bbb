//! The real world of a batch: the API server.

use std::{collections::BTreeMap, fmt::Debug, pin::pin, time::Duration};

use futures::TryStreamExt;
use k8s_openapi::{
    api::{apps::v1::ReplicaSet, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
    jiff::Timestamp,
};
use kube::{
    Api, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
    core::{
        ApiResource, DeserializeGuard, DynamicObject, GroupVersionKind, NamespaceResourceScope, ObjectMeta,
        error_boundary::InvalidObject,
    },
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{
    cache::Cache,
    telling::tell,
    world::{Act, BatchError, Candidates, Change, Created, Plans, Swapped, World},
};
use crate::{
    api::{
        ExecBatch, ExecBatchStatus, ExecRequest, ExecRequestStatus, Reason, Requester,
        batch::{WorkloadKind, WorkloadReference},
    },
    core::{
        access::Right,
        admission::Admission,
        batch::{
            child,
            groups::Ending,
            plan::Refusal,
            rights,
            seen::Children,
            status::Write,
            targets::{controller, of_workload, selector_text},
        },
        bind,
        ids::BatchKey,
        request::key_of,
    },
    infra::{
        audit::Unavailable,
        call::{ApiError, within},
        pages::{page, pages},
        requests::Written,
    },
    manager::{
        agents::LiveAgents,
        controller::write::{BindError, Leader},
    },
};

const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// A list of all pods of a namespace is large.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);
/// Children on a page: with their tails they may be 100 KiB each.
const PAGE: u32 = 200;
/// Requests of batches that have ended and were never bound to a node: none of them holds any output.
const NEVER_BOUND: &str = "spec.batch.uid!=,status.completionTime!=,status.nodeName=";

#[derive(Clone)]
pub(in crate::manager) struct ApiServer {
    leader: Leader,
    cache: Cache,
}

impl ApiServer {
    pub(super) fn new(leader: Leader, cache: Cache) -> Self {
        Self { leader, cache }
    }

    pub(super) fn leader(&self) -> &Leader {
        &self.leader
    }

    /// A batch that cannot be read is finished, and never planned.
    pub(super) async fn refuse_unreadable(&self, invalid: &InvalidObject) {
        let ObjectMeta { namespace, name, resource_version, .. } = &invalid.metadata;
        let [namespace, name] = [namespace, name].map(|field| field.as_deref().unwrap_or_default());
        let message = format!("this object cannot be read as an ExecBatch: {}", invalid.error);
        tracing::error!(namespace, name, message, "refused");
        self.leader.metrics.unreadable.inc();
        let from = ExecBatchStatus::default();
        let write = Write { status: &from, generation: invalid.metadata.generation, at: self.now() };
        let status = write.refused(&Refusal::new(Reason::InvalidRequest, message));
        let patch = Patch::Merge(json!({"metadata": {"resourceVersion": resource_version}, "status": status}));
        let resource = ApiResource::erase::<ExecBatch>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.leader.client.clone(), namespace, &resource);
        let params = PatchParams::default();
        let call = format!("update the status of ExecBatch {namespace}/{name}");
        match unless_gone(within(CALL_TIMEOUT, call, api.patch_status(name, &params, &patch)).await.map(drop)) {
            Ok(()) => tell(&self.leader, &invalid.metadata, None, &status).await,
            Err(error) => tracing::warn!(namespace, name, %error, "a batch that cannot be read could not be refused"),
        }
    }

    /// Deletes what has not changed since it was read, and nothing else that has its name.
    pub(super) async fn delete_as_read<K>(&self, read: &K, how: DeleteParams) -> Result<(), ApiError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let ObjectMeta { namespace, name, uid, resource_version, .. } = read.meta().clone();
        let [namespace, name] = [namespace, name].map(Option::unwrap_or_default);
        let api: Api<K> = Api::namespaced(self.leader.client.clone(), &namespace);
        let params = DeleteParams { preconditions: Some(Preconditions { uid, resource_version }), ..how };
        let call = format!("delete {} {namespace}/{name}", K::kind(&()));
        unless_gone(within(CALL_TIMEOUT, call, api.delete(&name, &params)).await.map(drop))
    }

    fn batches(&self, namespace: &str) -> Api<ExecBatch> {
        Api::namespaced(self.leader.client.clone(), namespace)
    }

    fn requests(&self, namespace: &str) -> Api<ExecRequest> {
        Api::namespaced(self.leader.client.clone(), namespace)
    }

    /// The UID of a workload, if it exists.
    async fn workload(&self, namespace: &str, workload: &WorkloadReference) -> Result<Option<String>, ApiError> {
        let (group, plural) = rights::resource(workload.kind);
        let kind = GroupVersionKind::gvk(group, "v1", &format!("{:?}", workload.kind));
        let resource = ApiResource::from_gvk_with_plural(&kind, plural);
        let api: Api<DynamicObject> = Api::namespaced_with(self.leader.client.clone(), namespace, &resource);
        let call = format!("get {plural} {namespace}/{}", workload.name);
        let found = within(CALL_TIMEOUT, call, api.get_metadata_opt(&workload.name)).await?;
        Ok(found.and_then(|found| found.metadata.uid))
    }

    /// The controllers of the `ReplicaSet`s that these pods belong to, each by the UID of its `ReplicaSet`.
    async fn owners(&self, namespace: &str, pods: &[Pod]) -> Result<BTreeMap<String, String>, ApiError> {
        let api: Api<ReplicaSet> = Api::namespaced(self.leader.client.clone(), namespace);
        let owner = |pod: &Pod| controller(pod.metadata.owner_references.as_deref()).cloned();
        let sets: BTreeMap<String, OwnerReference> = pods
            .iter()
            .filter_map(owner)
            .filter(|owner| owner.kind == "ReplicaSet")
            .map(|owner| (owner.uid.clone(), owner))
            .collect();
        let mut owners = BTreeMap::new();
        for (uid, OwnerReference { name, .. }) in sets {
            let call = format!("get ReplicaSet {namespace}/{name}");
            let found = within(CALL_TIMEOUT, call, api.get_metadata_opt(&name)).await?;
            let found = found.filter(|found| found.metadata.uid.as_ref() == Some(&uid));
            let above = found.and_then(|found| controller(found.metadata.owner_references.as_deref()).cloned());
            owners.extend(above.map(|above| (uid, above.uid)));
        }
        Ok(owners)
    }
}

impl World for ApiServer {
    type Agents = LiveAgents;

    fn now(&self) -> Timestamp {
        self.leader.clock.now()
    }

    fn agents(&self) -> &LiveAgents {
        &self.leader.agents
    }

    async fn batch(&self, key: &BatchKey) -> Result<Option<ExecBatch>, ApiError> {
        let api = self.batches(&key.namespace);
        let found = within(CALL_TIMEOUT, format!("get ExecBatch {key}"), api.get_opt(&key.name)).await?;
        Ok(found.filter(|batch| batch.metadata.uid.as_deref() == Some(key.uid.as_str())))
    }

    async fn write_batch(&self, read: &ExecBatch, status: ExecBatchStatus) -> Result<Swapped, ApiError> {
        let [namespace, name] =
            [&read.metadata.namespace, &read.metadata.name].map(|field| field.as_deref().unwrap_or_default());
        let next = ExecBatch { status: Some(status), ..read.clone() };
        let (api, params) = (self.batches(namespace), PostParams::default());
        let call = format!("update the status of ExecBatch {namespace}/{name}");
        match within(CALL_TIMEOUT, call, api.replace_status(name, &params, &next)).await {
            Ok(batch) => {
                if let Some(now) = &batch.status {
                    tell(&self.leader, &batch.metadata, read.status.as_ref(), now).await;
                }
                Ok(Swapped::Won(Box::new(batch)))
            }
            Err(error) => match error.status().map(|status| (status.code, status.message.clone())) {
                Some((404, _)) => Ok(Swapped::Gone),
                Some((409, _)) => Ok(Swapped::Lost),
                Some((413 | 422, why)) => Ok(Swapped::Refused(why)),
                Some(_) | None => Err(error),
            },
        }
    }

    fn children(&self, key: &BatchKey, plan: i64) -> Children {
        self.cache.children(key, plan)
    }

    async fn child(&self, namespace: &str, name: &str) -> Result<Option<ExecRequest>, ApiError> {
        let call = format!("get ExecRequest {namespace}/{name}");
        within(CALL_TIMEOUT, call, self.requests(namespace).get_opt(name)).await
    }

    async fn create(&self, child: &ExecRequest) -> Created {
        let namespace = child.metadata.namespace.as_deref().unwrap_or_default();
        let (api, params) = (self.requests(namespace), PostParams::default());
        let call = format!("create a request of a batch in {namespace}");
        match within(CALL_TIMEOUT, call, api.create(&params, child)).await {
            Ok(made) => Created::Made(Box::new(made)),
            Err(error) => not_made(&error),
        }
    }

    async fn write_child(
        &self,
        read: &ExecRequest,
        status: ExecRequestStatus,
        change: Change,
        vouched_for: bool,
    ) -> Result<Written, BatchError> {
        let key = key_of(&read.metadata)?;
        self.leader.write(read, &key, status, &change, vouched_for).await.map_err(|error| match error {
            BindError::Api(error) => BatchError::Api(error),
            BindError::NoKey(error) => BatchError::NoKey(error),
            BindError::Audit(error) => BatchError::Audit(error),
        })
    }

    async fn cancel(&self, child: &ExecRequest) -> Result<(), ApiError> {
        let ObjectMeta { namespace, name, uid, .. } = &child.metadata;
        let [namespace, name] = [namespace, name].map(|field| field.as_deref().unwrap_or_default());
        let patch = Patch::Merge(json!({"metadata": {"uid": uid}, "spec": {"cancel": true}}));
        let (api, params) = (self.requests(namespace), PatchParams::default());
        let call = format!("cancel ExecRequest {namespace}/{name}");
        unless_gone(within(CALL_TIMEOUT, call, api.patch(name, &params, &patch)).await.map(drop))
    }

    async fn delete(&self, child: &ExecRequest) -> Result<(), ApiError> {
        self.delete_as_read(child, DeleteParams::default()).await
    }

    async fn candidates(&self, batch: &ExecBatch) -> Result<Candidates, ApiError> {
        let namespace = batch.metadata.namespace.as_deref().unwrap_or_default();
        let targets = &batch.spec.targets;
        let mut params = ListParams::default();
        if let Some(selector) = &targets.selector {
            params = params.labels(&selector_text(selector));
        }
        // In one piece, so that all is of one moment.
        let api: Api<Pod> = Api::namespaced(self.leader.client.clone(), namespace);
        let pods = within(LIST_TIMEOUT, format!("list the pods of {namespace}"), api.list(&params)).await?.items;
        let Some(workload) = &targets.workload else { return Ok(Candidates { pods, no_workload: false }) };
        let Some(uid) = self.workload(namespace, workload).await? else {
            return Ok(Candidates { pods: Vec::new(), no_workload: true });
        };
        let owners = match workload.kind {
            WorkloadKind::Deployment => self.owners(namespace, &pods).await?,
            WorkloadKind::StatefulSet | WorkloadKind::DaemonSet | WorkloadKind::ReplicaSet | WorkloadKind::Job => {
                BTreeMap::new()
            }
        };
        Ok(Candidates { pods: of_workload(pods, &uid, &owners), no_workload: false })
    }

    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, ApiError> {
        let api: Api<Pod> = Api::namespaced(self.leader.client.clone(), namespace);
        within(CALL_TIMEOUT, format!("get pod {namespace}/{name}"), api.get_opt(name)).await
    }

    async fn admission(&self) -> Admission {
        self.leader.gate.look().await
    }

    async fn lacks(&self, who: &Requester, rights: &[Right]) -> Result<Option<Right>, ApiError> {
        Ok(self.leader.access.first_lacking(who, rights).await?.cloned())
    }

    async fn endings(&self, key: &BatchKey, plan: i64) -> Result<Vec<Ending>, ApiError> {
        let api: Api<DeserializeGuard<ExecRequest>> = Api::namespaced(self.leader.client.clone(), &key.namespace);
        let params = ListParams::default().fields(&format!("spec.batch.uid={}", key.uid)).limit(PAGE);
        let mut pages = pin!(pages(api, params, format!("list the requests of ExecBatch {key}")));
        let ending = |child: &DeserializeGuard<ExecRequest>| {
            let child = child.0.as_ref().ok()?;
            Ending::of(child, child::index_in(child, key.uid.as_str(), plan)?)
        };
        let mut endings = Vec::new();
        while let Some(page) = pages.try_next().await? {
            endings.extend(page.iter().filter_map(ending));
        }
        Ok(endings)
    }

    fn unfinished(&self) -> BTreeMap<BatchKey, Plans> {
        self.cache.all()
    }

    async fn page_of_never_bound(&self, after: Option<String>) -> Result<(Vec<ExecRequest>, Option<String>), ApiError> {
        let api: Api<DeserializeGuard<ExecRequest>> = Api::all(self.leader.client.clone());
        let mut params = ListParams::default().fields(NEVER_BOUND).limit(PAGE);
        if let Some(token) = after {
            params = params.continue_token(&token);
        }
        let (page, next) = page(&api, &params, "list the requests of batches that were never bound").await?;
        Ok((page.into_iter().filter_map(|guard| guard.0.ok()).collect(), next))
    }

    async fn available(&self) -> Result<(), Unavailable> {
        self.leader.audit.available().await
    }

    async fn record(&self, batch: &ExecBatch, act: &Act) -> Result<(), Unavailable> {
        let Some(subject) = self.leader.audit.batch(batch) else { return Ok(()) };
        let admission = self.leader.gate.look().await;
        let vouched_for = bind::vouches_for(&admission, batch.metadata.creation_timestamp.as_ref());
        let subject = if vouched_for { subject.vouched_for() } else { subject };
        self.leader.audit.batch_does(&subject, act).await
    }
}

/// Gone is as good, and one that has changed is looked at again.
fn unless_gone(result: Result<(), ApiError>) -> Result<(), ApiError> {
    match result {
        Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(()),
        result => result,
    }
}

/// What an error says of a creation.
fn not_made(error: &ApiError) -> Created {
    let why = error.to_string();
    match error.status().map(|status| (status.code, status.reason.as_str())) {
        Some((409, "AlreadyExists")) => Created::Exists,
        // The API server is too busy, or others count against the same quota at this moment.
        Some((409 | 429, _)) => Created::NotNow(why),
        Some((400 | 403 | 404 | 413 | 422, _)) => Created::Refused(why),
        Some(_) | None => Created::Doubt(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: u16, reason: &str) -> Created {
        let status = json!({"status": "Failure", "message": "m", "reason": reason, "code": code});
        let source = Box::new(kube::Error::Api(serde_json::from_value(status).expect("a Status")));
        not_made(&ApiError::Failed { call: "create".to_owned(), source })
    }

    #[test]
    fn only_what_was_surely_not_taken_is_tried_again() {
        for (code, reason) in [(429, "TooManyRequests"), (409, "Conflict")] {
            assert!(matches!(answered(code, reason), Created::NotNow(_)), "{code} {reason}");
        }
        for (code, reason) in [(403, "Forbidden"), (422, "Invalid"), (404, "NotFound")] {
            assert!(matches!(answered(code, reason), Created::Refused(_)), "{code} {reason}");
        }
        for (code, reason) in [(500, "InternalError"), (503, "ServiceUnavailable"), (504, "Timeout")] {
            assert!(matches!(answered(code, reason), Created::Doubt(_)), "{code} {reason}");
        }
        assert!(matches!(answered(409, "AlreadyExists"), Created::Exists));
        let silent = ApiError::Timeout { call: "create".to_owned(), after: CALL_TIMEOUT };
        assert!(matches!(not_made(&silent), Created::Doubt(_)));
    }
}
