//! `ExecRequest` and its spec.

use std::collections::BTreeMap;

use base64::{DecodeError, Engine as _, engine::general_purpose::STANDARD};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    bytes::{arguments_fit, folder_fits, program_fits, spec_fits, variables_fit},
    status::ExecRequestStatus,
};

/// Default of `spec.startingDeadlineSeconds`.
pub const DEFAULT_STARTING_DEADLINE_SECONDS: i32 = 60;
/// Default of `spec.terminationGracePeriodSeconds`.
pub const DEFAULT_GRACE_SECONDS: i32 = 10;
/// Default of `spec.output.tailBytes`.
pub const DEFAULT_TAIL_BYTES: i32 = 4096;
/// Default of `spec.output.spoolBytes`: 100 MiB.
pub const DEFAULT_SPOOL_BYTES: i64 = 100 << 20;

/// What to run, and where. Immutable except for `cancel`, which may be set to true until the
/// request has finished. To run something else, create another request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "execlet.dev",
    version = "v1alpha1",
    kind = "ExecRequest",
    plural = "execrequests",
    shortname = "xr",
    category = "execlet",
    namespaced,
    cel,
    status = "ExecRequestStatus",
    derive = "PartialEq",
    doc = "ExecRequest runs one command, at most once, in a running container, as kubectl exec would, and keeps the exit code and the end of the output in its status.",
    selectable = ".status.nodeName",
    selectable = ".status.phase",
    selectable = ".status.completionTime",
    selectable = ".spec.batch.uid",
    printcolumn(name = "Pod", type_ = "string", json_path = ".spec.target.podName", description = "The pod that the command runs in"),
    printcolumn(name = "Container", type_ = "string", json_path = ".status.container", description = "The container that the command runs in"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "Pending, Bound, Running, Succeeded, Failed or Unknown"),
    printcolumn(name = "Exit", type_ = "integer", json_path = ".status.exitCode", description = "The command's exit code"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.nodeName", priority = 1, description = "The node that runs the command"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Finished")].reason"#, priority = 1, description = "Why the request is in this phase"),
    printcolumn(name = "Started", type_ = "date", json_path = ".status.startTime", priority = 1, description = "When the command started"),
    printcolumn(name = "Finished", type_ = "date", json_path = ".status.completionTime", priority = 1, description = "When the request finished"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.completionTime) || self.spec.cancel == oldSelf.spec.cancel").message("this ExecRequest has already finished: there is nothing left to cancel"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.completionTime) || (has(self.status) && self.status == oldSelf.status)").message("this ExecRequest has finished and its status is final: create another request to run the command again"),
)]
#[x_kube(
    validation = Rule::new("self.target == oldSelf.target && self.command == oldSelf.command && has(self.workingDir) == has(oldSelf.workingDir) && (!has(self.workingDir) || self.workingDir == oldSelf.workingDir) && self.env == oldSelf.env && has(self.user) == has(oldSelf.user) && (!has(self.user) || self.user == oldSelf.user) && self.tty == oldSelf.tty && self.startingDeadlineSeconds == oldSelf.startingDeadlineSeconds && has(self.activeDeadlineSeconds) == has(oldSelf.activeDeadlineSeconds) && (!has(self.activeDeadlineSeconds) || self.activeDeadlineSeconds == oldSelf.activeDeadlineSeconds) && self.terminationGracePeriodSeconds == oldSelf.terminationGracePeriodSeconds && self.output == oldSelf.output && has(self.stdin) == has(oldSelf.stdin) && (!has(self.stdin) || self.stdin == oldSelf.stdin) && has(self.requestedBy) == has(oldSelf.requestedBy) && (!has(self.requestedBy) || self.requestedBy == oldSelf.requestedBy) && has(self.reason) == has(oldSelf.reason) && (!has(self.reason) || self.reason == oldSelf.reason) && has(self.batch) == has(oldSelf.batch) && (!has(self.batch) || self.batch == oldSelf.batch)").message("spec is immutable except for cancel: delete this ExecRequest and create another one"),
    validation = Rule::new("!self.tty || !has(self.stdin) || has(self.stdin.attach)").message("stdin.text and stdin.data need tty: false, because a terminal has no end of input: set tty to false, or use stdin.attach"),
    validation = Rule::new("self.cancel || !oldSelf.cancel").message("cancel cannot be undone: create another ExecRequest to run the command"),
    validation = spec_fits(),
)]
#[serde(rename_all = "camelCase")]
pub struct ExecRequestSpec {
    /// The container to run the command in. Its pod must be in the request's namespace.
    pub target: Target,

