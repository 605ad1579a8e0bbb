//! What the batch runs on: nodes without a kubelet, pods that were never started, and an agent for each node. All of it has
//! one label, by which it goes away, however the test ends.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use k8s_openapi::{
    api::{
        authentication::v1::TokenRequest,
        core::v1::{Node, Pod, ServiceAccount},
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams, PostParams},
    config::AuthInfo,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use super::agent::{Agent, Tally, container_id};
use crate::lab::{IMAGE, Lab, NAMESPACE, container, kubectl, kubectl_raw, text, wait_for, wait_within};

pub const LABEL: &str = "execlet.test/fleet";
const NODES: usize = 20;
/// The agents' service account.
const AGENT: &str = "execlet-agent";
const TOKEN_SECONDS: i64 = 2 * 3600;
/// How often each node says that it is ready: the test cluster gives one up after 20 s.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// Objects that are made beside each other.
const AT_ONCE: usize = 32;
/// How long thousands of objects may take to go.
const GONE: Duration = Duration::from_secs(600);

pub struct Fleet {
    pub nodes: Vec<String>,
    pub tally: Arc<Tally>,
    tasks: JoinSet<()>,
}

impl Fleet {
    pub async fn arrive(lab: &Lab) -> Self {
        remove();
        let nodes: Vec<String> = (0..NODES).map(|number| format!("fleet-{number}")).collect();
        let mut fleet = Self { nodes, tally: Arc::default(), tasks: JoinSet::new() };
        kubectl(&["label", "namespace", &lab.namespace, &format!("{LABEL}=")]);
        for node in &fleet.nodes {
            make_node(&lab.client, node).await;
            fleet.tasks.spawn(keep_ready(lab.client.clone(), node.clone()));
        }
        for node in &fleet.nodes {
            let agent = Agent::new(node, client_of_agent(&lab.client, node).await, Arc::clone(&fleet.tally));
            agent.renew().await.expect("an agent may write its Lease");
            fleet.tasks.spawn(agent.run());
        }
        fleet
    }

    /// `t-0`, `t-1`, … in turn on all nodes, running as far as anybody can tell.
    pub async fn pods(&self, lab: &Lab, count: u16) {
        stream::iter(0..usize::from(count))
            .map(|index| make_pod(lab.pods(), format!("t-{index}"), self.node_of(index)))
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<()>>()
            .await;
    }

    pub fn node_of(&self, index: usize) -> &str {
        &self.nodes[index % self.nodes.len()]
    }

    /// Takes all of it away, and sees that nothing is left.
    pub async fn leave(mut self) {
        self.tasks.shutdown().await;
        drop(self);
        wait_within(GONE, "the fleet to be gone", async || left().is_empty().then_some(())).await;
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.tasks.abort_all();
        remove();
    }
}

/// The agents' Leases last: one that is being renewed may be made anew as long as its agent's pod is there.
fn remove() {
    for what in [
        &["namespaces"][..],
        &["pods", "-n", NAMESPACE, "--grace-period=0", "--force"],
        &["nodes"],
        &["leases", "-n", NAMESPACE],
    ] {
        let args = [&["delete", "-l", LABEL, "--wait=false"], what].concat();
        let removed = kubectl_raw(&args);
        if !removed.status.success() {
            println!("kubectl {}: {}", args.join(" "), text(&removed.stderr));
        }
    }
}

/// What of it is still there.
fn left() -> String {
    let found = |args: &[&str]| text(&kubectl_raw(&[&["get", "-o", "name", "-l", LABEL], args].concat()).stdout);
    found(&["nodes,namespaces"]) + &found(&["leases,pods", "-A"])
}

