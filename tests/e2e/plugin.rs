//! `kubectl execlet`, as it is typed.

use std::{
    fs,
    os::unix::{fs::symlink, process::CommandExt as _},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    clients::{Heard, execlet, execlet_with, finish, path_with_plugin, plugin},
    kubectl::server_stamps,
    lab::{IMAGE, Lab, container, run, text, unique, wait_for},
    not_shown::not_shown,
};

fn said(heard: &Heard) -> (String, String, i32) {
    (text(&heard.stdout), text(&heard.stderr), heard.code)
}

#[tokio::test]
async fn run_ends_as_the_command_does_and_says_what_the_code_does_not() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    for (args, code, stdout, told) in [
        (&["run", "web", "--", "echo", "hello"][..], 0, "hello\n", ""),
        (&["run", "pod/web", "-c", "main", "--", "sh", "-c", "echo out; exit 3"], 3, "out\n", "NonZeroExitCode"),
        (&["run", "web", "--", "sh", "-c", "kill -9 $$"], 137, "", "SIGKILL"),
        (&["run", "web", "--", "/no/such/program"], 126, "/no/such/program", "StartFailed"),
        // A current engine says so before there is an exec that could write it.
        (&["run", "web", "--run-as", "nobody-of-that-name", "--", "true"], 126, "", "unable to find user"),
        (&["run", "wbe", "--", "true"], 121, "", "PodNotFound"),
        (&["run", "web", "-c", "app", "--", "true"], 121, "", "ContainerNotFound"),
        (&["run", "web", "--timeout", "1s", "--grace-period", "0", "--", "sleep", "600"], 124, "", "DeadlineExceeded"),
        (
            &["run", "web", "-e", "A=b c", "-w", "/tmp", "--run-as", "app", "--", "sh", "-c", "echo $A $PWD $(id -un)"],
            0,
            "b c /tmp app\n",
            "",
        ),
        (&["run", "web", "--name", "a b", "--", "true"], 125, "", "Invalid value"),
        (&["run", "web"], 125, "", "COMMAND"),
        (&["--kubeconfig", "/no/such/file", "get"], 125, "", "/no/such/file"),
        (&["--server", "https://127.0.0.1:1", "get"], 125, "", "127.0.0.1:1"),
    ] {
        let (out, err, ended) = said(&execlet(&lab, args).await);
        assert_eq!(ended, code, "{args:?}: {err}");
        // What cannot start has the engine's words for output.
        assert!(if code == 126 { out.contains(stdout) } else { out == stdout }, "{args:?}: {out}");
        assert_eq!(err.is_empty(), told.is_empty(), "{args:?}: {err}");
        assert!(err.contains(told), "{args:?}: {err}");
        assert!(!err.contains('\u{1b}'), "no progress and no colours for what is no terminal: {err:?}");
    }
}

#[tokio::test]
async fn a_detached_run_is_waited_for_described_and_got() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let args = ["run", "-d", "web", "--reason", "INC-4711", "-o", "name", "--", "sh", "-c", "echo hello; exit 3"];
    let (name, err, code) = said(&execlet(&lab, &args).await);
    assert_eq!(code, 0, "{err}");
    let name = name.trim();
    assert!(name.starts_with("execrequest.execlet.dev/web-"), "{name}");
    let (out, err, code) = said(&execlet(&lab, &["wait", name]).await);
    assert_eq!((out.as_str(), code), ("", 3), "{err}");
    assert!(err.contains("NonZeroExitCode"), "{err}");
    let (out, _, _) = said(&execlet(&lab, &["describe", name]).await);
    let logs = format!("kubectl execlet -n {} logs", lab.namespace);
    for part in ["container main of pod web, on node n1", "INC-4711", "exit code 3", "hello", &logs] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (out, _, _) = said(&execlet(&lab, &["get", name, "-o", "json"]).await);
    let object: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(object["status"]["exitCode"], 3);
    // The table is kubectl's own.
    let ours = said(&execlet(&lab, &["get", "-o", "wide"]).await).0;
    let kubectls = lab.kubectl(&["get", "xr", "-o", "wide"]);
    let words = |table: &str| -> Vec<String> {
        let first = table.lines().next().unwrap_or_default();
        first.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(words(&ours), words(&kubectls));
    assert_eq!(ours.lines().count(), kubectls.lines().count());
}

