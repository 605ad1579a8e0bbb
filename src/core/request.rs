//! A bound request, parsed once so that no step has to check again whether a field
//! is set.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use thiserror::Error;

use super::{
    entry::Terms,
    ids::{ContainerRef, ExecRef, NodeName, PodUid, RequestKey, TargetKey},
};
use crate::api::{ExecRequest, ExecRequestSpec};

#[derive(Clone, Debug)]
pub struct BoundRequest {
    pub key: RequestKey,
    pub node: NodeName,
    pub pod_name: String,
    pub pod_uid: PodUid,
    pub container: String,
    pub spec: ExecRequestSpec,
    pub starting_deadline: Timestamp,
    pub progress: Progress,
    /// By the clock of the agent that committed it.
    pub committed_at: Option<Timestamp>,
    /// Somebody has deleted it, and a finalizer holds it: it is there until that is gone, and so are its readers.
    pub deleting: bool,
}

impl BoundRequest {
    pub fn terms(&self) -> Terms {
        Terms::from(&self.spec)
    }

    /// Which target of which batch it is for, if it is a batch's.
    pub fn target(&self) -> Option<TargetKey> {
        self.spec.batch.as_ref().map(|place| TargetKey { batch: place.uid.as_str().into(), pod: self.pod_uid.clone() })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// No exec has been committed.
    Bound,
    /// This exec may start, or one that takes its place because it never can; no other ever will.
    Committed(ExecRef),
    /// The status is final.
    Finished,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0} is not set")]
pub struct NotBound(pub &'static str);

pub fn key_of(meta: &kube::core::ObjectMeta) -> Result<RequestKey, NotBound> {
    Ok(RequestKey {
        namespace: meta.namespace.clone().ok_or(NotBound("metadata.namespace"))?,
        name: meta.name.clone().ok_or(NotBound("metadata.name"))?,
        uid: meta.uid.clone().ok_or(NotBound("metadata.uid"))?.into(),
    })
}

/// Whether it was deleted and is there all the same, because a finalizer holds it. Nothing is to start any more, what
/// runs is to end, and the status says so: whoever reads it can still do so.
pub fn is_being_deleted(request: &ExecRequest) -> bool {
    request.metadata.deletion_timestamp.is_some()
}

/// Whether its command is still to run: it was neither canceled nor deleted.
pub fn is_wanted(request: &ExecRequest) -> bool {
    !request.spec.cancel && !is_being_deleted(request)
}

/// By when the command must have started. Of a batch's request, none until it was looked at after its release: it may be
/// held for as long as its batch likes.
pub fn starting_deadline(request: &ExecRequest) -> Option<Timestamp> {
    if request.spec.batch.is_some() {
        return request.status.as_ref()?.start_by.as_ref().map(|time| time.0);
    }
    let created = request.metadata.creation_timestamp.as_ref()?.0;
    created.checked_add(SignedDuration::from_secs(i64::from(request.spec.starting_deadline_seconds))).ok()
}

/// Since when it could run: its creation; of a batch's request its release, from which its deadline counts.
pub fn waits_since(request: &ExecRequest) -> Option<Timestamp> {
    if request.spec.batch.is_none() {
        return request.metadata.creation_timestamp.as_ref().map(|created| created.0);
    }
    let seconds = SignedDuration::from_secs(request.spec.starting_deadline_seconds.into());
    starting_deadline(request)?.checked_sub(seconds).ok()
}

impl TryFrom<&ExecRequest> for BoundRequest {
    type Error = NotBound;

    fn try_from(request: &ExecRequest) -> Result<Self, NotBound> {
        let status = request.status.as_ref().ok_or(NotBound("status"))?;
        let progress = match (&status.completion_time, &status.exec_id) {
            (Some(_), _) => Progress::Finished,
            (None, Some(id)) => {
                let container = status.container_id.as_deref().unwrap_or_default().into();
                let container = ContainerRef { id: container, started_at: None };
                Progress::Committed(ExecRef { id: id.as_str().into(), container })
            }
            (None, None) => Progress::Bound,
        };
        Ok(Self {
            key: key_of(&request.metadata)?,
            node: status.node_name.as_deref().ok_or(NotBound("status.nodeName"))?.into(),
            pod_name: request.spec.target.pod_name.clone(),
            pod_uid: status.pod_uid.as_deref().ok_or(NotBound("status.podUID"))?.into(),
            container: status.container.clone().ok_or(NotBound("status.container"))?,
            spec: request.spec.clone(),
            starting_deadline: starting_deadline(request).ok_or(NotBound("metadata.creationTimestamp"))?,
            progress,
            committed_at: status.start_time.as_ref().map(|time| time.0),
            deleting: is_being_deleted(request),
        })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;
    use crate::api::BatchReference;

    #[test]
    fn what_is_deleted_and_still_there_is_not_wanted_any_more() {
        let request: ExecRequest = serde_json::from_value(json!({
            "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
            "metadata": {"name": "r", "namespace": "shop", "uid": "u", "creationTimestamp": "2026-01-02T03:04:05Z"},
            "spec": {"target": {"podName": "web"}, "command": ["true"]},
            "status": {"phase": "Bound", "nodeName": "n1", "podUID": "p", "container": "main"},
        }))
        .expect("a request");
        let (mut deleted, mut canceled) = (request.clone(), request.clone());
        deleted.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        canceled.spec.cancel = true;
        for (request, wanted, deleting) in [(request, true, false), (canceled, false, false), (deleted, false, true)] {
            assert_eq!(is_wanted(&request), wanted, "{request:?}");
            assert_eq!(BoundRequest::try_from(&request).expect("bound").deleting, deleting, "{request:?}");
        }
    }

    #[test]
    fn a_request_of_a_batch_waits_from_its_release_on() {
        let mut request: ExecRequest = serde_json::from_value(json!({
            "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
            "metadata": {"name": "r", "namespace": "shop", "uid": "u", "creationTimestamp": "1970-01-01T00:00:07Z"},
            "spec": {"target": {"podName": "web"}, "command": ["true"], "startingDeadlineSeconds": 60},
            "status": {"startBy": "1970-01-01T00:10:00.000000Z"},
        }))
        .expect("a request");
        let since = |request: &ExecRequest| waits_since(request).map(Timestamp::as_second);
        assert_eq!(since(&request), Some(7));
        request.spec.batch = Some(BatchReference { name: "b".into(), uid: "v".into(), plan: 1, index: 0 });
        assert_eq!(since(&request), Some(540));
        request.status = None;
        assert_eq!(since(&request), None, "it is held");
    }
}
