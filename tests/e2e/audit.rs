//! The audit logs on the nodes: who ran what, and that they cannot be changed unseen. That every request
//! of the whole run has all its records is looked through at its end, by `scripts/audit-check`.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use execlet::core::audit::{
    chain,
    event::{Event, Verb},
    key,
    verify::{File, Report, first_of, verify},
};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::{
    agents::{self, Away},
    chart::Installation,
    clients::attach_path,
    disk::SmallDisk,
    lab::{Done, Lab, NAMESPACE, container_id, kubectl, kubectl_with, root, text, wait_for},
    node,
    restarts::waits,
    stand_in::{ATTACH, Caller},
};

/// The log of a node's agent, seen from the host.
fn folder(node: &str) -> PathBuf {
    let kubeconfig = env::var("KUBECONFIG").expect("a cluster");
    Path::new(&kubeconfig).with_file_name(node).join("log/execlet-audit")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).expect("an audit log").map(|entry| entry.expect("an entry").path());
    let mut all: Vec<PathBuf> = all.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).collect();
    all.sort_unstable();
    all
}

fn read(folder: &Path) -> Report {
    let file = |path: &PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        File { first: first_of(&name), name, text: fs::read(path).expect("readable") }
    };
    verify(&files(folder).iter().map(file).collect::<Vec<_>>(), None).expect("records")
}

/// The records of a request in the log of a node.
fn records(node: &str, done: &Done) -> Vec<Event> {
    let uid = done.request.metadata.uid.as_deref().expect("a UID");
    let all = read(&folder(node)).events;
    all.into_iter().filter(|event| event.uid().is_some_and(|of| of.as_str() == uid)).collect()
}

/// The records of a request in the logs of all managers.
pub fn of_managers(done: &Done) -> Vec<Event> {
    let uid = done.request.metadata.uid.as_deref().expect("a UID");
    let nodes = ["n1", "n2"].map(|node| folder(node).with_file_name("execlet-audit-manager"));
    let folders =
        nodes.iter().filter_map(|node| fs::read_dir(node).ok()).flatten().map(|entry| entry.expect("an entry").path());
    let all = folders.flat_map(|folder| read(&folder).events);
    all.filter(|event| event.uid().is_some_and(|of| of.as_str() == uid)).collect()
}

/// The program itself, as an auditor runs it.
fn execlet(args: &[&str]) -> (String, i32) {
    let output = Command::new(env!("CARGO_BIN_EXE_execlet")).args(args).output().expect("the program");
    (text(&output.stdout) + &text(&output.stderr), output.status.code().expect("an exit code"))
}

