//! A request held against its batch, before anything is created for it.
//!
//! Whoever makes requests of batches may be wrong, or stolen from. So the agent believes of such a request only what the batch
//! says, which somebody with their own rights has made: it makes the request again from the batch, and compares.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::{
    child::child,
    plan::Refusal,
    share,
    situation::Situation,
    targets::{Fate, Target, controller},
};
use crate::api::{BatchReference, ExecBatch, ExecRequest, Reason};

/// A request that is what its batch says, and may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Targets of the batch.
    pub total: u16,
}

/// Holds a request against its batch, read after the request was; `None` if it is gone, or another one has its name.
///
/// # Errors
/// Why it must not run, which is final.
pub fn hold(request: &ExecRequest, batch: Option<&ExecBatch>, now: Timestamp) -> Result<Held, Refusal> {
    let Some(place) = &request.spec.batch else { return Err(mismatch("it names no batch")) };
    let Some(batch) = batch.filter(|batch| is_named(batch, place, request)) else {
        let message = format!("there is no ExecBatch {} with UID {}: nothing ran", place.name, place.uid);
        return Err(Refusal::new(Reason::Deleted, message));
    };
    is_wanted(batch)?;
    let situation = Situation::of(batch, now).map_err(|error| mismatch(&error.to_string()))?;
    let situation = situation.ok_or_else(|| mismatch("the batch has no plan yet"))?;
    if situation.plan() != place.plan {
        let why = format!("it belongs to plan {}, and the batch has plan {}", place.plan, situation.plan());
        return Err(mismatch(&why));
    }
    let Some(index) = u16::try_from(place.index).ok().filter(|index| *index < situation.total) else {
        let why = format!("it has index {}, and the batch has {} targets", place.index, situation.total);
        return Err(mismatch(&why));
    };
    is_approved(batch)?;
    if share::limit(&batch.spec, situation.total) == 0 && situation.total > 0 {
        // The definition keeps it from being lowered to that once something is released.
        let message = "spec.releaseLimit of the batch is 0: nothing of it runs";
        return Err(Refusal::new(Reason::ReleaseLimit, message));
    }
    if !situation.lets_run(index) {
        let why = format!("index {index} is not released, or is accounted for already");
        return Err(mismatch(&why));
    }
    is_its_pod(request, batch, index)?;
    is_its_child(request, batch, place.plan, index)?;
    is_its_container(request)?;
    Ok(Held { total: situation.total })
}

fn is_named(batch: &ExecBatch, place: &BatchReference, request: &ExecRequest) -> bool {
    let meta = &batch.metadata;
    meta.uid.as_ref() == Some(&place.uid)
        && meta.name.as_ref() == Some(&place.name)
        && meta.namespace == request.metadata.namespace
}

fn is_wanted(batch: &ExecBatch) -> Result<(), Refusal> {
    if batch.metadata.deletion_timestamp.is_some() {
        return Err(Refusal::new(Reason::Deleted, "the batch was deleted before the command could start: nothing ran"));
    }
    if batch.spec.cancel {
        return Err(Refusal::new(
            Reason::Canceled,
            "the batch was canceled before the command could start: nothing ran",
        ));
    }
    if batch.status.as_ref().is_some_and(|status| status.completion_time.is_some()) {
        return Err(mismatch("the batch has finished"));
    }
    Ok(())
}

fn is_approved(batch: &ExecBatch) -> Result<(), Refusal> {
    let plan = batch.status.as_ref().and_then(|status| status.plan.as_ref());
    let Some(digest) = plan.and_then(|plan| plan.digest.as_ref()).filter(|digest| !digest.is_empty()) else {
        return Err(mismatch("the plan of the batch has no digest"));
    };
    if batch.spec.approval.required && batch.spec.approval.plan_digest != *digest {
        let message = "spec.approval.required of the batch is true, and nobody has approved its plan: nothing ran";
        return Err(Refusal::new(Reason::ApprovalRequired, message));
    }
    Ok(())
}

