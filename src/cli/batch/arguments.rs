//! What makes a run a batch, and how it goes: the flags, and the targets that they mean.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::selector::selector;
use crate::{
    api::{
        ExecBatchSpec,
        batch::{
            Approval, FailureAction, FailurePolicy, GivenPod, OnForbidden, Pick, PodSelector, Targets, Template,
            spec::{DEFAULT_PARALLELISM, DEFAULT_RELEASE_LIMIT},
            targets::DEFAULT_MAX_TARGETS,
        },
    },
    cli::{
        error::Error,
        say::duration,
        typed::{TargetName, share, share_from_one},
    },
};

/// The flags of a run in many pods.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "In many pods: a batch")]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
#[allow(clippy::doc_markdown, reason = "the comments are what `--help` prints, which knows no Markdown")]
pub struct BatchArgs {
    /// Run in all pods with these labels, as for kubectl.
    #[arg(long, short = 'l', value_name = "SELECTOR", value_parser = selector, conflicts_with_all = ["targets", "all"])]
    pub selector: Option<PodSelector>,

    /// Run in every pod of the namespace.
    #[arg(long, conflicts_with = "targets")]
    pub all: bool,

    /// Run in all pods of the workload TYPE/NAME: a Deployment, StatefulSet, DaemonSet, ReplicaSet or Job.
    #[arg(long, requires = "targets")]
    pub all_pods: bool,

    /// How many run at a time: a number, or a share of all such as 10% (default: 1).
    #[arg(long, value_name = "NUMBER|SHARE", value_parser = share_from_one)]
    pub parallelism: Option<IntOrString>,

    /// How many may end without success before no more are started (default: 0; 100% never stops).
    #[arg(long, value_name = "NUMBER|SHARE", value_parser = share)]
    pub max_failed: Option<IntOrString>,

    /// If there are more: start no more and let end what runs (stop), or end it, too (cancel) (default: stop).
    #[arg(long, value_name = "WHAT", value_parser = on_failure())]
    pub on_failure: Option<FailureAction>,

    /// How many run for now: 0 is a preview, 1 a canary (default: 100%). `resume` lets the others run.
    #[arg(long, value_name = "NUMBER|SHARE", value_parser = share)]
    pub limit: Option<IntOrString>,

    /// Nothing runs until somebody else has approved the plan, with `approve`.
    #[arg(long)]
    pub require_approval: bool,

    /// If there are pods that you may not exec into: refuse all of it, or skip those (default: refuse).
    #[arg(long, value_name = "WHAT", value_parser = on_forbidden())]
    pub on_forbidden: Option<OnForbidden>,

    /// Which of the pods that are found (default: all).
    #[arg(long, value_name = "WHICH", value_parser = pick())]
    pub pick: Option<Pick>,

    /// Most pods that are expected; if more are found, nothing runs (default: 1000).
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub max_targets: Option<i32>,

    /// It is fine if no pod is found.
    #[arg(long)]
    pub allow_empty: bool,

    /// How long the whole batch may take from its first command (default: no limit). After that it is ended.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_seconds)]
    pub batch_deadline: Option<i32>,

    #[command(flatten)]
    pub shown: ShownArgs,
}

/// How the output of many commands is shown.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct ShownArgs {
    /// Show the output at the end: equal output once, and how it differs from that of the most. Only for batches.
    #[arg(long)]
    pub group: bool,
}

fn on_failure() -> impl TypedValueParser<Value = FailureAction> {
    PossibleValuesParser::new(["stop", "cancel"]).map(|word| match word.as_str() {
        "cancel" => FailureAction::CancelRunning,
        _ => FailureAction::StopReleasing,
    })
}

fn on_forbidden() -> impl TypedValueParser<Value = OnForbidden> {
    PossibleValuesParser::new(["refuse", "skip"]).map(|word| match word.as_str() {
        "skip" => OnForbidden::Skip,
        _ => OnForbidden::Refuse,
    })
}

fn pick() -> impl TypedValueParser<Value = Pick> {
    PossibleValuesParser::new(["all", "one-per-node", "one"]).map(|word| match word.as_str() {
        "one-per-node" => Pick::OnePerNode,
        "one" => Pick::One,
        _ => Pick::All,
    })
}

