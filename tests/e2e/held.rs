//! Requests that were deleted while somebody's finalizer holds them: they are there, and so are those who wait for them.

use serde_json::json;

use crate::{
    clients::execlet,
    follower::Follower,
    lab::{Done, Lab, text, wait_for},
};

const FINALIZER: &str = r#"{"metadata":{"finalizers":["example.com/holds-it"]}}"#;

/// Deletes a request that is held, and gives what is said of its end.
async fn deleted(lab: &Lab, name: &str) -> Done {
    lab.kubectl(&["delete", "xr", name, "--wait=false"]);
    let done = lab.soon(name).await;
    assert_eq!((done.reason(), done.status.phase.to_string().as_str()), ("Deleted", "Failed"), "{}", done.message());
    assert!(done.message().contains("the request was deleted"), "{}", done.message());
    assert!(done.request.metadata.deletion_timestamp.is_some(), "it is held");
    done
}

fn hold(lab: &Lab, name: &str) {
    lab.kubectl(&["patch", "xr", name, "--type=merge", "-p", FINALIZER]);
}

async fn let_go(lab: &Lab, name: &str) {
    lab.kubectl(&["patch", "xr", name, "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]);
    wait_for("it to be gone", async || lab.requests().get_opt(name).await.expect("an answer").is_none().then_some(()))
        .await;
}

#[tokio::test]
async fn a_deleted_request_that_a_finalizer_holds_finishes_and_ends_those_who_wait() {
    let lab = Lab::new().await;
    let pod = json!({"nodeSelector": {"example.com/no-such": "node"}, "containers": [crate::lab::container("main")]});
    lab.create_pod("pending", pod, json!({})).await;
    lab.pod("web", "n1").await;

    // Nobody can bind it.
    let pending = lab.create(json!({"target": {"podName": "pending"}, "command": ["true"]}));
    lab.request_when(&pending, "to wait", |s| s.conditions.iter().any(|c| c.reason == "PodNotRunning")).await;
    // Bound, and waiting for its input.
    let bound =
        lab.create(json!({"target": {"podName": "web"}, "command": ["touch", "/tmp/ran"], "stdin": {"attach": {}}}));
    lab.request_when(&bound, "to be bound", |s| s.node_name.is_some()).await;
    for name in [&pending, &bound] {
        hold(&lab, name);
        let waits = Follower::start(&lab, &["wait", name]);
        deleted(&lab, name).await.never_ran("Deleted");
        let heard = waits.end().await;
        let said = text(&heard.stderr);
        assert!(heard.code == 121 && said.contains("the request was deleted"), "{}: {said}", heard.code);
        let_go(&lab, name).await;
    }
    assert_ne!(lab.exec("web", "test -e /tmp/ran").1, 0, "it never ran");

    let script = "trap 'exit 7' TERM; echo line; while :; do sleep 0.1; done";
    let running = lab.create(json!({"target": {"podName": "web"}, "command": ["sh", "-c", script]}));
    lab.request_when(&running, "to run", |s| s.exec_id.is_some()).await;
    hold(&lab, &running);
    let all =
        [&["wait"][..], &["attach"], &["logs", "-f"]].map(|verb| Follower::start(&lab, &[verb, &[&running]].concat()));
    for shown in &all[1..] {
        shown.shows_more_than(0).await;
    }
    let done = deleted(&lab, &running).await;
    assert_eq!((done.condition("Started"), done.status.exit_code), (Some("True"), Some(7)));
    for (client, code) in all.into_iter().zip([7, 7, 0]) {
        let heard = client.end().await;
        let said = text(&heard.stderr);
        // Of logs, the code is not the command's.
        assert!(
            heard.code == code && (code == 0 || said.contains("the request was deleted")),
            "{}: {said}",
            heard.code
        );
    }
    wait_for("an Event to say so", async || {
        lab.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"]).contains("Deleted").then_some(())
    })
    .await;
    // Whoever comes later is told too.
    let heard = execlet(&lab, &["wait", &running]).await;
    assert_eq!(heard.code, 7, "{}", text(&heard.stderr));
    let_go(&lab, &running).await;
    let left = text(&lab.exec("web", "ps").0);
    assert!(left.contains("PID") && !left.contains("exit 7"), "nothing of it is left: {left}");

    // Foreground deletion holds it by a finalizer of Kubernetes' own, if somebody depends on it.
    let owner = lab.create(json!({"target": {"podName": "web"}, "command": ["sleep", "600"]}));
    let uid = lab.request_when(&owner, "to run", |s| s.exec_id.is_some()).await.metadata.uid.expect("a UID");
    let dependent = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dependent",
        "namespace": lab.namespace, "finalizers": ["example.com/holds-it"], "ownerReferences": [{
        "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest", "name": owner, "uid": uid, "blockOwnerDeletion": true}]}});
    let created = crate::lab::kubectl_with(&["create", "-f", "-"], &dependent.to_string());
    assert!(created.status.success(), "{}", text(&created.stderr));
    lab.kubectl(&["delete", "xr", &owner, "--cascade=foreground", "--wait=false"]);
    assert_eq!(lab.soon(&owner).await.reason(), "Deleted");
    lab.kubectl(&["patch", "configmap", "dependent", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]);
    wait_for("it to be gone", async || {
        lab.requests().get_opt(&owner).await.expect("an answer").is_none().then_some(())
    })
    .await;
}