/// The pod that it is bound to is the one that was planned, as far as the request and the batch tell.
fn is_its_pod(request: &ExecRequest, batch: &ExecBatch, index: u16) -> Result<(), Refusal> {
    let target = &request.spec.target;
    let bound = request.status.as_ref().and_then(|status| status.pod_uid.as_deref()).unwrap_or_default();
    let Some(planned) = target.pod_uid.as_deref() else {
        return Err(mismatch("spec.target.podUID is missing, and a request of a batch has one"));
    };
    if bound != planned && !is_static(bound) {
        return Err(mismatch(&format!("it is for the pod with UID {planned}, and bound to the one with UID {bound}")));
    }
    let Some(given) = &batch.spec.targets.pods else { return Ok(()) };
    let named = given.get(usize::from(index));
    let fits =
        named.is_some_and(|pod| pod.name == target.pod_name && pod.uid.as_ref().is_none_or(|uid| uid == planned));
    if fits {
        return Ok(());
    }
    let why = format!("it is for pod {}, which is not what targets.pods of the batch has at {index}", target.pod_name);
    Err(mismatch(&why))
}

/// Where the batch names none, only the manager knows the pod, and so which one is meant.
fn is_its_container(request: &ExecRequest) -> Result<(), Refusal> {
    let bound = request.status.as_ref().and_then(|status| status.container.as_deref()).unwrap_or_default();
    match request.spec.target.container.as_deref() {
        Some(named) if named != bound => {
            Err(mismatch(&format!("it is for container {named}, and bound to container {bound}")))
        }
        Some(_) | None => Ok(()),
    }
}

/// The kubelet names a static pod by a hash of its manifest, and the API server by another UID.
fn is_static(uid: &str) -> bool {
    uid.len() == 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_its_child(request: &ExecRequest, batch: &ExecBatch, plan: i64, index: u16) -> Result<(), Refusal> {
    let asked = &request.spec.target;
    // Which pod it is, the batch need not tell.
    let target = Target { pod: asked.pod_name.clone(), uid: asked.pod_uid.clone(), fate: Fate::Run };
    let wanted = child(batch, plan, index, &target).map_err(|error| mismatch(&error.to_string()))?;
    let mut spec = request.spec.clone();
    spec.cancel = wanted.spec.cancel;
    if spec != wanted.spec {
        let fields = differing(&spec, &wanted.spec).join(", ");
        return Err(mismatch(&format!("its {fields} is not what the batch says")));
    }
    if request.metadata.name != wanted.metadata.name {
        return Err(mismatch("its metadata.name is not that of this index of the plan"));
    }
    let owner = |request: &ExecRequest| controller(request.metadata.owner_references.as_deref()).cloned();
    if owner(request).map(|owner| (owner.api_version, owner.kind, owner.name, owner.uid))
        != owner(&wanted).map(|owner| (owner.api_version, owner.kind, owner.name, owner.uid))
    {
        return Err(mismatch("the batch is not the controller in its metadata.ownerReferences"));
    }
    Ok(())
}

/// The fields of two specs that are not the same.
fn differing(one: &impl serde::Serialize, other: &impl serde::Serialize) -> Vec<String> {
    let [one, other] = [serde_json::to_value(one), serde_json::to_value(other)].map(Result::unwrap_or_default);
    let mut fields = Vec::new();
    compare("spec", &one, &other, &mut fields);
    fields
}

fn compare(path: &str, one: &Value, other: &Value, fields: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(left), Value::Object(right)) => {
            let missing = right.keys().filter(|name| !left.contains_key(*name));
            for name in left.keys().chain(missing) {
                let [one, other] = [left, right].map(|fields| fields.get(name).unwrap_or(&Value::Null));
                compare(&format!("{path}.{name}"), one, other, fields);
            }
        }
        (one, other) if one != other => fields.push(path.to_owned()),
        (_, _) => {}
    }
}

fn mismatch(why: &str) -> Refusal {
    let message = format!("the request does not fit its batch: {why}; nothing ran: create another ExecBatch");
    Refusal::new(Reason::BatchMismatch, message)
}

#[cfg(test)]
#[path = "held_tests.rs"]
mod tests;
