//! The test cluster: an installation with room, pods on each node, and requests in a namespace of our own.

use std::{
    fs,
    io::Write as _,
    process::{self, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context as _, bail};
use execlet::api::ExecRequest;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    engine::{Container, Engine},
    figures::load,
};

/// Of the installation, and its name.
pub const NAMESPACE: &str = "execlet";
/// On each node; of one container each.
const PODS: usize = 8;
/// Calls to the API server at a time.
pub const AT_A_TIME: usize = 16;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Put away when dropped.
pub struct Lab {
    pub client: Client,
    pub namespace: String,
    pub nodes: Vec<Node>,
    /// Of the machine, before anything was done here.
    pub load_before: f64,
    /// Values of the release as they were.
    values: String,
    /// So many requests were made.
    requests: AtomicU64,
}

pub struct Node {
    pub name: String,
    pub engine: Engine,
    /// Which engine it is, and its version.
    pub runs: String,
    pub targets: Vec<Target>,
}

/// Where a command runs.
pub struct Target {
    pub pod: String,
    pub container: Container,
}

impl Lab {
    /// With room for so many commands at a time.
    pub async fn open(count: usize) -> anyhow::Result<Self> {
        let load_before = load()?;
        println!("load of the machine before: {load_before:.1}");
        let config = Config::infer().await.context("KUBECONFIG; run it by `make bench`")?;
        let client = Client::try_from(config)?;
        let values = run("helm", &["get", "values", "execlet", "--namespace", NAMESPACE, "--output", "json"], "")?;
        let namespace = format!("bench-{}", process::id());
        let mut lab =
            Self { client, namespace, nodes: Vec::new(), load_before, values, requests: AtomicU64::default() };
        let most = format!("agent.maxConcurrent={}", count + 50);
        let most_of_one = format!("agent.maxConcurrentPerContainer={count}");
        // All are of one user.
        lab.upgrade(&["--set", &most, "--set", &most_of_one, "--set", "agent.reservedPercent=0"])?;
        run("kubectl", &["create", "namespace", &lab.namespace], "")?;
        for name in cluster(&["nodes"])?.split_whitespace() {
            let node = lab.node(name).await?;
            lab.nodes.push(node);
        }
        Ok(lab)
    }

    async fn node(&self, name: &str) -> anyhow::Result<Node> {
        let (engine, runs) = Engine::of(name).await?;
        let mut node = Node { name: name.to_owned(), engine, runs, targets: Vec::new() };
        node.targets = stream::iter(0..PODS)
            .map(|number| self.target(&node, format!("{name}-{number}")))
            .buffered(AT_A_TIME)
            .try_collect()
            .await?;
        Ok(node)
    }

    fn upgrade(&self, more: &[&str]) -> anyhow::Result<()> {
        let fixed = ["upgrade", "execlet", "charts/execlet", "--namespace", NAMESPACE, "--wait", "--timeout", "3m"];
        let values = ["--reset-values", "--values", "-"];
        run("helm", &[&fixed[..], &values, more].concat(), &self.values).map(|_| ())
    }

    /// Agents of which nothing was asked yet.
    pub fn renew_agents() -> anyhow::Result<()> {
        for words in [&["restart"][..], &["status", "--timeout=2m"]] {
            let of = ["daemonset/execlet-agent", "--namespace", NAMESPACE];
            run("kubectl", &[&["rollout"], words, &of].concat(), "")?;
        }
        Ok(())
    }

    /// Makes a pod that waits.
    pub async fn target(&self, node: &Node, pod: String) -> anyhow::Result<Target> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let new = serde_json::from_value(json!({
            "metadata": {"name": pod},
            "spec": {"nodeName": node.name, "terminationGracePeriodSeconds": 0, "containers": [{
                "name": "main", "image": "execlet.test/busybox:1", "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "1000000"],
            }]},
        }))?;
        // A new namespace gets its service account a moment later.
        while pods.create(&PostParams::default(), &new).await.is_err() {
            sleep(PAUSE).await;
        }
        loop {
            let containers = pods.get(&pod).await?.status.and_then(|status| status.container_statuses);
            let running = containers.unwrap_or_default().into_iter().find(|container| container.ready);
            if let Some(id) = running.and_then(|container| container.container_id) {
                return Ok(Target { pod, container: node.engine.container(&id).await? });
            }
            sleep(PAUSE).await;
        }
    }

    pub fn requests(&self) -> Api<ExecRequest> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A request that is yet to be created. No other one ever has its name.
    pub fn request(&self, target: &Target, command: &[&str], more: Value) -> anyhow::Result<ExecRequest> {
        let mut spec = json!({
            "target": {"podName": target.pod}, "command": command,
            "startingDeadlineSeconds": 600, "terminationGracePeriodSeconds": 0,
        });
        if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
            spec.extend(more);
        }
        let name = format!("r-{}", self.requests.fetch_add(1, Ordering::Relaxed));
        Ok(serde_json::from_value(json!({
            "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
        }))?)
    }

    pub async fn create(&self, target: &Target, command: &[&str], more: Value) -> anyhow::Result<ExecRequest> {
        Ok(self.requests().create(&PostParams::default(), &self.request(target, command, more)?).await?)
    }

    /// Whether there is no request that these fields select.
    pub async fn none(&self, fields: &str) -> anyhow::Result<bool> {
        let found = self.requests().list(&ListParams::default().fields(fields).limit(1)).await?;
        Ok(found.items.is_empty())
    }

    /// Deletes all requests with their output, and waits until they are gone.
    pub async fn clear(&self) -> anyhow::Result<()> {
        let requests = self.requests();
        let all = requests.list_metadata(&ListParams::default()).await?;
        stream::iter(all.items.into_iter().filter_map(|request| request.metadata.name))
            .map(async |name| requests.delete(&name, &DeleteParams::default()).await.map(|_| ()))
            .buffer_unordered(AT_A_TIME)
            .try_collect::<()>()
            .await?;
        while !self.none("").await? {
            sleep(PAUSE).await;
        }
        Ok(())
    }
}

impl Node {
    /// Its agent's process on this machine.
    pub fn agent(&self) -> anyhow::Result<String> {
        let id = cluster(&["containers", &self.name, "io.kubernetes.container.name=agent"])?;
        Ok(cluster(&["container", &self.name, "pid", id.trim()])?.trim().to_owned())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        println!("\nputting the installation back (20 s)");
        let namespace = ["delete", "namespace", &self.namespace, "--ignore-not-found"];
        for result in [run("kubectl", &namespace, "").map(|_| ()), self.upgrade(&[])] {
            if let Err(error) = result {
                eprintln!("{error:#}");
            }
        }
    }
}

/// Memory of a process that is resident, in KiB.
pub fn resident_of(pid: &str) -> anyhow::Result<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The tool that runs the test cluster.
pub fn cluster(args: &[&str]) -> anyhow::Result<String> {
    run("tests/cluster/cluster", args, "")
}

/// A program's output; it must succeed.
pub fn run(program: &str, args: &[&str], input: &str) -> anyhow::Result<String> {
    let mut child = Command::new(program)
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| program.to_owned())?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
