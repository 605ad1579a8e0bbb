//! Many at once.

use std::collections::BTreeMap;

use kube::api::ListParams;
use serde_json::json;

use crate::{
    lab::{Lab, kubectl_with, text, wait_for},
    subject::{Subject, a_user, bind},
};

const REQUESTS: usize = 200;
/// More than a node may run at once.
const LONG: usize = 80;

#[tokio::test]
async fn long_commands_of_one_user_leave_room_for_another_on_the_same_pod() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let of = |name: &str, command: &[&str], within: i32| {
        json!({
            "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
            "metadata": {"name": name, "namespace": lab.namespace},
            "spec": {
                "target": {"podName": "web"}, "command": command, "startingDeadlineSeconds": within,
                "terminationGracePeriodSeconds": 0,
            },
        })
    };
    let [ann, bob] = ["ann", "bob"].map(|name| Subject::User { name: name.to_owned(), groups: Vec::new() });
    for (name, subject) in [("ann", &ann), ("bob", &bob)] {
        bind(&lab.namespace, name, &json!({"kind": "ClusterRole", "name": "edit"}), &a_user(name));
        wait_for("the rights to be seen", async || {
            subject
                .kubectl(&["auth", "can-i", "create", "execrequests", "-n", &lab.namespace], "")
                .status
                .success()
                .then_some(())
        })
        .await;
    }
    let long: Vec<_> = (0..LONG).map(|n| of(&format!("long{n}"), &["sleep", "600"], 600)).collect();
    ann.succeeds(&["create", "-f", "-"], &json!({"apiVersion": "v1", "kind": "List", "items": long}).to_string());
    let running = async || {
        let running = lab.requests().list(&ListParams::default().fields("status.phase=Running")).await.ok()?;
        (running.items.len() >= 24).then_some(running.items.len())
    };
    assert_eq!(wait_for("all to run that may", running).await, 24);

    ann.succeeds(&["create", "-f", "-"], &of("late", &["true"], 15).to_string());
    let late = lab.finished("late").await;
    late.never_ran("StartingDeadlineExceeded");
    bob.succeeds(&["create", "-f", "-"], &of("other", &["true"], 60).to_string());
    lab.soon("other").await.ended_with(0);
    let full = "user ann has 24 commands running in its container, and may have 24 (--reserved-percent)";
    assert!(late.message().ends_with(full), "{}", late.message());
}

#[tokio::test]
async fn two_hundred_requests_at_once_each_run_once_and_end_with_their_own_code() {
    let lab = Lab::new().await;
    for node in ["n1", "n2"] {
        lab.pod(node, node).await;
    }
    let items: Vec<_> = (0..REQUESTS)
        .map(|n| {
            json!({
                "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
                "metadata": {"name": format!("r{n}"), "namespace": lab.namespace},
                "spec": {
                    "target": {"podName": format!("n{}", n % 2 + 1)},
                    "command": ["sh", "-c", format!("echo r{n} >> /tmp/runs; exit {}", n % 256)],
                    "startingDeadlineSeconds": 300,
                },
            })
        })
        .collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let created = kubectl_with(&["create", "-f", "-"], &list.to_string());
    assert!(created.status.success(), "{}", text(&created.stderr));

    let requests = lab.requests();
    wait_for("all requests to finish", async || {
        let unfinished = requests.list(&ListParams::default().fields("status.completionTime=").limit(1)).await.ok()?;
        unfinished.items.is_empty().then_some(())
    })
    .await;
    for request in requests.list(&ListParams::default()).await.expect("a list") {
        let name = request.metadata.name.expect("a name");
        let number: i32 = name[1..].parse().expect("a number");
        assert_eq!(request.status.and_then(|s| s.exit_code), Some(number % 256), "{name}");
    }
    let mut runs = BTreeMap::new();
    for pod in ["n1", "n2"] {
        let (lines, code) = lab.exec(pod, "cat /tmp/runs");
        assert_eq!(code, 0);
        for line in text(&lines).lines() {
            *runs.entry(line.to_owned()).or_insert(0) += 1;
        }
    }
    assert_eq!(runs.len(), REQUESTS);
    assert!(runs.values().all(|count| *count == 1), "{runs:?}");
}
