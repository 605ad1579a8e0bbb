//! Events on a request and on its pod, for `kubectl describe`.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use std::time::Duration;

use crate::{
    api::{ExecRequest, Phase, Reason},
    core::ids::RequestKey,
};

/// Most bytes of a note; the API server takes 1024.
const NOTE_LIMIT: usize = 1000;
/// How long one Event may take. It is news, not evidence: it is dropped when it cannot be written.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A pod, in the namespace of the request that runs something in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// Writes Events on requests, and on their pods.
#[derive(Clone)]
pub struct Events {
    recorder: Option<Recorder>,
}

impl Events {
    /// As `controller`, from `instance` (the node's or the pod's name).
    #[must_use]
    pub fn new(client: Client, controller: &str, instance: &str) -> Self {
        let reporter = Reporter { controller: controller.to_owned(), instance: Some(instance.to_owned()) };
        Self { recorder: Some(Recorder::new(client, reporter)) }
    }

    /// Writes none, where there is nobody to read them.
    #[must_use]
    pub fn silent() -> Self {
        Self { recorder: None }
    }

    /// Says what happened to a request. Never fails: an Event that cannot be written is logged.
    pub async fn publish(&self, request: &RequestKey, action: &str, reason: Reason, note: &str) {
        self.write(&reference(request), None, request, action, reason, note).await;
    }

    /// Says on a pod what a request does there, for whoever looks after the pod. Never fails.
    pub async fn publish_on_pod(&self, pod: &PodRef, request: &RequestKey, action: &str, reason: Reason, note: &str) {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.name.clone()),
            namespace: Some(request.namespace.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectReference::default()
        };
        self.write(&about, Some(reference(request)), request, action, reason, note).await;
    }

    async fn write(
        &self,
        about: &ObjectReference,
        secondary: Option<ObjectReference>,
        request: &RequestKey,
        action: &str,
        reason: Reason,
        note: &str,
    ) {
        let Some(recorder) = &self.recorder else { return };
        let event = Event {
            type_: event_type(reason),
            reason: reason.as_str().to_owned(),
            note: Some(cut(note, NOTE_LIMIT).to_owned()),
            action: action.to_owned(),
            secondary,
        };
        match tokio::time::timeout(TIMEOUT, recorder.publish(&event, about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%request, %reason, %error, "an Event could not be written"),
            Err(_) => tracing::warn!(%request, %reason, "an Event could not be written in time"),
        }
    }
}

fn reference(request: &RequestKey) -> ObjectReference {
    ObjectReference {
        api_version: Some(ExecRequest::api_version(&()).into_owned()),
        kind: Some(ExecRequest::kind(&()).into_owned()),
        name: Some(request.name.clone()),
        namespace: Some(request.namespace.clone()),
        uid: Some(request.uid.to_string()),
        ..ObjectReference::default()
    }
}

fn event_type(reason: Reason) -> EventType {
    match (reason, reason.final_phase()) {
        (Reason::Pending | Reason::Bound | Reason::Running, _) | (_, Phase::Succeeded) => EventType::Normal,
        (_, Phase::Failed | Phase::Unknown | Phase::Pending | Phase::Bound | Phase::Running) => EventType::Warning,
    }
}

/// The longest beginning of at most `limit` bytes that is whole characters.
fn cut(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_cut_between_characters() {
        assert_eq!(cut("aéé", 4), "aé");
        assert_eq!(cut("short", 1000), "short");
    }

    #[test]
    fn only_success_and_progress_are_normal() {
        assert_eq!(event_type(Reason::Completed), EventType::Normal);
        assert_eq!(event_type(Reason::Running), EventType::Normal);
        assert_eq!(event_type(Reason::NonZeroExitCode), EventType::Warning);
        assert_eq!(event_type(Reason::OutcomeLost), EventType::Warning);
    }
}
