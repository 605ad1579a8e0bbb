//! Commands that are ended: by cancel, by a deadline, by deletion. Nothing of them may be left.

use std::{
    fs,
    time::{Duration, Instant},
};

use execlet::api::ExitCodeSource;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::{
    lab::{Lab, container, container_id, kubectl_raw, run, text, wait_for},
    node::{self, Frozen},
};

/// Commands that are hard to end, each in its own way. All write `/tmp/ready` when they are under way.
const STUBBORN: [(&str, bool, &str); 6] = [
    ("a plain sleeper", false, "touch /tmp/ready; sleep 1000"),
    ("one that ignores SIGTERM", false, "trap '' TERM; touch /tmp/ready; while true; do sleep 1000; done"),
    ("a daemon in a session of its own", false, "setsid sleep 1000 >/dev/null 2>&1 & touch /tmp/ready; sleep 1000"),
    (
        "a tree of forks",
        false,
        "for i in 1 2 3; do sh -c 'for j in 1 2 3; do sleep 1000 & done; wait' & done; touch /tmp/ready; wait",
    ),
    (
        "a child without environment that holds the output",
        false,
        "env -i setsid sleep 1000 & touch /tmp/ready; sleep 1000",
    ),
    ("a shell on a terminal with children", true, "sleep 1000 & sleep 1000 & touch /tmp/ready; wait"),
];

/// Command lines of all processes in the pod's container but its own.
fn left(pod: &Pod, node: &str) -> Vec<String> {
    let mut all = node::processes(node, &container_id(pod, "main"));
    all.retain(|args| args != "sleep 1000000");
    all
}

impl Lab {
    /// Starts a script and waits until it is under way.
    async fn begin(&self, pod: &str, script: &str, more: Value) -> String {
        let mut spec =
            json!({"target": {"podName": pod}, "command": ["sh", "-c", script], "terminationGracePeriodSeconds": 1});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let name = self.create(spec);
        wait_for("the command to be under way", async || (self.exec(pod, "test -e /tmp/ready").1 == 0).then_some(()))
            .await;
        name
    }

