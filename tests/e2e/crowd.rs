//! Many at once.

use std::collections::BTreeMap;

use kube::api::ListParams;
use serde_json::json;

use crate::lab::{Lab, kubectl_with, text, wait_for};

const REQUESTS: usize = 200;

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
