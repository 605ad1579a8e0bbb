//! `ExecBatch` and its spec.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{rules::share, status::ExecBatchStatus, targets::Targets, template::Template};
use crate::api::request::Requester;

/// Default of `spec.parallelism`, as of a Job.
pub const DEFAULT_PARALLELISM: i32 = 1;
/// Default of `spec.releaseLimit`.
pub const DEFAULT_RELEASE_LIMIT: &str = "100%";
/// Longest name of a batch: those of its requests add up to eleven characters, and stay within 63.
pub const LONGEST_NAME: usize = 52;

/// What to run, in which pods, and how fast. Immutable but for parallelism, releaseLimit, suspend, cancel (once) and
/// approval.planDigest (once), and for who set them. To run something else, create another batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "execlet.dev",
    version = "v1alpha1",
    kind = "ExecBatch",
    plural = "execbatches",
    shortname = "xb",
    category = "execlet",
    namespaced,
    cel,
    status = "ExecBatchStatus",
    derive = "PartialEq",
    doc = "ExecBatch runs one command in many pods, in each at most once, so many at a time, and keeps what came of it. First the targets are listed and an ExecRequest is made for each: that is its plan, to which none is ever added. Then they are released, in the order of their index: what is not released never runs.",
    selectable = ".status.phase",
    selectable = ".status.completionTime",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "Pending, Planning, Planned, Running, Paused, Succeeded or Failed"),
    printcolumn(name = "Done", type_ = "string", json_path = ".status.done", description = "How many of all targets are accounted for"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failed.count", description = "How many commands failed"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Released", type_ = "integer", json_path = ".status.released", priority = 1, description = "How many targets were released"),
    printcolumn(name = "Active", type_ = "integer", json_path = ".status.active", priority = 1, description = "How many targets are released and not yet accounted for"),
    printcolumn(name = "By", type_ = "string", json_path = ".spec.requestedBy.username", priority = 1, description = "Who created the batch"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Finished")].reason"#, priority = 1, description = "Why the batch is in this phase"),
    validation = Rule::new("size(self.metadata.name) <= 52").message("the name of an ExecBatch has at most 52 characters: those of its requests are longer"),
    validation = Rule::new("self.spec.approval.planDigest == '' || (has(self.status) && has(self.status.plan) && has(self.status.plan.digest) && self.status.plan.digest == self.spec.approval.planDigest)").message("approval.planDigest is not that of the plan: leave it empty until the batch is planned, then set it to status.plan.digest"),
    validation = Rule::new("!has(oldSelf.status) || oldSelf.status.released == 0 || !(string(self.spec.releaseLimit) in ['0', '0%']) || self.spec.releaseLimit == oldSelf.spec.releaseLimit").message("targets of this ExecBatch are released, so it is no preview any more and releaseLimit cannot be lowered to 0: set suspend to true to hold it, or cancel to end it"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.completionTime) || self.spec.cancel == oldSelf.spec.cancel").message("this ExecBatch has already finished: there is nothing left to cancel"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.completionTime) || (has(self.status) && self.status == oldSelf.status)").message("this ExecBatch has finished and its status is final: create another batch to run the command again"),
)]
#[x_kube(
    validation = Rule::new("self.targets == oldSelf.targets && self.template == oldSelf.template && self.failurePolicy == oldSelf.failurePolicy && has(self.activeDeadlineSeconds) == has(oldSelf.activeDeadlineSeconds) && (!has(self.activeDeadlineSeconds) || self.activeDeadlineSeconds == oldSelf.activeDeadlineSeconds) && has(self.ttlSecondsAfterFinished) == has(oldSelf.ttlSecondsAfterFinished) && (!has(self.ttlSecondsAfterFinished) || self.ttlSecondsAfterFinished == oldSelf.ttlSecondsAfterFinished) && has(self.reason) == has(oldSelf.reason) && (!has(self.reason) || self.reason == oldSelf.reason) && has(self.requestedBy) == has(oldSelf.requestedBy) && (!has(self.requestedBy) || self.requestedBy == oldSelf.requestedBy)").message("spec is immutable except for parallelism, releaseLimit, suspend, cancel and approval.planDigest: delete this ExecBatch and create another one"),
    validation = Rule::new("self.cancel || !oldSelf.cancel").message("cancel cannot be undone: create another ExecBatch to run the command"),
)]
#[serde(rename_all = "camelCase")]
pub struct ExecBatchSpec {
    /// The pods that the command runs in, once each: exactly one of selector, pods, workload and all.
    pub targets: Targets,

    /// The ExecRequest that is made for each target.
    pub template: Template,

    /// How many commands may run at a time: a number, or a share of all targets such as 10%, rounded up, at least 1.
    /// May be changed at any time; what runs goes on.
    #[serde(default = "default_parallelism")]
    #[schemars(extend("maxLength" = 5))]
    #[x_kube(validation = share("parallelism", 1))]
    pub parallelism: IntOrString,

