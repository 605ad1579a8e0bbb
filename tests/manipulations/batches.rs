//! What somebody can do to the records of a batch whose chain they can make anew, or before its head is published, and
//! what `execlet audit verify --complete` says then.

use execlet::{
    api::{ExecBatch, ExecBatchStatus, ExecRequest, ExecRequestStatus, ExitCodeSource, OutputStatus, Requester},
    core::{
        audit::{
            batch::acts,
            chain::Head,
            event::{Event, Verb},
            key,
            redact::CommandDetail,
            subject::Subject,
        },
        batch::{
            child::child,
            end::End,
            groups::Grouped,
            ledger::Ledger,
            situation::Situation,
            status::{Going, Write as BatchWrite},
            targets::{Fate, Target},
        },
        ids::{ContainerRef, ExecRef},
        outcome::{Exit, Outcome},
        transition::{Binding, Write},
    },
};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::log::{Case, chain, lease};

const M: &str = "manager/m";
const AT: Timestamp = Timestamp::UNIX_EPOCH;

fn batch() -> ExecBatch {
    let mut batch: ExecBatch = serde_json::from_value(json!({
        "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecBatch",
        "metadata": {"name": "b", "namespace": "shop", "uid": "u-b"},
        "spec": {"targets": {"all": true}, "template": {"spec": {"command": ["uname", "-r"]}}, "reason": "CHG-1"},
    }))
    .expect("a batch");
    batch.spec.requested_by = Some(Requester { username: "alice".to_owned(), ..Requester::default() });
    batch
}

/// Writes a status: the records that come first.
fn put(batch: &mut ExecBatch, next: ExecBatchStatus, into: &mut Vec<Event>) {
    let subject = Subject::of_batch(batch, CommandDetail::Full).expect("a subject").vouched_for();
    into.extend(acts(batch, &next).iter().map(|act| subject.batch_did(act, AT)));
    batch.status = Some(next);
}

