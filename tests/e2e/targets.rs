//! Which pod, which container; and those that cannot be.

use serde_json::json;

use crate::{
    lab::{IMAGE, Lab, container, container_id},
    node::Frozen,
};

fn in_container(pod: &str, name: &str, script: &str) -> serde_json::Value {
    json!({"target": {"podName": pod, "container": name}, "command": ["sh", "-c", script]})
}

#[tokio::test]
async fn a_pod_on_each_node_is_reached() {
    let lab = Lab::new().await;
    for node in ["n1", "n2"] {
        lab.pod(node, node).await;
        let done = lab.sh(node, "hostname").await;
        assert_eq!((done.stdout(), done.status.node_name.as_deref()), (format!("{node}\n").as_str(), Some(node)));
    }
}

#[tokio::test]
async fn each_container_of_a_pod_is_reached_by_its_name() {
    let lab = Lab::new().await;
    let named = |name: &str| {
        let mut it = container(name);
        it["env"] = json!([{"name": "ME", "value": name}]);
        it
    };
    lab.pod_of("web", json!({"nodeName": "n1", "containers": [named("app"), named("log")]})).await;
    for name in ["app", "log"] {
        let done = lab.run(in_container("web", name, "echo $ME")).await;
        assert_eq!((done.stdout(), done.status.container.as_deref()), (format!("{name}\n").as_str(), Some(name)));
    }
}

#[tokio::test]
async fn the_default_container_is_the_one_that_kubectl_takes() {
    let lab = Lab::new().await;
    let named = |name: &str| {
        let mut it = container(name);
        it["env"] = json!([{"name": "ME", "value": name}]);
        it
    };
    let spec = json!({"nodeName": "n1", "containers": [named("first"), named("second")]});
    let annotation = "kubectl.kubernetes.io/default-container";
    lab.create_pod("plain", spec.clone(), json!({})).await;
    lab.create_pod("annotated", spec.clone(), json!({annotation: "second"})).await;
    lab.create_pod("wrong", spec, json!({annotation: "no-such"})).await;
    lab.ready("wrong").await;
    assert_eq!(lab.kubectl_exec("wrong", "true"), (vec![], 1), "kubectl refuses it");
    lab.sh("wrong", "true").await.never_ran("ContainerNotFound");
    for pod in ["plain", "annotated"] {
        lab.ready(pod).await;
        let done = lab.sh(pod, "echo $ME").await;
        let (of_kubectl, _) = lab.kubectl_exec(pod, "echo $ME");
        assert_eq!(done.stdout().as_bytes(), of_kubectl, "{pod}");
    }
}

#[tokio::test]
async fn a_sidecar_is_reached_and_an_init_container_that_is_done_is_refused() {
    let lab = Lab::new().await;
    let mut sidecar = container("mesh");
    sidecar["restartPolicy"] = json!("Always");
    let setup = json!({"name": "setup", "image": IMAGE, "command": ["true"]});
    lab.pod_of("web", json!({"nodeName": "n2", "initContainers": [setup, sidecar], "containers": [container("app")]}))
        .await;
    lab.run(in_container("web", "mesh", "exit 5")).await.ended_with(5);
    let done = lab.run(in_container("web", "setup", "exit 5")).await;
    done.never_ran("ContainerNotRunning");
    assert!(done.message().contains("will not run again"), "{}", done.message());
}

#[tokio::test]
async fn an_ephemeral_container_is_reached_while_it_runs_and_refused_after() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let debug = |name: &str, command: &[&str]| {
        let image = format!("--image={IMAGE}");
        let args = ["debug", "web", &image, "--image-pull-policy=IfNotPresent", "-c", name, "--"];
        lab.kubectl(&[&args[..], command].concat());
    };
    debug("lives", &["sleep", "100000"]);
    debug("ended", &["true"]);
    lab.pod_when("web", "to have its ephemeral containers", |pod| {
        let all = pod.status.as_ref().and_then(|s| s.ephemeral_container_statuses.clone()).unwrap_or_default();
        let state = |name: &str| all.iter().find(|s| s.name == name).and_then(|s| s.state.clone()).unwrap_or_default();
        state("lives").running.is_some() && state("ended").terminated.is_some()
    })
    .await;
    lab.run(in_container("web", "lives", "exit 5")).await.ended_with(5);
    lab.run(in_container("web", "ended", "exit 5")).await.never_ran("ContainerNotRunning");
}

#[tokio::test]
async fn what_is_not_there_is_refused_at_once_and_named() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let done = lab.sh("no-such-pod", "true").await;
    done.never_ran("PodNotFound");
    assert!(done.message().contains("pod no-such-pod not found in namespace"), "{}", done.message());
    let done = lab.run(in_container("web", "db", "true")).await;
    done.never_ran("ContainerNotFound");
    assert_eq!(done.message(), "container db not found in pod web: it has main");
    let done = lab.run(json!({"target": {"podName": "web", "podUID": "another"}, "command": ["true"]})).await;
    done.never_ran("PodReplaced");
}

#[tokio::test]
async fn a_completed_pod_is_refused() {
    let lab = Lab::new().await;
    let spec = json!({"nodeName": "n1", "restartPolicy": "Never", "containers": [{"name": "main", "image": IMAGE, "command": ["true"]}]});
    lab.create_pod("job", spec, json!({})).await;
    lab.pod_when("job", "to complete", |pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Succeeded"))
        .await;
    let done = lab.sh("job", "true").await;
    done.never_ran("ContainerNotRunning");
    assert!(done.message().contains("completed pod"), "{}", done.message());
}

#[tokio::test]
async fn a_paused_container_is_refused() {
    let lab = Lab::new().await;
    for node in ["n1", "n2"] {
        let frozen = Frozen::new(node, container_id(&lab.pod(node, node).await, "main"));
        let done = lab.sh(node, "true").await;
        drop(frozen);
        done.never_ran("ContainerNotRunning");
        assert!(done.message().contains("is paused"), "{}", done.message());
    }
}

#[tokio::test]
async fn a_request_waits_for_its_pod_to_run_and_then_runs() {
    let lab = Lab::new().await;
    // The init container ends when it is told to.
    let setup =
        json!({"name": "setup", "image": IMAGE, "command": ["sh", "-c", "until [ -e /tmp/go ]; do sleep 0.1; done"]});
    lab.create_pod(
        "web",
        json!({"nodeName": "n1", "initContainers": [setup], "containers": [container("main")]}),
        json!({}),
    )
    .await;
    let name = lab.create(json!({"target": {"podName": "web"}, "command": ["sh", "-c", "exit 7"]}));
    let waiting = lab
        .request_when(&name, "to wait", |s| {
            s.conditions.iter().any(|c| c.type_ == "Bound" && c.reason == "PodNotRunning")
        })
        .await;
    assert_eq!(waiting.status.expect("a status").phase.to_string(), "Pending");
    lab.run(in_container("web", "setup", "touch /tmp/go")).await.ended_with(0);
    lab.finished(&name).await.ended_with(7);
}

#[tokio::test]
async fn a_request_that_waits_too_long_never_runs() {
    let lab = Lab::new().await;
    lab.create_pod("never", json!({"nodeSelector": {"no": "where"}, "containers": [container("main")]}), json!({}))
        .await;
    let done =
        lab.run(json!({"target": {"podName": "never"}, "command": ["true"], "startingDeadlineSeconds": 2})).await;
    done.never_ran("StartingDeadlineExceeded");
    assert!(done.message().contains("startingDeadlineSeconds=2: PodNotRunning"), "{}", done.message());
}
