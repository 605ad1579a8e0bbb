//! `kubectl execlet` for many pods, as it is typed.

use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    clients::{Heard, execlet, finish, plugin},
    kubectl::server_stamps,
    lab::{Lab, run, text, unique, wait_for},
    not_shown::not_shown,
};

fn said(heard: &Heard) -> (String, String, i32) {
    (text(&heard.stdout), text(&heard.stderr), heard.code)
}

/// Pods `db-0` to `db-N` with the label app=db, on both nodes.
async fn pods(lab: &Lab, number: usize) {
    for at in 0..number {
        lab.pod(&format!("db-{at}"), if at % 2 == 0 { "n1" } else { "n2" }).await;
    }
    lab.kubectl(&["label", "pods", "--all", "app=db"]);
}

/// The batch as it is.
async fn batch(lab: &Lab, name: &str) -> Value {
    let (out, err, code) = said(&execlet(lab, &["get", name, "-o", "json"]).await);
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).expect("JSON")
}

/// Waits until a batch is so.
async fn batch_when(lab: &Lab, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    wait_for(&format!("{name} {what}"), async || Some(batch(lab, name).await).filter(&holds)).await
}

async fn detached(lab: &Lab, args: &[&str]) -> String {
    let (out, err, code) = said(&execlet(lab, &[&["run", "-d", "-o", "name"], args].concat()).await);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("execbatch.execlet.dev/"), "{out}");
    out.trim().to_owned()
}

#[tokio::test]
async fn a_command_runs_once_in_each_pod_and_its_output_is_after_their_names() {
    let lab = Lab::new().await;
    pods(&lab, 3).await;
    let script = "echo on $EXECLET_POD_NAME; echo $EXECLET_BATCH_INDEX of $EXECLET_BATCH_TOTAL >&2";
    let args = ["run", "-l", "app=db", "--parallelism", "100%", "--reason", "CHG-1", "--", "sh", "-c", script];
    let (out, err, code) = said(&execlet(&lab, &args).await);
    assert_eq!(code, 0, "{out}{err}");
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["db-0: on db-0", "db-1: on db-1", "db-2: on db-2"]);
    for part in ["db-2: 2 of 3\n", "execlet: db-1 succeeded\n", "Succeeded", "3 of 3 targets succeeded"] {
        assert!(err.contains(part), "{part}: {err}");
    }
    assert!(!err.contains('\u{1b}'), "no view and no colours for what is no terminal: {err:?}");
}

#[tokio::test]
async fn the_exit_code_is_that_of_all_targets() {
    let lab = Lab::new().await;
    pods(&lab, 2).await;
    let fails_once = "test $EXECLET_BATCH_INDEX = 0 || exit 3";
    for (args, code, told) in [
        (&["db-0", "db-1", "--", "true"][..], 0, "2 of 2 targets succeeded"),
        (&["-l", "app=db", "--", "sh", "-c", fails_once], 1, "1 failed (NonZeroExitCode, exit code 3): db-1"),
        (&["db-0", "db-7", "--max-failed", "1", "--", "true"], 1, "1 never ran (PodNotFound): db-7"),
        // More than none may not end without success: what is known before counts, too.
        (&["db-0", "db-7", "--", "true"], 121, "TooManyFailed"),
        (&["db-7", "db-8", "--max-failed", "100%", "--", "true"], 121, "2 never ran (PodNotFound): db-[7-8]"),
        (&["-l", "app=none", "--", "true"], 121, "NoTargets"),
        (&["-l", "app=none", "--allow-empty", "--", "true"], 0, ""),
        (&["--all", "--max-targets", "1", "--", "true"], 121, "TooManyTargets"),
        (&["db-0", "db-1", "-i", "--", "cat"], 125, "batch has many"),
        (&["deploy/db", "--", "true"], 125, "--all-pods"),
    ] {
        let (out, err, ended) = said(&execlet(&lab, &[&["run"], args].concat()).await);
        assert_eq!(ended, code, "{args:?}: {out}{err}");
        assert!(err.contains(told), "{args:?}: {err}");
    }
}

