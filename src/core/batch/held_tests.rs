use serde_json::json;

use super::*;
use crate::{
    api::{ExecRequestStatus, Requester, Stdin, batch::Ends, request::EnvVar},
    core::batch::fixture::{at, frozen, target},
};

/// A batch of which three of five targets are released, with everything in its template that a request can have.
fn whole() -> ExecBatch {
    frozen(&fields(), 5, 3)
}

fn fields() -> Value {
    json!({
        "targets": {"all": true, "container": "app"},
        "template": {"spec": {
            "command": ["uname", "-r"], "workingDir": "/srv", "env": [{"name": "A", "value": "1"}], "user": "0",
            "stdin": {"text": "x"}, "startingDeadlineSeconds": 5, "activeDeadlineSeconds": 6,
            "terminationGracePeriodSeconds": 7, "output": {"tailBytes": 8, "spoolBytes": 9},
        }},
        "reason": "CHG-1", "requestedBy": {"username": "alice"},
    })
}

/// The request of its target 1, bound.
fn bound(batch: &ExecBatch) -> ExecRequest {
    let mut request = child(batch, 1, 1, &target(1)).expect("a child");
    let (pod_uid, container) = (request.spec.target.pod_uid.clone(), Some("app".to_owned()));
    request.status = Some(ExecRequestStatus { pod_uid, container, ..ExecRequestStatus::default() });
    request
}

fn refused(request: &ExecRequest, batch: &ExecBatch) -> Option<(Reason, String)> {
    hold(request, Some(batch), at(200)).err().map(|refusal| (refusal.reason, refusal.message))
}

#[test]
fn a_request_that_is_its_batchs_is_held() {
    let batch = whole();
    let mut request = bound(&batch);
    assert_eq!(hold(&request, Some(&batch), at(200)), Ok(Held { total: 5 }));
    // Whoever cancels it has its end, and people may put labels on it.
    request.spec.cancel = true;
    request.metadata.labels = None;
    assert_eq!(refused(&request, &batch), None);
    // A static pod has another UID on its node.
    request.status.as_mut().expect("a status").pod_uid = Some("0123456789abcdef0123456789abcdef".to_owned());
    assert_eq!(refused(&request, &batch), None);
}

#[test]
fn a_request_that_differs_in_any_field_from_what_its_batch_says_is_refused_and_told_which() {
    type Change = fn(&mut ExecRequest);
    let changes: [(&str, Change); 25] = [
        ("spec.target.container", |r| r.spec.target.container = Some("other".to_owned())),
        ("spec.target.podUID is missing", |r| r.spec.target.pod_uid = None),
        ("bound to the one with UID", |r| r.spec.target.pod_uid = Some("another".to_owned())),
        ("spec.command", |r| r.spec.command.push("x".to_owned())),
        ("spec.workingDir", |r| r.spec.working_dir = None),
        ("spec.env", |r| r.spec.env.push(EnvVar { name: "B".to_owned(), value: String::new() })),
        ("spec.user", |r| r.spec.user = Some("1".to_owned())),
        ("spec.tty", |r| r.spec.tty = true),
        ("spec.stdin.text", |r| r.spec.stdin = Some(Stdin { text: Some("y".to_owned()), ..Stdin::default() })),
        ("spec.stdin", |r| r.spec.stdin = None),
        ("spec.startingDeadlineSeconds", |r| r.spec.starting_deadline_seconds += 1),
        ("spec.activeDeadlineSeconds", |r| r.spec.active_deadline_seconds = None),
        ("spec.terminationGracePeriodSeconds", |r| r.spec.termination_grace_period_seconds += 1),
        ("spec.output.tailBytes", |r| r.spec.output.tail_bytes += 1),
        ("spec.output.spoolBytes", |r| r.spec.output.spool_bytes += 1),
        ("spec.reason", |r| r.spec.reason = None),
        ("spec.requestedBy", |r| r.spec.requested_by = None),
        ("spec.requestedBy.username", |r| {
            r.spec.requested_by = Some(Requester { username: "bob".to_owned(), ..Requester::default() });
        }),
        ("belongs to plan 2", |r| r.spec.batch.as_mut().expect("a place").plan = 2),
        ("metadata.name", |r| r.spec.batch.as_mut().expect("a place").index = 0),
        ("metadata.name", |r| r.metadata.name = Some("other".to_owned())),
        ("metadata.ownerReferences", |r| r.metadata.owner_references = None),
        ("bound to the one with UID other", |r| {
            r.status.as_mut().expect("a status").pod_uid = Some("other".to_owned());
        }),
        ("it is for container app, and bound to container side", |r| {
            r.status.as_mut().expect("a status").container = Some("side".to_owned());
        }),
        ("bound to container ;", |r| r.status.as_mut().expect("a status").container = None),
    ];
    let batch = whole();
    for (words, change) in changes {
        let mut request = bound(&batch);
        change(&mut request);
        let (reason, message) = refused(&request, &batch).expect(words);
        assert!(reason == Reason::BatchMismatch && message.contains(words), "{words}: {message}");
    }
    for change in ["apiVersion", "kind", "name", "uid", "controller"] {
        let mut request = bound(&batch);
        let owner = &mut request.metadata.owner_references.as_mut().expect("owners")[0];
        match change {
            "apiVersion" => owner.api_version = "x/v1".to_owned(),
            "kind" => owner.kind = "X".to_owned(),
            "name" => owner.name = "x".to_owned(),
            "uid" => owner.uid = "x".to_owned(),
            _ => owner.controller = None,
        }
        assert!(refused(&request, &batch).is_some_and(|(_, message)| message.contains("ownerReferences")), "{change}");
    }
}

