//! How an agent comes to its engine: by what a Node says that is made for it, on the cluster's API server. No engine
//! answers these agents, and no kubelet reports for the Node.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use execlet::api::names;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{io::copy_bidirectional, net};

use crate::lab::{Lab, NAMESPACE, kubectl, kubectl_raw, kubectl_with, text, unique, wait_for};

/// Takes no pods, and goes away with the test.
struct MadeNode(String);

impl MadeNode {
    fn new() -> Self {
        let it = Self(unique("engine"));
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": it.0},
            "spec": {"unschedulable": true}});
        let created = kubectl_with(&["create", "-f", "-"], &node.to_string());
        assert!(created.status.success(), "{}", text(&created.stderr));
        it
    }

    fn says(&self, runtime: &str) {
        let info = json!({"containerRuntimeVersion": runtime, "architecture": "", "bootID": "", "kernelVersion": "",
            "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
            "systemUUID": ""});
        let patch = json!({"status": {"nodeInfo": info}}).to_string();
        kubectl(&["patch", "node", &self.0, "--subresource=status", "--type=merge", "-p", &patch]);
    }
}

impl Drop for MadeNode {
    fn drop(&mut self) {
        kubectl_raw(&["delete", "node", &self.0, "--ignore-not-found"]);
    }
}

/// A way to the API server that can be closed: nothing listens at `address` before it is opened.
struct Way {
    server: String,
    address: SocketAddr,
    config: String,
}

impl Way {
    fn closed() -> Self {
        let config = fs::read_to_string(env::var("KUBECONFIG").expect("a cluster")).expect("a kubeconfig");
        let line = config.lines().find_map(|line| line.trim().strip_prefix("server: https://")).expect("a server");
        let server = line.trim().trim_matches('"').to_owned();
        let address = free_port();
        // Its certificate is for this host, too.
        let config = config.replace(&format!("https://{server}"), &format!("https://{address}"));
        Self { server, address, config }
    }

    async fn open(&self) {
        let listener = net::TcpListener::bind(self.address).await.expect("the port");
        let server = self.server.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move {
                    if let Ok(mut far) = net::TcpStream::connect(server).await {
                        copy_bidirectional(&mut near, &mut far).await.ok();
                    }
                });
            }
        });
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port")
}

struct Agent {
    process: Child,
    http: SocketAddr,
}