#[tokio::test]
async fn a_request_leaves_who_ran_what_where_when_why_and_how_it_ended() {
    let lab = Lab::new().await;
    let pod = lab.pod("web", "n1").await;
    let spec = json!({
        "target": {"podName": "web"}, "command": ["sh", "-c", "echo out; exit 3"], "reason": "INC-4711",
        "env": [{"name": "TOKEN", "value": "hunter2"}],
    });
    let done = lab.run(spec).await;
    let records = records("n1", &done);
    let verbs: Vec<Verb> = records.iter().map(|event| event.verb).collect();
    assert_eq!(verbs, [Verb::Started, Verb::Finished]);
    for event in &records {
        for (key, value) in [
            (key::POD, "web"),
            (key::POD_UID, pod.metadata.uid.as_deref().expect("a UID")),
            (key::CONTAINER, "main"),
            (key::NODE, "n1"),
            (key::COMMAND, r#"["sh","-c","echo out; exit 3"]"#),
            (key::REQUEST_REASON, "INC-4711"),
            (key::ENV, r#"["TOKEN"]"#),
        ] {
            assert_eq!(event.note(key), Some(value), "{key} of {}", event.verb);
        }
        assert_eq!(event.user, done.request.spec.requested_by.clone().unwrap_or_default());
        assert!(!serde_json::to_string(event).expect("JSON").contains("hunter2"));
    }
    let [started, finished] = &records[..] else { panic!("two records") };
    assert_eq!(started.note(key::EXEC_ID), done.status.exec_id.as_deref());
    assert!(started.stage_timestamp <= finished.stage_timestamp);
    let stdout = &done.status.output.as_ref().expect("output").stdout;
    for (key, value) in [
        (key::REASON, Some("NonZeroExitCode")),
        (key::EXIT_CODE, Some("3")),
        (key::STDOUT_BYTES, Some("4")),
        (key::STDOUT_SHA256, stdout.sha256.as_deref()),
    ] {
        assert_eq!(finished.note(key), value, "{key}");
    }
    let (table, code) = execlet(&["audit", "show", &folder("n1").to_string_lossy()]);
    let name = done.request.metadata.name.as_deref().expect("a name");
    let row = table.lines().find(|line| line.contains(name)).expect("a row");
    assert!(code == 0 && row.contains("INC-4711") && row.contains("NonZeroExitCode 3"), "{row}");
}

#[tokio::test]
async fn a_command_that_was_ended_has_a_record_of_that_before_its_end() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let name = lab.create(json!({"target": {"podName": "web"}, "command": ["sleep", "600"]}));
    lab.request_when(&name, "to run", |status| status.exec_id.is_some()).await;
    lab.kubectl(&["patch", "xr", &name, "--type=merge", "-p", r#"{"spec":{"cancel":true}}"#]);
    let done = lab.finished(&name).await;
    let records = records("n1", &done);
    let verbs: Vec<Verb> = records.iter().map(|event| event.verb).collect();
    assert_eq!(verbs, [Verb::Started, Verb::Cancelled, Verb::Finished]);
    assert_eq!(records[1].note(key::REASON), Some("Canceled"));
}

#[tokio::test]
async fn what_ended_by_itself_before_its_request_was_deleted_has_its_end_on_record() {
    let lab = Lab::alone().await;
    let container = container_id(&lab.pod("web", "n1").await, "main");
    let name = lab.waiting("web", json!({})).await;
    let uid = lab.noted(&name).await;
    let away = Away::on("n1").await;
    node::exec("n1", &container, &["touch", "/tmp/go"]);
    wait_for("the command to end", async || (!waits("n1", &container)).then_some(())).await;
    lab.requests().delete(&name, &DeleteParams::default()).await.expect("deleted");
    away.end().await;
    let its_end = |event: &Event| event.verb == Verb::Finished && event.uid().is_some_and(|of| of.as_str() == uid);
    let find = async || read(&folder("n1")).events.into_iter().find(its_end);
    let end = wait_for("the record of its end", find).await;
    assert_eq!((end.note(key::REASON), end.note(key::EXIT_CODE)), (Some("NonZeroExitCode"), Some("9")));
}

#[tokio::test]
async fn who_looks_after_a_pod_sees_what_requests_did_there() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let done = lab.sh("web", "exit 3").await;
    let name = done.request.metadata.name.as_deref().expect("a name");
    for reason in ["Bound", "Running", "NonZeroExitCode"] {
        wait_for(&format!("the event {reason} on the pod"), async || {
            let story = lab.kubectl(&["describe", "pod", "web"]);
            story.lines().any(|line| line.contains(reason) && line.contains(name)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn an_agent_that_is_killed_in_the_middle_of_its_writing_never_breaks_the_chain() {
    let lab = Lab::alone().await;
    lab.pod("web", "n2").await;
    let starts = read(&folder("n2")).starts;
    let request = |kill: usize, number: u32| {
        json!({"apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
            "metadata": {"name": format!("r-{kill}-{number}"), "namespace": lab.namespace},
            "spec": {"target": {"podName": "web"}, "command": ["true"], "startingDeadlineSeconds": 300}})
    };
    for kill in 1..=3 {
        let before = read(&folder("n2")).events.len();
        let all: Vec<Value> = (0..20).map(|number| request(kill, number)).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": all}).to_string();
        assert!(kubectl_with(&["create", "-f", "-"], &list).status.success());
        wait_for("the agent to record", async || (read(&folder("n2")).events.len() > before).then_some(())).await;
        agents::kill("n2");
        wait_for("the next agent to record", async || (read(&folder("n2")).starts >= starts + kill).then_some(()))
            .await;
    }
    for (kill, number) in (1..=3).flat_map(|kill| (0..20).map(move |number| (kill, number))) {
        lab.finished(&format!("r-{kill}-{number}")).await;
    }
    let report = read(&folder("n2"));
    assert_eq!(report.findings, vec![], "{} records", report.events.len());
    agents::rolled_out();
}

#[tokio::test]
async fn with_audit_required_nothing_starts_or_is_attached_to_that_cannot_be_recorded() {
    let lab = Lab::alone().await;
    lab.pod("web", "n2").await;
    let installation = Installation::found();
    installation.with("audit.required=true");
    let disk = SmallDisk::under("/var/log/execlet-audit").await;
    let script = "touch /tmp/ran; until [ -e /tmp/go ]; do sleep 0.1; done; exit 9";
    let running = lab.create(json!({"target": {"podName": "web"}, "command": ["sh", "-c", script]}));
    wait_for("the command to run", async || (lab.exec("web", "test -e /tmp/ran").1 == 0).then_some(())).await;
    let attach = attach_path(&lab, &running, false, false);
    let (code, stream) = Caller::admin().call(&attach, ATTACH).await.expect("an answer");
    assert_eq!(code, 101);
    drop(stream);

    disk.fill();
    let touch = |file: &str, deadline: u32| json!({"target": {"podName": "web"}, "command": ["touch", file], "startingDeadlineSeconds": deadline});
    // The last page of the log's file may still have room for some records.
    let mut ran = Vec::from(["ran".to_owned()]);
    let refused = loop {
        let file = format!("second-{}", ran.len());
        let done = lab.run(touch(&format!("/tmp/{file}"), 5)).await;
        if done.status.exit_code != Some(0) {
            break done;
        }
        ran.push(file);
        assert!(ran.len() < 10, "the disk is full");
    };
    refused.never_ran("AuditUnavailable");
    assert!(refused.message().contains("audit log"), "{}", refused.message());
    let waiting = lab.create(touch("/tmp/third", 300));
    wait_for("an Event to say so", async || {
        let reasons = lab.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"]);
        reasons.contains("AuditUnavailable").then_some(())
    })
    .await;
    let (code, body) = Caller::admin().ask(&attach, ATTACH).await;
    assert!(code == 503 && body.contains("audit log"), "{code} {body}");
    assert_eq!(
        text(&lab.exec("web", "ls /tmp").0).lines().map(str::to_owned).collect::<BTreeSet<_>>(),
        ran.into_iter().collect()
    );
    // What runs already is ended and reported as ever, and its record comes later.
    lab.exec("web", "touch /tmp/go");
    lab.finished(&running).await.ended_with(9);

    disk.empty();
    lab.finished(&waiting).await.ended_with(0);
    lab.exec("web", "test -e /tmp/third");
    disk.end().await;
    drop(installation);
    assert_eq!(read(&folder("n2")).findings, vec![]);
}

/// A copy of a node's log, to be tampered with.
fn copy(node: &str, name: &str) -> PathBuf {
    let to = root().join("target/e2e").join(name);
    fs::remove_dir_all(&to).ok();
    fs::create_dir_all(&to).expect("a folder");
    for file in files(&folder(node)) {
        let copied = fs::read(&file).expect("readable");
        fs::write(to.join(file.file_name().expect("a name")), copied).expect("written");
    }
    to
}

#[tokio::test]
async fn what_is_missing_at_the_end_of_a_log_shows_against_the_lease() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let done = lab.sh("web", "exit 3").await;
    let end = records("n1", &done).pop().expect("a record");
    let number: u64 = end.note(key::SEQUENCE).and_then(|number| number.parse().ok()).expect("a number");
    let lease = root().join("target/e2e/lease-n1.yaml");
    wait_for("the Lease to tell of it", async || {
        let object = kubectl(&["get", "lease", "execlet-agent.n1", "-n", NAMESPACE, "-o", "json"]);
        let object: Value = serde_json::from_str(&object).expect("JSON");
        let heads = object.pointer("/metadata/annotations/execlet.dev~1audit-heads")?.as_str()?.to_owned();
        let head: chain::Head = chain::published(&heads).pop()?.head.parse().ok()?;
        (head.sequence >= number).then_some(())
    })
    .await;
    let object = kubectl(&["get", "lease", "execlet-agent.n1", "-n", NAMESPACE, "-o", "yaml"]);
    fs::write(&lease, object).expect("written");
    let lease = lease.to_string_lossy().into_owned();
    let log = copy("n1", "audit-tail");
    let path = log.to_string_lossy().into_owned();
    let (said, code) = execlet(&["audit", "verify", "--lease", &lease, &path]);
    assert!(code == 0 && said.contains("intact") && said.contains("checked against the published head"), "{said}");

    // Everything from that record on is cut off.
    let last = files(&log).pop().expect("a file");
    let whole = fs::read_to_string(&last).expect("text");
    let mark = format!("\"{}\":\"{number}\"", key::SEQUENCE);
    let kept: String = whole.split_inclusive('\n').take_while(|line| !line.contains(&mark)).collect();
    assert!(kept.len() < whole.len() && !kept.is_empty());
    fs::write(&last, &kept).expect("written");
    let (said, code) = execlet(&["audit", "verify", &path]);
    assert_eq!(code, 0, "nothing but the head can tell: {said}");
    let (said, code) = execlet(&["audit", "verify", "--lease", &lease, &path]);
    let named = format!("{}:{}: sequence {}: truncated", last.display(), kept.lines().count(), number - 1);
    assert!(code == 1 && said.starts_with(&named), "{named}\n{said}");

    // One byte of the record itself.
    let changed = whole.replace("/exit-code\":\"3\"", "/exit-code\":\"0\"");
    assert_ne!(changed, whole);
    fs::write(&last, changed).expect("written");
    let (said, code) = execlet(&["audit", "verify", "--lease", &lease, &path]);
    assert!(code == 1 && said.contains("changed"), "{said}");
}
