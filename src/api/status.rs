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

/// The state of the request. Once completionTime is set, it never changes again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.completionTime) == (has(self.conditions) && self.conditions.exists(c, c.type == 'Finished' && c.status == 'True'))").message("completionTime and the condition Finished=True go together"),
    validation = Rule::new("!has(oldSelf.startBy) || (has(self.startBy) && self.startBy == oldSelf.startBy)").message("startBy is set once"),
)]
pub struct ExecRequestStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,

    /// A summary of the conditions, for people and field selectors.
    #[serde(default)]
    pub phase: Phase,

    /// Bound, Started, Finished (True however it ended), Succeeded; Reconciling and Stalled for
    /// tools that use kstatus. Wait with `kubectl wait --for=condition=Finished`.
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

    /// The container's ID in the container engine.
    #[serde(default, rename = "containerID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub container_id: Option<String>,

    /// The exec's ID in the container engine. Set once, before the command starts: no other exec
    /// is ever started for this request.
    #[serde(default, rename = "execID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub exec_id: Option<String>,

    /// By when the command of a batch's request must have started: startingDeadlineSeconds after its release. Set once, by
    /// the manager, when it first looks at the request after that. Other requests count from their creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_by: Option<MicroTime>,

    /// When the agent committed to running the command, just before starting it. Absent if
    /// nothing ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<MicroTime>,

    /// When the request finished, however it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<MicroTime>,

    /// The command's exit code; 128 + N if signal N ended it. Absent if the code is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 255))]
    pub exit_code: Option<i32>,

    /// Where the exit code comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code_source: Option<ExitCodeSource>,

    /// The metav1.Status that kubectl exec would have received for the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ExecResult>,

    /// What the command wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputStatus>,
}

/// A summary of the conditions of a request.
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
    /// It may have run; how it ended cannot be known.
    Unknown,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Where the exit code comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExitCodeSource {
    /// The container engine, asked for the state of the exec.
    Engine,
    /// The event that the container engine published when the exec ended.
    Event,
    /// The node's kernel, where the engine gave no code that can be trusted.
    Kernel,
}

/// What the command wrote, and whether all of it was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutputStatus {
    /// True if every byte that the command wrote is known to be in the log on the node.
    pub complete: bool,
    /// Why the output may be incomplete: StreamBroken, StreamLost, ForcedEnd, SpoolLimit, SpoolSlow or SpoolFailed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub incomplete_reason: Option<String>,
    /// Standard output; with a terminal, all output.
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
    /// The end of the stream, at most spec.output.tailBytes, if it is plain UTF-8 text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65_536))]
    pub tail: Option<String>,
    /// The end of the stream in base64, if it is not plain UTF-8 text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 87_384))]
    pub tail_base64: Option<String>,
    /// Number of bytes received.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub bytes: i64,
    /// SHA-256 of all bytes received, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub sha256: Option<String>,
    /// True if the tail does not hold all bytes received.
    #[serde(default)]
    pub truncated: bool,
}
