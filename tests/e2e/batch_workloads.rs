//! Batches of workloads whose pods come and go between the plan and the release.

use serde_json::{Value, json};

use crate::{
    batch_lab::Seen,
    lab::{Lab, container, kubectl_with, text, wait_for},
};

const NOTE: [&str; 3] = ["sh", "-c", "echo ran >> /tmp/runs"];

fn workload(kind: &str, name: &str) -> Value {
    let labels = json!({"app": name});
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container("main")]});
    let mut object = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": {
        "replicas": 2, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}}});
    if kind == "StatefulSet" {
        object["spec"]["serviceName"] = json!(name);
        object["spec"]["podManagementPolicy"] = json!("Parallel");
    }
    object
}

impl Lab {
    fn rolled_out(&self, workload: &str) {
        self.kubectl(&["rollout", "status", workload, "--timeout=180s"]);
    }

    /// Names and UIDs of the pods with this label that are not on their way out.
    fn living(&self, app: &str) -> Vec<(String, String)> {
        let list = self.kubectl(&["get", "pods", "-l", &format!("app={app}"), "-o", "json"]);
        let list: Value = serde_json::from_str(&list).expect("JSON");
        let living = list["items"].as_array().expect("a list").iter();
        let field = |pod: &Value, name: &str| pod["metadata"][name].as_str().expect("set").to_owned();
        living
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .map(|pod| (field(pod, "name"), field(pod, "uid")))
            .collect()
    }

    /// Why requests of a batch never ran, by index. Each says of which pod.
    async fn reasons(&self, seen: &Seen) -> Vec<(i32, String)> {
        let mut reasons = Vec::new();
        for (index, child) in self.children(seen).await {
            let conditions = child.status.expect("a status").conditions;
            let of = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind).expect("a condition");
            if of("Started").status == "False" {
                assert!(of("Finished").message.contains(&child.spec.target.pod_name), "{conditions:#?}");
                reasons.push((index, of("Finished").reason.clone()));
            }
        }
        reasons
    }
}

#[tokio::test]
async fn pods_that_are_replaced_rolled_or_added_after_the_plan_are_not_touched() {
    let lab = Lab::new().await;
    let both = json!({"apiVersion": "v1", "kind": "List", "items": [workload("StatefulSet", "db"), workload("Deployment", "web")]});
    wait_for("the namespace to take workloads", async || {
        kubectl_with(&["-n", &lab.namespace, "apply", "-f", "-"], &both.to_string()).status.success().then_some(())
    })
    .await;
    lab.rolled_out("statefulset/db");
    lab.rolled_out("deployment/web");
    let preview = async |targets: Value| {
        let name = lab.batch(json!({"targets": targets, "template": {"spec": {"command": NOTE}}, "releaseLimit": 0,
            "parallelism": 2, "failurePolicy": {"maxFailed": "100%"}}));
        assert_eq!(lab.batch_paused(&name, 0).await.total(), 2);
        name
    };
    let of_set = preview(json!({"workload": {"kind": "StatefulSet", "name": "db"}})).await;
    let of_deployment = preview(json!({"workload": {"kind": "Deployment", "name": "web"}})).await;
    let by_label = preview(json!({"selector": {"matchLabels": {"app": "web"}}})).await;
    let planned = lab.living("web");
    let first = lab.ready("db-0").await.metadata.uid;

    lab.kubectl(&["delete", "pod", "db-0"]);
    lab.pod_when("db-0", "to be another", |pod| pod.metadata.uid != first).await;
    lab.ready("db-0").await;
    lab.kubectl(&["scale", "statefulset/db", "deployment/web", "--replicas=3"]);
    lab.kubectl(&["rollout", "restart", "deployment/web"]);
    lab.rolled_out("statefulset/db");
    lab.rolled_out("deployment/web");
    wait_for("the planned pods to be gone", async || {
        let names = lab.kubectl(&["get", "pods", "-o", "name"]);
        planned.iter().all(|(name, _)| !names.contains(name)).then_some(())
    })
    .await;

    for (name, counts, reasons) in [
        (&of_set, [1, 0, 1, 0, 0], vec![(0, "PodReplaced")]),
        (&of_deployment, [0, 0, 2, 0, 0], vec![(0, "PodNotFound"), (1, "PodNotFound")]),
        (&by_label, [0, 0, 2, 0, 0], vec![(0, "PodNotFound"), (1, "PodNotFound")]),
    ] {
        lab.patch_batch(name, json!({"releaseLimit": "100%"})).await;
        let done = lab.batch_ended(name).await;
        done.ended("Failed", "TargetsFailed", counts);
        let wanted: Vec<(i32, String)> =
            reasons.into_iter().map(|(index, reason)| (index, reason.to_owned())).collect();
        assert_eq!(lab.reasons(&done).await, wanted);
        let pods: Vec<String> =
            lab.children(&done).await.into_values().map(|child| child.spec.target.pod_name).collect();
        assert_eq!(pods.len(), 2, "none is added: {pods:?}");
    }
    let mut all = lab.living("db");
    all.extend(lab.living("web"));
    assert_eq!(all.len(), 6, "{all:?}");
    for (pod, _) in all {
        assert_eq!(lab.runs(&pod), usize::from(pod == "db-1"), "{pod}");
    }
    assert_eq!(text(&lab.exec("db-1", "cat /tmp/runs").0), "ran\n");
}