    /// The program and its arguments, as in `kubectl exec POD -- PROGRAM ARGS`.
    /// There is no shell: use ["sh", "-c", "..."] for pipes, variables or redirection.
    /// The program is at most 4095 bytes, each argument at most 131071; all are at most 245760 bytes together with env and stdin.
    #[schemars(length(min = 1, max = 1024), inner(length(max = 131_071), regex(pattern = r"^[^\x00]*$")))]
    #[x_kube(
        validation = Rule::new("size(self[0]) > 0").message("command[0] is empty: it names the program to run"),
        validation = program_fits(),
        validation = arguments_fit(),
    )]
    pub command: Vec<String>,

    /// The working directory of the command: an absolute path inside the container, of at most 4095 bytes.
    /// Default: the container's working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4095), regex(pattern = r"^/[^\x00]*$"))]
    #[x_kube(validation = folder_fits())]
    pub working_dir: Option<String>,

    /// Environment variables, added to those of the container. Plain values only: anyone who can
    /// read the request can read them, so do not put secrets here. Each is at most 131071 bytes, as NAME=VALUE.
    #[serde(default)]
    #[schemars(length(max = 256))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = Rule::new("self.all(e, e.name != 'EXECLET_UID')").message("env EXECLET_UID is set by execlet: leave it out"),
        validation = variables_fit(),
    )]
    pub env: Vec<EnvVar>,

    /// The user to run the command as: NAME, UID, NAME:GROUP or UID:GID, known inside the
    /// container. Default: the container's user, as with kubectl exec. Never privileged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[^\x00\s]+$"))]
    pub user: Option<String>,

    /// Give the command a terminal, as `kubectl exec -t` does. With a terminal, standard error
    /// and standard output are one stream.
    #[serde(default)]
    pub tty: bool,

    /// Standard input of the command. Default: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Stdin>,

    /// Seconds from the creation of the request within which the command must start. After that
    /// it never runs, and the request fails with reason StartingDeadlineExceeded.
    #[serde(default = "default_starting_deadline_seconds")]
    #[schemars(range(min = 1, max = 604_800))]
    pub starting_deadline_seconds: i32,

    /// Seconds the command may run, including time without an agent. After that it is ended, as by
    /// cancel, and the request fails with reason DeadlineExceeded. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub active_deadline_seconds: Option<i32>,

    /// Seconds between SIGTERM and SIGKILL when the command is ended by cancel, by
    /// activeDeadlineSeconds or by deleting the request. 0 kills at once.
    #[serde(default = "default_grace_seconds")]
    #[schemars(range(min = 0, max = 3600))]
    pub termination_grace_period_seconds: i32,

    /// Set to true to end the command and all processes it started, or to keep it from starting.
    /// The only field that can be changed, once, and only until the request has finished:
    /// `kubectl patch execrequest NAME --type=merge -p '{"spec":{"cancel":true}}'`.
    #[serde(default)]
    pub cancel: bool,

    /// How much of the output is kept.
    #[serde(default)]
    pub output: OutputLimits,

    /// Why the command is run, for people: a ticket, an incident, a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,

    /// Who created this request, as authenticated by the API server. Leave it out: the API server
    /// sets it. Before Kubernetes 1.36 it does not, and the client must set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<Requester>,

    /// The batch that the request belongs to. Set by execlet, which makes one request for each target of an ExecBatch;
    /// such a request waits until its batch releases it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchReference>,
}

/// The place of a request in its batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct BatchReference {
    /// Name of the ExecBatch, in the request's namespace.
    #[schemars(length(min = 1, max = 52))]
    pub name: String,
    /// Its UID: a batch that is created again under the same name is another one.
    #[schemars(length(min = 1, max = 128))]
    pub uid: String,
    /// The number of the plan that the request was made for. It never runs under another.
    #[schemars(range(min = 1))]
    pub plan: i64,
    /// Which of the plan's targets it is, from 0 on.
    #[schemars(range(min = 0, max = 9_999))]
    pub index: i32,
}

