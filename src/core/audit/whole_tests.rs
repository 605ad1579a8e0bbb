use k8s_openapi::jiff::Timestamp;

use super::*;
use crate::core::audit::complete::{Export, complete};

/// A record of the batch `u-b`, or of one of its requests.
fn record(verb: Verb, object: serde_json::Value, notes: &[(&str, &str)]) -> Event {
    let notes = notes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let mut event = Event::of_writer(verb, "", Timestamp::UNIX_EPOCH, notes);
    event.object_ref = Some(serde_json::from_value(object).expect("a reference"));
    event
}

fn of_batch(verb: Verb, notes: &[(&str, &str)]) -> Event {
    let object = serde_json::json!({"resource": "execbatches", "namespace": "shop", "name": "b", "uid": "u-b",
        "apiGroup": "execlet.dev", "apiVersion": "v1alpha1"});
    record(verb, object, &[&[(key::BATCH_PLAN, "1"), (key::PLAN_DIGEST, "d")], notes].concat())
}

/// The records of a request that ran for this index of this plan, in its pod, with exit code 0.
fn ran(plan: &str, index: &str, uid: &str, pod: &str) -> Vec<Event> {
    let object = serde_json::json!({"resource": "execrequests", "namespace": "shop", "name": uid, "uid": uid,
        "apiGroup": "execlet.dev", "apiVersion": "v1alpha1"});
    let place = [
        (key::BATCH, "b"),
        (key::BATCH_UID, "u-b"),
        (key::BATCH_PLAN, plan),
        (key::BATCH_INDEX, index),
        (key::POD_UID, pod),
    ];
    let of = |verb, notes: &[(&str, &str)]| record(verb, object.clone(), &[&place[..], notes].concat());
    let end = [(key::REASON, "Completed"), (key::RAN, "true"), (key::EXIT_CODE, "0")];
    vec![of(Verb::Bound, &[]), of(Verb::Started, &[]), of(Verb::Finished, &end)]
}

