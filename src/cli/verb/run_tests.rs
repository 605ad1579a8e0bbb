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
    let spec = serde_json::to_value(spec_of(&args, "db-0")).expect("JSON");
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
    let spec = spec_of(&parse("web -- true").expect("a line"), "web");
    assert_eq!((spec.stdin, spec.tty, spec.active_deadline_seconds, spec.user), (None, false, None, None));
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (line, why) in [
        ("web", "COMMAND"),
        ("web true", "COMMAND"),
        ("node/n1 -- true", "a node has no pods"),
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

/// The batch that a line asks for.
fn batch(line: &str) -> Result<Value, String> {
    let args = parse(line)?;
    assert!(args.batch.make_a_batch(&args.targets), "{line}");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let (cluster, _) = scripted::cluster(|_| None);
    let wanted = batch_of(args, &cluster).map_err(|error| error.to_string())?;
    Ok(serde_json::to_value(wanted.batch).expect("JSON"))
}

#[test]
fn what_is_typed_for_many_pods_is_a_batch() {
    let line = "-l app=shop -c db --parallelism 10% --max-failed 2 --on-failure cancel --limit 1 --require-approval --on-forbidden skip --pick \
                one-per-node --max-targets 50 --batch-deadline 1h --reason CHG-1 --timeout 5m --run-as 999 -e A=1 -w /tmp \
                --tail-bytes 100 -- uname -r";
    let batch = batch(line).expect("a batch");
    assert_eq!(batch["metadata"]["generateName"], "batch-");
    assert_eq!(
        batch["spec"],
        json!({
            "targets": {
                "selector": {"matchLabels": {"app": "shop"}, "matchExpressions": []}, "pick": "OnePerNode",
                "container": "db", "maxTargets": 50, "allowEmpty": false, "onForbidden": "Skip",
            },
            "template": {"metadata": {"labels": {}, "annotations": {}}, "spec": {
                "command": ["uname", "-r"], "workingDir": "/tmp", "env": [{"name": "A", "value": "1"}], "user": "999",
                "tty": false, "startingDeadlineSeconds": 60, "activeDeadlineSeconds": 300,
                "terminationGracePeriodSeconds": 10, "output": {"tailBytes": 100, "spoolBytes": 104_857_600},
            }},
            "parallelism": "10%", "releaseLimit": 1, "suspend": false, "cancel": false,
            "approval": {"required": true, "planDigest": ""},
            "failurePolicy": {"maxFailed": 2, "action": "CancelRunning"}, "activeDeadlineSeconds": 3600, "reason": "CHG-1",
        })
    );
}

#[test]
fn targets_are_named_selected_or_all() {
    for (line, targets) in [
        ("db-0 pod/db-1 -- true", json!({"pods": [{"name": "db-0"}, {"name": "db-1"}]})),
        ("deploy/web --all-pods -- true", json!({"workload": {"kind": "Deployment", "name": "web"}})),
        ("--all -- true", json!({"all": true})),
        // A batch of one, as it is asked for.
        ("db-0 --limit 0 -- true", json!({"pods": [{"name": "db-0"}]})),
        ("db-0 --on-failure stop -- true", json!({"pods": [{"name": "db-0"}]})),
    ] {
        let batch = batch(line).expect(line);
        for (field, value) in targets.as_object().expect("fields") {
            assert_eq!(&batch["spec"]["targets"][field], value, "{line}");
        }
        assert_eq!(batch["spec"]["parallelism"], 1, "{line}");
    }
    assert_eq!(batch("sts/db.x --all-pods -- true").expect("a batch")["metadata"]["generateName"], "db.x-");
    let args = parse("db-0 -- true").expect("a line");
    assert!(!args.batch.make_a_batch(&args.targets), "one pod is no batch");
}

#[test]
fn what_makes_no_sense_for_a_batch_is_refused_with_what_to_do_instead() {
    for (line, why) in [
        ("db-0 db-1 -i -- sh", "template.spec.stdin.text"),
        ("--all -t -- sh", "leave it out"),
        ("--all --rm -- true", "kubectl delete xb"),
        ("--all --record x.cast -- true", "leave it out"),
        ("db-0 db-0 --limit 1 -- true", "named twice"),
        ("deploy/web --limit 1 -- true", "add --all-pods"),
        ("db-0 --all-pods -- true", "takes one workload"),
        ("deploy/a deploy/b --all-pods -- true", "takes one workload"),
        ("db-0 db-1 --pick one -- true", "leave it out where pods are named"),
        ("--parallelism 2 -- true", "nothing says where to run"),
    ] {
        let error = batch(line).expect_err(line);
        assert!(error.contains(why), "{line}: {error}");
    }
    for (line, why) in [
        ("-l app=a --all -- true", "cannot be used with"),
        ("-l app=a db-0 -- true", "cannot be used with"),
        ("--all db-0 -- true", "cannot be used with"),
        ("-l  -- true", "empty selector"),
        ("--all --parallelism 0 -- true", "--limit 0"),
        ("--all --max-failed 101% -- true", "neither a number"),
        ("--all --on-forbidden ask -- true", "possible values"),
        ("--all --on-failure go-on -- true", "possible values"),
    ] {
        let error = parse(line).expect_err(line);
        assert!(error.contains(why), "{line}: {error}");
    }
}

#[tokio::test]
async fn a_workload_without_all_pods_and_nothing_at_all_run_nothing() {
    for (line, why) in [("deploy/web -- true", "add --all-pods"), ("-- true", "nothing says where to run")] {
        let (cluster, calls) = scripted::cluster(|_| None);
        let error = run(&cluster, parse(line).expect("a line")).await.expect_err(line).to_string();
        assert!(error.contains(why) && calls.lock().is_empty(), "{error}");
    }
}
