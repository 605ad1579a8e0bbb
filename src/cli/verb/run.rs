//! `run`: creates a request, follows it, and exits as its command did; or a batch, for many pods.

use std::io::{self, IsTerminal as _};

use kube::{ResourceExt as _, core::ObjectMeta};
use tokio::try_join;

use crate::{
    api::{
        EnvVar, ExecBatch, ExecRequest, ExecRequestSpec, OutputLimits, Stdin, StdinAttach, Target,
        batch::{Template, TemplateMetadata, TemplateSpec},
        request,
    },
    cli::{
        batch::{
            arguments::{BatchArgs, nothing_named, one_pod},
            create::{self, DryRun, Wanted, named},
        },
        cluster::{connection::Cluster, discovery},
        error::Error,
        exit::{Exit, HELP},
        follow::{
            conclude::{OnInterrupt, conclude, left},
            options::FollowArgs,
            watched::Watched,
        },
        request::is_finished,
        say::{
            duration,
            print::{self, Format, announce},
            speech::Speech,
        },
        typed::{TargetName, key_value, target_name},
    },
};

/// Run a command in a container, at most once, and exit as it does; or in many pods, as a batch.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = HELP)]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct RunArgs {
    /// The pod: NAME or pod/NAME. Several, or TYPE/NAME with --all-pods, are a batch.
    #[arg(value_name = "POD", value_parser = target_name)]
    pub targets: Vec<TargetName>,

    #[command(flatten)]
    pub batch: BatchArgs,

    /// Container of each pod (default: the one that kubectl exec takes).
    #[arg(long, short = 'c', value_name = "NAME")]
    pub container: Option<String>,

    /// Pass standard input to the command, which starts once the plugin has attached.
    #[arg(long, short = 'i')]
    pub stdin: bool,

    /// Give the command a terminal.
    #[arg(long, short = 't')]
    pub tty: bool,

    /// Delete the request once it has finished.
    #[arg(long, conflicts_with_all = ["detach", "dry_run"])]
    pub rm: bool,

    /// Why it is run, for the record: a ticket, an incident.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,

    /// How long the command may run (default: no limit). After that it is ended, and the exit code is 124.
    #[arg(long, visible_alias = "timeout", value_name = "DURATION", value_parser = duration::parse_seconds)]
    pub active_deadline: Option<i32>,

    /// How long the command may take to start (default: 60s). After that it never runs.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_seconds)]
    pub starting_deadline: Option<i32>,

    /// Seconds between SIGTERM and SIGKILL when the command is ended (default: 10).
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i32).range(0..=3600))]
    pub grace_period: Option<i32>,

    /// User inside the container: NAME, UID, NAME:GROUP or UID:GID. (--user is a user of the kubeconfig.)
    #[arg(long, value_name = "USER")]
    pub run_as: Option<String>,

    /// Environment variable; can be repeated. Not for secrets: it can be read in the request.
    #[arg(long, short = 'e', value_name = "KEY=VALUE", value_parser = key_value)]
    pub env: Vec<(String, String)>,

    /// Working directory inside the container.
    #[arg(long, short = 'w', value_name = "DIRECTORY")]
    pub workdir: Option<String>,

    /// Bytes of each stream's end to keep in the status (default: 4096).
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(i32).range(0..=65_536))]
    pub tail_bytes: Option<i32>,

    /// Name of the request or batch (default: the pod's name and five characters).
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Bytes of output to keep on the node (default: 100 MiB). The rest is shown once, as it comes.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(i64).range(0..))]
    pub spool_bytes: Option<i64>,

    /// Create the request and do not wait for it; not with -i or --record. For the name alone, add -o name.
    #[arg(long, short = 'd', conflicts_with_all = ["stdin", "record"])]
    pub detach: bool,

    /// Create nothing: print the request (client), or have the API server check it (server).
    #[arg(long, value_name = "WHERE", value_enum)]
    pub dry_run: Option<DryRun>,

    /// How to print the request; with --detach or --dry-run.
    #[arg(long, short = 'o', value_name = "FORMAT", value_enum)]
    pub output: Option<Format>,

    #[command(flatten)]
    follow: FollowArgs,

    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

