//! `run`: creates a request, follows it, and ends as its command did.

use std::str::FromStr;

use kube::core::ObjectMeta;
use tokio::try_join;

use crate::{
    api::{EnvVar, ExecRequest, ExecRequestSpec, OutputLimits, Stdin, StdinAttach, Target, request},
    cli::{
        cluster::connection::Cluster,
        cluster::{
            discovery::{self, Streams},
            requests::Requests,
        },
        error::Error,
        exit::Exit,
        follow::{
            conclude::{OnInterrupt, conclude, left},
            options::FollowArgs,
            watched::{Watched, is_finished},
        },
        say::{
            duration,
            print::{self, Format},
            speech::Speech,
            terminal,
        },
    },
};

/// Run a command in a container, at most once, and end as it does.
#[derive(Clone, Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct RunArgs {
    /// The pod: NAME or pod/NAME.
    #[arg(value_name = "POD", value_parser = pod_name)]
    pub pod: String,

    /// Container of the pod; default: as for kubectl exec.
    #[arg(long, short = 'c', value_name = "NAME")]
    pub container: Option<String>,

    /// Give the command our standard input.
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

    /// How long the command may run; then it is ended, and the exit code is 124.
    #[arg(long, visible_alias = "timeout", value_name = "DURATION", value_parser = duration::parse_seconds)]
    pub active_deadline: Option<i32>,

    /// How long it may take until the command starts (60s by default); later it never runs.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_seconds)]
    pub starting_deadline: Option<i32>,

    /// Seconds between SIGTERM and SIGKILL when it has to be ended (10 by default).
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i32).range(0..=3600))]
    pub grace_period: Option<i32>,

    /// User inside the container: NAME, UID, NAME:GROUP or UID:GID. (--user is kubectl's: a user of the kubeconfig.)
    #[arg(long, value_name = "USER")]
    pub run_as: Option<String>,

    /// Environment variable KEY=VALUE; may be given more than once. Whoever reads the request reads it.
    #[arg(long, short = 'e', value_name = "KEY=VALUE")]
    pub env: Vec<Variable>,

    /// Folder inside the container to run the command in.
    #[arg(long, short = 'w', value_name = "FOLDER")]
    pub workdir: Option<String>,

    /// Name of the request; default: the pod's name and five characters.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Bytes of the output that are kept on the node, and can be had again after a break (100 MiB by default).
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(i64).range(0..))]
    pub spool_bytes: Option<i64>,

    /// Create the request and do not wait for it.
    #[arg(long, short = 'd', conflicts_with_all = ["stdin", "record"])]
    pub detach: bool,

    /// Create nothing: print what would be created (client), or have the API server check it (server).
    #[arg(long, value_name = "WHERE", value_enum)]
    pub dry_run: Option<DryRun>,

    /// How to print the request; with --detach or --dry-run.
    #[arg(long, short = 'o', value_name = "FORMAT", value_enum)]
    pub output: Option<Format>,

    #[command(flatten)]
    follow: FollowArgs,

    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Where a dry run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DryRun {
    /// Before the API server.
    Client,
    /// In the API server, which checks and forgets it.
    Server,
}

/// `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable(EnvVar);

impl FromStr for Variable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok(Self(EnvVar { name: name.to_owned(), value: value.to_owned() }))
            }
            Some(_) | None => Err("write KEY=VALUE".to_owned()),
        }
    }
}

/// Reads `NAME` or `pod/NAME`.
///
/// # Errors
/// With words for the user.
pub fn pod_name(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        None if text.is_empty() => Err("the pod's name is empty".to_owned()),
        None => Ok(text.to_owned()),
        Some(("pod" | "pods" | "po", name)) if !name.is_empty() && !name.contains('/') => Ok(name.to_owned()),
        Some((kind, _)) => Err(format!("a request is for one pod: give its name, not a {kind}")),
    }
}

/// Runs it.
///
/// # Errors
/// When the request could not be created, or not followed.
pub async fn run(cluster: &Cluster, args: RunArgs) -> Result<Exit, Error> {
    let speech = Speech::new(args.follow.quiet);
    run_with(cluster, args, &speech).await
}

