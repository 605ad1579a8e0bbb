//! The status of an `ExecRequest`.
//!
//! Conditions are the truth; `phase` is derived from them, for people and
//! selectors. Who writes what: the manager binds, the agent commits and reports.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::result::ExecResult;

/// What became of the request. Once completionTime is set it never changes again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.completionTime) == (has(self.conditions) && self.conditions.exists(c, c.type == 'Finished' && c.status == 'True'))").message("completionTime and the condition Finished=True go together"))]
pub struct ExecRequestStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,

    /// Where the request is, derived from the conditions.
    #[serde(default)]
    pub phase: Phase,

    /// Bound, Started, Finished (True for every end), Succeeded; Reconciling and Stalled for
    /// tools that follow kstatus. Wait with `kubectl wait --for=condition=Finished`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The node whose agent runs the command. Set once, by the manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node_name: Option<String>,

    /// UID of the pod that the request is bound to. Set once, by the manager.
    #[serde(default, rename = "podUID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub pod_uid: Option<String>,

    /// Name of the container that the request is bound to. Set once, by the manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub container: Option<String>,

    /// The engine's ID of the container.
    #[serde(default, rename = "containerID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub container_id: Option<String>,

    /// The engine's ID of the exec. Set once, before the command starts: only this exec may ever start.
    #[serde(default, rename = "execID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub exec_id: Option<String>,

    /// When the agent committed to run the command, just before it started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<MicroTime>,

    /// When the request finished, in whichever way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<MicroTime>,

    /// The command's exit code; 128 + N when signal N ended it. Absent when no code is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 255))]
    pub exit_code: Option<i32>,

    /// Who told the exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code_source: Option<ExitCodeSource>,

    /// The metav1.Status that kubectl exec would have received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ExecResult>,

    /// What the command wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputStatus>,
}

/// Where a request is. Derived from the conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Not bound to a node.
    #[default]
    Pending,
    /// Bound to a node, not started.
    Bound,
    /// Committed: the command runs, or is about to.
    Running,
    /// Ended with exit code 0.
    Succeeded,
    /// Ended otherwise, or never ran.
    Failed,
    /// What became of it cannot be known.
    Unknown,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Who told the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExitCodeSource {
    /// The engine's inspect of the exec.
    Engine,
    /// The engine's `exec_die` event.
    Event,
    /// The kernel of the node, which kept it for the agent.
    Kernel,
}

/// What the command wrote, and whether that is all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutputStatus {
    /// Whether every byte that the command wrote is known to be in the log on the node.
    pub complete: bool,
    /// Why the output may not be complete: StreamBroken, StreamLost, ForcedEnd, SpoolLimit, SpoolSlow or SpoolFailed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub incomplete_reason: Option<String>,
    /// Standard output; with a terminal all of the output.
    #[serde(default)]
    pub stdout: StreamStatus,
    /// Standard error.
    #[serde(default)]
    pub stderr: StreamStatus,
}

/// One stream of output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamStatus {
    /// The end of the stream, at most spec.output.tailBytes of it, if it is plain UTF-8 text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65_536))]
    pub tail: Option<String>,
    /// The end of the stream in base64, where it is not plain UTF-8 text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 87_384))]
    pub tail_base64: Option<String>,
    /// Bytes received in all.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub bytes: i64,
    /// SHA-256 of all the bytes received, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub sha256: Option<String>,
    /// Whether the tail is less than all the bytes received.
    #[serde(default)]
    pub truncated: bool,
}
