//! Tests that disturb the installation, and so run alone.

use serde_json::json;

use crate::{
    agents::{self, rolled_out},
    chart::NoManagers,
    lab::{Lab, NAMESPACE, container_id, kubectl, kubectl_with, text, unique, wait_for},
    leading::{leader, managers_rolled_out},
    node::{self, Kind},
    subject::Subject,
};

const CRD: &str = "execrequests.execlet.dev";

fn agent_on(node: &str) -> String {
    let node = format!("spec.nodeName={node}");
    let args = [
        "get",
        "pods",
        "-n",
        NAMESPACE,
        "-l",
        "app.kubernetes.io/component=agent",
        "--field-selector",
        &node,
        "-o",
        "name",
    ];
    kubectl(&args).trim().to_owned()
}

/// Takes the agent off a node, and puts it back when dropped.
struct WithoutAgent(&'static str);

impl WithoutAgent {
    async fn on(node: &'static str) -> Self {
        kubectl(&["label", "node", node, "execlet.test/agent=off", "--overwrite"]);
        let affinity = json!({"spec": {"template": {"spec": {"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "execlet.test/agent", "operator": "NotIn", "values": ["off"]}]}
            ]}
        }}}}}});
        let it = Self(node);
        patch_agents(&affinity);
        wait_for("the agent to be told to stop", async || {
            let path = "jsonpath={.metadata.deletionTimestamp}";
            let agent = agent_on(node);
            (agent.is_empty()
                || !kubectl(&["get", "-n", NAMESPACE, &agent, "--ignore-not-found", "-o", path]).is_empty())
            .then_some(())
        })
        .await;
        // It would go on with its commands for as long as its grace period allows.
        agents::kill(node);
        wait_for("the agent to be gone", async || agent_on(node).is_empty().then_some(())).await;
        rolled_out();
        it
    }

    async fn end(self) {
        let node = self.0;
        drop(self);
        wait_for("the agent to be back", async || (!agent_on(node).is_empty()).then_some(())).await;
        rolled_out();
        agents::ready(node).await;
    }
}

impl Drop for WithoutAgent {
    fn drop(&mut self) {
        patch_agents(&json!({"spec": {"template": {"spec": {"affinity": null}}}}));
        kubectl(&["label", "node", self.0, "execlet.test/agent-"]);
    }
}

fn patch_agents(patch: &serde_json::Value) {
    kubectl(&["patch", "daemonset", "execlet-agent", "-n", NAMESPACE, "--type=merge", "-p", &patch.to_string()]);
}

#[tokio::test]
async fn a_pod_replaced_under_its_name_between_bind_and_start_is_never_touched() {
    let lab = Lab::alone().await;
    lab.pod("web", "n2").await;
    let without = WithoutAgent::on("n2").await;
    // The agent's Lease is still fresh: the manager binds.
    let name = lab.create(
        json!({"target": {"podName": "web"}, "command": ["touch", "/tmp/ran"], "startingDeadlineSeconds": 300}),
    );
    lab.request_when(&name, "to be bound", |s| s.node_name.as_deref() == Some("n2")).await;
    lab.delete_pod("web").await;
    lab.pod("web", "n2").await;
    without.end().await;
    let done = lab.finished(&name).await;
    done.never_ran("PodReplaced");
    assert_eq!(lab.exec("web", "test -e /tmp/ran").1, 1, "nothing ran in the new pod");
}

#[tokio::test]
async fn a_node_without_a_live_agent_leaves_a_request_pending_until_its_deadline() {
    let lab = Lab::alone().await;
    lab.pod("web", "n2").await;
    let without = WithoutAgent::on("n2").await;
    kubectl(&["delete", "lease", "execlet-agent.n2", "-n", NAMESPACE]);
    let name = lab.create(json!({"target": {"podName": "web"}, "command": ["true"], "startingDeadlineSeconds": 5}));
    lab.request_when(&name, "to wait for the agent", |s| s.conditions.iter().any(|c| c.reason == "AgentNotReady"))
        .await;
    let done = lab.finished(&name).await;
    without.end().await;
    done.never_ran("StartingDeadlineExceeded");
    assert!(done.message().contains("no execlet agent runs on node n2"), "{}", done.message());
}

#[tokio::test]
async fn an_agent_that_is_killed_while_a_command_runs_does_not_run_it_again_and_tells_its_code() {
    let lab = Lab::alone().await;
    lab.pod("web", "n1").await;
    let script = "echo ran >> /tmp/runs; echo before; until [ -e /tmp/go ]; do sleep 0.1; done; exit 9";
    let name = lab.create(json!({"target": {"podName": "web"}, "command": ["sh", "-c", script]}));
    wait_for("the command to run", async || (lab.exec("web", "test -e /tmp/runs").1 == 0).then_some(())).await;
    agents::restart("n1").await;
    assert_eq!(lab.exec("web", "touch /tmp/go").1, 0);
    let done = lab.soon(&name).await;
    done.ended_with(9);
    assert_eq!(lab.exec("web", "cat /tmp/runs").0, b"ran\n");
    let output = done.status.output.as_ref().expect("output");
    // containerd keeps what no agent reads.
    let expected = if node::kind("n1") == Kind::Containerd { (true, None) } else { (false, Some("StreamLost")) };
    assert_eq!((output.complete, output.incomplete_reason.as_deref()), expected);
    assert_eq!(done.stdout(), "before\n", "what was received before is kept");
}