async fn run_with(cluster: &Cluster, mut args: RunArgs, speech: &Speech) -> Result<Exit, Error> {
    if args.tty && args.stdin && !terminal::input_is_terminal() {
        speech.say("standard input is no terminal: the command gets none either");
        args.tty = false;
    }
    if args.output.is_some() && !args.detach && args.dry_run.is_none() {
        return Err(Error::Usage("-o prints the request: it needs --detach or --dry-run".to_owned()));
    }
    let mut request = request_of(&args, cluster);
    if args.dry_run == Some(DryRun::Client) {
        print::out(&print::object(&request, args.output.unwrap_or(Format::Yaml))?)?;
        return Ok(Exit::SUCCESS);
    }
    // What must be known and had before anything exists: whether it can be attached to, who we are, and where to
    // record to.
    let requests = Requests::new(cluster);
    let (streams, requester) = try_join!(streams(cluster, &args), requests.myself())?;
    // Where the cluster has a policy that fills it in, that does so all the same.
    request.spec.requested_by = requester;
    let recording = if args.dry_run.is_some() { None } else { args.follow.recording()? };
    let created = match requests.create(&request, args.dry_run.is_some()).await {
        Err(error) if args.dry_run.is_none() => return Err(not_created(cluster, error)),
        created => created?,
    };
    if args.dry_run.is_some() {
        return announce(&created, args.output, "created (server dry run)");
    }
    // From here on there is a command that runs or may, whatever becomes of us.
    let name = created.metadata.name.clone().unwrap_or_default();
    let leaves = |error: Error| error.leaves(left(cluster, &name));
    if args.detach {
        return announce(&created, args.output, "created").map_err(leaves);
    }
    let rm = args.rm;
    let followed = async {
        let options = args.follow.options(&created, args.stdin, args.tty, recording)?;
        let watched = Watched::new(&requests, created.clone());
        conclude(cluster, &streams, watched, speech, options, OnInterrupt::Cancel).await
    };
    let exit = followed.await.map_err(leaves)?;
    if rm && exit != Exit::LEFT {
        // How the command ended is told all the same.
        if let Err(error) = remove(&requests, &created).await {
            let delete = cluster.kubectl(&format!("delete xr {name}"));
            speech.say(&format!("{error}; {name} is left there: {delete}"));
        }
    }
    Ok(exit)
}

/// Prints a request that was created, or would have been.
fn announce(created: &ExecRequest, format: Option<Format>, what: &str) -> Result<Exit, Error> {
    let text = match format {
        Some(format) => print::object(created, format)?,
        None => format!("{} {what}\n", print::full_name(created)),
    };
    print::out(&text).map(|()| Exit::SUCCESS)
}

/// A creation that has failed; where it is not known whether it has, with that.
fn not_created(cluster: &Cluster, error: Error) -> Error {
    if matches!(error.answer(), Some(400..500)) {
        return error;
    }
    let look = cluster.plugin("get");
    error.leaves(format!("the request may be there all the same, and its command may run: {look}"))
}

