use serde_json::{Value, json};

use super::*;
use crate::core::printable::is_printable;

fn request(spec: Value, status: Value) -> ExecRequest {
    let mut whole = json!({
        "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
        "metadata": {"name": "check-1", "namespace": "shop", "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {"target": {"podName": "db-0"}, "command": ["sh", "-c", "echo it's; exit 3"]}, "status": status,
    });
    for (name, value) in spec.as_object().into_iter().flatten() {
        whole["spec"][name] = value.clone();
    }
    serde_json::from_value(whole).expect("a request")
}

fn condition(reason: &str, message: &str) -> Value {
    json!([{"type": "Finished", "status": "True", "reason": reason, "message": message, "lastTransitionTime": "1970-01-01T00:00:00Z"}])
}

fn told(request: &ExecRequest) -> String {
    let now = "2026-01-02T03:14:05Z".parse().expect("a time");
    summary(request, now, false, |command| format!("kubectl execlet -n shop {command}")).as_str().to_owned()
}

#[test]
fn a_failed_command_is_told_in_full() {
    let request = request(
        json!({
            "reason": "INC-4711", "user": "999", "workingDir": "/tmp", "env": [{"name": "A", "value": "secret"}],
            "requestedBy": {"username": "alice", "groups": ["dev", "system:authenticated"]},
        }),
        json!({
            "phase": "Failed", "nodeName": "n1", "container": "db", "exitCode": 3, "exitCodeSource": "Event",
            "startTime": "2026-01-02T03:04:06.000000Z", "completionTime": "2026-01-02T03:04:26.500000Z",
            "conditions": condition("NonZeroExitCode", "the command ended with exit code 3"),
            "output": {
                "complete": false, "incompleteReason": "StreamLost",
                "stdout": {"tail": "it's\n\u{1b}[2J\n", "bytes": 10, "truncated": true},
                "stderr": {"tailBase64": "/wA=", "bytes": 2},
            },
        }),
    );
    let expected = "\
check-1 in namespace shop
  Who      alice (dev)
  What     sh -c 'echo it'\\''s; exit 3'   (as user 999; in /tmp; with A)
  Where    container db of pod db-0, on node n1
  When     created 2026-01-02T03:04:05Z (10 min 0 s ago), started 03:04:06, ran for 20 s
  Why      INC-4711
  Outcome  Failed (exit code 3, by Event): NonZeroExitCode: the command ended with exit code 3
  Output   10 B on standard output, 2 B on standard error; may be incomplete: StreamLost
  Next     read its output: kubectl execlet -n shop logs check-1
  Standard output (end):
    it's
    \u{fffd}[2J
  Standard error:
    \u{fffd}\u{fffd}
";
    assert_eq!(told(&request), expected);
}

#[test]
fn a_request_that_nobody_has_looked_at_is_told_too() {
    let expected = "\
check-1 in namespace shop
  Who      not recorded
  What     sh -c 'echo it'\\''s; exit 3'
  Where    pod db-0
  When     created 2026-01-02T03:04:05Z (10 min 0 s ago)
  Why      no reason given
  Outcome  Pending: waiting for the execlet manager
  Next     wait: kubectl execlet -n shop wait check-1; or give up: kubectl execlet -n shop cancel check-1
";
    assert_eq!(told(&request(json!({}), Value::Null)), expected);
}

#[test]
fn what_comes_next_depends_on_where_it_is() {
    let next = |spec: Value, status: Value| {
        let text = told(&request(spec, status));
        let line = text.lines().find(|line| line.starts_with("  Next")).expect("a line").to_owned();
        line.trim_start_matches("  Next").trim().to_owned()
    };
    assert_eq!(
        next(json!({"stdin": {"attach": {}}}), json!({"phase": "Bound", "nodeName": "n1"})),
        "start it: kubectl execlet -n shop attach -i check-1"
    );
    assert_eq!(
        next(json!({}), json!({"phase": "Running", "nodeName": "n1"})),
        "follow: kubectl execlet -n shop attach check-1; or end it: kubectl execlet -n shop cancel check-1"
    );
    assert_eq!(
        next(json!({}), json!({"phase": "Failed", "completionTime": "2026-01-02T03:04:26.500000Z"})),
        "nothing ran: fix the cause, then create it again"
    );
    assert_eq!(
        next(json!({}), json!({"phase": "Unknown", "startTime": "2026-01-02T03:04:06.000000Z"})),
        "it may have run: check what it did before you run it again"
    );
}

/// Puts this in place of each x.
fn forge(value: &mut Value, with: &str) {
    match value {
        Value::String(text) if text == "x" => *text = with.to_owned(),
        Value::Array(all) => all.iter_mut().for_each(|value| forge(value, with)),
        Value::Object(all) => all.values_mut().for_each(|value| forge(value, with)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn nobody_can_write_a_line_of_the_summary() {
    let forged = "x\u{1b}[1A\u{1b}[2K\n  Who      nobody\u{202e}\u{9b}1A\u{2028}\r\u{200b}";
    let plain = request(
        json!({
            "reason": "x", "user": "x", "workingDir": "x", "command": ["x"], "env": [{"name": "x", "value": ""}],
            "target": {"podName": "x", "container": "x"}, "requestedBy": {"username": "x", "groups": ["x"]},
        }),
        json!({
            "phase": "Failed", "nodeName": "x", "container": "x", "conditions": condition("x", "x"),
            "output": {"complete": false, "incompleteReason": "x", "stdout": {"bytes": 1}, "stderr": {"bytes": 1}},
        }),
    );
    let mut whole = serde_json::to_value(&plain).expect("JSON");
    forge(&mut whole, forged);
    let text = told(&serde_json::from_value(whole).expect("a request"));
    assert_eq!(text.lines().count(), told(&plain).lines().count(), "{text}");
    assert!(text.chars().all(|c| is_printable(c) || c == '\n'), "{text:?}");
    assert_eq!(text.matches("nobody").count(), 13, "{text}");
}
