//! What a batch runs in each of its targets: the spec of a request, without what differs from pod to pod.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::rules::{keys_are_free, keys_are_valid};
use crate::api::{
    bytes::{batch_spec_fits, folder_fits, program_fits},
    request::{DEFAULT_GRACE_SECONDS, DEFAULT_STARTING_DEADLINE_SECONDS, EnvVar, OutputLimits},
};

/// The ExecRequest that is made for each target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Template {
    /// Labels and annotations of the requests.
    #[serde(default)]
    pub metadata: TemplateMetadata,
    /// What runs: the spec of an ExecRequest, but for its target, its cancel and input from clients.
    pub spec: TemplateSpec,
}

/// Labels and annotations of the requests. They get no others but the label execlet.dev/batch, the batch's name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct TemplateMetadata {
    /// Labels of each request.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 63, "pattern": r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"}))]
    #[x_kube(validation = keys_are_valid("labels"), validation = keys_are_free("labels"))]
    pub labels: BTreeMap<String, String>,
    /// Annotations of each request.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 1024}))]
    #[x_kube(validation = keys_are_valid("annotations"), validation = keys_are_free("annotations"))]
    pub annotations: BTreeMap<String, String>,
}

/// What runs in each target. The fields mean what they mean in the spec of an ExecRequest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!self.tty || !has(self.stdin)").message("stdin.text and stdin.data need tty: false, because a terminal has no end of input: set tty to false"),
    validation = batch_spec_fits(),
)]
pub struct TemplateSpec {
    /// The program and its arguments, as in `kubectl exec POD -- PROGRAM ARGS`.
    /// There is no shell: use ["sh", "-c", "..."] for pipes, variables or redirection.
    /// At most 32768 bytes together with env and stdin. Each command finds EXECLET_BATCH, EXECLET_BATCH_INDEX,
    /// EXECLET_BATCH_TOTAL and EXECLET_POD_NAME in its environment, so that targets can share out work.
    #[schemars(length(min = 1, max = 1024), inner(length(max = 32_768), regex(pattern = r"^[^\x00]*$")))]
    #[x_kube(
        validation = Rule::new("size(self[0]) > 0").message("command[0] is empty: it names the program to run"),
        validation = program_fits(),
    )]
    pub command: Vec<String>,

    /// The working directory of the command: an absolute path inside the container, of at most 4095 bytes.
    /// Default: the container's working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4095), regex(pattern = r"^/[^\x00]*$"))]
    #[x_kube(validation = folder_fits())]
    pub working_dir: Option<String>,

    /// Environment variables, added to those of the container. Plain values only: anyone who can read the batch can
    /// read them, so do not put secrets here.
    #[serde(default)]
    #[schemars(length(max = 256))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = Rule::new("self.all(e, !(e.name in ['EXECLET_UID', 'EXECLET_BATCH', 'EXECLET_BATCH_INDEX', 'EXECLET_BATCH_TOTAL', 'EXECLET_POD_NAME']))").message("env EXECLET_UID, EXECLET_BATCH, EXECLET_BATCH_INDEX, EXECLET_BATCH_TOTAL and EXECLET_POD_NAME are set by execlet: leave them out"),
    )]
    pub env: Vec<EnvVar>,

    /// The user to run the command as: NAME, UID, NAME:GROUP or UID:GID, known inside the container.
    /// Default: the container's user, as with kubectl exec. Never privileged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[^\x00\s]+$"))]
    pub user: Option<String>,

    /// Give each command a terminal, as `kubectl exec -t` does. With a terminal, standard error and standard output
    /// are one stream.
    #[serde(default)]
    pub tty: bool,

    /// Standard input of each command, the same for all. Default: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Input>,

    /// Seconds from the release of a target within which its command must start. After that it never runs, and the
    /// target ends as notRun, with reason StartingDeadlineExceeded.
    #[serde(default = "default_starting_deadline_seconds")]
    #[schemars(range(min = 1, max = 604_800))]
    pub starting_deadline_seconds: i32,

    /// Seconds that each command may run, including time without an agent. After that it is ended, as by cancel, and
    /// the target fails with reason DeadlineExceeded. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub active_deadline_seconds: Option<i32>,

    /// Seconds between SIGTERM and SIGKILL when a command is ended. 0 kills at once.
    #[serde(default = "default_grace_seconds")]
    #[schemars(range(min = 0, max = 3600))]
    pub termination_grace_period_seconds: i32,

    /// How much of each output is kept. All that the requests of a batch hold is at most 64 MiB.
    #[serde(default)]
    pub output: OutputLimits,
}

/// Standard input of each command: exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.text) != has(self.data)").message("stdin takes exactly one of text and data: nobody can attach to all commands of a batch"))]
pub struct Input {
    /// The input itself, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32_768))]
    pub text: Option<String>,
    /// The input itself, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32_768), regex(pattern = r"^[A-Za-z0-9+/]*={0,2}$"))]
    pub data: Option<String>,
}

fn default_starting_deadline_seconds() -> i32 {
    DEFAULT_STARTING_DEADLINE_SECONDS
}

fn default_grace_seconds() -> i32 {
    DEFAULT_GRACE_SECONDS
}