/// Tried again, for as long as a new namespace has no service account, or the API server is too busy.
async fn create<K: Clone + Debug + Serialize + DeserializeOwned>(api: &Api<K>, object: Value) -> K {
    let object: K = serde_json::from_value(object).expect("an object");
    wait_for("an object to be taken", async || match api.create(&PostParams::default(), &object).await {
        Ok(created) => Some(created),
        Err(kube::Error::Api(status)) if status.code < 429 && status.code != 403 => panic!("{status:?}"),
        Err(_) => None,
    })
    .await
}

/// Without the label of its system, so that no `DaemonSet` of ours wants a pod there.
async fn make_node(client: &Client, node: &str) {
    let api = Api::<Node>::all(client.clone());
    let meta = json!({"name": node, "labels": {LABEL: ""}});
    create(&api, json!({"metadata": meta, "spec": {"taints": [{"key": LABEL, "effect": "NoSchedule"}]}})).await;
    say_ready(&api, node).await.expect("a node may be said to be ready");
}

/// As a kubelet does. Who does not say so again is taken for unreachable, and its pods are evicted.
async fn say_ready(api: &Api<Node>, node: &str) -> kube::Result<()> {
    let now = Timestamp::now().to_string();
    let ready = json!({"type": "Ready", "status": "True", "reason": "Simulated", "message": "it has no kubelet",
        "lastHeartbeatTime": now, "lastTransitionTime": now});
    let patch = Patch::Merge(json!({"status": {"conditions": [ready]}}));
    api.patch_status(node, &PatchParams::default(), &patch).await.map(drop)
}

async fn keep_ready(client: Client, node: String) {
    let api = Api::<Node>::all(client);
    loop {
        sleep(SAY_EVERY).await;
        if let Err(error) = say_ready(&api, &node).await {
            println!("{node} is not said to be ready: {error}");
        }
    }
}

/// By a token that is bound to a pod of the agents' account on the node, and so names the node.
async fn client_of_agent(client: &Client, node: &str) -> Client {
    let (name, spec) = (format!("{node}-agent"), spec_of_pod(node, AGENT));
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let pod = create(&pods, json!({"metadata": {"name": name, "labels": {LABEL: ""}}, "spec": spec})).await;
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod.metadata.uid});
    let request = json!({"spec": {"audiences": [], "expirationSeconds": TOKEN_SECONDS, "boundObjectRef": bound}});
    let request: TokenRequest = serde_json::from_value(request).expect("a request for a token");
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let given = accounts.create_token_request(AGENT, &PostParams::default(), &request).await.expect("a token");
    let token = given.status.expect("a token").token;
    let mut config = Config::infer().await.expect("a readable KUBECONFIG");
    config.auth_info = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
    Client::try_from(config).expect("a client")
}

/// It goes at once, and only when we say so: on a machine that is too busy a node may look unreachable for a while.
fn spec_of_pod(node: &str, account: &str) -> Value {
    json!({"nodeName": node, "serviceAccountName": account, "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 0, "tolerations": [{"operator": "Exists"}], "containers": [container("main")]})
}

/// A pod, and what a kubelet would say of it once it runs.
async fn make_pod(api: Api<Pod>, name: String, node: &str) {
    let object = json!({"metadata": {"name": name, "labels": {LABEL: ""}}, "spec": spec_of_pod(node, "default")});
    let pod = create(&api, object).await;
    let now = Timestamp::now().to_string();
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    let id = container_id(pod.metadata.uid.as_deref().expect("a UID"));
    let container = json!({"name": "main", "image": IMAGE, "imageID": format!("docker://sha256:{id}"), "ready": true,
        "restartCount": 0, "started": true, "containerID": format!("docker://{id}"), "state": {"running": {"startedAt": now}}});
    let conditions = ["Initialized", "PodScheduled", "ContainersReady", "Ready"].map(condition);
    let status =
        json!({"phase": "Running", "startTime": now, "conditions": conditions, "containerStatuses": [container]});
    let patch = Patch::Merge(json!({"status": status}));
    wait_for("a status to be taken", async || api.patch_status(&name, &PatchParams::default(), &patch).await.ok())
        .await;
}