#[tokio::test]
async fn a_request_that_finished_while_its_agent_was_away_gets_its_true_code() {
    let lab = Lab::alone().await;
    lab.pod("web", "n2").await;
    let script = "echo ran >> /tmp/runs; until [ -e /tmp/go ]; do sleep 0.1; done; exit 11";
    let name = lab.create(json!({"target": {"podName": "web"}, "command": ["sh", "-c", script]}));
    wait_for("the command to run", async || (lab.exec("web", "test -e /tmp/runs").1 == 0).then_some(())).await;
    let without = WithoutAgent::on("n2").await;
    assert_eq!(lab.exec("web", "touch /tmp/go").1, 0);
    without.end().await;
    let done = lab.soon(&name).await;
    done.ended_with(11);
    assert_eq!(lab.exec("web", "cat /tmp/runs").0, b"ran\n");
}

#[tokio::test]
async fn a_container_restarted_between_bind_and_start_is_bound_anew_by_nobody() {
    let lab = Lab::alone().await;
    let id = container_id(&lab.pod("web", "n2").await, "main");
    let without = WithoutAgent::on("n2").await;
    let name = lab.create(json!({"target": {"podName": "web"}, "command": ["true"], "startingDeadlineSeconds": 300}));
    lab.request_when(&name, "to be bound", |s| s.node_name.as_deref() == Some("n2")).await;
    node::kill("n2", &id);
    lab.pod_when("web", "to have a restarted container", |pod| {
        let all = pod.status.as_ref().and_then(|s| s.container_statuses.clone()).unwrap_or_default();
        all.iter().any(|c| c.restart_count > 0 && c.ready)
    })
    .await;
    without.end().await;
    // The same pod, and nothing was prepared in the container that died: the request may run.
    lab.finished(&name).await.ended_with(0);
}

/// Loosens the schema of the definition, and tightens it again when dropped.
struct LooseSchema {
    tight: String,
}

impl LooseSchema {
    async fn new(lab: &Lab) -> Self {
        let mut crd: serde_json::Value = serde_json::from_str(&kubectl(&["get", "crd", CRD, "-o", "json"])).unwrap();
        crd.as_object_mut().unwrap().remove("status");
        let meta = crd["metadata"].take();
        crd["metadata"] = json!({"name": CRD, "labels": meta["labels"], "annotations": meta["annotations"]});
        let it = Self { tight: crd.to_string() };
        let tty = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/tty").unwrap();
        *tty = json!({"x-kubernetes-int-or-string": true});
        Self::apply(&crd.to_string());
        wait_for("the loose schema to be served", async || {
            let spec = json!({"target": {"podName": "web"}, "command": ["true"], "tty": "often"});
            let request = json!({"apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
                "metadata": {"name": "try", "namespace": lab.namespace}, "spec": spec});
            let tried =
                kubectl_with(&["create", "--validate=false", "--dry-run=server", "-f", "-"], &request.to_string());
            tried.status.success().then_some(())
        })
        .await;
        it
    }

    /// As Helm applies it, so that it stays Helm's alone.
    fn apply(crd: &str) {
        let args = ["apply", "--server-side", "--force-conflicts", "--field-manager=helm", "-f", "-"];
        let done = kubectl_with(&args, crd);
        assert!(done.status.success(), "the definition could not be changed: {}", text(&done.stderr));
    }
}

impl Drop for LooseSchema {
    fn drop(&mut self) {
        Self::apply(&self.tight);
    }
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_refused_and_does_not_stop_the_others() {
    let lab = Lab::alone().await;
    lab.pod("web", "n1").await;
    let unreadable = |name: &str, status: serde_json::Value| {
        let request = json!({"apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
            "metadata": {"name": name, "namespace": lab.namespace},
            "spec": {"target": {"podName": "web"}, "command": ["true"], "tty": "often"}});
        let created = kubectl_with(&["create", "--validate=false", "-f", "-"], &request.to_string());
        assert!(created.status.success(), "{}", text(&created.stderr));
        if !status.is_null() {
            // Nobody else writes status.
            let manager = Subject::user(&format!("system:serviceaccount:{NAMESPACE}:execlet-manager"));
            let written = manager.write_status(&lab, name, &status, false);
            assert!(written.status.success(), "{}", text(&written.stderr));
        }
    };
    let loose = LooseSchema::new(&lab).await;
    let agent = agent_on("n1");
    // The manager sees it first. For the agent's turn the manager has to be away.
    let away = NoManagers::new().await;
    let (bound, unbound) = (unique("bound"), unique("unbound"));
    unreadable(&bound, json!({"phase": "Bound", "nodeName": "n1", "podUID": "u", "container": "main"}));
    let refused = |name: String| {
        let lab = &lab;
        async move {
            wait_for(&format!("{name} to be refused"), async || {
                let path = "jsonpath={.status.conditions[?(@.type==\"Finished\")].reason}";
                (lab.kubectl(&["get", "execrequest", &name, "-o", path]) == "InvalidRequest").then_some(())
            })
            .await;
        }
    };
    refused(bound).await;
    unreadable(&unbound, serde_json::Value::Null);
    drop(away);
    refused(unbound).await;
    drop(loose);
    lab.sh("web", "exit 3").await.ended_with(3);
    assert_eq!(agent_on("n1"), agent, "the agent lives");
    managers_rolled_out();
}

#[tokio::test]
async fn another_manager_leads_when_the_leader_goes() {
    let lab = Lab::alone().await;
    lab.pod("web", "n1").await;
    let first = leader().expect("somebody leads");
    kubectl(&["delete", "pod", &first, "-n", NAMESPACE, "--wait=false"]);
    wait_for("another leader", async || leader().filter(|now| *now != first)).await;
    lab.sh("web", "exit 3").await.ended_with(3);
    managers_rolled_out();
}