#[tokio::test]
async fn a_wait_that_is_over_says_so_and_cancel_ends_the_command() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let (name, _, _) =
        said(&execlet(&lab, &["run", "-d", "-o", "name", "--grace-period", "0", "web", "--", "sleep", "600"]).await);
    let name = name.trim();
    let (_, err, code) = said(&execlet(&lab, &["wait", name, "--timeout", "1s"]).await);
    assert_eq!(code, 122, "{err}");
    assert!(err.contains("has not finished in time"), "{err}");
    let (out, err, code) = said(&execlet(&lab, &["cancel", name]).await);
    assert_eq!((out, code), (format!("{name} canceled\n"), 0), "{err}");
    let (_, err, code) = said(&execlet(&lab, &["wait", name]).await);
    assert_eq!(code, 130, "{err}");
    let done = lab.sh("web", "true").await;
    let finished = done.request.metadata.name.as_deref().expect("a name");
    let (_, err, code) = said(&execlet(&lab, &["cancel", finished, "no-such"]).await);
    assert_eq!(code, 125);
    assert!(err.contains("already finished") && err.contains("\"no-such\" not found"), "{err}");
}

#[tokio::test]
async fn a_dry_run_creates_nothing() {
    let lab = Lab::new().await;
    let (out, _, code) = said(&execlet(&lab, &["run", "--dry-run=client", "-o", "json", "web", "--", "true"]).await);
    let object: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((object["metadata"]["generateName"].as_str(), code), (Some("web-"), 0));
    let (out, err, code) = said(&execlet(&lab, &["run", "--dry-run=server", "web", "--", "true"]).await);
    assert!(out.contains("created (server dry run)"), "{out}{err}");
    assert_eq!(code, 0);
    let (out, err, code) = said(&execlet(&lab, &["get"]).await);
    assert_eq!((out.as_str(), code), ("", 0));
    assert!(err.contains("no requests found"), "{err}");
    if !server_stamps() {
        return not_shown("what was printed can be applied: on this API server it takes spec.requestedBy as well");
    }
    // What was printed can be applied.
    let printed = said(&execlet(&lab, &["run", "--dry-run=client", "--name", "r", "web", "--", "true"]).await).0;
    let applied = run("kubectl", &["-n", &lab.namespace, "apply", "--dry-run=server", "-f", "-"], &printed);
    assert!(applied.status.success(), "{}", text(&applied.stderr));
}

#[tokio::test]
async fn a_pipe_goes_through_the_command_and_its_log_is_read_as_a_pods() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let name = unique("r");
    let input = (1..=1000).fold(String::new(), |all, n| all + "line " + &n.to_string() + "\n");
    let args = ["run", "-i", "--name", &name, "web", "--", "sh", "-c", "cat; echo problem >&2; exit 7"];
    let (out, err, code) = said(&execlet_with(&lab, &args, input.clone().into_bytes()).await);
    assert_eq!((out == input, code), (true, 7), "{err}");
    assert!(err.contains("problem\n"), "{err}");
    let logs = async |args: &[&str]| said(&execlet(&lab, &[&["logs", &name], args].concat()).await).0;
    assert_eq!(logs(&["--stream", "stdout"]).await, input);
    assert_eq!(logs(&["--stream", "stderr"]).await, "problem\n");
    assert_eq!(logs(&["--stream", "stdout", "--tail", "2", "-f"]).await, "line 999\nline 1000\n");
    assert_eq!(logs(&["--stream", "stdout", "--limit-bytes", "6"]).await, "line 1");
    let stamped = logs(&["--tail", "1", "--timestamps", "--since", "1h"]).await;
    let (time, line) = stamped.split_once(' ').expect("a time");
    assert!(time.starts_with("20") && time.ends_with('Z') && !line.is_empty(), "{stamped}");
    assert_eq!(logs(&["--since-time", "2100-01-01T00:00:00Z"]).await, "");
}

#[tokio::test]
async fn rm_leaves_no_request_behind() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let (out, err, code) = said(&execlet(&lab, &["run", "--rm", "web", "--", "sh", "-c", "echo x; exit 3"]).await);
    assert_eq!((out.as_str(), code), ("x\n", 3), "{err}");
    assert_eq!(said(&execlet(&lab, &["get", "-o", "name"]).await).0, "");
}

#[tokio::test]
async fn what_cannot_be_recorded_never_runs() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let args = ["run", "--record", "/no/such/folder/x.cast", "web", "--", "true"];
    let (_, err, code) = said(&execlet(&lab, &args).await);
    assert_eq!(code, 125, "{err}");
    assert!(err.contains("/no/such/folder/x.cast"), "{err}");
    assert_eq!(said(&execlet(&lab, &["get", "-o", "name"]).await).0, "");
}