#[test]
fn where_no_container_is_named_the_manager_says_which() {
    let mut all = fields();
    all["targets"] = json!({"all": true});
    let batch = frozen(&all, 5, 3);
    assert_eq!(refused(&bound(&batch), &batch), None);
}

#[test]
fn every_field_of_a_request_is_compared() {
    let batch = whole();
    let request = bound(&batch);
    let spec = serde_json::to_value(&request.spec).expect("JSON");
    // Of the batch's own fields it takes what the batch has now: these are compared beyond it.
    for name in spec.as_object().expect("fields").keys().filter(|name| !["batch", "cancel"].contains(&name.as_str())) {
        let mut other = spec.clone();
        other[name] = Value::Null;
        let mut fields = Vec::new();
        compare("spec", &spec, &other, &mut fields);
        assert_eq!(fields, [format!("spec.{name}")]);
    }
}

#[test]
fn a_batch_that_does_not_let_it_run_is_told_by_its_reason() {
    type Change = fn(&mut ExecBatch);
    let changes: [(Reason, &str, Change); 14] = [
        (Reason::Deleted, "no ExecBatch b", |b| b.metadata.uid = Some("another".to_owned())),
        (Reason::Deleted, "no ExecBatch b", |b| b.metadata.name = Some("another".to_owned())),
        (Reason::Deleted, "no ExecBatch b", |b| b.metadata.namespace = Some("another".to_owned())),
        (Reason::Deleted, "was deleted", |b| b.metadata.deletion_timestamp = b.metadata.creation_timestamp.clone()),
        (Reason::Canceled, "was canceled", |b| b.spec.cancel = true),
        (Reason::BatchMismatch, "has finished", |b| {
            let status = b.status.as_mut().expect("a status");
            status.completion_time = status.released_at.clone();
        }),
        (Reason::BatchMismatch, "no plan yet", |b| b.status = None),
        (Reason::BatchMismatch, "no plan yet", |b| plan(b).total = None),
        (Reason::BatchMismatch, "no digest", |b| plan(b).digest = None),
        (Reason::BatchMismatch, "the batch has plan 2", |b| plan(b).number = 2),
        (Reason::BatchMismatch, "has 1 targets", |b| plan(b).total = Some(1)),
        (Reason::BatchMismatch, "is not released", |b| b.status.as_mut().expect("a status").released = 1),
        (Reason::BatchMismatch, "accounted for", |b| {
            b.status.as_mut().expect("a status").not_run = Ends { count: 1, indexes: "1".to_owned() };
        }),
        (Reason::BatchMismatch, "in two ways", |b| {
            let status = b.status.as_mut().expect("a status");
            status.not_run = Ends { count: 1, indexes: "0".to_owned() };
            status.failed = Ends { count: 1, indexes: "0".to_owned() };
        }),
    ];
    for (reason, words, change) in changes {
        let mut batch = whole();
        let request = bound(&batch);
        change(&mut batch);
        let (told, message) = refused(&request, &batch).expect(words);
        assert!(told == reason && message.contains(words), "{words}: {told} {message}");
    }
    let request = bound(&whole());
    assert_eq!(hold(&request, None, at(200)).map_err(|refusal| refusal.reason), Err(Reason::Deleted));
}

fn plan(batch: &mut ExecBatch) -> &mut crate::api::batch::Plan {
    batch.status.as_mut().expect("a status").plan.as_mut().expect("a plan")
}

#[test]
fn what_is_not_approved_or_only_a_preview_never_runs() {
    let with = |name: &str, value: Value| {
        let mut all = fields();
        all[name] = value;
        frozen(&all, 5, 3)
    };
    for (batch, wanted) in [
        (with("approval", json!({"required": true})), Some(Reason::ApprovalRequired)),
        (with("approval", json!({"required": true, "planDigest": "another"})), Some(Reason::ApprovalRequired)),
        (with("approval", json!({"required": true, "planDigest": "d"})), None),
        (with("approval", json!({"required": false})), None),
        (with("releaseLimit", json!(0)), Some(Reason::ReleaseLimit)),
        (with("releaseLimit", json!("0%")), Some(Reason::ReleaseLimit)),
        (with("releaseLimit", json!(1)), None),
        // What is released goes its way.
        (with("suspend", json!(true)), None),
    ] {
        let reason = refused(&bound(&batch), &batch).map(|(reason, _)| reason);
        assert_eq!(reason, wanted, "{:?} {:?}", batch.spec.approval, batch.spec.release_limit);
    }
}

#[test]
fn a_batch_that_names_its_pods_runs_in_no_others() {
    let with = |pods: Value| {
        let mut all = fields();
        all["targets"] = json!({"pods": pods, "container": "app"});
        frozen(&all, 2, 2)
    };
    let web = target(1);
    for (pods, fits) in [
        (json!([{"name": "x"}, {"name": web.pod}]), true),
        (json!([{"name": "x"}, {"name": web.pod, "uid": web.uid}]), true),
        (json!([{"name": "x"}, {"name": web.pod, "uid": "another"}]), false),
        (json!([{"name": web.pod}, {"name": "x"}]), false),
        (json!([{"name": web.pod}]), false),
    ] {
        let batch = with(pods.clone());
        let told = refused(&bound(&batch), &batch);
        assert_eq!(told.is_none(), fits, "{pods}: {told:?}");
    }
}
