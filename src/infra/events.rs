//! Events on a request and on its pod, for `kubectl describe`.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use std::{sync::Arc, time::Duration};

use crate::{
    api::{ExecRequest, Phase, Reason},
    core::{ids::RequestKey, printable::one_line},
};
use parking_lot::Mutex;

/// Most bytes of a note; the API server takes 1024.
const NOTE_LIMIT: usize = 1000;
/// For one Event. It is dropped if it cannot be written in time: it is not evidence.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Events of one recorder. It keeps each for six minutes, some 2 KiB, to count repetitions, and scans all of them for each
/// new one.
const ONE_RECORDER: usize = 256;

/// A pod, in the namespace of the request that runs something in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    pub name: String,
    pub uid: String,
}

#[derive(Clone)]
pub struct Events {
    recorders: Option<Arc<Recorders>>,
}

struct Recorders {
    client: Client,
    reporter: Reporter,
    /// With the number of its Events.
    current: Mutex<(Recorder, usize)>,
}

impl Recorders {
    fn next(&self) -> Recorder {
        let mut current = self.current.lock();
        let (recorder, events) = &mut *current;
        if *events == ONE_RECORDER {
            *recorder = Recorder::new(self.client.clone(), self.reporter.clone());
            *events = 0;
        }
        *events += 1;
        recorder.clone()
    }
}

impl Events {
    /// `instance` is the name of the node or the pod.
    pub fn new(client: Client, controller: &str, instance: &str) -> Self {
        let reporter = Reporter { controller: controller.to_owned(), instance: Some(instance.to_owned()) };
        let current = Mutex::new((Recorder::new(client.clone(), reporter.clone()), 0));
        Self { recorders: Some(Arc::new(Recorders { client, reporter, current })) }
    }

    pub fn silent() -> Self {
        Self { recorders: None }
    }

    /// On a request. An Event that cannot be written is logged.
    pub async fn publish(&self, request: &RequestKey, action: &str, reason: Reason, note: &str) {
        self.write(&reference(request), None, action, reason, note).await;
    }

    pub async fn publish_on_pod(&self, pod: &PodRef, request: &RequestKey, action: &str, reason: Reason, note: &str) {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.name.clone()),
            namespace: Some(request.namespace.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectReference::default()
        };
        self.write(&about, Some(reference(request)), action, reason, note).await;
    }

    pub async fn publish_about(&self, object: &ObjectReference, action: &str, reason: Reason, note: &str) {
        self.write(object, None, action, reason, note).await;
    }

    async fn write(
        &self,
        object: &ObjectReference,
        secondary: Option<ObjectReference>,
        action: &str,
        reason: Reason,
        note: &str,
    ) {
        let Some(recorders) = &self.recorders else { return };
        let event = Event {
            type_: event_type(reason),
            reason: reason.as_str().to_owned(),
            note: Some(noted(note)),
            action: action.to_owned(),
            secondary,
        };
        let about = |part: &Option<String>| part.clone().unwrap_or_default();
        let about = format!("{}/{}", about(&object.namespace), about(&object.name));
        match tokio::time::timeout(TIMEOUT, recorders.next().publish(&event, object)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(about, %reason, %error, "an Event could not be written"),
            Err(_) => tracing::warn!(about, %reason, "an Event could not be written in time"),
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
        (
            Reason::Pending
            | Reason::Bound
            | Reason::Running
            | Reason::Planning
            | Reason::Planned
            | Reason::ApprovalRequired
            | Reason::Approved
            | Reason::Suspended
            | Reason::ReleaseLimit,
            _,
        )
        | (_, Phase::Succeeded) => EventType::Normal,
        (_, Phase::Failed | Phase::Unknown | Phase::Pending | Phase::Bound | Phase::Running) => EventType::Warning,
    }
}

/// One line that fits.
fn noted(note: &str) -> String {
    cut(&one_line(note.trim_end()), NOTE_LIMIT).to_owned()
}

/// The longest beginning of at most `limit` bytes that is whole characters.
fn cut(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use http::Method;
    use kube::client::Body;
    use tower::BoxError;

    use super::*;

    #[test]
    fn a_long_note_is_cut_between_characters() {
        assert_eq!(cut("aéé", 4), "aé");
        assert_eq!(cut("short", 1000), "short");
    }

    #[test]
    fn a_note_is_one_line_whoever_it_quotes() {
        assert_eq!(noted("it says: no\n\u{1b}[1A\u{202e}yes\n"), r"it says: no\n\x1b[1A\u{202e}yes");
        assert_eq!(noted(&"\u{1b}".repeat(NOTE_LIMIT)).len(), NOTE_LIMIT, "longer when it is escaped");
    }

    type Calls = Arc<Mutex<Vec<(Method, Option<String>)>>>;

    /// Events of an API server that takes them all, and the method and the note of each call.
    fn recorded() -> (Events, Calls) {
        let calls = Calls::default();
        let service = tower::service_fn({
            let calls = Arc::clone(&calls);
            move |call: http::Request<Body>| {
                let calls = Arc::clone(&calls);
                async move {
                    let method = call.method().clone();
                    let body = call.into_body().collect_bytes().await?;
                    let event: serde_json::Value = serde_json::from_slice(&body)?;
                    calls.lock().push((method, event["note"].as_str().map(str::to_owned)));
                    Ok::<_, BoxError>(http::Response::new(Body::from(b"{\"metadata\": {}}".to_vec())))
                }
            }
        });
        (Events::new(Client::new(service, "default"), "controller", "instance"), calls)
    }

    fn key() -> RequestKey {
        RequestKey { namespace: "default".into(), name: "r".into(), uid: "1".into() }
    }

    #[tokio::test]
    async fn an_event_on_whatever_object_has_such_a_note() {
        let (events, calls) = recorded();
        let (pod, said) = (PodRef { name: "web".into(), uid: "2".into() }, "no\n\u{1b}[1A");
        events.publish(&key(), "Prepare", Reason::Pending, said).await;
        events.publish_on_pod(&pod, &key(), "Exec", Reason::Running, said).await;
        events.publish_about(&ObjectReference::default(), "Watch", Reason::Pending, said).await;
        let notes: Vec<_> = calls.lock().iter().map(|(_, note)| note.clone()).collect();
        assert_eq!(notes, [(); 3].map(|()| Some(r"no\n\x1b[1A".to_owned())));
    }

    #[tokio::test]
    async fn what_comes_again_is_counted_and_what_is_remembered_is_bounded() {
        let (events, calls) = recorded();
        for _ in 0..=ONE_RECORDER {
            events.publish(&key(), "Prepare", Reason::Pending, "it waits").await;
        }
        let mut wanted = vec![Method::PATCH; ONE_RECORDER + 1];
        // The first, and the first of which a new recorder hears.
        (wanted[0], wanted[ONE_RECORDER]) = (Method::POST, Method::POST);
        let methods: Vec<_> = calls.lock().iter().map(|(method, _)| method.clone()).collect();
        assert_eq!(methods, wanted);
    }

    #[test]
    fn only_success_and_progress_are_normal() {
        assert_eq!(event_type(Reason::Completed), EventType::Normal);
        assert_eq!(event_type(Reason::Running), EventType::Normal);
        assert_eq!(event_type(Reason::NonZeroExitCode), EventType::Warning);
        assert_eq!(event_type(Reason::OutcomeLost), EventType::Warning);
    }
}
