use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::{
    api::{ExitCodeSource, Requester},
    core::{
        audit::{
            chain::{Chain, Head, parse},
            redact::CommandDetail,
            subject::{Client, Subject},
        },
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
    ExecRef { id: "e1".into(), container: ContainerRef { id: "c1".into(), started_at: Some("t".into()) } }
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

fn export(request: Option<&ExecRequest>) -> Export {
    Export { requests: request.into_iter().cloned().collect(), batches: Vec::new() }
}

fn gaps(request: Option<&ExecRequest>, events: &[Event]) -> Vec<String> {
    complete(events, &export(request)).gaps.into_iter().map(|gap| gap.missing).collect()
}

#[test]
fn a_whole_set_has_no_gap_and_neither_has_one_with_repeats() {
    for outcome in [exited(0), exited(3), cancelled(), Outcome::lost("lost", None, Timestamp::UNIX_EPOCH)] {
        let (request, events) = ran(&outcome);
        let result = complete(&events, &export(Some(&request)));
        let Count { recorded, compared, .. } = result.requests;
        assert_eq!((recorded, compared, result.gaps), (1, 1, vec![]), "{}", outcome.reason);
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
        (Verb::Cancelled, "was killed (Canceled)"),
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
    assert_eq!(gaps(None, &events[..2]), ["it started, but has no record of its end"]);
    assert_eq!(gaps(None, &events[2..]), ["it ran, but has no record of its start"]);
    assert_eq!(gaps(None, &events[1..]), ["it started, but has no record of being bound"]);
    assert_eq!(gaps(None, &events[..1]), Vec::<String>::new(), "it waits, or was deleted");
}

/// Records as one writer has written them.
fn written(events: &[Event]) -> Vec<Event> {
    let mut chain = Chain::new("agent/n1", Head::start());
    let lines = events.iter().map(|event| chain.add(event).expect("a line"));
    lines.map(|line| parse(&line).expect("a record").0).collect()
}

#[test]
fn who_was_attached_has_gone_unless_the_writer_has_begun_anew() {
    let at = Timestamp::UNIX_EPOCH;
    let (request, events) = ran(&exited(0));
    let subject = Subject::of(&request, CommandDetail::Full).expect("a subject");
    let (by, client) = (Requester::default(), Client { address: "10.0.0.1".into(), stdin: false });
    let attached = subject.attached(&by, &client, at);
    let session = attached.note(key::SESSION).expect("a session");
    let detached = subject.detached(&by, &client, session, at);
    let opened = Event::of_writer(Verb::Opened, "agent/n1", at, BTreeMap::new());
    let said = |more: &[&Event]| {
        let more = more.iter().map(|event| (*event).clone());
        gaps(None, &written(&[opened.clone()].into_iter().chain(events.clone()).chain(more).collect::<Vec<_>>()))
    };
    assert_eq!(said(&[&attached, &detached]), Vec::<String>::new());
    assert_eq!(said(&[&attached]), ["a client attached, but has no record of its disconnection"]);
    assert_eq!(said(&[&detached]), ["a client disconnected, but has no record of attaching"]);
    assert_eq!(said(&[&attached, &opened]), Vec::<String>::new(), "it may have crashed");
    let running = written(&[opened.clone(), subject.bound(&binding(), None, at), attached]);
    assert_eq!(gaps(None, &running), Vec::<String>::new(), "it may be connected still");
    let rest = written(&[opened, events[0].clone(), detached]).split_off(1);
    assert_eq!(gaps(None, &rest), Vec::<String>::new(), "older lines are gone");
}

#[test]
fn a_request_that_has_not_finished_is_not_held_against_its_records() {
    let (mut request, _) = ran(&exited(0));
    request.status.as_mut().expect("a status").completion_time = None;
    let requests = Count { unfinished: 1, ..Count::default() };
    assert_eq!(complete(&[], &export(Some(&request))), Completeness { requests, ..Completeness::default() });
}