#[tokio::test]
async fn a_log_that_is_followed_is_waited_for() {
    let lab = Lab::new().await;
    // Longer than a manager waits for a request to be bound.
    let setup = json!({"name": "setup", "image": IMAGE, "command": ["sleep", "40"]});
    let spec = json!({"nodeName": "n1", "initContainers": [setup], "containers": [container("main")]});
    lab.create_pod("web", spec, json!({})).await;
    let args = ["run", "-d", "-o", "name", "--starting-deadline", "120s", "web", "--", "echo", "hello"];
    let (name, err, code) = said(&execlet(&lab, &args).await);
    assert_eq!(code, 0, "{err}");
    let heard = execlet(&lab, &["logs", "-f", name.trim()]).await;
    let (out, err, code) = said(&heard);
    assert_eq!((out.as_str(), code), ("hello\n", 0), "{err}");
}

/// The plugin with a command that runs for long, once that runs.
async fn long_run(lab: &Lab, name: &str) -> Child {
    let child = Command::new(plugin())
        .args(["-n", &lab.namespace, "run", "--name", name, "--grace-period", "0", "web", "--", "sleep", "600"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("the plugin");
    wait_for("the request", async || lab.requests().get_opt(name).await.ok().flatten()).await;
    lab.request_when(name, "to run", |status| status.phase.to_string() == "Running").await;
    child
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("a signal");
}

#[tokio::test]
async fn ctrl_c_cancels_and_sigterm_does_not() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let canceled = long_run(&lab, "canceled").await;
    signal(&canceled, Signal::INT);
    let output = canceled.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("canceling canceled"), "{}", text(&output.stderr));
    assert_eq!(lab.finished("canceled").await.reason(), "Canceled");

    let left = long_run(&lab, "left").await;
    signal(&left, Signal::TERM);
    let output = left.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(143), "{}", text(&output.stderr));
    let back = format!("left may still be running: kubectl execlet -n {} attach left", lab.namespace);
    assert!(text(&output.stderr).contains(&back), "{}", text(&output.stderr));
    lab.request_when("left", "to run on", |status| status.phase.to_string() == "Running").await;
}

#[tokio::test]
async fn who_has_no_right_is_told_which() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let (_, err, code) = said(&execlet(&lab, &["--as", "nobody", "run", "web", "--", "true"]).await);
    assert_eq!(code, 125);
    assert!(err.contains("nobody") && err.contains("cannot create resource \"execrequests\""), "{err}");
}

#[tokio::test]
async fn a_recording_can_be_played() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("x.cast").to_string_lossy().into_owned();
    let args = ["run", "--record", &file, "web", "--", "sh", "-c", "echo one; echo zwö"];
    let (out, err, code) = said(&execlet(&lab, &args).await);
    assert_eq!((out.as_str(), code), ("one\nzwö\n", 0), "{err}");
    let (out, err, code) = said(&execlet(&lab, &["replay", &file, "--idle-limit", "10ms"]).await);
    assert_eq!((out.as_str(), code), ("one\r\nzwö\r\n", 0), "{err}");
}

#[tokio::test]
async fn kubectl_finds_and_completes_the_plugin() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    lab.create_named("check-1", json!({"target": {"podName": "web"}, "command": ["true"]}));
    let mut by_kubectl = Command::new("kubectl");
    by_kubectl.args(["execlet", "version", "--client"]).env("PATH", path_with_plugin());
    let (out, err, code) = said(&finish(&mut by_kubectl, None).await);
    assert_eq!((out.starts_with("kubectl-execlet "), code), (true, 0), "{out}{err}");

    let folder = tempfile::tempdir().expect("a folder");
    let completer = folder.path().join("kubectl_complete-execlet");
    symlink(plugin(), &completer).expect("a link");
    let complete = async |words: &[&str]| {
        let (out, err, code) = said(&finish(Command::new(&completer).args(words), None).await);
        assert_eq!(code, 0, "{err}");
        out.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let namespace = lab.namespace.as_str();
    assert_eq!(complete(&["-n", namespace, "logs", ""]).await, ["check-1", ":4"]);
    assert_eq!(complete(&["run", "-n", namespace, "w"]).await, ["web", ":4"]);
    assert_eq!(complete(&["run", "-n", namespace, "web", "-c", ""]).await, ["main", ":4"]);
    assert_eq!(complete(&["get", "-n", namespace]).await.last().map(String::as_str), Some(":4"));
    assert!(complete(&["get", "-n", &namespace[..5]]).await.iter().any(|name| name == namespace));
    assert_eq!(complete(&["de"]).await, ["describe", ":4"]);

    let script = said(&execlet(&lab, &["completion"]).await).0;
    let written = folder.path().join("script");
    fs::write(&written, script).expect("written");
    let mut by_script = Command::new("sh");
    by_script.arg(&written).args(["-n", namespace, "wait", ""]).env("PATH", path_with_plugin());
    assert_eq!(said(&finish(&mut by_script, None).await).0, "check-1\n:4\n");
}
