//! Bind: give each request a node, a pod and a container, or say why not.
//!
//! 1. dereference: the policies, the requester's rights, the pod, and which agents live;
//! 2. decide: `core::bind`;
//! 3. apply: `write`.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    core::{DeserializeGuard, error_boundary::InvalidObject},
    runtime::controller::Action,
};

use super::write::{BindError, Leader, RETRY, at_deadline, decided};
use crate::{
    api::{ExecRequest, ExecRequestStatus},
    core::{
        access,
        bind::{self, BindDecision, Facts},
        ids::RequestKey,
        request::key_of,
        transition::Write,
    },
    infra::{call::within, unreadable::Refuser},
};

const POD_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) type Guarded = DeserializeGuard<ExecRequest>;

pub(super) async fn reconcile(object: Arc<Guarded>, binder: Arc<Leader>) -> Result<Action, BindError> {
    let request = match &object.0 {
        Ok(request) => request,
        Err(invalid) => return refuse_if_unbound(&binder, invalid).await,
    };
    let empty = ExecRequestStatus::default();
    let from = request.status.as_ref().unwrap_or(&empty);
    if from.completion_time.is_some() || from.exec_id.is_some() {
        return Ok(Action::await_change());
    }
    let key = key_of(&request.metadata)?;
    let now = binder.clock.now();
    let write = Write { from, generation: request.metadata.generation, at: now };
    if from.node_name.is_some() {
        return match bind::bound_too_long(request, &binder.agents, now) {
            Some((reason, message)) => {
                let (next, change) = decided(write, BindDecision::Refuse(reason, message), None);
                binder.apply(request, &key, next, change, bind::was_vouched_for(request)).await
            }
            None => Ok(at_deadline(request, now)),
        };
    }
    let admission = binder.gate.look().await;
    let rights = access::rights(request);
    let lacks = match bind::requester_to_check(request, &admission) {
        Some(by) => binder.access.first_lacking(by, &rights).await?,
        None => None,
    };
    let pod = pod_of(&binder, request, &key).await?;
    let facts = Facts { request, admission: &admission, lacks, pod: pod.as_ref() };
    let decision = bind::bind(&facts, &binder.agents, now);
    let decision = bind::unless_unrecorded(decision, binder.audit.available().await);
    let (next, change) = decided(write, decision, pod.as_ref());
    binder.apply(request, &key, next, change, bind::vouched_for(request, &admission)).await
}

/// Refuses an object that cannot be read. If it may be bound, that is its agent's to do: something of it may run.
async fn refuse_if_unbound(binder: &Leader, invalid: &InvalidObject) -> Result<Action, BindError> {
    let key = key_of(&invalid.metadata)?;
    let Leader { requests, audit, events, metrics, .. } = binder;
    if requests.is_bound(&key).await? {
        return Ok(Action::await_change());
    }
    metrics.unreadable.inc();
    let refuser = Refuser { requests, audit, events, metrics, action: "Bind" };
    refuser.refuse(&key, invalid, &ExecRequestStatus::default(), binder.clock.now()).await?;
    Ok(Action::await_change())
}

#[allow(clippy::needless_pass_by_value, reason = "the controller calls it so")]
pub(super) fn on_error(object: Arc<Guarded>, error: &BindError, _: Arc<Leader>) -> Action {
    let meta = match &object.0 {
        Ok(request) => &request.metadata,
        Err(invalid) => &invalid.metadata,
    };
    tracing::warn!(namespace = ?meta.namespace, name = ?meta.name, %error, "a request could not be bound or refused; retrying");
    Action::requeue(RETRY)
}

async fn pod_of(binder: &Leader, request: &ExecRequest, key: &RequestKey) -> Result<Option<Pod>, BindError> {
    let name = &request.spec.target.pod_name;
    let api: Api<Pod> = Api::namespaced(binder.client.clone(), &key.namespace);
    let what = format!("get pod {}/{name}", key.namespace);
    Ok(within(POD_TIMEOUT, what, api.get_opt(name)).await?)
}