#[tokio::test]
async fn equal_output_is_shown_once_with_how_the_rest_differs() {
    let lab = Lab::new().await;
    pods(&lab, 3).await;
    let script = "echo a; test $EXECLET_BATCH_INDEX = 1 && echo B || echo b; printf 'c\\033[2J\\n'";
    let args = ["run", "--all", "--group", "--parallelism", "3", "--", "sh", "-c", script];
    let (out, err, code) = said(&execlet(&lab, &args).await);
    assert_eq!(code, 0, "{err}");
    for part in ["db-[0,2] (2): Completed, exit code 0", "db-1 (1): Completed", "  -b\n  +B\n", "c\u{fffd}[2J"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(!out.contains('\u{1b}'), "{out:?}");
}

#[tokio::test]
async fn a_canary_is_looked_at_and_then_the_rest_runs() {
    let lab = Lab::new().await;
    pods(&lab, 3).await;
    let name = unique("b");
    let typed = format!("xb/{name}");
    let args = ["run", "-l", "app=db", "--name", &name, "--limit", "1", "--", "sh", "-c", "echo $EXECLET_POD_NAME"];
    let (out, err, code) = said(&execlet(&lab, &args).await);
    assert_eq!((out.as_str(), code), ("db-0: db-0\n", 0), "{err}");
    assert!(err.contains("resume xb/"), "{err}");
    assert_eq!(batch(&lab, &typed).await["status"]["released"], 1);
    let (out, _, _) = said(&execlet(&lab, &["describe", &typed]).await);
    for part in ["3 targets, 1 released", "Paused (ReleaseLimit)", "resume xb/"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (_, err, code) = said(&execlet(&lab, &["resume", &typed, "--limit", "0"]).await);
    assert_eq!(code, 125, "{err}");
    let (out, err, code) = said(&execlet(&lab, &["resume", &typed]).await);
    assert_eq!((out, code), (format!("execbatch.execlet.dev/{name} resumed\n"), 0), "{err}");
    let (out, err, code) = said(&execlet(&lab, &["attach", &typed]).await);
    assert_eq!(code, 0, "{err}");
    assert_eq!(out.lines().count(), 3, "attach shows those that had ended, too: {out}");
    let (out, err, code) = said(&execlet(&lab, &["logs", &typed]).await);
    assert_eq!((out.as_str(), code), ("db-0: db-0\ndb-1: db-1\ndb-2: db-2\n", 0), "{err}");
}

#[tokio::test]
async fn the_logs_of_a_batch_are_followed_until_it_ends() {
    let lab = Lab::new().await;
    pods(&lab, 3).await;
    let script = "echo one of $EXECLET_POD_NAME; sleep 3; printf two";
    let name = detached(&lab, &["--all", "--parallelism", "2", "--", "sh", "-c", script]).await;
    let (out, err, code) = said(&execlet(&lab, &["logs", "-f", &name]).await);
    assert_eq!(code, 0, "{err}");
    let mut lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].ends_with("one of db-0") || lines[0].ends_with("one of db-1"), "as they write: {out}");
    lines.sort_unstable();
    let wanted = ["db-0: one of db-0", "db-0: two", "db-1: one of db-1", "db-1: two", "db-2: one of db-2", "db-2: two"];
    assert_eq!(lines, wanted, "{err}");
    assert_eq!(batch(&lab, &name).await["status"]["phase"], "Succeeded");
}

#[tokio::test]
async fn a_preview_runs_nothing() {
    let lab = Lab::new().await;
    pods(&lab, 2).await;
    let name = unique("b");
    let (out, err, code) = said(&execlet(&lab, &["run", "--all", "--name", &name, "--limit", "0", "--", "true"]).await);
    assert_eq!((out.as_str(), code), ("", 0), "{err}");
    let status = batch(&lab, &format!("xb/{name}")).await["status"].clone();
    assert_eq!((status["released"].as_i64(), status["plan"]["total"].as_i64()), (Some(0), Some(2)));
    let (out, err, code) = said(&execlet(&lab, &["run", "--all", "--dry-run=server", "--", "true"]).await);
    assert!(out.contains("created (server dry run)") && err.contains("finds 2 targets now: db-[0-1]"), "{out}{err}");
    assert_eq!(code, 0);
    if !server_stamps() {
        return not_shown("what was printed can be applied: on this API server it takes spec.requestedBy as well");
    }
    // What was printed can be applied.
    let printed = said(&execlet(&lab, &["run", "--all", "--dry-run=client", "--name", "b", "--", "true"]).await).0;
    let applied = run("kubectl", &["-n", &lab.namespace, "apply", "--dry-run=server", "-f", "-"], &printed);
    assert!(applied.status.success(), "{}", text(&applied.stderr));
}

