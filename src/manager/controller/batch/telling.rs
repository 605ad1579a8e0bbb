//! What people are told of a batch beside its status: an Event, a line of the log and a number, once a phase or reason.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, core::ObjectMeta};

use crate::{
    api::{
        ExecBatch, ExecBatchStatus, Reason,
        conditions::{self, ConditionType},
    },
    manager::controller::write::Leader,
};

/// Tells what is new in a status that was written.
pub(super) async fn tell(leader: &Leader, meta: &ObjectMeta, before: Option<&ExecBatchStatus>, now: &ExecBatchStatus) {
    let Some((reason, message)) = reason_of(now) else { return };
    let was = before.and_then(reason_of).map(|(reason, _)| reason);
    if was == Some(reason) && before.map(|before| before.phase) == Some(now.phase) {
        return;
    }
    let has_finished = now.completion_time.is_some();
    let (namespace, name, uid) = (meta.namespace.as_deref(), meta.name.as_deref(), meta.uid.as_deref());
    tracing::info!(namespace, name, uid, phase = %now.phase, reason, done = now.done, message, "batch");
    let Some(reason) = Reason::ALL.iter().copied().find(|known| known.as_str() == reason) else { return };
    if has_finished {
        leader.metrics.batch_finished(reason);
    }
    let action = if has_finished { "Finish" } else { "Tend" };
    leader.events.publish_about(&reference(meta), action, reason, message).await;
}

fn reason_of(status: &ExecBatchStatus) -> Option<(&str, &str)> {
    let finished = conditions::get(&status.conditions, ConditionType::Finished)?;
    Some((&finished.reason, &finished.message))
}

fn reference(meta: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: Some(ExecBatch::api_version(&()).into_owned()),
        kind: Some(ExecBatch::kind(&()).into_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        ..ObjectReference::default()
    }
}