    fn cancel(&self, name: &str) {
        self.kubectl(&["patch", "execrequest", name, "--type=merge", "-p", r#"{"spec":{"cancel":true}}"#]);
    }
}

#[tokio::test]
async fn after_a_cancel_no_process_of_the_request_is_left() {
    let lab = Lab::new().await;
    for (index, (what, tty, script)) in STUBBORN.into_iter().enumerate() {
        let (name, node) = (format!("pod-{index}"), ["n1", "n2"][index % 2]);
        let pod = lab.pod(&name, node).await;
        let request = lab.begin(&name, script, json!({"tty": tty})).await;
        assert!(!left(&pod, node).is_empty(), "{what} runs");
        lab.cancel(&request);
        let done = lab.finished(&request).await;
        assert_eq!(done.reason(), "Canceled", "{what}: {:#?}", done.status);
        assert_eq!(done.status.phase.to_string(), "Failed");
        assert!(
            done.message().starts_with("the request was canceled: the command was ended with exit code 1"),
            "{what}: {}",
            done.message()
        );
        assert_eq!(left(&pod, node), Vec::<String>::new(), "{what}");
    }
}

#[tokio::test]
async fn after_the_active_deadline_no_process_of_the_request_is_left() {
    let lab = Lab::new().await;
    for (index, (what, tty, script)) in STUBBORN.into_iter().enumerate() {
        let (name, node) = (format!("pod-{index}"), ["n1", "n2"][index % 2]);
        let pod = lab.pod(&name, node).await;
        let request = lab.begin(&name, script, json!({"tty": tty, "activeDeadlineSeconds": 3})).await;
        let done = lab.finished(&request).await;
        assert_eq!(done.reason(), "DeadlineExceeded", "{what}: {:#?}", done.status);
        assert_eq!(left(&pod, node), Vec::<String>::new(), "{what}");
        let took =
            done.status.completion_time.as_ref().unwrap().0.duration_since(done.status.start_time.as_ref().unwrap().0);
        assert!(took.as_secs() >= 3 && took.as_secs() < 15, "{what}: {took}");
    }
}

#[tokio::test]
async fn after_its_deletion_no_process_of_the_request_is_left_and_the_object_is_gone_at_once() {
    let lab = Lab::new().await;
    for (index, (what, tty, script)) in STUBBORN.into_iter().enumerate() {
        let (name, node) = (format!("pod-{index}"), ["n1", "n2"][index % 2]);
        let pod = lab.pod(&name, node).await;
        let request = lab.begin(&name, script, json!({"tty": tty})).await;
        lab.requests().delete(&request, &DeleteParams::default()).await.expect("deleted");
        assert!(lab.requests().get_opt(&request).await.expect("an answer").is_none(), "{what}");
        wait_for(&format!("{what} to be ended"), async || left(&pod, node).is_empty().then_some(())).await;
    }
}

#[tokio::test]
async fn a_command_that_ends_well_on_sigterm_is_shown_with_its_code_and_still_has_failed() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let script = "trap 'echo told; exit 0' TERM; touch /tmp/ready; while true; do sleep 0.1; done";
    let request = lab.begin("web", script, json!({"terminationGracePeriodSeconds": 30})).await;
    lab.cancel(&request);
    let done = lab.finished(&request).await;
    done.ended_with(0);
    assert_eq!((done.reason(), done.status.phase.to_string().as_str()), ("Canceled", "Failed"));
    assert_eq!(done.stdout(), "told\n", "its last words are kept");
    assert!(done.status.output.as_ref().is_some_and(|output| output.complete));
}

#[tokio::test]
async fn what_another_command_or_the_container_itself_runs_is_not_touched() {
    let lab = Lab::new().await;
    let pod = lab.pod("web", "n1").await;
    let script = "touch /tmp/other; until [ -e /tmp/go ]; do sleep 0.1; done; exit 5";
    let other = lab.create(json!({"target": {"podName": "web"}, "command": ["sh", "-c", script]}));
    let request = lab.begin("web", "touch /tmp/ready; sleep 1000", json!({})).await;
    lab.cancel(&request);
    assert_eq!(lab.finished(&request).await.reason(), "Canceled");
    assert!(!left(&pod, "n1").is_empty(), "the other command goes on");
    assert_eq!(lab.exec("web", "touch /tmp/go").1, 0);
    lab.finished(&other).await.ended_with(5);
}

#[tokio::test]
async fn a_request_canceled_before_its_commit_never_starts_anything() {
    let lab = Lab::new().await;
    let pod = lab.pod("web", "n1").await;
    // Canceled from the first moment on.
    let spec = json!({"target": {"podName": "web"}, "command": ["touch", "/tmp/ran"], "cancel": true});
    lab.run(spec).await.never_ran("Canceled");
    // Canceled while it waits for a pod that is not ready.
    lab.create_pod(
        "late",
        json!({"nodeName": "n1", "containers": [{"name": "main", "image": "execlet.test/none:1",
        "imagePullPolicy": "Never", "command": ["true"]}]}),
        json!({}),
    )
    .await;
    let name = lab.create(json!({"target": {"podName": "late"}, "command": ["true"]}));
    lab.request_when(&name, "to wait", |s| s.conditions.iter().any(|c| c.reason.ends_with("NotRunning"))).await;
    lab.cancel(&name);
    lab.finished(&name).await.never_ran("Canceled");
    // Canceled as soon as it can be, again and again: whatever comes first, nothing runs after "never ran".
    // What started is gone, though nothing but its pipes tells a child from the container's own.
    for round in 0..20 {
        let script = format!("env -i setsid sleep 1000 & echo {round} >> /tmp/rounds; sleep 1000");
        let name = lab.create(
            json!({"target": {"podName": "web"}, "command": ["sh", "-c", script], "terminationGracePeriodSeconds": 0}),
        );
        lab.cancel(&name);
        let done = lab.finished(&name).await;
        assert_eq!(done.reason(), "Canceled");
        let ran = lab.exec("web", &format!("grep -x {round} /tmp/rounds")).1 == 0;
        assert!(!ran || done.condition("Started") == Some("True"), "{:#?}", done.status);
        wait_for("all that started to be ended", async || left(&pod, "n1").is_empty().then_some(())).await;
    }
    assert_eq!(lab.exec("web", "test -e /tmp/ran").1, 1);
}

#[tokio::test]
async fn cancel_cannot_be_taken_back_and_comes_too_late_for_what_has_finished() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let done = lab.sh("web", "exit 3").await;
    let name = done.request.metadata.name.as_deref().expect("a name");
    let patch = |value: bool| format!(r#"{{"spec":{{"cancel":{value}}}}}"#);
    let said = lab.kubectl_fails(&["patch", "execrequest", name, "--type=merge", "-p", &patch(true)]);
    assert!(said.contains("already finished: there is nothing left to cancel"), "{said}");

    let name = lab
        .begin(
            "web",
            "touch /tmp/ready; trap '' TERM; while true; do sleep 1; done",
            json!({"terminationGracePeriodSeconds": 5}),
        )
        .await;
    lab.cancel(&name);
    let said = lab.kubectl_fails(&["patch", "execrequest", &name, "--type=merge", "-p", &patch(false)]);
    assert!(said.contains("cancel cannot be undone"), "{said}");
    assert_eq!(lab.finished(&name).await.reason(), "Canceled");
}

#[tokio::test]
async fn a_pod_deleted_under_a_command_ends_it_and_says_so() {
    let lab = Lab::new().await;
    lab.pod("web", "n2").await;
    let name = lab.begin("web", "echo begun; touch /tmp/ready; sleep 1000", json!({})).await;
    lab.delete_pod("web").await;
    let done = lab.finished(&name).await;
    assert_eq!((done.reason(), done.status.exit_code), ("ContainerDied", Some(137)), "{:#?}", done.status);
    assert_eq!(done.stdout(), "begun\n");
}

/// There the engine never ends the stream of a command whose container has ended.
#[tokio::test]
async fn a_pod_that_shares_its_processes_ends_a_command_as_soon_and_says_so() {
    let lab = Lab::new().await;
    for (name, shared) in [("host", "hostPID"), ("pod", "shareProcessNamespace")] {
        lab.pod_of(name, json!({"nodeName": "n2", shared: true, "containers": [container("main")]})).await;
        let request = lab.begin(name, "echo begun; touch /tmp/ready; sleep 1000", json!({})).await;
        lab.delete_pod(name).await;
        let begun = Instant::now();
        let done = lab.finished(&request).await;
        // One that trusts nothing but the engine's word waits for a minute.
        assert!(begun.elapsed() < Duration::from_secs(45), "{shared}: {:?}", begun.elapsed());
        // The engine forgets it. Linux tells from 6.15 on.
        let reasons = ["ContainerDied", "OutcomeLost"];
        assert!(reasons.contains(&done.reason()), "{shared}: {:#?}", done.status);
        assert_eq!(done.stdout(), "begun\n");
    }
}

/// The shim is the parent of all that a container runs. Whoever stands by the container finds it dead.
#[tokio::test]
async fn a_command_whose_containers_shim_is_killed_ends_with_the_container() {
    let lab = Lab::new().await;
    for node in ["n1", "n2"] {
        let pod = lab.pod(node, node).await;
        let name = lab.begin(node, "touch /tmp/ready; sleep 1000", json!({})).await;
        let main = node::pid(node, &container_id(&pod, "main"));
        let status = fs::read_to_string(format!("/proc/{main}/status")).expect("its main process");
        let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent").trim();
        assert!(run("kill", &["-9", shim], "").status.success());
        let done = lab.soon(&name).await;
        // A Docker Engine forgets the exec before it says that the container has died.
        let reasons = ["ContainerDied", "OutcomeLost"];
        assert!(reasons.contains(&done.reason()), "{node}: {} {}", done.reason(), done.message());
        // Only the kernel may have seen how it ended: with what ends all of a container.
        let ended = done.status.exit_code.zip(done.status.exit_code_source);
        assert!(ended.is_none_or(|ended| ended == (137, ExitCodeSource::Kernel)), "{node}: {}", done.message());
    }
}

#[tokio::test]
async fn a_namespace_is_deleted_with_the_requests_that_run_in_it() {
    let lab = Lab::new().await;
    lab.pod("web", "n2").await;
    lab.begin("web", "touch /tmp/ready; sleep 1000", json!({})).await;
    let deleted = kubectl_raw(&["delete", "namespace", &lab.namespace, "--timeout=180s"]);
    assert!(deleted.status.success(), "{}", text(&deleted.stderr));
}

#[tokio::test]
async fn what_cannot_die_is_named_and_killed_as_soon_as_it_can_be() {
    let lab = Lab::new().await;
    let pod = lab.pod("web", "n1").await;
    let name = lab.begin("web", "touch /tmp/ready; sleep 1000", json!({"terminationGracePeriodSeconds": 0})).await;
    // Processes of a frozen container take no signal, not even SIGKILL.
    let frozen = Frozen::new("n1", container_id(&pod, "main"));
    lab.cancel(&name);
    let done = lab.finished(&name).await;
    assert_eq!(
        (done.reason(), done.status.phase.to_string().as_str()),
        ("KillFailed", "Unknown"),
        "{:#?}",
        done.status
    );
    assert!(done.message().contains("sleep (PID ") && done.message().contains("goes on killing"), "{}", done.message());
    drop(frozen);
    wait_for("the survivors to be killed", async || left(&pod, "n1").is_empty().then_some(())).await;
    let again = lab.requests().get(&name).await.expect("the request").status.expect("a status");
    assert_eq!(again, done.status, "the status is final");
}