pub async fn run(cluster: &Cluster, args: RunArgs) -> Result<Exit, Error> {
    let speech = Speech::new(args.follow.quiet);
    run_with(cluster, args, &speech).await
}

async fn run_with(cluster: &Cluster, args: RunArgs, speech: &Speech) -> Result<Exit, Error> {
    if args.output.is_some() && !args.detach && args.dry_run.is_none() {
        return Err(Error::Message("-o prints the object: it needs --detach or --dry-run".to_owned()));
    }
    if args.batch.make_a_batch(&args.targets) {
        return create::run(cluster, batch_of(args, cluster)?, speech).await;
    }
    let pod = one_pod(args.targets.first().ok_or_else(nothing_named)?)?.to_owned();
    run_in(cluster, &pod, args, speech).await
}

async fn run_in(cluster: &Cluster, pod: &str, mut args: RunArgs, speech: &Speech) -> Result<Exit, Error> {
    if args.tty && args.stdin && !io::stdin().is_terminal() {
        speech.say("standard input is not a terminal: the command gets none either");
        args.tty = false;
    }
    let mut request = request_of(&args, pod, cluster);
    if args.dry_run == Some(DryRun::Client) {
        return print::out(&print::object(&request, args.output.unwrap_or(Format::Yaml))?);
    }
    // Before anything exists: whether it can be attached to, who we are, and where to record to.
    let (missing, requester) = try_join!(missing_streams(cluster, &args), cluster.myself())?;
    // Where the cluster has a policy that fills it in, the policy overwrites it.
    request.spec.requested_by = requester;
    if args.dry_run.is_some() {
        let created = cluster.create(&request, true).await?;
        return announce(&created, args.output, "created (server dry run)");
    }
    let recording = args.follow.recording()?;
    let created = cluster.create(&request, false).await.map_err(|error| not_created(cluster, error))?;
    // From here on the command runs or may run, whatever becomes of the plugin.
    let name = created.name_any();
    let leaves = |error: Error| error.leaves(left(cluster, &name));
    if args.detach {
        return announce(&created, args.output, "created").map_err(leaves);
    }
    let followed = async {
        let options = args.follow.options(&created, args.stdin, args.tty, recording)?;
        let watched = Watched::new(cluster, created.clone(), speech);
        conclude(cluster, missing.as_deref(), watched, options, OnInterrupt::Cancel).await
    };
    let exit = followed.await.map_err(leaves)?;
    if args.rm
        && exit != Exit::LEFT
        && let Err(error) = remove(cluster, &created).await
    {
        // The exit code stays the command's.
        let delete = cluster.kubectl(&format!("delete xr {name}"));
        speech.say(&format!("{error}; {name} was not deleted: {delete}"));
    }
    Ok(exit)
}

/// The error of a creation that failed, or may have failed.
fn not_created(cluster: &Cluster, error: Error) -> Error {
    create::in_doubt(
        error,
        &format!("the request may exist all the same, and its command may run: {}", cluster.plugin("get")),
    )
}