    /// How many targets may be released, the first ones by index: a number, or a share of all targets such as 10%,
    /// rounded up, at least 1 if it is not 0. With 0 the batch is a preview: it is planned, and nothing runs. A canary
    /// is 1, a look at what came of it, and 100% then. May be changed at any time, but not to 0 once something is
    /// released: what is released stays so.
    #[serde(default = "default_release_limit")]
    #[schemars(extend("maxLength" = 5))]
    #[x_kube(validation = share("releaseLimit", 0))]
    pub release_limit: IntOrString,

    /// Set to true to hold the batch: nothing more is released. What is released goes its way. May be changed at any time.
    #[serde(default)]
    pub suspend: bool,

    /// Set to true to end the batch: what runs is ended, and what was not released never runs. Cannot be undone:
    /// `kubectl patch execbatch NAME --type=merge -p '{"spec":{"cancel":true}}'`.
    #[serde(default)]
    pub cancel: bool,

    /// Whether somebody else has to look at the plan before anything runs.
    #[serde(default)]
    pub approval: Approval,

    /// When to stop because of what has failed.
    #[serde(default)]
    pub failure_policy: FailurePolicy,

    /// Seconds that the batch may take, from its first release. After that it is ended, as by cancel, with reason
    /// DeadlineExceeded. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub active_deadline_seconds: Option<i32>,

    /// Seconds after its end at which the batch is deleted, and its requests with it. Default: never. Do not set it
    /// where a tool such as Argo CD or Flux applies the batch: the tool would create it again, and so run it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<i32>,

    /// Why the command is run, for people: a ticket, an incident, a change. Each request says so too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,

    /// Who created this batch, as authenticated by the API server: their rights count for each target. Leave it out:
    /// the API server sets it. Before Kubernetes 1.36 it does not, and the client must set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<Requester>,

    /// Who last let more of the batch run: raised releaseLimit or parallelism, or set suspend to false. Whoever does must
    /// be the requester, or be allowed to create pods/exec in the namespace. Leave it out: the API server sets it. Before
    /// Kubernetes 1.36 it does not, and the client must set it. Absent as long as nobody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_by: Option<Actor>,
}

/// Who has changed a batch, as authenticated by the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Actor {
    /// Name of the user.
    #[schemars(length(max = 1024))]
    pub username: String,
    /// UID of the user, if the authenticator gives one.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub uid: String,
}

/// Whether somebody else has to look at the plan before anything runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.required == oldSelf.required").message("approval.required is immutable: create another ExecBatch"),
    validation = Rule::new("oldSelf.planDigest == '' || (self.planDigest == oldSelf.planDigest && has(self.by) == has(oldSelf.by) && (!has(self.by) || self.by == oldSelf.by))").message("an approval cannot be changed or taken back: set cancel to true to end the batch"),
    validation = Rule::new("self.planDigest != '' || !has(self.by)").message("approval.by says who has set approval.planDigest, which is empty: leave it out"),
)]
pub struct Approval {
    /// True: nothing is released until planDigest is set. Immutable.
    #[serde(default)]
    pub required: bool,
    /// The digest of the plan that is approved: status.plan.digest. Set once, by somebody who has the verb approve on
    /// execbatches and is not the requester. It covers the batch's UID, all of its spec that is immutable, and every
    /// target, so it holds for no other batch and no other plan. Empty at creation.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub plan_digest: String,
    /// Who has set planDigest. Leave it out: the API server sets it. Before Kubernetes 1.36 it does not, and the client
    /// must set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
}

/// When to stop because of what has failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailurePolicy {
    /// How many targets may end without success and the batch goes on: a number, or a share of all targets such as
    /// 10%, rounded down. What failed counts, what never ran, and what may have run; not what was skipped. 100% never stops.
    #[serde(default = "default_max_failed")]
    #[schemars(extend("maxLength" = 5))]
    #[x_kube(validation = share("failurePolicy.maxFailed", 0))]
    pub max_failed: IntOrString,
    /// What happens when there are more. StopReleasing: what is released goes its way, and no other target runs.
    /// CancelRunning: what runs is ended, too.
    #[serde(default)]
    pub action: FailureAction,
}

impl Default for FailurePolicy {
    fn default() -> Self {
        Self { max_failed: default_max_failed(), action: FailureAction::default() }
    }
}

/// What happens when more targets end without success than may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailureAction {
    /// Nothing more is released.
    #[default]
    StopReleasing,
    /// Nothing more is released, and what runs is ended.
    CancelRunning,
}

fn default_parallelism() -> IntOrString {
    IntOrString::Int(DEFAULT_PARALLELISM)
}

fn default_release_limit() -> IntOrString {
    IntOrString::String(DEFAULT_RELEASE_LIMIT.to_owned())
}

fn default_max_failed() -> IntOrString {
    IntOrString::Int(0)
}