impl Agent {
    /// With its Lease in the lab's namespace: no manager looks there.
    fn begin(lab: &Lab, node: &MadeNode, kubeconfig: &Path, folder: &Path) -> Self {
        let http = free_port();
        let at = |flag: &str, name: &str| format!("--{flag}={}", folder.join(name).display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_execlet"));
        command
            .args(["agent", &format!("--node-name={}", node.0), &format!("--namespace={}", lab.namespace)])
            .args(["--manager-service-account=execlet:manager", "--agent-service-account=execlet:agent"])
            .args([format!("--http-addr={http}"), at("audit-dir", "audit"), at("run-dir", "run")])
            .args([at("state-dir", "state"), at("log-dir", "log")])
            .args([at("engine-socket", "docker.sock"), at("containerd-socket", "containerd.sock")]);
        let log = fs::File::create(folder.join("agent.log")).expect("a file");
        let process = command.env("KUBECONFIG", kubeconfig).stdin(Stdio::null()).stderr(log).spawn().expect("an agent");
        Self { process, http }
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut connection = TcpStream::connect(self.http).ok()?;
        write!(connection, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    async fn is_not_ready_because(&self, words: &[&str]) {
        wait_for(&format!("an agent that is not ready because {words:?}"), async || {
            let answer = self.get("/readyz")?;
            let line = answer.lines().find(|line| line.starts_with("[-] engine failed: "))?;
            words.iter().all(|words| line.contains(words)).then_some(())
        })
        .await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// What the agent says of its refusal on its Lease.
async fn mark(leases: &Api<Lease>, node: &MadeNode) -> Option<String> {
    let lease = leases.get_opt(&format!("execlet-agent.{}", node.0)).await.ok()??;
    assert!(lease.spec.is_none_or(|spec| spec.renew_time.is_none()), "it is not renewed");
    assert_eq!(lease.metadata.labels?["app.kubernetes.io/component"], "agent");
    lease.metadata.annotations?.remove("execlet.dev/engine-refused")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_engine_is_not_supported_lives_and_says_so_everywhere() {
    let lab = Lab::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (node, way) = (MadeNode::new(), Way::closed());
    let config = folder.path().join("config");
    fs::write(&config, &way.config).expect("written");
    way.open().await;
    node.says("cri-o://1.30.0");
    let mut agent = Agent::begin(&lab, &node, &config, folder.path());
    let named = format!("node {}", node.0);
    let words = [&named, "cri-o 1.30.0", "Docker Engine 20.10", "containerd 1.7", "nodeSelector"];
    agent.is_not_ready_because(&words).await;
    let leases = Api::namespaced(lab.client.clone(), &lab.namespace);
    let why = wait_for("a mark", async || mark(&leases, &node).await).await;
    assert!(words.iter().all(|words| why.contains(words)), "{why}");
    assert!(agent.get("/metrics").is_some_and(|text| text.contains("execlet_engine_supported 0")));
    assert!(agent.get("/livez").is_some_and(|text| text.contains("200 OK")));
    assert!(agent.process.try_wait().expect("a state").is_none(), "it goes on");
    let log = fs::read_to_string(folder.path().join("agent.log")).expect("a log");
    assert!(log.contains("this agent takes no requests"), "{log}");

    // The next one has an engine to work with.
    node.says("containerd://2.4.2");
    agent.is_not_ready_because(&["containerd.sock does not answer"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_takes_the_engine_that_its_node_names_and_ends_if_that_was_another_one() {
    let lab = Lab::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let named = || fs::read_to_string(folder.path().join("state/engine")).unwrap_or_default();
    let node = MadeNode::new();
    let config = folder.path().join("config");
    let way = Way::closed();
    fs::write(&config, &way.config).expect("written");
    way.open().await;
    node.says("containerd://2.4.2");
    let agent = Agent::begin(&lab, &node, &config, folder.path());
    agent.is_not_ready_because(&["containerd.sock does not answer"]).await;
    assert_eq!(named(), "containerd://2.4.2");
    drop(agent);

    // The API server is away, and comes back with another engine.
    let way = Way::closed();
    fs::write(&config, &way.config).expect("written");
    let mut agent = Agent::begin(&lab, &node, &config, folder.path());
    agent.is_not_ready_because(&["named containerd://2.4.2 before, and does not confirm it: ", "get node"]).await;
    node.says("docker://20.10.24");
    way.open().await;
    let end = wait_for("its end", async || agent.process.try_wait().expect("a state")).await;
    assert!(!end.success());
    let log = fs::read_to_string(folder.path().join("agent.log")).expect("a log");
    assert!(log.contains("names docker://20.10.24"), "{log}");
    assert_eq!(named(), "docker://20.10.24");

    fs::write(&config, Way::closed().config).expect("written");
    let agent = Agent::begin(&lab, &node, &config, folder.path());
    agent.is_not_ready_because(&["named docker://20.10.24 before"]).await;
}

/// The mark of an agent that found another engine on the node, before it was replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mark_of_a_refusal_goes_once_an_agent_works_there_and_who_waited_runs() {
    let lab = Lab::alone().await;
    lab.pod("web", "n1").await;
    let lease = "execlet-agent.n1";
    let leases: Api<Lease> = Api::namespaced(lab.client.clone(), NAMESPACE);
    let marked = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata":
        {"name": lease, "annotations": {names::ENGINE_REFUSED_ANNOTATION: "its containers run in cri-o 1.30.0"}}});
    let params = PatchParams::apply(names::ENGINE_REFUSED_MANAGER).force();
    leases.patch(lease, &params, &Patch::Apply(marked)).await.expect("marked");
    let request = lab.create(json!({"target": {"podName": "web"}, "command": ["true"]}));
    let waiting = lab.request_when(&request, "waiting", |status| {
        status
            .conditions
            .iter()
            .any(|condition| condition.reason == "RuntimeNotSupported" && condition.message.contains("cri-o 1.30.0"))
    });
    waiting.await;
    assert_eq!(lab.finished(&request).await.status.exit_code, Some(0));
    let annotations = leases.get(lease).await.expect("a Lease").metadata.annotations.expect("what the agent says");
    assert!(!annotations.contains_key(names::ENGINE_REFUSED_ANNOTATION), "{annotations:?}");
    assert!(annotations.contains_key(names::ENGINE_ANNOTATION), "the rest is there: {annotations:?}");
}
