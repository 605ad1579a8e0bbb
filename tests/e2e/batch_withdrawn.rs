//! A requester who may exec into one of the pods no longer, while the batch is held.

use execlet::core::audit::event::Verb;
use serde_json::{Value, json};

use crate::{
    audit::of_managers,
    batch_rights::{CREATE, change},
    lab::{Lab, wait_for},
    subject::{Subject, a_user, bind, exec_rules, grant},
};

const PODS: [&str; 5] = ["web-0", "web-1", "web-2", "web-3", "web-4"];

/// Alice may exec into a pod, by a role for it alone.
async fn may(lab: &Lab, alice: &Subject, pod: &str) {
    grant(&lab.namespace, &format!("exec-{pod}"), exec_rules(&[pod]), &a_user("alice"));
    wait_for("the role to count", async || alice.can_named(&lab.namespace, "create", "pods/exec", pod).then_some(()))
        .await;
}

async fn may_no_longer(lab: &Lab, alice: &Subject, pod: &str) {
    lab.kubectl(&["delete", "rolebinding", &format!("exec-{pod}")]);
    wait_for("the role not to count any more", async || {
        (!alice.can_named(&lab.namespace, "create", "pods/exec", pod)).then_some(())
    })
    .await;
}

fn batch(lab: &Lab, name: &str, on_forbidden: &str) -> String {
    let pods: Vec<Value> = PODS.iter().map(|pod| json!({"name": pod})).collect();
    let command = ["sh", "-c", &format!("echo {name} >> /tmp/runs")];
    json!({"apiVersion": "execlet.dev/v1alpha1", "kind": "ExecBatch",
        "metadata": {"name": name, "namespace": lab.namespace},
        "spec": {"targets": {"pods": pods, "onForbidden": on_forbidden}, "template": {"spec": {"command": command}},
            "releaseLimit": 1, "parallelism": 5, "failurePolicy": {"maxFailed": "100%"}}})
    .to_string()
}

#[tokio::test]
async fn a_right_that_is_withdrawn_while_a_batch_is_held_keeps_that_pod_alone_from_being_touched() {
    let lab = Lab::new().await;
    lab.pods_named("web", PODS.len()).await;
    bind(&lab.namespace, "requester", &json!({"kind": "ClusterRole", "name": "execlet-requester"}), &a_user("alice"));
    let alice = Subject::user("alice");
    for pod in PODS {
        may(&lab, &alice, pod).await;
    }
    // With Skip one of them is forbidden from the beginning.
    for (on_forbidden, forbidden, counts) in
        [("Refuse", None, [4, 0, 1, 0, 0]), ("Skip", Some("web-4"), [3, 0, 1, 0, 1])]
    {
        let name = on_forbidden.to_lowercase();
        if let Some(pod) = forbidden {
            may_no_longer(&lab, &alice, pod).await;
        }
        alice.succeeds(&CREATE, &batch(&lab, &name, on_forbidden));
        let held = lab.batch_paused(&name, 1).await;
        assert_eq!(held.total(), 5);
        may_no_longer(&lab, &alice, "web-2").await;
        change(&lab, &alice, &name, &json!({"releaseLimit": "100%"}), &[]).expect("it is her batch");
        let done = lab.batch_ended(&name).await;
        done.ended("Failed", "TargetsFailed", counts);
        assert_eq!((done.status.not_run.indexes.as_str(), done.status.skipped.count), ("2", counts[4]));
        let children = lab.children(&done).await;
        for index in (0..5).filter(|index| *index == 2 || (*index == 4 && forbidden.is_some())) {
            let child = lab.finished(children[&index].metadata.name.as_deref().expect("a name")).await;
            child.never_ran("Forbidden");
            let verbs: Vec<Verb> = of_managers(&child).iter().map(|event| event.verb).collect();
            assert_eq!(verbs, [Verb::Denied], "{on_forbidden}: index {index} is on record");
        }
        may(&lab, &alice, "web-2").await;
    }
    // What is refused as a whole tells how many, and runs nowhere.
    alice.succeeds(&CREATE, &batch(&lab, "whole", "Refuse"));
    let refused = lab.batch_ended("whole").await;
    assert_eq!((refused.phase().as_str(), refused.reason(), refused.counts()), ("Failed", "Forbidden", [0; 5]));
    let words = [r#"User "alice" cannot create resource "pods/exec""#, r#"for "web-4" (1 of 5 targets)"#];
    assert!(words.iter().all(|words| refused.message().contains(words)), "{}", refused.message());
    assert!(lab.children(&refused).await.is_empty());
    let ran: Vec<String> = PODS.iter().map(|pod| lab.lines(pod)).collect();
    assert_eq!(ran, ["refuse skip", "refuse skip", "", "refuse skip", "refuse"]);
}

impl Lab {
    /// What commands have left in `/tmp/runs` of a pod.
    fn lines(&self, pod: &str) -> String {
        let (lines, code) = self.exec(pod, "cat /tmp/runs 2>/dev/null || true");
        assert_eq!(code, 0, "{pod}");
        crate::lab::text(&lines).lines().collect::<Vec<_>>().join(" ")
    }
}