/// Who created a request: the user info of the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Requester {
    /// Name of the user.
    #[schemars(length(max = 1024))]
    pub username: String,
    /// UID of the user, if the authenticator gives one.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub uid: String,
    /// Groups of the user.
    #[serde(default)]
    #[schemars(length(max = 1024), inner(length(max = 1024)))]
    pub groups: Vec<String>,
    /// Further attributes of the user from the authenticator.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "array", "maxItems": 64, "items": {"type": "string", "maxLength": 4096}}))]
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Standard input of a command: exactly one of these. text and data need `tty: false`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.text), has(self.data), has(self.attach)].filter(given, given).size() == 1").message("stdin takes exactly one of text, data and attach"))]
pub struct Stdin {
    /// The input itself, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 245_760))]
    pub text: Option<String>,
    /// The input itself, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 245_760), regex(pattern = r"^[A-Za-z0-9+/]*={0,2}$"))]
    pub data: Option<String>,
    /// The input comes from a client that attaches. The command starts when the first client
    /// attaches, within startingDeadlineSeconds. One client at a time sends input; others watch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attach: Option<StdinAttach>,
}

impl ExecRequestSpec {
    /// How clients send the command's input, if they do.
    pub fn input_from_client(&self) -> Option<&StdinAttach> {
        self.stdin.as_ref()?.attach.as_ref()
    }

    /// The input that the request itself has.
    ///
    /// # Errors
    /// When `stdin.data` is not valid base64.
    pub fn own_input(&self) -> Result<Option<Vec<u8>>, DecodeError> {
        match self.stdin.as_ref().map(|stdin| (&stdin.text, &stdin.data)) {
            Some((Some(text), _)) => Ok(Some(text.clone().into_bytes())),
            Some((None, Some(data))) => STANDARD.decode(data).map(Some),
            Some((None, None)) | None => Ok(None),
        }
    }
}

/// Input from a client that attaches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StdinAttach {
    /// What happens when the client that holds the input disconnects without ending it:
    /// KeepRunning leaves the command waiting for the next client, Cancel ends it, as by cancel.
    #[serde(default)]
    pub on_disconnect: OnDisconnect,
}

/// What happens when the client that holds the input disconnects without ending it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnDisconnect {
    /// The command runs on, and its input waits for the next client.
    #[default]
    KeepRunning,
    /// The command is ended, as by cancel.
    Cancel,
}

/// The container that a command runs in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Name of the pod, in the request's namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub pod_name: String,

    /// UID of the pod, so that the command never runs in another pod of the same name.
    /// Default: the pod that has the name when the request is bound.
    #[serde(default, rename = "podUID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub pod_uid: Option<String>,

    /// Name of the container. Default, as with kubectl exec: the one that the pod's annotation
    /// kubectl.kubernetes.io/default-container names, else the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub container: Option<String>,
}

/// One environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct EnvVar {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[^=\x00]+$"))]
    pub name: String,
    /// Value of the variable. Nothing in it is expanded.
    #[serde(default)]
    #[schemars(length(max = 131_071), regex(pattern = r"^[^\x00]*$"))]
    pub value: String,
}

/// How much of the output is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutputLimits {
    /// Bytes of the end of each stream to keep in status.output. 0 keeps none.
    #[serde(default = "default_tail_bytes")]
    #[schemars(range(min = 0, max = 65_536))]
    pub tail_bytes: i32,

    /// Maximum size of the request's log file on the node, in bytes. Output beyond that is still
    /// read, counted and hashed, but not kept. 0 keeps none.
    #[serde(default = "default_spool_bytes")]
    #[schemars(range(min = 0, max = 107_374_182_400_i64))]
    pub spool_bytes: i64,
}

impl Default for OutputLimits {
    fn default() -> Self {
        Self { tail_bytes: DEFAULT_TAIL_BYTES, spool_bytes: DEFAULT_SPOOL_BYTES }
    }
}

fn default_starting_deadline_seconds() -> i32 {
    DEFAULT_STARTING_DEADLINE_SECONDS
}

fn default_grace_seconds() -> i32 {
    DEFAULT_GRACE_SECONDS
}

fn default_tail_bytes() -> i32 {
    DEFAULT_TAIL_BYTES
}

fn default_spool_bytes() -> i64 {
    DEFAULT_SPOOL_BYTES
}