impl BatchArgs {
    /// Whether a run of these targets is a batch: several may be meant, or what only a batch has is asked for.
    pub fn make_a_batch(&self, named: &[TargetName]) -> bool {
        let asked = [
            self.selector.is_some(),
            self.all,
            self.all_pods,
            self.parallelism.is_some(),
            self.max_failed.is_some(),
            self.on_failure.is_some(),
            self.limit.is_some(),
            self.require_approval,
            self.on_forbidden.is_some(),
            self.pick.is_some(),
            self.max_targets.is_some(),
            self.allow_empty,
            self.batch_deadline.is_some(),
            self.shown.group,
        ];
        named.len() > 1 || asked.contains(&true)
    }

    pub fn spec(
        self,
        named: &[TargetName],
        container: Option<String>,
        template: Template,
    ) -> Result<ExecBatchSpec, Error> {
        let targets = self.targets(named, container)?;
        let FailurePolicy { max_failed, action } = FailurePolicy::default();
        let failure_policy = FailurePolicy {
            max_failed: self.max_failed.unwrap_or(max_failed),
            action: self.on_failure.unwrap_or(action),
        };
        let limit = || IntOrString::String(DEFAULT_RELEASE_LIMIT.to_owned());
        Ok(ExecBatchSpec {
            targets,
            template,
            parallelism: self.parallelism.unwrap_or(IntOrString::Int(DEFAULT_PARALLELISM)),
            release_limit: self.limit.unwrap_or_else(limit),
            suspend: false,
            cancel: false,
            approval: Approval { required: self.require_approval, plan_digest: String::new(), by: None },
            failure_policy,
            active_deadline_seconds: self.batch_deadline,
            ttl_seconds_after_finished: None,
            reason: None,
            requested_by: None,
            released_by: None,
        })
    }

    fn targets(&self, named: &[TargetName], container: Option<String>) -> Result<Targets, Error> {
        let mut targets = Targets {
            selector: self.selector.clone(),
            all: self.all.then_some(true),
            pick: self.pick.unwrap_or_default(),
            container,
            max_targets: self.max_targets.unwrap_or(DEFAULT_MAX_TARGETS),
            allow_empty: self.allow_empty,
            on_forbidden: self.on_forbidden.unwrap_or_default(),
            ..Targets::default()
        };
        match named {
            [] => {}
            [TargetName::Workload(workload)] if self.all_pods => targets.workload = Some(workload.clone()),
            _ if self.all_pods => {
                return Err(refused("--all-pods takes one workload, TYPE/NAME: leave it out where pods are named"));
            }
            named => targets.pods = Some(pods(named)?),
        }
        if targets.pods.is_some() && self.pick.is_some() {
            return Err(refused("--pick chooses among pods that are found: leave it out where pods are named"));
        }
        if named.is_empty() && targets.selector.is_none() && targets.all.is_none() {
            return Err(nothing_named());
        }
        Ok(targets)
    }
}

fn pods(named: &[TargetName]) -> Result<Vec<GivenPod>, Error> {
    let mut pods: Vec<GivenPod> = Vec::new();
    for name in named {
        let name = one_pod(name)?;
        if pods.iter().any(|pod| pod.name == name) {
            return Err(refused(&format!("pod {name} is named twice: a command runs at most once in each")));
        }
        pods.push(GivenPod { name: name.to_owned(), uid: None });
    }
    Ok(pods)
}

/// The pod of a name that means one.
pub fn one_pod(name: &TargetName) -> Result<&str, Error> {
    match name {
        TargetName::Pod(name) => Ok(name),
        TargetName::Workload(workload) => {
            let (kind, name) = (format!("{:?}", workload.kind).to_lowercase(), &workload.name);
            Err(refused(&format!("{kind}/{name} is not a pod: add --all-pods to run in each of its pods, or name one")))
        }
    }
}

pub fn nothing_named() -> Error {
    refused("nothing says where to run: give a pod, several pods, TYPE/NAME --all-pods, -l SELECTOR or --all")
}

fn refused(why: &str) -> Error {
    Error::Message(why.to_owned())
}