/// Deletes a request if it has finished.
async fn remove(cluster: &Cluster, created: &ExecRequest) -> Result<(), Error> {
    match cluster.get(&created.name_any()).await {
        Ok(request) if is_finished(&request) => cluster.delete(created).await,
        Ok(_) => Ok(()),
        Err(error) if error.answer() == Some(404) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn missing_streams(cluster: &Cluster, args: &RunArgs) -> Result<Option<String>, Error> {
    if args.detach || args.dry_run.is_some() {
        return Ok(None);
    }
    match discovery::missing_streams(cluster).await? {
        Some(why) if args.stdin => Err(Error::Message(format!("{why}. Nothing was created: run it without -i"))),
        missing => Ok(missing),
    }
}

fn request_of(args: &RunArgs, pod: &str, cluster: &Cluster) -> ExecRequest {
    let mut request = ExecRequest::new("", spec_of(args, pod));
    request.metadata = ObjectMeta {
        name: args.name.clone(),
        generate_name: args.name.is_none().then(|| format!("{pod}-")),
        namespace: Some(cluster.namespace.clone()),
        ..ObjectMeta::default()
    };
    request
}

fn env_of(args: &RunArgs) -> Vec<EnvVar> {
    args.env.iter().map(|(name, value)| EnvVar { name: name.clone(), value: value.clone() }).collect()
}

fn output_of(args: &RunArgs) -> OutputLimits {
    let default = OutputLimits::default();
    OutputLimits {
        tail_bytes: args.tail_bytes.unwrap_or(default.tail_bytes),
        spool_bytes: args.spool_bytes.unwrap_or(default.spool_bytes),
    }
}

fn spec_of(args: &RunArgs, pod: &str) -> ExecRequestSpec {
    let stdin = Stdin { attach: Some(StdinAttach::default()), ..Stdin::default() };
    ExecRequestSpec {
        target: Target { pod_name: pod.to_owned(), pod_uid: None, container: args.container.clone() },
        command: args.command.clone(),
        working_dir: args.workdir.clone(),
        env: env_of(args),
        user: args.run_as.clone(),
        tty: args.tty,
        stdin: args.stdin.then_some(stdin),
        starting_deadline_seconds: args.starting_deadline.unwrap_or(request::DEFAULT_STARTING_DEADLINE_SECONDS),
        active_deadline_seconds: args.active_deadline,
        termination_grace_period_seconds: args.grace_period.unwrap_or(request::DEFAULT_GRACE_SECONDS),
        cancel: false,
        output: output_of(args),
        reason: args.reason.clone(),
        requested_by: None,
        batch: None,
    }
}

fn batch_of(args: RunArgs, cluster: &Cluster) -> Result<Wanted, Error> {
    for (given, why) in [
        (
            args.stdin,
            "-i passes standard input to one command, and a batch has many: put the input into a file that the pods have, \
             or create the batch with kubectl and template.spec.stdin.text",
        ),
        (args.tty, "-t gives one command your terminal, and a batch has many commands: leave it out"),
        (
            args.rm,
            "--rm would delete the record of a batch: leave it out, and delete the batch once nobody needs it: kubectl \
             delete xb NAME",
        ),
        (
            args.follow.record.is_some(),
            "--record records the terminal of one command: leave it out; `logs` has the output of all",
        ),
    ] {
        if given {
            return Err(Error::Message(why.to_owned()));
        }
    }
    let spec = TemplateSpec {
        command: args.command.clone(),
        working_dir: args.workdir.clone(),
        env: env_of(&args),
        user: args.run_as.clone(),
        tty: false,
        stdin: None,
        starting_deadline_seconds: args.starting_deadline.unwrap_or(request::DEFAULT_STARTING_DEADLINE_SECONDS),
        active_deadline_seconds: args.active_deadline,
        termination_grace_period_seconds: args.grace_period.unwrap_or(request::DEFAULT_GRACE_SECONDS),
        output: output_of(&args),
    };
    let template = Template { metadata: TemplateMetadata::default(), spec };
    let group = args.batch.shown.group;
    let mut spec = args.batch.spec(&args.targets, args.container, template)?;
    spec.reason = args.reason;
    let mut batch = ExecBatch::new("", spec);
    let base = batch.spec.targets.workload.as_ref().map_or("batch", |workload| &workload.name);
    batch.metadata = named(args.name, base, &cluster.namespace);
    Ok(Wanted { batch, dry_run: args.dry_run, output: args.output, detach: args.detach, group })
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
