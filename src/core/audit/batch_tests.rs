use serde_json::{Value, json};

use super::*;
use crate::{
    api::{ExecRequest, Requester},
    core::{
        batch::{groups::Grouped, ledger::Ledger, plan::Refusal, situation::Situation, status::Write},
        digest::sha256,
    },
};

fn batch(spec: &Value) -> ExecBatch {
    let mut whole = json!({
        "targets": {"all": true, "container": "db"}, "reason": "CHG-1", "requestedBy": {"username": "ann", "uid": "7"},
        "template": {"spec": {"command": ["psql", "-c", "vacuum"], "user": "999", "stdin": {"text": "secret"},
            "env": [{"name": "PGPASSWORD", "value": "hunter2"}]}},
    });
    for (name, value) in spec.as_object().expect("fields") {
        whole[name] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecBatch",
        "metadata": {"name": "b", "namespace": "shop", "uid": "u-b", "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": whole,
    }))
    .expect("a batch")
}

fn at() -> Timestamp {
    "2026-01-02T03:04:06Z".parse().expect("a time")
}

fn write(status: &ExecBatchStatus) -> Write<'_> {
    Write { status, generation: Some(1), at: at() }
}

/// The statuses of a batch from its plan to its end.
fn life(batch: &ExecBatch) -> Vec<ExecBatchStatus> {
    let planning = write(&ExecBatchStatus::default()).planning(2);
    let frozen = write(&planning).frozen(3, "d", &Ledger::default());
    let mut released = frozen.clone();
    released.released = 3;
    if batch.spec.approval.required {
        let truth = Truth::True;
        conditions::set(&mut released.conditions, ConditionType::Approved, truth, Reason::Approved, "", None, at());
    }
    let with = ExecBatch { status: Some(released.clone()), ..batch.clone() };
    let situation = Situation::of(&with, at()).expect("a status").expect("a plan");
    let finished = write(&released).finished(&situation, None, Grouped::default());
    vec![ExecBatchStatus::default(), planning, frozen, released, finished]
}

fn recorded(batch: &ExecBatch) -> Vec<Event> {
    let subject = Subject::of_batch(batch, CommandDetail::Full).expect("a subject").vouched_for();
    let life = life(batch);
    let acts = life.windows(2).flat_map(|pair| {
        let [from, next] = pair else { return Vec::new() };
        acts(&ExecBatch { status: Some(from.clone()), ..batch.clone() }, next)
    });
    acts.map(|act| subject.batch_did(&act, at())).collect()
}

fn verbs(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(|event| event.verb.as_str()).collect()
}

#[test]
fn each_act_on_a_batch_has_its_record_and_nothing_else_has() {
    let plain = recorded(&batch(&json!({})));
    assert_eq!(verbs(&plain), ["planned", "released", "batchFinished"]);
    let approved = recorded(&batch(&json!({"approval": {"required": true}})));
    assert_eq!(verbs(&approved), ["planned", "approved", "released", "batchFinished"]);
    for (event, key, value) in [
        (&plain[0], key::TOTAL, "3"),
        (&plain[0], key::APPROVAL_REQUIRED, "false"),
        (&approved[0], key::APPROVAL_REQUIRED, "true"),
        (&plain[1], key::RELEASED_FROM, "0"),
        (&plain[1], key::RELEASED_TO, "3"),
        (&plain[1], key::BY, "ann"),
        (&plain[1], key::BY_UID, "7"),
        (&plain[2], key::RELEASED, "3"),
        (&plain[2], key::SUCCEEDED, "0"),
        (&plain[2], key::REASON, "TargetsFailed"),
    ] {
        assert_eq!(event.note(key), Some(value), "{key} of {}", event.verb);
    }
    for event in plain.iter().chain(&approved) {
        assert_eq!((event.number(key::BATCH_PLAN), event.note(key::PLAN_DIGEST)), (Some(2), Some("d")));
    }
}

#[test]
fn a_record_of_a_batch_tells_who_what_where_and_why_and_no_secret() {
    let event = serde_json::to_value(&recorded(&batch(&json!({})))[0]).expect("JSON");
    let expected = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "stage": "ResponseComplete",
        "auditID": event["auditID"],
        "requestURI": "/apis/execlet.dev/v1alpha1/namespaces/shop/execbatches/b",
        "verb": "planned",
        "user": {"username": "ann", "uid": "7", "groups": [], "extra": {}},
        "objectRef": {"resource": "execbatches", "namespace": "shop", "name": "b", "uid": "u-b",
            "apiGroup": "execlet.dev", "apiVersion": "v1alpha1"},
        "requestReceivedTimestamp": "2026-01-02T03:04:05.000000Z",
        "stageTimestamp": "2026-01-02T03:04:06.000000Z",
        "annotations": {
            "execlet.dev/container": "db", "execlet.dev/command": r#"["psql","-c","vacuum"]"#,
            "execlet.dev/env": r#"["PGPASSWORD"]"#, "execlet.dev/user": "999", "execlet.dev/stdin": "text",
            "execlet.dev/request-reason": "CHG-1", "execlet.dev/batch-plan": "2", "execlet.dev/plan-digest": "d",
            "execlet.dev/total": "3", "execlet.dev/approval-required": "false",
        },
    });
    assert_eq!(event, expected);
}