#[tokio::test]
async fn an_approval_is_for_the_plan_that_was_seen() {
    let lab = Lab::new().await;
    pods(&lab, 2).await;
    let name = detached(&lab, &["--all", "--require-approval", "--", "uname", "-r"]).await;
    let planned = |batch: &Value| batch["status"]["phase"] == "Paused";
    batch_when(&lab, &name, "waits", planned).await;
    let (out, err, code) = said(&execlet(&lab, &["approve", &name]).await);
    // Standard input is no terminal.
    assert_eq!(code, 125, "{err}");
    for part in ["2: db-[0-1]", "uname -r", "every pod of the namespace", "Digest"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(err.contains("--yes"), "{err}");
    assert_eq!(batch(&lab, &name).await["spec"]["approval"]["planDigest"], "");
    let (_, err, code) = said(&execlet(&lab, &["approve", "--yes", &name]).await);
    // Where the installation knows who asks, it is not for the requester to approve.
    if code == 0 {
        let (_, err, code) = said(&execlet(&lab, &["wait", &name]).await);
        assert_eq!(code, 0, "{err}");
    } else {
        assert!(err.contains("approv"), "{err}");
    }
}

#[tokio::test]
async fn what_failed_and_what_never_ran_is_run_again_in_the_same_pods() {
    let lab = Lab::new().await;
    pods(&lab, 4).await;
    let script = "test -e /tmp/ready || { touch /tmp/ready; exit 3; }; echo again";
    let name = detached(&lab, &["-l", "app=db", "--", "sh", "-c", script]).await;
    let (_, err, code) = said(&execlet(&lab, &["wait", &name]).await);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("rerun xb/"), "{err}");
    let (_, err, code) = said(&execlet(&lab, &["rerun", &name]).await);
    assert_eq!(code, 125, "{err}");
    // The first failed, and more than none may not: the others never ran, and fail when they do.
    let (out, err, code) = said(&execlet(&lab, &["rerun", "--failed", "--not-run", &name]).await);
    assert_eq!(code, 1, "{err}");
    assert_eq!(out, "db-0: again\n", "{err}");
    let listed = said(&execlet(&lab, &["get", "--batches", "-o", "json"]).await).0;
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let items = listed["items"].as_array().expect("items");
    let named = items.iter().find(|item| item["spec"]["targets"]["pods"].is_array()).expect("the other batch");
    let pods = named["spec"]["targets"]["pods"].as_array().expect("pods");
    assert!(pods.len() == 4 && pods.iter().all(|pod| pod["uid"].is_string()), "{pods:?}");
}

#[tokio::test]
async fn a_batch_is_got_waited_for_and_canceled_by_its_name() {
    let lab = Lab::new().await;
    pods(&lab, 2).await;
    let name = detached(&lab, &["--all", "--parallelism", "2", "--grace-period", "0", "--", "sleep", "600"]).await;
    batch_when(&lab, &name, "runs", |batch| batch["status"]["active"] == 2).await;
    let short = name.replace("execbatch.execlet.dev", "xb");
    let (out, err, code) = said(&execlet(&lab, &["get", &short]).await);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("NAME") && out.contains("PHASE") && out.contains("Running"), "{out}");
    let (_, err, code) = said(&execlet(&lab, &["wait", &short, "--timeout", "1s"]).await);
    assert_eq!(code, 122, "{err}");
    assert!(err.contains("has not finished in time"), "{err}");
    let (out, err, code) = said(&execlet(&lab, &["cancel", &short]).await);
    assert_eq!((out, code), (format!("{name} canceled\n"), 0), "{err}");
    let (_, err, code) = said(&execlet(&lab, &["wait", &short]).await);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("Canceled"), "{err}");
    let (out, err, code) = said(&execlet(&lab, &["logs", "-f", &short]).await);
    assert_eq!((out.as_str(), code), ("", 0), "{err}");
    let completed =
        finish(Command::new(plugin()).args(["__complete", "--", "-n", &lab.namespace, "attach", "xb/"]), None).await;
    assert!(text(&completed.stdout).lines().any(|line| line == short), "{}", text(&completed.stdout));
}

#[tokio::test]
async fn who_leaves_leaves_the_batch_running_and_comes_back_to_it() {
    let lab = Lab::new().await;
    pods(&lab, 2).await;
    let name = unique("b");
    let typed = format!("xb/{name}");
    let child = Command::new(plugin())
        .args(["-n", &lab.namespace, "run", "--all", "--name", &name, "--parallelism", "2", "--"])
        .args(["sh", "-c", "until test -e /tmp/go; do sleep 0.1; done; echo done"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the plugin");
    wait_for("both to run", async || {
        let (out, _, code) = said(&execlet(&lab, &["get", &typed, "-o", "json"]).await);
        let found: Value = serde_json::from_str(&out).unwrap_or_default();
        (code == 0 && found["status"]["active"] == 2).then_some(())
    })
    .await;
    kill_process(Pid::from_child(&child), Signal::INT).expect("a signal");
    let output = child.wait_with_output().expect("its output");
    assert_eq!(output.status.code(), Some(122));
    assert!(text(&output.stderr).contains(&format!("{typed} goes on")), "{}", text(&output.stderr));
    for pod in ["db-0", "db-1"] {
        lab.exec(pod, "touch /tmp/go");
    }
    let (out, err, code) = said(&execlet(&lab, &["attach", &typed]).await);
    assert_eq!(code, 0, "{err}");
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["db-0: done", "db-1: done"]);
}
