//! `run`: creates a request, follows it, and exits as its command did.

use std::io::{self, IsTerminal as _};

use kube::{ResourceExt as _, core::ObjectMeta};
use tokio::try_join;

use crate::{
    api::{EnvVar, ExecRequest, ExecRequestSpec, OutputLimits, Stdin, StdinAttach, Target, request},
    cli::{
        cluster::{connection::Cluster, discovery},
        error::Error,
        exit::Exit,
        follow::{
            conclude::{OnInterrupt, conclude, left},
            options::FollowArgs,
            watched::Watched,
        },
        request::is_finished,
        say::{
            duration,
            page::Page,
            print::{self, Format},
            speech::Speech,
        },
        typed::{key_value, pod_name},
    },
};

/// Run a command in a container, at most once, and exit as it does.
#[derive(Clone, Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct RunArgs {
    /// The pod: NAME or pod/NAME.
    #[arg(value_name = "POD", value_parser = pod_name)]
    pub pod: String,

    /// Container of the pod (default: the one that kubectl exec takes).
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

    /// Name of the request (default: the pod's name and five characters).
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

/// Where a dry run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DryRun {
    /// Before the API server.
    Client,
    /// In the API server, which checks the request and stores nothing.
    Server,
}

pub async fn run(cluster: &Cluster, args: RunArgs) -> Result<Exit, Error> {
    let speech = Speech::new(args.follow.quiet);
    run_with(cluster, args, &speech).await
}

async fn run_with(cluster: &Cluster, mut args: RunArgs, speech: &Speech) -> Result<Exit, Error> {
    if args.tty && args.stdin && !io::stdin().is_terminal() {
        speech.say("standard input is not a terminal: the command gets none either");
        args.tty = false;
    }
    if args.output.is_some() && !args.detach && args.dry_run.is_none() {
        return Err(Error::Message("-o prints the request: it needs --detach or --dry-run".to_owned()));
    }
    let mut request = request_of(&args, cluster);
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

/// Prints a request that was created, or would have been.
fn announce(created: &ExecRequest, format: Option<Format>, what: &str) -> Result<Exit, Error> {
    print::out(&match format {
        Some(format) => print::object(created, format)?,
        None => Page::default().line(&format!("{} {what}", print::full_name(created))),
    })
}

/// The error of a creation that failed, or may have failed.
fn not_created(cluster: &Cluster, error: Error) -> Error {
    if matches!(error.answer(), Some(400..500)) {
        return error;
    }
    let get = cluster.plugin("get");
    error.leaves(format!("the request may exist all the same, and its command may run: {get}"))
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
    let env = args.env.iter().map(|(name, value)| EnvVar { name: name.clone(), value: value.clone() }).collect();
    let mut output = OutputLimits::default();
    output.spool_bytes = args.spool_bytes.unwrap_or(output.spool_bytes);
    let stdin = Stdin { attach: Some(StdinAttach::default()), ..Stdin::default() };
    ExecRequestSpec {
        target: Target { pod_name: args.pod.clone(), pod_uid: None, container: args.container.clone() },
        command: args.command.clone(),
        working_dir: args.workdir.clone(),
        env,
        user: args.run_as.clone(),
        tty: args.tty,
        stdin: args.stdin.then_some(stdin),
        starting_deadline_seconds: args.starting_deadline.unwrap_or(request::DEFAULT_STARTING_DEADLINE_SECONDS),
        active_deadline_seconds: args.active_deadline,
        termination_grace_period_seconds: args.grace_period.unwrap_or(request::DEFAULT_GRACE_SECONDS),
        cancel: false,
        output,
        reason: args.reason.clone(),
        requested_by: None,
        batch: None,
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
            "attaching to r: jane cannot create execrequests/attach; r may still be running: kubectl execlet -n shop attach r, wait r or cancel r"
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
                "execlet: deleting r: no right to; r was not deleted: kubectl -n shop delete xr r\n",
            ),
            (
                scripted::status(500, "not now"),
                "execlet: getting r: not now; r was not deleted: kubectl -n shop delete xr r\n",
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
            ("web --detach-keys ctrl -- true", "not a key"),
            ("web -o table -- true", "possible values"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