/// Deletes a request if it has finished.
async fn remove(requests: &Requests, created: &ExecRequest) -> Result<(), Error> {
    match requests.get(created.metadata.name.as_deref().unwrap_or_default()).await {
        Ok(request) if is_finished(&request) => requests.delete(created).await,
        Ok(_) => Ok(()),
        Err(error) if error.answer() == Some(404) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn streams(cluster: &Cluster, args: &RunArgs) -> Result<Streams, Error> {
    if args.detach || args.dry_run.is_some() {
        return Ok(Streams::Served);
    }
    match discovery::streams(cluster).await? {
        Streams::Missing(why) if args.stdin => {
            Err(Error::NoStreams(format!("{why}. Nothing was created: run it without -i")))
        }
        streams => Ok(streams),
    }
}

/// The request for what was typed.
fn request_of(args: &RunArgs, cluster: &Cluster) -> ExecRequest {
    let mut request = ExecRequest::new("", spec_of(args));
    request.metadata = ObjectMeta {
        name: args.name.clone(),
        generate_name: args.name.is_none().then(|| format!("{}-", args.pod)),
        namespace: Some(cluster.namespace.clone()),
        ..ObjectMeta::default()
    };
    request
}

fn spec_of(args: &RunArgs) -> ExecRequestSpec {
    let stdin = Stdin { attach: Some(StdinAttach::default()), ..Stdin::default() };
    ExecRequestSpec {
        target: Target { pod_name: args.pod.clone(), pod_uid: None, container: args.container.clone() },
        command: args.command.clone(),
        working_dir: args.workdir.clone(),
        env: args.env.iter().map(|variable| variable.0.clone()).collect(),
        user: args.run_as.clone(),
        tty: args.tty,
        stdin: args.stdin.then_some(stdin),
        starting_deadline_seconds: args.starting_deadline.unwrap_or(request::DEFAULT_STARTING_DEADLINE_SECONDS),
        active_deadline_seconds: args.active_deadline,
        termination_grace_period_seconds: args.grace_period.unwrap_or(request::DEFAULT_GRACE_SECONDS),
        cancel: false,
        output: OutputLimits {
            spool_bytes: args.spool_bytes.unwrap_or(request::DEFAULT_SPOOL_BYTES),
            ..OutputLimits::default()
        },
        reason: args.reason.clone(),
        requested_by: None,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::follow::scripted::{self, Answer, Calls, Kept};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn parse(line: &str) -> Result<RunArgs, String> {
        let words = std::iter::once("run").chain(line.split(' '));
        Line::try_parse_from(words).map(|line| line.run).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_typed_is_what_is_asked_for() {
        let args = parse("pod/db-0 -c db -it --reason INC-1 --timeout 5m --starting-deadline 90 --run-as 999 -e A=1 --env B=x=y -w /tmp -- psql -c x").expect("a line");
        let spec = serde_json::to_value(spec_of(&args)).expect("JSON");
        assert_eq!(
            spec,
            serde_json::json!({
                "target": {"podName": "db-0", "container": "db"}, "command": ["psql", "-c", "x"], "workingDir": "/tmp",
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "x=y"}], "user": "999", "tty": true,
                "stdin": {"attach": {"onDisconnect": "KeepRunning"}}, "startingDeadlineSeconds": 90, "activeDeadlineSeconds": 300,
                "terminationGracePeriodSeconds": 10, "cancel": false,
                "output": {"tailBytes": 4096, "spoolBytes": 104_857_600}, "reason": "INC-1",
            })
        );
    }

    /// An API server at which the request is as told once it is created, unless `rest` has another answer to that;
    /// it answers whatever else is asked.
    fn cluster(status: Value, rest: impl Fn(&str) -> Answer + Send + Sync + 'static) -> (Cluster, Calls) {
        scripted::cluster(move |call| match call.split('?').next().unwrap_or_default() {
            "GET /apis/subresources.execlet.dev/v1alpha1" => {
                Some((200, json!({"kind": "APIResourceList", "groupVersion": "x/v1", "resources": []})))
            }
            "POST /apis/authentication.k8s.io/v1/selfsubjectreviews" => scripted::status(404, "too old"),
            "POST /apis/execlet.dev/v1alpha1/namespaces/shop/execrequests" => {
                rest(call).or_else(|| Some((201, scripted::object(status.clone()))))
            }
            _ => rest(call),
        })
    }

    fn created(calls: &Calls) -> bool {
        calls.lock().iter().any(|call| call.starts_with("POST") && call.contains("/execrequests"))
    }

    fn running() -> Value {
        json!({"phase": "Running", "nodeName": "n1"})
    }

    #[tokio::test]
    async fn a_recording_that_cannot_be_made_creates_nothing() {
        let (cluster, calls) = cluster(running(), |_| scripted::status(500, "not now"));
        let args = parse("web --record /no/such/folder/x.cast -- true").expect("a line");
        let error = run(&cluster, args).await.expect_err("no recording");
        assert_eq!((error.exit(), created(&calls)), (Exit::FAILED, false), "{error}");
    }

    #[tokio::test]
    async fn what_fails_after_the_creation_names_the_request_that_is_left() {
        let (cluster, calls) = cluster(running(), |call| match call {
            call if call.contains("/attach?") => scripted::status(403, "jane cannot create execrequests/attach"),
            call if call.starts_with("POST") => None,
            _ => scripted::status(500, "not now"),
        });
        let error = run(&cluster, parse("web -- true").expect("a line")).await.expect_err("no right");
        assert_eq!((error.exit(), created(&calls)), (Exit::LEFT, true), "{error}");
        assert_eq!(
            error.to_string(),
            "attaching to r: jane cannot create execrequests/attach; r may go on: kubectl execlet -n shop attach r, wait r or cancel r"
        );
    }

    #[tokio::test]
    async fn a_creation_of_which_nothing_is_known_is_not_called_a_failure() {
        for (code, exit) in [(403, Exit::FAILED), (504, Exit::LEFT)] {
            let (cluster, _) = cluster(running(), move |_| scripted::status(code, "no"));
            let error = run(&cluster, parse("web -- true").expect("a line")).await.expect_err("an error");
            assert_eq!(error.exit(), exit, "{error}");
        }
    }

    #[tokio::test]
    async fn a_request_that_cannot_be_removed_costs_no_exit_code() {
        for (get, said) in [
            (
                Some((200, scripted::object(scripted::never_ran()))),
                "execlet: deleting r: no right to; r is left there: kubectl -n shop delete xr r\n",
            ),
            (
                scripted::status(500, "not now"),
                "execlet: getting r: not now; r is left there: kubectl -n shop delete xr r\n",
            ),
            (scripted::status(404, "gone"), ""),
        ] {
            let (cluster, _) = cluster(scripted::never_ran(), move |call| match call {
                call if call.starts_with("POST") => None,
                call if call.starts_with("DELETE") => scripted::status(403, "no right to"),
                call if call.contains("execrequests/r") => get.clone(),
                _ => scripted::status(500, "not now"),
            });
            let heard = Kept::default();
            let args = parse("web --rm -- true").expect("a line");
            let exit = run_with(&cluster, args, &Speech::to(false, heard.clone())).await;
            assert_eq!(exit.expect("an exit code"), Exit::NEVER_RAN);
            assert_eq!(heard.text(), format!("execlet: r: PodNotFound: no pod web\n{said}"));
        }
    }

    #[test]
    fn without_flags_there_is_neither_input_nor_terminal() {
        let spec = spec_of(&parse("web -- true").expect("a line"));
        assert_eq!((spec.stdin, spec.tty, spec.active_deadline_seconds, spec.user), (None, false, None, None));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (line, why) in [
            ("web", "COMMAND"),
            ("web true", "unexpected argument"),
            ("deploy/web -- true", "not a deploy"),
            ("web --timeout 1.5s -- true", "whole number of seconds"),
            ("web -e A -- true", "KEY=VALUE"),
            ("web -d -i -- true", "cannot be used with"),
            ("web --detach-keys ctrl -- true", "no key"),
            ("web -o table -- true", "possible values"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
