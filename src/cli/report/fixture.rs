//! A batch and its requests, of which some wrote what a page must not obey.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::value::{Audit, Report};
use crate::api::{ExecBatch, ExecRequest};

/// Would be markup, a link, a formula, the end of a cell, a fence, a page.
pub const HOSTILE: &str = "=evil()</pre></title></style><script>evil()</script><img src=x onerror=evil()>\"'`````\n```` \
    |@evil [evil](http://evil)<!-- \u{1b}[2J\u{202e}\0\r\n-->]]>&lt;evil";

pub fn at(text: &str) -> Timestamp {
    format!("2026-01-02T03:{text}Z").parse().expect("a time")
}

/// A request of index `index`, which ended so; `with` is more of its status.
fn child(index: u16, pod: &str, phase: &str, reason: &str, with: Value) -> ExecRequest {
    let finished = json!({"type": "Finished", "status": "True", "reason": reason, "message": format!("it is {reason}"),
        "lastTransitionTime": "2026-01-02T03:04:10Z"});
    let ran = with.get("startTime").is_some();
    let started = json!({"type": "Started", "status": if ran { "True" } else { "False" }, "reason": "Started",
        "message": "", "lastTransitionTime": "2026-01-02T03:04:10Z"});
    let mut status = json!({"phase": phase, "conditions": [finished, started], "nodeName": "n1", "podUID": format!("uid-{pod}"),
        "container": "app", "completionTime": format!("2026-01-02T03:04:{:02}.500000Z", 10 + index)});
    for (name, value) in with.as_object().expect("fields") {
        status[name] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
        "metadata": {"name": format!("b-x-{index}"), "namespace": "shop", "uid": format!("r-{index}")},
        "spec": {"target": {"podName": pod, "podUID": format!("uid-{pod}")}, "command": ["true"],
            "batch": {"name": "b", "uid": "u-b", "plan": 1, "index": index}},
        "status": status,
    }))
    .expect("a request")
}

/// What ran for a while and wrote this.
fn wrote(index: u16, code: i32, output: Value) -> Value {
    let mut whole =
        json!({"complete": true, "stdout": {"bytes": 0, "sha256": "e0"}, "stderr": {"bytes": 0, "sha256": "e0"}});
    for (name, value) in output.as_object().expect("fields") {
        whole[name] = value.clone();
    }
    json!({"startTime": format!("2026-01-02T03:04:{:02}.000000Z", 6 + index / 2), "exitCode": code, "output": whole})
}

pub fn children() -> Vec<ExecRequest> {
    let ok = json!({"stdout": {"tail": "ok\n", "bytes": 3, "sha256": "aa"}});
    let incomplete = json!({"complete": false, "incompleteReason": "StreamLost",
        "stdout": {"tail": "ok\n", "bytes": 3, "sha256": "aa"}});
    let binary = json!({"stdout": {"tailBase64": "Yf/+AA==", "bytes": 4, "sha256": "bb"}});
    let cut = json!({"stdout": {"tail": "the end\n", "bytes": 99_999, "sha256": "cc", "truncated": true}});
    let other_cut = json!({"stdout": {"tail": "the end\n", "bytes": 99_999, "sha256": "dd", "truncated": true}});
    let to_stderr = json!({"stderr": {"tail": "ok\n", "bytes": 3, "sha256": "aa"}});
    let hostile =
        json!({"stdout": {"tail": HOSTILE, "bytes": 9, "sha256": "ff"}, "stderr": {"tail": HOSTILE, "bytes": 9}});
    let mut all = vec![
        child(0, "db-0", "Succeeded", "Completed", wrote(0, 0, ok.clone())),
        child(1, "db-1", "Failed", "NonZeroExitCode", wrote(1, 3, ok.clone())),
        child(2, "db-2", "Succeeded", "Completed", wrote(2, 0, binary)),
        child(3, "db-3", "Succeeded", "Completed", wrote(3, 0, cut)),
        child(4, "db-4", "Succeeded", "Completed", wrote(4, 0, other_cut)),
        child(5, "db-5", "Succeeded", "Completed", wrote(5, 0, to_stderr)),
        child(6, "db-6", "Succeeded", "Completed", wrote(6, 0, incomplete)),
        child(7, "db-7", "Failed", "PodNotFound", json!({})),
        child(9, HOSTILE, "Failed", HOSTILE, wrote(9, 1, hostile)),
        child(10, "db-10", "Succeeded", "Completed", wrote(10, 0, ok)),
    ];
    let status = all[8].status.as_mut().expect("a status");
    (status.node_name, status.container) = (Some(HOSTILE.to_owned()), Some(HOSTILE.to_owned()));
    let mut held = child(11, "db-11", "Pending", "Pending", json!({}));
    held.status.as_mut().expect("a status").completion_time = None;
    let mut of_another_plan = child(0, "other", "Succeeded", "Completed", json!({}));
    of_another_plan.spec.batch.as_mut().expect("a batch").plan = 2;
    all.extend([held, of_another_plan]);
    all
}

/// Index 8 has no request any more.
pub fn batch() -> ExecBatch {
    let ends = |count: i32, indexes: &str| json!({"count": count, "indexes": indexes});
    serde_json::from_value(json!({
        "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecBatch",
        "metadata": {"name": "b", "namespace": "shop", "uid": "u-b", "creationTimestamp": "2026-01-02T03:04:00Z"},
        "spec": {
            "targets": {"selector": {"matchLabels": {"app": "shop"}}}, "reason": HOSTILE, "parallelism": 2,
            "requestedBy": {"username": "ann", "groups": ["dba", "system:authenticated"]},
            "template": {"spec": {"command": ["sh", "-c", HOSTILE], "env": [{"name": "PASSWORD", "value": "hunter2"}],
                "stdin": {"text": "hunter3"}}},
        },
        "status": {
            "phase": "Running", "plan": {"number": 1, "total": 12, "digest": "d00d"}, "released": 11, "active": 0,
            "startTime": "2026-01-02T03:04:05.000000Z", "succeeded": ends(7, "0,2-6,10"), "failed": ends(2, "1,9"),
            "notRun": ends(1, "7"), "unknown": ends(1, "8"),
            "conditions": [{"type": "Finished", "status": "False", "reason": "Running", "message": HOSTILE,
                "lastTransitionTime": "2026-01-02T03:04:05Z"}],
        },
    }))
    .expect("a batch")
}

pub fn report() -> Report {
    let mut report = Report::of(&batch(), &children(), at("05:00")).expect("a report");
    report.audit = Some(Audit { intact: false, anchored: true, lines: vec![HOSTILE.to_owned()] });
    report
}
