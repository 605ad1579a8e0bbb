//! The state of a request, in words for whoever waits for it.

use crate::{
    api::{
        ExecRequest, ExecRequestStatus, Phase, Reason,
        conditions::{self, ConditionType},
    },
    cli::request::takes_input,
    core::request::is_being_deleted,
};

/// What a request waits for, does, or has come to: the rest of the sentence "NAME: ...".
pub fn state(request: &ExecRequest) -> String {
    let empty = ExecRequestStatus::default();
    let status = request.status.as_ref().unwrap_or(&empty);
    let node = status.node_name.as_deref().unwrap_or("its node");
    match status.phase {
        Phase::Pending => pending(status, &request.spec.target.pod_name),
        Phase::Bound if takes_input(request) => {
            format!("waiting for a client to attach with standard input (node {node})")
        }
        Phase::Bound => format!("waiting for its turn on node {node}"),
        Phase::Running if is_being_deleted(request) => format!("being ended on node {node}: the request was deleted"),
        Phase::Running if request.spec.cancel => format!("being canceled on node {node}"),
        Phase::Running => format!("running on node {node}"),
        Phase::Succeeded | Phase::Failed | Phase::Unknown => outcome(status),
    }
}

/// The reason and the message of the condition Finished.
pub fn outcome(status: &ExecRequestStatus) -> String {
    let (reason, message) = finished(status);
    sentence(reason, message)
}

/// The reason of the condition Finished.
pub fn reason(status: &ExecRequestStatus) -> &str {
    finished(status).0
}

fn finished(status: &ExecRequestStatus) -> (&str, &str) {
    let condition = conditions::get(&status.conditions, ConditionType::Finished);
    condition.map_or(("Pending", ""), |condition| (&condition.reason, &condition.message))
}

fn pending(status: &ExecRequestStatus, pod: &str) -> String {
    let (reason, message) = finished(status);
    let waiting = if reason == Reason::Pending.as_str() {
        return "waiting for the execlet manager".to_owned();
    } else if reason == Reason::PodNotRunning.as_str() {
        format!("waiting for pod {pod} to run")
    } else if reason == Reason::ContainerNotRunning.as_str() {
        format!("waiting for the container in pod {pod} to run again")
    } else if reason == Reason::AgentNotReady.as_str() {
        format!("waiting for the execlet agent on the node of pod {pod}")
    } else if reason == Reason::RuntimeNotSupported.as_str() {
        format!("waiting for an execlet agent that can work with the node of pod {pod}")
    } else {
        format!("waiting ({reason})")
    };
    sentence(&waiting, message)
}

fn sentence(begin: &str, message: &str) -> String {
    if message.is_empty() { begin.to_owned() } else { format!("{begin}: {message}") }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use serde_json::{Value, json};

    use super::*;

    fn request(status: Value, stdin: Value) -> ExecRequest {
        serde_json::from_value(json!({
            "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest", "metadata": {"name": "r"},
            "spec": {"target": {"podName": "db-0"}, "command": ["true"], "stdin": stdin}, "status": status,
        }))
        .expect("a request")
    }

    fn pending(reason: &str, message: &str) -> Value {
        let condition = json!({"type": "Finished", "status": "Unknown", "reason": reason, "message": message, "lastTransitionTime": "1970-01-01T00:00:00Z"});
        json!({"phase": "Pending", "conditions": [condition]})
    }

    #[test]
    fn every_reason_to_wait_is_told_in_words() {
        for (status, stdin, words) in [
            (Value::Null, Value::Null, "waiting for the execlet manager"),
            (pending("Pending", "waiting for the manager"), Value::Null, "waiting for the execlet manager"),
            (
                pending("PodNotRunning", "container app: ContainerCreating"),
                Value::Null,
                "waiting for pod db-0 to run: container app: ContainerCreating",
            ),
            (pending("ContainerNotRunning", ""), Value::Null, "waiting for the container in pod db-0 to run again"),
            (
                pending("AgentNotReady", "no agent on node n2"),
                Value::Null,
                "waiting for the execlet agent on the node of pod db-0: no agent on node n2",
            ),
            (pending("QuotaExceeded", "9 run"), Value::Null, "waiting (QuotaExceeded): 9 run"),
            (json!({"phase": "Bound", "nodeName": "n1"}), Value::Null, "waiting for its turn on node n1"),
            (
                json!({"phase": "Bound", "nodeName": "n1"}),
                json!({"attach": {}}),
                "waiting for a client to attach with standard input (node n1)",
            ),
            (json!({"phase": "Running", "nodeName": "n1"}), Value::Null, "running on node n1"),
        ] {
            assert_eq!(state(&request(status, stdin)), words);
        }
        let mut held = request(json!({"phase": "Running", "nodeName": "n1"}), Value::Null);
        held.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(state(&held), "being ended on node n1: the request was deleted");
    }
}
