//! A batch and its children for tests.

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use serde_json::{Value, json};

use super::{
    child::child,
    targets::{Fate, Target},
};
use crate::api::{ExecBatch, ExecBatchStatus, ExecRequest, ExecRequestStatus, batch::Plan};

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

/// A batch named `b` of every pod of the namespace `shop`, with these fields of its spec changed.
pub fn batch(spec: &Value) -> ExecBatch {
    let mut whole = json!({"targets": {"all": true}, "template": {"spec": {"command": ["true"]}}});
    for (name, value) in spec.as_object().expect("fields") {
        whole[name] = value.clone();
    }
    let mut batch: ExecBatch = serde_json::from_value(json!({
        "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecBatch",
        "metadata": {"name": "b", "namespace": "shop", "uid": "batch-1", "generation": 1,
            "creationTimestamp": "1970-01-01T00:00:00Z"},
        "spec": whole,
    }))
    .expect("a batch");
    batch.status = Some(ExecBatchStatus::default());
    batch
}

/// The same with a frozen plan of so many targets, of which so many are released, at second 100.
pub fn frozen(spec: &Value, total: i32, released: i32) -> ExecBatch {
    let mut batch = batch(spec);
    let plan = Plan { number: 1, total: Some(total), digest: Some("d".to_owned()), time: Some(MicroTime(at(50))) };
    let released_at = (released > 0).then(|| MicroTime(at(100)));
    batch.status = Some(ExecBatchStatus {
        plan: Some(plan),
        released,
        start_time: released_at.clone(),
        released_at,
        ..ExecBatchStatus::default()
    });
    batch
}

pub fn target(number: u16) -> Target {
    Target { pod: format!("web-{number}"), uid: Some(format!("pod-{number}")), fate: Fate::Run }
}

/// The child of this index, as it is held.
pub fn held(batch: &ExecBatch, index: u16) -> ExecRequest {
    let mut child = child(batch, 1, index, &target(index)).expect("a child");
    child.metadata.uid = Some(format!("child-{index}"));
    child.status = Some(ExecRequestStatus::default());
    child
}

pub fn pod(name: &str, node: &str, ready: bool) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}")},
        "spec": {"nodeName": node, "containers": [{"name": "app"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    }))
    .expect("a pod")
}