fn write(batch: &ExecBatch, make: impl FnOnce(BatchWrite<'_>) -> ExecBatchStatus) -> ExecBatchStatus {
    let status = batch.status.clone().unwrap_or_default();
    make(BatchWrite { status: &status, generation: Some(1), at: AT })
}

/// A target that ran with success, and its records.
fn ran(batch: &ExecBatch, plan: i64, index: u16, uid: &str) -> (ExecRequest, Vec<Event>) {
    let target = Target { pod: format!("web-{index}"), uid: Some(format!("p-{index}")), fate: Fate::Run };
    let mut request = child(batch, plan, index, &target).expect("a child");
    request.metadata.uid = Some(uid.to_owned());
    let binding = Binding { node: "n1".into(), pod_uid: format!("p-{index}"), container: "main".into(), caveat: None };
    let exec = ExecRef { id: format!("e-{uid}").into(), container: ContainerRef { id: "c".into(), started_at: None } };
    let output = OutputStatus { complete: true, ..OutputStatus::default() };
    let outcome = Outcome::exited(Exit { code: 0, source: ExitCodeSource::Engine }, output, AT);
    let write = |from: &ExecRequestStatus, then: &dyn Fn(Write<'_>) -> ExecRequestStatus| {
        then(Write { from, generation: None, at: AT })
    };
    let bound = write(&ExecRequestStatus::default(), &|write| write.bound(&binding));
    let committed = write(&bound, &|write| write.committed(&exec));
    request.status = Some(bound);
    let subject = Subject::of(&request, CommandDetail::Full).expect("a subject");
    request.status = Some(write(&committed, &|write| write.finished(&outcome)));
    let events = vec![subject.bound(&binding, None, AT), subject.started(&exec, AT), subject.ended(&outcome, AT)];
    (request, events)
}

/// A batch of two targets that succeeded, its requests, and the records of all of it.
fn whole() -> (ExecBatch, Vec<ExecRequest>, Vec<Event>) {
    let (mut batch, mut events) = (batch(), Vec::new());
    let planning = write(&batch, |write| write.planning(1));
    put(&mut batch, planning, &mut events);
    let frozen = write(&batch, |write| write.frozen(2, "d", &Ledger::default()));
    put(&mut batch, frozen, &mut events);
    let mut requests = Vec::new();
    let mut ledger = Ledger::default();
    for index in 0..2 {
        let with = batch.clone();
        let parsed = Situation::of(&with, AT).expect("a status").expect("a plan");
        let situation = Situation { released: index + 1, ledger: ledger.clone(), ..parsed };
        let going = write(&batch, |write| write.going(&Going { situation: &situation, stop: None, hold: None }));
        put(&mut batch, going, &mut events);
        let (request, records) = ran(&batch, 1, index, &format!("r-{index}"));
        requests.push(request);
        events.extend(records);
        ledger.put(index, End::Succeeded);
    }
    let with = batch.clone();
    let situation = Situation { ledger, ..Situation::of(&with, AT).expect("a status").expect("a plan") };
    let finished = write(&batch, |write| write.finished(&situation, None, Grouped::default()));
    put(&mut batch, finished, &mut events);
    (batch, requests, events)
}

/// Writes the chain of these records, with a Lease that names its end, and the objects.
fn given(batch: &ExecBatch, requests: &[ExecRequest], events: &[Event]) -> Case {
    let case = Case::new();
    let (lines, heads) = chain(M, Head::start(), events);
    case.log("m", 1, &lines);
    case.leases("leases", &[lease("execlet-manager", &[(M, heads.last().expect("a head"))])]);
    let items: Vec<Value> = requests.iter().map(|one| json!(one)).chain([json!(batch)]).collect();
    case.put("objects", json!({"kind": "List", "items": items}).to_string());
    case
}

const COMPLETE: &str = "--complete --lease leases m";
const COMPARED: &str = "--requests objects --lease leases m";

type Change = fn(&mut ExecBatch, &mut Vec<ExecRequest>, &mut Vec<Event>);

fn of_request(event: &Event, uid: &str) -> bool {
    event.uid().is_some_and(|of| of.as_str() == uid)
}

const CHANGED: &[(&str, Change, &str, &str)] = &[
    (
        "no record of one target",
        |_, _, events| events.retain(|event| !of_request(event, "r-1")),
        COMPLETE,
        "batch shop/b (u-b): of the released indexes 1 no request has a record of its end: 1 of 2",
    ),
    (
        "one was not released",
        |_, _, events| events.retain(|event| event.note(key::RELEASED_TO) != Some("2")),
        COMPLETE,
        "index 1 ran, but has no record of its release (request r-1)",
    ),
    (
        "nothing was",
        |_, _, events| events.retain(|event| event.verb != Verb::Released),
        COMPLETE,
        "2 of its targets were released at its end, but the records say that 0 were",
    ),
    (
        "an index ran again under another UID",
        |batch, _, events| events.extend(ran(batch, 1, 0, "r-9").1),
        COMPLETE,
        "index 0 ran 2 times: as requests r-0 and r-9",
    ),
    (
        "and under another plan",
        |batch, _, events| events.extend(ran(batch, 2, 0, "r-9").1),
        COMPLETE,
        "pod p-0 ran 2 times: as requests r-0 and r-9",
    ),
    (
        "it has no end",
        |_, _, events| events.retain(|event| event.verb != Verb::BatchFinished),
        COMPARED,
        "accounted for), but no record says so",
    ),
    (
        "it has no plan",
        |_, _, events| events.retain(|event| event.verb != Verb::Planned),
        COMPLETE,
        "it was released under plan 1, but has no record of that",
    ),
    (
        "it has no record at all",
        |_, _, events| events.retain(|event| event.batch().is_none()),
        COMPLETE,
        "batch shop/b (u-b): index 0 ran, but has no record of its release",
    ),
    (
        "another plan",
        |batch, _, _| {
            batch.status.as_mut().expect("a status").plan.as_mut().expect("a plan").digest = Some("e".to_owned());
        },
        COMPARED,
        "it ended with Completed (2/2 accounted for), but no record says so",
    ),
    (
        "other numbers",
        |batch, _, _| batch.status.as_mut().expect("a status").succeeded.count = 1,
        COMPARED,
        "it ended with Completed",
    ),
    (
        "another requester",
        |batch, _, _| "bob".clone_into(&mut batch.spec.requested_by.as_mut().expect("a requester").username),
        COMPARED,
        "batch shop/b (u-b): it has records of another requester: \"alice\"",
    ),
    (
        "another command",
        |batch, _, _| batch.spec.template.spec.command = vec!["rm".to_owned()],
        COMPARED,
        "batch shop/b (u-b): it has records of another command",
    ),
    (
        "it has not finished",
        |batch, _, _| batch.status.as_mut().expect("a status").completion_time = None,
        COMPARED,
        "batch shop/b (u-b): it has a record of its end, and has not finished",
    ),
    (
        "a request of another index",
        |_, requests, _| requests[0].spec.batch.as_mut().expect("a batch").index = 7,
        COMPARED,
        "it has records of another batch or index",
    ),
];

#[test]
fn what_was_done_to_the_records_of_a_batch_is_found() {
    let mut passed = Vec::new();
    for (name, change, arguments, said) in CHANGED {
        let (mut batch, mut requests, mut events) = whole();
        change(&mut batch, &mut requests, &mut events);
        let (heard, code) = given(&batch, &requests, &events).verify(arguments);
        if code != 1 || !heard.contains(said) {
            passed.push(format!("{name}: exit {code}, without {said:?}:\n{heard}"));
        }
    }
    assert!(passed.is_empty(), "{} were not found:\n{}", passed.len(), passed.join("\n"));
}

#[test]
fn a_batch_that_is_whole_passes_also_where_its_leader_recorded_twice() {
    let (batch, requests, events) = whole();
    let twice = [events.clone(), events.clone()].concat();
    for (events, arguments) in [(&events, COMPLETE), (&events, COMPARED), (&twice, COMPLETE), (&twice, COMPARED)] {
        let (heard, code) = given(&batch, &requests, events).verify(arguments);
        assert!(code == 0 && heard.contains("1 batches have records") && heard.contains(" 0 gaps"), "{code}: {heard}");
    }
}

#[test]
fn a_batch_that_goes_on_lacks_no_end() {
    let (mut batch, requests, mut events) = whole();
    events.pop();
    batch.status.as_mut().expect("a status").completion_time = None;
    let case = given(&batch, &requests, &events);
    assert_eq!(case.verify(COMPARED).1, 0, "{}", case.verify(COMPARED).0);
    let (heard, code) = case.verify(COMPLETE);
    assert!(code == 0 && heard.contains("1 without a record of their end"), "{code}: {heard}");
}

#[test]
fn a_batch_is_shown_with_its_requests_and_without_others() {
    let (batch, requests, mut events) = whole();
    let mut other = batch.clone();
    (other.metadata.name, other.metadata.uid) = (Some("other".to_owned()), Some("u-o".to_owned()));
    events.extend(ran(&other, 1, 5, "r-5").1);
    let case = given(&batch, &requests, &events);
    let lines = |arguments: &str| {
        let (said, code) = case.audit(arguments);
        assert_eq!(code, 0, "{said}");
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let all = lines("show m");
    assert_eq!(all.len(), 5, "{all:#?}");
    for wanted in ["b", "shop/b", "u-b"] {
        let shown = lines(&format!("show --batch {wanted} m"));
        assert_eq!(shown.len(), 4, "{wanted}: {shown:#?}");
        for cell in ["alice", "shop/b (batch)", "2 pods/", r#"["uname","-r"]"#, "CHG-1", "Completed 2/2"] {
            assert!(shown[1].contains(cell), "{cell}: {}", shown[1]);
        }
    }
    assert_eq!(lines("show --batch nobody m").len(), 1);
}
