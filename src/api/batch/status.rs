//! The status of an `ExecBatch`.
//!
//! Only the leading manager writes it. What happens to one target is in the status of its request; here each index is
//! in one set at most, and no set ever loses one.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most groups in a status.
pub const MOST_GROUPS: usize = 32;

/// The state of the batch. Once completionTime is set, it never changes again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.completionTime) == (has(self.conditions) && self.conditions.exists(c, c.type == 'Finished' && c.status == 'True'))").message("completionTime and the condition Finished=True go together"),
    validation = Rule::new("!has(oldSelf.plan) || (has(self.plan) && self.plan.number >= oldSelf.plan.number)").message("plan.number never falls"),
    validation = Rule::new("!has(oldSelf.plan) || !has(oldSelf.plan.digest) || (has(self.plan) && self.plan == oldSelf.plan)").message("a plan with a digest never changes"),
    validation = Rule::new("self.released >= oldSelf.released").message("released never falls"),
    validation = Rule::new("self.released == 0 || (has(self.plan) && has(self.plan.total) && self.released <= self.plan.total)").message("only targets of a plan with a total can be released"),
    validation = Rule::new("self.succeeded.count >= oldSelf.succeeded.count && self.failed.count >= oldSelf.failed.count && self.notRun.count >= oldSelf.notRun.count && self.unknown.count >= oldSelf.unknown.count && self.skipped.count >= oldSelf.skipped.count").message("a count of targets never falls"),
    validation = Rule::new("self.succeeded.count + self.failed.count + self.notRun.count + self.unknown.count + self.skipped.count <= (has(self.plan) && has(self.plan.total) ? self.plan.total : 0)").message("no more targets can be accounted for than the plan has"),
)]
pub struct ExecBatchStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,

    /// A summary of the conditions, for people and field selectors.
    #[serde(default)]
    pub phase: BatchPhase,

    /// Planned, Approved, Finished (True however it ended), Succeeded; Reconciling and Stalled for tools that use
    /// kstatus. Of a batch that is Paused, the reason of Finished says why: ReleaseLimit, Suspended or ApprovalRequired.
    /// Wait with `kubectl wait --for=condition=Finished`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// Which targets there are. Before it has a total nothing can run, and from then on it never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,

    /// How many targets may run, the first ones by index. Never falls.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000))]
    pub released: i32,

    /// When released was last raised. What was released then has to start within template.spec.startingDeadlineSeconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_at: Option<MicroTime>,

    /// How many targets are released and not yet accounted for.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000))]
    pub active: i32,

    /// How many of all targets are accounted for, as 28/412.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    pub done: String,

    /// Targets whose command ended with exit code 0.
    #[serde(default)]
    pub succeeded: Ends,
    /// Targets whose command ran and ended in any other way.
    #[serde(default)]
    pub failed: Ends,
    /// Targets whose command never ran, and never will.
    #[serde(default)]
    pub not_run: Ends,
    /// Targets whose command may have run; how it ended cannot be known.
    #[serde(default)]
    pub unknown: Ends,
    /// Targets that the requester may not exec into, where targets.onForbidden is Skip: nothing ran there.
    #[serde(default)]
    pub skipped: Ends,

    /// Which targets ended the same, once the batch has finished: with the same reason, exit code and output. The
    /// largest groups come first, at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub groups: Vec<Group>,

    /// How many targets are in no group: their groups are smaller, or their requests were gone when the batch finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub others: Option<i32>,

    /// When the first target was released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<MicroTime>,

    /// When the batch finished, however it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<MicroTime>,
}

/// A summary of the conditions of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum BatchPhase {
    /// Nobody has looked at it yet.
    #[default]
    Pending,
    /// Its targets are being listed, and a request is made for each.
    Planning,
    /// All requests are made, and none is released.
    Planned,
    /// Targets are released.
    Running,
    /// Nothing runs, and nothing more is to be released for now.
    Paused,
    /// Every target that was not skipped succeeded.
    Succeeded,
    /// It ended otherwise.
    Failed,
}

impl fmt::Display for BatchPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Which targets there are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct Plan {
    /// Counts the attempts at a plan, from 1 on. Requests of an earlier one never run.
    #[schemars(range(min = 0))]
    pub number: i64,
    /// How many targets there are. Set once, when every one of them has its request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub total: Option<i32>,
    /// SHA-256 over the batch's UID, all of its spec that is immutable, and index, pod and pod UID of every target, in
    /// hexadecimal. Set with total.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub digest: Option<String>,
    /// When the plan was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<MicroTime>,
}

/// Targets that ended in one way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Ends {
    /// How many targets.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000))]
    pub count: i32,
    /// Their indexes, as a Job writes them: 0-25,31.
    #[serde(default)]
    #[schemars(length(max = 65_536))]
    pub indexes: String,
}

/// Targets that ended the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// How many targets.
    #[schemars(range(min = 0, max = 10_000))]
    pub count: i32,
    /// Their indexes, as a Job writes them: 0-25,31.
    #[schemars(length(max = 65_536))]
    pub indexes: String,
    /// Why their requests ended.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// The commands' exit code, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 255))]
    pub exit_code: Option<i32>,
    /// SHA-256 of all that each wrote to standard output.
    #[serde(default, rename = "stdoutSHA256", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub stdout_sha256: Option<String>,
    /// SHA-256 of all that each wrote to standard error.
    #[serde(default, rename = "stderrSHA256", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub stderr_sha256: Option<String>,
    /// Whether every byte that they wrote is known to be in the logs on their nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_complete: Option<bool>,
    /// The name of one of their requests: the first by index.
    #[schemars(length(max = 253))]
    pub example: String,
}
