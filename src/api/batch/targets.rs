//! In which pods a batch runs its command.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::keys_are_valid;

/// Default of `spec.targets.maxTargets`.
pub const DEFAULT_MAX_TARGETS: i32 = 1000;

/// The pods that the command runs in, once each: exactly one of selector, pods, workload and all.
/// They are looked up once, when the batch is planned. Pods that are added later are no targets, and a pod that is
/// replaced is not replaced here: only the pod with the planned UID is ever touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.selector), has(self.pods), has(self.workload), has(self.all)].filter(given, given).size() == 1").message("targets takes exactly one of selector, pods, workload and all"),
    validation = Rule::new("!has(self.all) || self.all").message("all can only be true: leave it out, and give selector, pods or workload"),
    validation = Rule::new("!has(self.pods) || self.pick == 'All'").message("pick chooses among the pods that selector, workload or all find: leave it out where pods are named"),
)]
pub struct Targets {
    /// Pods of the batch's namespace by their labels. The requester needs `list pods` there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<PodSelector>,

    /// Pods by their names, at most 1000, none twice; they are taken in this order. One that does not exist is a
    /// target all the same: it ends as notRun, with reason PodNotFound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub pods: Option<Vec<GivenPod>>,

    /// All pods of one workload, whichever of its ReplicaSets they belong to. The requester needs `list pods`, and
    /// `get` of the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadReference>,

    /// Every pod of the namespace: `all: true`. The requester needs `list pods` there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,

    /// Which of the pods that were found: All; OnePerNode, for what concerns the node; or One, for what concerns what
    /// they share. Where one has to be chosen, one that is ready is.
    #[serde(default)]
    pub pick: Pick,

    /// Name of the container in each of the pods. Default, as with kubectl exec: the one that the pod's annotation
    /// kubectl.kubernetes.io/default-container names, else the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub container: Option<String>,

    /// How many targets are expected at most. If there are more nothing runs, and the batch fails with reason
    /// TooManyTargets: a guard against a selector that means more than was thought.
    #[serde(default = "default_max_targets")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_targets: i32,

    /// Whether it is fine that there are no targets. If not, the batch fails with reason NoTargets; if so, it succeeds.
    #[serde(default)]
    pub allow_empty: bool,

    /// What happens if there are pods that the requester may not exec into. Refuse: nothing runs, and the batch fails
    /// with reason Forbidden. Skip: those are skipped, and counted in status.skipped.
    #[serde(default)]
    pub on_forbidden: OnForbidden,
}

/// Pods by their labels, as in a Deployment. An empty one is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.matchLabels.size() + self.matchExpressions.size() > 0").message("an empty selector would select every pod of the namespace: if that is meant, say `all: true` in its place"))]
pub struct PodSelector {
    /// Labels that a pod must have, with these values.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 63, "pattern": r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"}))]
    #[x_kube(validation = keys_are_valid("matchLabels"))]
    pub match_labels: BTreeMap<String, String>,

    /// Further requirements, all of which a pod must meet.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub match_expressions: Vec<Requirement>,
}

/// A requirement on one label of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.operator in ['In', 'NotIn']) == (self.values.size() > 0)").message("In and NotIn take at least one value, Exists and DoesNotExist take none"))]
pub struct Requirement {
    /// The label's key.
    #[schemars(
        length(min = 1, max = 317),
        regex(
            pattern = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
        )
    )]
    pub key: String,
    /// What must hold of the label.
    pub operator: Operator,
    /// The values, for In and NotIn.
    #[serde(default)]
    #[schemars(
        length(max = 64),
        inner(length(max = 63), regex(pattern = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"))
    )]
    pub values: Vec<String>,
}

/// What must hold of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// It has one of the values.
    In,
    /// It is missing, or has none of the values.
    NotIn,
    /// It is there.
    Exists,
    /// It is missing.
    DoesNotExist,
}

/// A pod by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct GivenPod {
    /// Name of the pod, in the batch's namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// UID of the pod, so that nothing runs in another pod of the same name: then the target ends as notRun, with
    /// reason PodReplaced. Default: the pod that has the name when the batch is planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub uid: Option<String>,
}

/// A workload of the batch's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct WorkloadReference {
    /// Deployment, StatefulSet, DaemonSet, ReplicaSet or Job.
    pub kind: WorkloadKind,
    /// Name of the workload, in the batch's namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// The kinds of workload whose pods can be targets: of apps/v1, and Job of batch/v1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "Kubernetes' own names")]
pub enum WorkloadKind {
    Deployment,
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    Job,
}

/// Which of the pods that were found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Pick {
    /// Each of them.
    #[default]
    All,
    /// One on each node.
    OnePerNode,
    /// One of them.
    One,
}

/// What happens if the requester may not exec into a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnForbidden {
    /// Nothing runs.
    #[default]
    Refuse,
    /// It is skipped.
    Skip,
}

fn default_max_targets() -> i32 {
    DEFAULT_MAX_TARGETS
}