#[test]
fn of_what_is_gone_the_batch_records_the_indexes_under_its_plan() {
    let mut batch = batch(&json!({}));
    let gone = |batch: &ExecBatch, indexes: &[u16]| requests_gone(batch, indexes.iter().copied().collect());
    assert_eq!(gone(&batch, &[1]), None, "no plan");
    batch.status = life(&batch).pop();
    assert_eq!(gone(&batch, &[]), None, "none");
    let subject = Subject::of_batch(&batch, CommandDetail::Full).expect("a subject");
    let event = |indexes: &[u16]| subject.batch_did(&gone(&batch, indexes).expect("an act"), at());
    let told = event(&[0, 1, 4]);
    let [indexes, digest] = [key::INDEXES, key::PLAN_DIGEST].map(|key| told.note(key));
    assert_eq!((told.verb.as_str(), indexes, digest), ("requestsGone", Some("0-1,4"), Some("d")));
    assert_ne!(told.audit_id, event(&[0, 1]).audit_id);
}

#[test]
fn a_retry_repeats_its_record_and_another_act_has_another() {
    let ids = |batch: &ExecBatch| recorded(batch).into_iter().map(|event| event.audit_id).collect::<Vec<_>>();
    let batch = batch(&json!({}));
    assert_eq!(ids(&batch), ids(&batch));
    let subject = Subject::of_batch(&batch, CommandDetail::Full).expect("a subject");
    let plan = |number| PlanId { number, digest: "d".to_owned() };
    let released = |number, to| Act::Released { plan: plan(number), from: 0, to, by: None };
    let acts = [released(1, 1), released(1, 2), released(2, 1)];
    let ids: std::collections::BTreeSet<_> = acts.map(|act| subject.batch_did(&act, at()).audit_id).into();
    assert_eq!(ids.len(), 3);
}

#[test]
fn whom_nobody_vouches_for_is_only_claimed_to_have_let_it_run() {
    let subject = Subject::of_batch(&batch(&json!({})), CommandDetail::Full).expect("a subject");
    let by = Some(Word { username: "ann".to_owned(), uid: String::new() });
    let plan = PlanId { number: 1, digest: "d".to_owned() };
    let event = subject.batch_did(&Act::Approved { plan, by }, at());
    assert_eq!((event.user, event.annotations.get(key::BY)), (Requester::default(), None));
    assert_eq!(event.annotations.get(key::CLAIMED_BY).map(String::as_str), Some("ann"));
}

#[test]
fn what_is_refused_is_denied_if_a_right_was_lacking() {
    let batch = batch(&json!({}));
    let subject = Subject::of_batch(&batch, CommandDetail::Digest).expect("a subject");
    for (reason, verb) in [(Reason::Forbidden, Verb::Denied), (Reason::NoTargets, Verb::BatchFinished)] {
        let refused = write(&ExecBatchStatus::default()).refused(&Refusal::new(reason, "no"));
        let acts = acts(&batch, &refused);
        let event = subject.batch_did(&acts[0], at());
        assert_eq!((acts.len(), event.verb, event.note(key::REASON)), (1, verb, Some(reason.as_str())));
        assert_eq!(event.note(key::MESSAGE), None, "it may name the program");
        let command = sha256(br#"["psql","-c","vacuum"]"#);
        assert_eq!((event.note(key::COMMAND_SHA256), event.note(key::COMMAND)), (Some(command.as_str()), None));
    }
}

#[test]
fn a_request_of_a_batch_says_which_in_each_of_its_records() {
    let request: ExecRequest = serde_json::from_value(json!({
        "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
        "metadata": {"name": "b-x-7", "namespace": "shop", "uid": "u-7"},
        "spec": {"target": {"podName": "db-7"}, "command": ["true"],
            "batch": {"name": "b", "uid": "u-b", "plan": 2, "index": 7}},
    }))
    .expect("a request");
    let subject = Subject::of(&request, CommandDetail::Full).expect("a subject");
    let outcome = crate::core::outcome::Outcome::refused(Reason::PodNotFound, "", at());
    let event = subject.ended(&outcome, at());
    for (key, value) in [(key::BATCH, "b"), (key::BATCH_UID, "u-b"), (key::BATCH_PLAN, "2"), (key::BATCH_INDEX, "7")] {
        assert_eq!(event.note(key), Some(value));
    }
}