fn finished(notes: &[(&str, &str)]) -> Event {
    let mut event = of_batch(
        Verb::BatchFinished,
        &[
            (key::REASON, "Completed"),
            (key::RELEASED, "2"),
            (key::SUCCEEDED, "2"),
            (key::FAILED, "0"),
            (key::NOT_RUN, "0"),
            (key::UNKNOWN, "0"),
            (key::SKIPPED, "0"),
        ],
    );
    event.annotations.extend(notes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    event
}

fn planned(total: &str, required: &str) -> Event {
    of_batch(Verb::Planned, &[(key::TOTAL, total), (key::APPROVAL_REQUIRED, required)])
}

fn released(from: &str, to: &str) -> Event {
    of_batch(Verb::Released, &[(key::RELEASED_FROM, from), (key::RELEASED_TO, to)])
}

/// Two targets, one after the other, both with success.
fn whole() -> Vec<Event> {
    [
        vec![planned("2", "false"), released("0", "1")],
        ran("1", "0", "r-0", "p-0"),
        vec![released("1", "2")],
        ran("1", "1", "r-1", "p-1"),
        vec![finished(&[])],
    ]
    .concat()
}

fn told(events: &[Event]) -> Vec<String> {
    complete(events, &Export::default()).gaps.into_iter().map(|gap| format!("{}: {}", gap.name, gap.missing)).collect()
}

#[track_caller]
fn tells(events: &[Event], wanted: &str) {
    let told = told(events);
    assert!(told.iter().any(|gap| gap.contains(wanted)), "{wanted:?} is not in {told:?}");
}

fn without(wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
    whole().into_iter().filter(|event| !wanted(event)).collect()
}

#[test]
fn a_whole_batch_has_no_gap_and_neither_has_one_whose_leader_retried() {
    assert_eq!(told(&whole()), Vec::<String>::new());
    assert_eq!(told(&[whole(), whole()].concat()), Vec::<String>::new(), "each record twice");
    let mut abandoned = planned("3", "false");
    abandoned.annotations.insert(key::BATCH_PLAN.to_owned(), "0".to_owned());
    assert_eq!(told(&[whole(), vec![abandoned]].concat()), Vec::<String>::new(), "an earlier plan was given up");
}

#[test]
fn every_released_index_has_the_records_of_its_request() {
    tells(&without(|event| event.name().as_deref() == Some("shop/r-1")), "of the released indexes 1 no request has");
    tells(&without(|event| event.verb == Verb::Finished), "of the released indexes 0-1 no request has");
    tells(&without(|event| event.verb == Verb::Released), "2 of its targets were released at its end");
}

#[test]
fn of_a_request_that_was_deleted_the_batch_tells_the_end() {
    let gone = |indexes| of_batch(Verb::RequestsGone, &[(key::INDEXES, indexes)]);
    let end = finished(&[(key::SUCCEEDED, "1"), (key::UNKNOWN, "1")]);
    let deleted = without(|event| event.name().as_deref() == Some("shop/r-1") || event.verb == Verb::BatchFinished);
    let told_with = |record: Event| told(&[deleted.clone(), vec![record, end.clone()]].concat());
    assert_eq!(told_with(gone("1")), Vec::<String>::new());
    for other in ["0", "", "nonsense"] {
        assert!(told_with(gone(other))[0].contains("of the released indexes 1 no request has"), "{other:?}");
    }
    let mut of_another_plan = gone("1");
    of_another_plan.annotations.insert(key::PLAN_DIGEST.to_owned(), "e".to_owned());
    assert!(told_with(of_another_plan)[0].contains("of the released indexes 1 no request has"));
    let unended = [without(|event| event.verb == Verb::Finished), vec![gone("0-1")]].concat();
    tells(&unended, "it started, but has no record of its end");
    let mut succeeded = whole();
    succeeded.pop();
    let counted = [succeeded, vec![gone("1"), end.clone()]].concat();
    assert_eq!(told(&counted), Vec::<String>::new(), "it was deleted before the batch had seen how it ended");
    tells(&[counted, vec![finished(&[(key::SUCCEEDED, "0"), (key::UNKNOWN, "2")])]].concat(), "0 targets are said");
}

#[test]
fn nothing_ran_that_was_not_released() {
    let early = without(|event| event.note(key::RELEASED_TO) == Some("2"));
    tells(&early, "index 1 ran, but has no record of its release (request r-1)");
    let only_its_end = |event: &Event| {
        event.note(key::RELEASED_TO) == Some("2")
            || (event.name().as_deref() == Some("shop/r-1") && event.verb == Verb::Started)
    };
    tells(&without(only_its_end), "index 1 ran, but has no record of its release");
    let held = [vec![planned("2", "false"), released("0", "1")], ran("1", "0", "r-0", "p-0")].concat();
    let end = finished(&[(key::RELEASED, "1"), (key::SUCCEEDED, "1"), (key::NOT_RUN, "1")]);
    assert_eq!(told(&[held, vec![end]].concat()), Vec::<String>::new(), "one that was held has no records");
}

#[test]
fn no_index_and_no_pod_ran_twice() {
    let with = |more: Vec<Event>| [whole(), more].concat();
    tells(&with(ran("1", "0", "r-9", "p-9")), "index 0 ran 2 times: as requests r-0 and r-9");
    tells(&with(ran("2", "0", "r-9", "p-9")), "index 0 ran 2 times: as requests r-0 and r-9");
    tells(&with(ran("2", "0", "r-9", "p-9")), "index 0 ran under plan 2, and plan 1 was released (request r-9)");
    tells(&with(ran("2", "1", "r-9", "p-0")), "pod p-0 ran 2 times: as requests r-0 and r-9");
}

/// After an older state of the API server was restored.
#[test]
fn a_second_request_that_was_not_started_tells_how_the_first_ended_and_is_no_gap() {
    let second = ran("1", "0", "r-9", "p-0").into_iter().filter(|event| event.verb != Verb::Started);
    assert_eq!(told(&[whole(), second.collect()].concat()), Vec::<String>::new());
}

#[test]
fn plan_approval_and_end_have_their_records() {
    let unended = without(|event| event.verb == Verb::BatchFinished);
    assert_eq!(told(&unended), Vec::<String>::new(), "it may go on, or was deleted");
    assert_eq!(complete(&unended, &Export::default()).batches_without_end, 1);
    tells(&without(|event| event.verb == Verb::Planned), "released under plan 1, but has no record of that");
    let mut required = whole();
    required[0] = planned("2", "true");
    tells(&required, "it was released, but has no record of its approval");
    required.push(of_batch(Verb::Approved, &[]));
    assert_eq!(told(&required), Vec::<String>::new());
    let mut other = released("0", "1");
    other.annotations.insert(key::PLAN_DIGEST.to_owned(), "e".to_owned());
    tells(&[whole(), vec![other]].concat(), "released under several plans: 1 (d) and 1 (e)");
}

#[test]
fn the_numbers_at_the_end_are_those_of_the_records() {
    let ending = |notes: &[(&str, &str)]| {
        let mut events = whole();
        events.pop();
        events.push(finished(notes));
        events
    };
    tells(
        &ending(&[(key::SUCCEEDED, "1"), (key::FAILED, "1")]),
        "1 targets are said to have succeeded, and the records",
    );
    tells(&ending(&[(key::FAILED, "1")]), "it has ended, and 3 of 2 targets are accounted for");
    let mut more = whole();
    more[0] = planned("1", "false");
    tells(&more, "index 1 is none of its 1 targets (request r-1)");
}

#[test]
fn requests_without_any_record_of_their_batch_are_named_by_it() {
    tells(&ran("1", "0", "r-0", "p-0"), "shop/b: index 0 ran, but has no record of its release");
}
