//! What restarts while commands run, and what is lost by it: nothing that could be kept.

use std::{fmt::Write as _, fs, time::Duration};

use execlet::core::entry::Stage;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    agents::{self, Away, rolled_out},
    lab::{Lab, NAMESPACE, SOON, container_id, kubectl, text, tool, unique, wait_for},
    live_restore::LiveRestore,
    node::{self, DOCKER, Kind},
    not_shown::not_shown,
};

/// Runs, notes that it did, and ends with this code when told to.
pub const SCRIPT: &str = "echo ran >> /tmp/runs; echo begun; until [ -e /tmp/go ]; do sleep 0.1; done; exit 9";

/// Whether such a command still waits in a container, by its node's engine.
pub fn waits(node: &str, container: &str) -> bool {
    node::processes(node, container).iter().any(|args| args.contains("/tmp/go"))
}

impl Lab {
    /// A command that waits for `/tmp/go`, under way.
    pub async fn waiting(&self, pod: &str, more: Value) -> String {
        let mut spec = json!({"target": {"podName": pod}, "command": ["sh", "-c", SCRIPT]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let name = self.create(spec);
        wait_for("the command to run", async || (self.exec(pod, "test -e /tmp/runs").1 == 0).then_some(())).await;
        name
    }

    /// Waits until the journal has the process of a request, and gives the request's UID.
    pub async fn noted(&self, name: &str) -> String {
        let request = self.request_when(name, "to be committed", |status| status.exec_id.is_some()).await;
        let (uid, status) = (request.metadata.uid.expect("a UID"), request.status.expect("a status"));
        let node = status.node_name.expect("a node");
        let noted = async || agents::noted(&node, &uid).contains("\"running\"").then_some(());
        wait_for("its process to be noted", noted).await;
        uid
    }
}

#[tokio::test]
async fn an_api_server_that_was_away_learns_the_end_within_seconds_of_its_return() {
    let lab = Lab::alone().await;
    let pod = lab.pod("web", "n1").await;
    for component in ["apiserver", "etcd"] {
        let name = lab.waiting("web", json!({})).await;
        tool(&["kill", "control", component]);
        // Without the API server there is no kubectl exec: the engine opens the gate.
        node::exec("n1", &container_id(&pod, "main"), &["touch", "/tmp/go"]);
        tool(&["start", "control", component]);
        wait_for("the API server", async || lab.requests().get(&name).await.ok()).await;
        let done = lab.soon(&name).await;
        done.ended_with(9);
        assert!(done.status.output.as_ref().is_some_and(|output| output.complete), "its stream never broke");
        assert_eq!(lab.exec("web", "cat /tmp/runs; rm /tmp/runs /tmp/go").0, b"ran\n");
        // And new requests go their way again.
        let begun = Instant::now();
        lab.sh("web", "exit 3").await.ended_with(3);
        assert!(begun.elapsed() < SOON * 2, "after {component}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_kubelet_that_restarts_changes_nothing() {
    let lab = Lab::alone().await;
    lab.pod("web", "n2").await;
    let name = lab.waiting("web", json!({})).await;
    tool(&["restart", "n2", "kubelet"]);
    wait_for("kubectl exec", async || (lab.exec("web", "touch /tmp/go").1 == 0).then_some(())).await;
    let done = lab.soon(&name).await;
    done.ended_with(9);
    assert!(done.status.output.as_ref().is_some_and(|output| output.complete));
}

#[tokio::test]
async fn an_engine_that_is_killed_takes_its_containers_along_and_nothing_runs_again() {
    let lab = Lab::alone().await;
    lab.pod("web", &DOCKER).await;
    let name = lab.waiting("web", json!({})).await;
    node::restart_engine(&DOCKER);
    rolled_out();
    wait_for("the agent's container to be back", async || (!agents::containers(&DOCKER).is_empty()).then_some(()))
        .await;
    let done = lab.soon(&name).await;
    // Whether the agent or the engine went first decides what is known.
    match done.reason() {
        "OutcomeLost" => assert_eq!(done.status.phase.to_string(), "Unknown"),
        "ContainerDied" | "NonZeroExitCode" => done.ended_with(137),
        other => panic!("{other}: {:#?}", done.status),
    }
    assert_eq!(done.condition("Started"), Some("True"), "it has run");
    lab.ready("web").await;
    lab.sh("web", "test ! -e /tmp/runs").await.ended_with(0);
}

#[tokio::test]
async fn with_live_restore_a_command_outlives_its_engine_and_the_kernel_tells_its_code() {
    let lab = Lab::alone().await;
    lab.pod("web", &DOCKER).await;
    let live = LiveRestore::on(&DOCKER);
    let name = lab.waiting("web", json!({})).await;
    node::restart_engine(&DOCKER);
    wait_for("kubectl exec", async || (lab.exec("web", "touch /tmp/go").1 == 0).then_some(())).await;
    let done = lab.soon(&name).await;
    drop(live);
    done.ended_with(9);
    let source = done.status.exit_code_source.map(|source| format!("{source:?}"));
    assert_eq!(source.as_deref(), Some("Kernel"), "the engine has forgotten it");
    let output = done.status.output.as_ref().expect("output");
    assert_eq!((output.complete, output.incomplete_reason.as_deref()), (false, Some("StreamBroken")));
    assert_eq!(done.stdout(), "begun\n");
    assert_eq!(lab.exec("web", "cat /tmp/runs").0, b"ran\n");
}

/// Only where a node has it.
#[tokio::test]
async fn with_containerd_a_command_outlives_its_engine_and_nothing_of_it_is_lost() {
    let Some(node) = node::one_with(Kind::Containerd) else {
        not_shown("what a killed engine costs on containerd: no node has it");
        return;
    };
    let lab = Lab::alone().await;
    let container = container_id(&lab.pod("web", node).await, "main");
    let name = lab.waiting("web", json!({})).await;
    lab.noted(&name).await;
    tool(&["kill", node, "engine"]);
    assert_eq!(lab.requests().get(&name).await.expect("the request").status.expect("a status").exit_code, None);
    tool(&["start", node, "engine"]);
    node::exec(node, &container, &["touch", "/tmp/go"]);
    let done = lab.soon(&name).await;
    done.ended_with(9);
    let output = done.status.output.as_ref().expect("output");
    assert!(output.complete, "{:?}", output.incomplete_reason);
    assert_eq!(done.stdout(), "begun\n");
    assert_eq!(node::exec(node, &container, &["cat", "/tmp/runs"]), b"ran\n");
}

#[tokio::test]
async fn with_live_restore_a_command_that_writes_much_goes_on_after_its_engine_was_killed() {
    let lab = Lab::alone().await;
    lab.pod("web", &DOCKER).await;
    let live = LiveRestore::on(&DOCKER);
    let script = "touch /tmp/runs; until [ -e /tmp/go ]; do sleep 0.1; done; head -c 400000 /dev/zero; exit 9";
    let create =
        |tty: bool| lab.create(json!({"target": {"podName": "web"}, "command": ["sh", "-c", script], "tty": tty}));
    let names = [false, true].map(create);
    for name in &names {
        lab.noted(name).await;
    }
    node::restart_engine(&DOCKER);
    wait_for("kubectl exec", async || (lab.exec("web", "touch /tmp/go").1 == 0).then_some(())).await;
    for name in &names {
        let done = lab.finished(name).await;
        done.ended_with(9);
        let output = done.status.output.as_ref().expect("output");
        assert_eq!((output.complete, output.incomplete_reason.as_deref()), (false, Some("StreamBroken")));
    }
    drop(live);
}

#[tokio::test]
async fn what_no_agent_had_found_yet_when_its_engine_was_killed_is_found_and_ends_in_time() {
    let lab = Lab::alone().await;
    let live = LiveRestore::on(&DOCKER);
    let mut all = Vec::new();
    for pod in ["starting", "lost", "limited"] {
        lab.pod(pod, &DOCKER).await;
        let limit = (pod == "limited").then_some(20);
        let name = lab.waiting(pod, json!({"activeDeadlineSeconds": limit, "terminationGracePeriodSeconds": 1})).await;
        let uid = lab.noted(&name).await;
        all.push((name, uid));
    }
    let away = Away::on(&DOCKER).await;
    for (_, uid) in [&all[0], &all[2]] {
        away.edit(uid, |entry| entry.stage = Stage::Starting).await;
    }
    fs::remove_file(agents::record(&DOCKER, &all[1].1)).expect("removed");
    node::restart_engine(&DOCKER);
    away.end().await;
    for pod in ["starting", "lost"] {
        wait_for("kubectl exec", async || (lab.exec(pod, "touch /tmp/go").1 == 0).then_some(())).await;
    }
    for (name, _) in &all[..2] {
        let done = lab.finished(name).await;
        done.ended_with(9);
        let source = done.status.exit_code_source.map(|source| format!("{source:?}"));
        assert_eq!(source.as_deref(), Some("Kernel"), "the engine has forgotten it");
    }
    let done = lab.finished(&all[2].0).await;
    assert_eq!(done.reason(), "DeadlineExceeded", "{:#?}", done.status);
    assert_eq!(lab.exec("limited", "pidof sh").1, 1, "nothing of it is left");
    drop(live);
}

#[tokio::test]
async fn a_deadline_is_kept_by_an_agent_that_starts_while_the_api_server_is_away() {
    let lab = Lab::alone().await;
    let pod = lab.pod("web", "n1").await;
    let name = lab.waiting("web", json!({"activeDeadlineSeconds": 60, "terminationGracePeriodSeconds": 1})).await;
    lab.noted(&name).await;
    let container = container_id(&pod, "main");
    tool(&["kill", "control", "apiserver"]);
    let killed = agents::kill("n1");
    assert!(waits("n1", &container), "the agent that was killed had ended it in time: this machine is too slow");
    let another = async || agents::containers("n1").iter().any(|id| !killed.contains(id)).then_some(());
    wait_for("another agent", another).await;
    wait_for("its end", async || (!waits("n1", &container)).then_some(())).await;
    tool(&["start", "control", "apiserver"]);
    wait_for("the API server", async || lab.requests().get(&name).await.ok()).await;
    let done = lab.soon(&name).await;
    assert_eq!(done.reason(), "DeadlineExceeded", "{:#?}", done.status);
    assert_eq!(done.stdout(), "begun\n", "what was received before is kept");
}

#[tokio::test]
async fn a_deadline_and_a_cancel_reach_a_command_whose_agent_was_killed() {
    let lab = Lab::alone().await;
    lab.pod("web", "n1").await;
    lab.pod("late", "n1").await;
    let canceled = lab.waiting("web", json!({"terminationGracePeriodSeconds": 1})).await;
    let limited = lab.waiting("late", json!({"activeDeadlineSeconds": 8, "terminationGracePeriodSeconds": 1})).await;
    let started = lab.requests().get(&limited).await.expect("the request").status.expect("a status").start_time;
    let deadline = started.expect("a start").0 + Duration::from_secs(8);
    let away = Away::on("n1").await;
    lab.kubectl(&["patch", "execrequest", &canceled, "--type=merge", "-p", r#"{"spec":{"cancel":true}}"#]);
    wait_for("the deadline to pass", async || (Timestamp::now() > deadline).then_some(())).await;
    away.end().await;
    let (canceled, done) = tokio::join!(lab.soon(&canceled), lab.soon(&limited));
    assert_eq!(canceled.reason(), "Canceled");
    assert_eq!(done.reason(), "DeadlineExceeded");
    let ran =
        done.status.completion_time.as_ref().unwrap().0.duration_since(done.status.start_time.as_ref().unwrap().0);
    assert!(ran.as_secs() < 20, "the time before the agent's end counts: {ran}");
    for pod in ["web", "late"] {
        assert_eq!(lab.exec(pod, "cat /tmp/runs").0, b"ran\n");
        assert_eq!(lab.exec(pod, "pidof sh").1, 1, "nothing of it is left");
    }
}

fn sha256(bytes: impl AsRef<[u8]>) -> String {
    let mut hex = String::new();
    for byte in Sha256::digest(bytes) {
        write!(hex, "{byte:02x}").unwrap();
    }
    hex
}

#[tokio::test]
async fn a_command_of_an_earlier_boot_is_neither_adopted_nor_run_again() {
    let lab = Lab::alone().await;
    lab.pod("web", "n2").await;
    let name = lab.waiting("web", json!({})).await;
    let uid = lab.noted(&name).await;
    let away = Away::on("n2").await;
    // As after a reboot: the journal speaks of another boot. (The boot of this machine cannot be had anew.)
    away.edit(&uid, |entry| entry.boot = "an-earlier-boot".into()).await;
    away.end().await;
    let done = lab.soon(&name).await;
    assert_eq!((done.reason(), done.status.phase.to_string().as_str()), ("OutcomeLost", "Unknown"));
    assert!(done.message().contains("the node was restarted while the command ran"), "{}", done.message());
    assert_eq!(lab.exec("web", "cat /tmp/runs; touch /tmp/go").0, b"ran\n");
}

#[tokio::test]
async fn an_update_hands_the_output_of_a_running_command_over_to_the_next_agent() {
    let lab = Lab::alone().await;
    for node in ["n1", "n2"] {
        hands_over(&lab, node).await;
    }
}

async fn hands_over(lab: &Lab, node: &str) {
    lab.pod(node, node).await;
    // Both kinds of stream, and more output than one read takes, all through the update.
    let script = "echo ran >> /tmp/runs; i=0; until [ -e /tmp/go ]; do i=$((i+1)); seq $i $((i+2000)); sleep 0.2; done; echo $i; exit 9";
    let names = [false, true].map(|tty| {
        lab.create(json!({"target": {"podName": node}, "command": ["sh", "-c", script], "tty": tty, "output": {"tailBytes": 64}}))
    });
    for name in &names {
        lab.request_when(name, "to run", |status| status.exec_id.is_some()).await;
    }
    agents::update(node).await;
    assert_eq!(lab.exec(node, "touch /tmp/go").1, 0);
    for name in &names {
        let done = lab.finished(name).await;
        done.ended_with(9);
        let output = done.status.output.as_ref().expect("output");
        assert!(output.complete, "nothing was lost: {output:#?}");
        // What the command counted is what it wrote: so many blocks of 2001 lines, and the count.
        let [stdout, _] = lab.spool(&done.request);
        let lines: Vec<String> = text(&stdout).lines().map(|line| line.trim().to_owned()).collect();
        let blocks: usize = lines.last().expect("the count").parse().expect("a number");
        assert_eq!(lines.len(), blocks * 2001 + 1);
        assert!(
            lines[..blocks * 2001].iter().enumerate().all(|(n, line)| *line == (n / 2001 + 1 + n % 2001).to_string())
        );
        assert_eq!(output.stdout.bytes, i64::try_from(stdout.len()).unwrap());
        assert_eq!(output.stdout.sha256.as_deref(), Some(sha256(&stdout).as_str()));
    }
    assert_eq!(lab.exec(node, "cat /tmp/runs").0, b"ran\nran\n");
}

#[tokio::test]
async fn a_rolling_update_under_load_loses_nothing_and_doubles_nothing() {
    let lab = Lab::alone().await;
    for node in ["n1", "n2"] {
        lab.pod(node, node).await;
    }
    let create = |name: &str, node: &str, code: u32| {
        let script = format!("echo {name} >> /tmp/all; echo begun; sleep 3; echo done; exit {code}");
        lab.create_named(
            name,
            json!({"target": {"podName": node}, "command": ["sh", "-c", script], "startingDeadlineSeconds": 300}),
        );
    };
    let mut names = Vec::new();
    let mut one = |count: u32| {
        let (name, node) = (unique("r"), ["n1", "n2"][count as usize % 2]);
        create(&name, node, count % 100);
        names.push((name, count % 100));
    };
    (0..16).for_each(&mut one);
    kubectl(&["rollout", "restart", "daemonset/execlet-agent", "-n", NAMESPACE]);
    (16..48).for_each(&mut one);
    rolled_out();
    let (mut whole, mut runs) = (0, String::new());
    for (name, code) in &names {
        let done = lab.finished(name).await;
        done.ended_with(i32::try_from(*code).unwrap());
        whole += usize::from(done.status.output.as_ref().is_some_and(|output| output.complete));
    }
    for node in ["n1", "n2"] {
        runs.push_str(&text(&lab.exec(node, "cat /tmp/all").0));
    }
    let mut lines: Vec<&str> = runs.lines().collect();
    lines.sort_unstable();
    let count = lines.len();
    lines.dedup();
    assert_eq!((count, lines.len()), (names.len(), names.len()), "each ran once");
    assert_eq!(whole, names.len(), "the old agents stayed with what they had started: no output was lost");
}
