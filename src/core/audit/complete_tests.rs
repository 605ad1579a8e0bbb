use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::{
    api::ExitCodeSource,
    core::{
        audit::{event::Subject, redact::CommandDetail},
        ids::{ContainerRef, ExecRef},
        kill::Cause,
        outcome::{Exit, Outcome},
        transition::{Binding, Write},
    },
};

fn binding() -> Binding {
    Binding { node: "n1".into(), pod_uid: "p".into(), container: "main".into(), caveat: None }
}

fn exec() -> ExecRef {
    ExecRef { id: "e1".into(), container: ContainerRef { id: "c1".into(), started_at: "t".into() } }
}

fn exited(code: i32) -> Outcome {
    Outcome::exited(
        Exit { code, source: ExitCodeSource::Engine },
        crate::api::OutputStatus::default(),
        Timestamp::UNIX_EPOCH,
    )
}

fn cancelled() -> Outcome {
    Outcome { reason: Reason::Canceled, ..exited(143) }
}

fn write(from: &ExecRequestStatus) -> Write<'_> {
    Write { from, generation: None, at: Timestamp::UNIX_EPOCH }
}

/// A request that went as far as the outcome, and the records of it.
fn ran(outcome: &Outcome) -> (ExecRequest, Vec<Event>) {
    let mut request: ExecRequest = serde_json::from_value(json!({
        "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
        "metadata": {"name": "r", "namespace": "shop", "uid": "u-1"},
        "spec": {"target": {"podName": "web"}, "command": ["true"]},
    }))
    .expect("a request");
    let at = Timestamp::UNIX_EPOCH;
    let bound = write(&ExecRequestStatus::default()).bound(&binding());
    let committed = write(&bound).committed(&exec());
    request.status = Some(write(&committed).finished(outcome));
    let subject = Subject::of(&request, CommandDetail::Full).expect("a subject");
    let mut events = vec![subject.bound(&binding(), None, at), subject.started(&exec(), at)];
    if outcome.reason == Reason::Canceled {
        events.push(subject.cancelled(Cause::Canceled, at));
    }
    events.push(subject.ended(outcome, at));
    (request, events)
}

fn gaps(request: Option<&ExecRequest>, events: &[Event]) -> Vec<String> {
    complete(events, request).gaps.into_iter().map(|gap| gap.missing).collect()
}

#[test]
fn a_whole_set_has_no_gap_and_neither_has_one_with_repeats() {
    for outcome in [exited(0), exited(3), cancelled(), Outcome::lost("lost", None, Timestamp::UNIX_EPOCH)] {
        let (request, events) = ran(&outcome);
        let result = complete(&events, [&request]);
        assert_eq!((result.recorded, result.compared, result.gaps), (1, 1, vec![]), "{}", outcome.reason);
        let twice = [events.clone(), events].concat();
        assert_eq!(gaps(Some(&request), &twice), Vec::<String>::new());
    }
}

#[test]
fn each_record_that_is_missing_is_named() {
    let (request, events) = ran(&cancelled());
    for (verb, word) in [
        (Verb::Bound, "bound"),
        (Verb::Started, "start"),
        (Verb::Cancelled, "was ended (Canceled)"),
        (Verb::Finished, "ended with Canceled"),
    ] {
        let rest: Vec<Event> = events.iter().filter(|event| event.verb != verb).cloned().collect();
        let gaps = gaps(Some(&request), &rest);
        assert!(gaps.iter().any(|gap| gap.contains(word)), "without {verb}: {gaps:?}");
    }
    assert_eq!(gaps(Some(&request), &[]).len(), 4, "no record at all");
}

#[test]
fn records_that_do_not_fit_the_request_do_not_count() {
    let (request, _) = ran(&exited(3));
    for (key, value) in [(key::EXIT_CODE, "0"), (key::NODE, "n2"), (key::EXEC_ID, "e2"), (key::POD_UID, "q")] {
        let (_, mut events) = ran(&exited(3));
        for event in &mut events {
            if let Some(note) = event.annotations.get_mut(key) {
                value.clone_into(note);
            }
        }
        assert!(!gaps(Some(&request), &events).is_empty(), "{key}={value}");
    }
}

#[test]
fn records_alone_tell_a_start_without_an_end_and_an_end_without_a_start() {
    let (_, events) = ran(&exited(0));
    assert_eq!(gaps(None, &events), Vec::<String>::new());
    assert_eq!(gaps(None, &events[..2]), ["started, and no record of its end"]);
    assert_eq!(gaps(None, &events[2..]), ["it ran, and no record of its start"]);
    assert_eq!(gaps(None, &events[1..]), ["started, and no record that it was bound"]);
    assert_eq!(gaps(None, &events[..1]), Vec::<String>::new(), "it waits, or was deleted");
}

#[test]
fn a_request_that_has_not_finished_is_not_held_against_its_records() {
    let (mut request, _) = ran(&exited(0));
    request.status.as_mut().expect("a status").completion_time = None;
    assert_eq!(complete(&[], [&request]), Completeness::default());
}
