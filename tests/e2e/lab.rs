//! A namespace of its own for each test, and the words in which tests speak.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use execlet::api::{ExecRequest, ExecRequestStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    api::{AttachParams, DeleteParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Instant, sleep},
};

use crate::{
    clients::{STREAM_FAILED, code_of, drain},
    kubectl::{admin, done_here, wait_on},
};

/// Long enough for a loaded machine; a test that works needs a fraction.
pub const PATIENCE: Duration = Duration::from_secs(90);
pub const IMAGE: &str = "execlet.test/busybox:1";
pub const NAMESPACE: &str = "execlet";
/// How soon after the return of what was away the right state is there, on a loaded machine: before anybody who waits for
/// a minute, or for a signal that does not come.
pub const SOON: Duration = Duration::from_secs(20);

/// Tests share the installation; one that disturbs it has it alone.
static INSTALLATION: LazyLock<RwLock<()>> = LazyLock::new(RwLock::default);

#[expect(dead_code, reason = "the guards are held, not read")]
enum Share {
    Among(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// One test's namespace. It goes away with the test, however that ends.
pub struct Lab {
    pub client: Client,
    pub namespace: String,
    _share: Share,
}

impl Lab {
    /// Beside other tests.
    pub async fn new() -> Self {
        Self::with(Share::Among(INSTALLATION.read().await)).await
    }

    /// With the installation for itself, to disturb it.
    pub async fn alone() -> Self {
        let lab = Self::with(Share::Alone(INSTALLATION.write().await)).await;
        // What a test before it has replaced may still be on its way out, and would be counted.
        let going = ["get", "pods", "-n", NAMESPACE, "-o", "jsonpath={.items[*].metadata.deletionTimestamp}"];
        wait_for("pods that were replaced to be gone", async || kubectl(&going).trim().is_empty().then_some(())).await;
        lab
    }

    async fn with(share: Share) -> Self {
        assert!(
            env::var_os("KUBECONFIG").is_some(),
            "KUBECONFIG is not set: these tests need a cluster with the chart installed; run them with `make test-e2e`"
        );
        let config = Config::infer().await.expect("a readable KUBECONFIG; try `make cluster-up`");
        let client = Client::try_from(config).expect("a client");
        let namespace = unique("e2e");
        kubectl(&["create", "namespace", &namespace]);
        Self { client, namespace, _share: share }
    }

    pub fn requests(&self) -> Api<ExecRequest> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A pod with one container `main` that waits, on `node`; ready.
    pub async fn pod(&self, name: &str, node: &str) -> Pod {
        self.pod_of(name, json!({"nodeName": node, "containers": [container("main")]})).await
    }

    /// A pod of this spec, ready.
    pub async fn pod_of(&self, name: &str, spec: Value) -> Pod {
        self.create_pod(name, spec, json!({})).await;
        self.ready(name).await
    }

    pub async fn create_pod(&self, name: &str, mut spec: Value, annotations: Value) {
        spec["terminationGracePeriodSeconds"] = json!(0);
        let pod = json!({"metadata": {"name": name, "annotations": annotations}, "spec": spec});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        // A new namespace gets its service account a moment later.
        wait_for("the pod to be taken", async || self.pods().create(&PostParams::default(), &pod).await.ok()).await;
    }

    pub async fn ready(&self, name: &str) -> Pod {
        self.pod_when(name, "to be ready", |pod| {
            let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
            conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
        })
        .await
    }

    pub async fn pod_when(&self, name: &str, what: &str, holds: impl Fn(&Pod) -> bool) -> Pod {
        wait_for(&format!("pod {name} {what}"), async || self.pods().get(name).await.ok().filter(&holds)).await
    }

    /// Creates a request for `sh -c SCRIPT` in pod `pod` and waits for its end.
    pub async fn sh(&self, pod: &str, script: &str) -> Done {
        self.run(json!({"target": {"podName": pod}, "command": ["sh", "-c", script]})).await
    }

    /// Creates a request and waits for its end.
    pub async fn run(&self, spec: Value) -> Done {
        let name = self.create(spec);
        self.finished(&name).await
    }

    /// Creates a request, and gives its name.
    pub fn create(&self, spec: Value) -> String {
        let name = unique("r");
        self.create_named(&name, spec);
        name
    }

    pub fn create_named(&self, name: &str, spec: Value) {
        let request = json!({
            "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
        });
        let until = std::time::Instant::now() + PATIENCE;
        loop {
            let output = kubectl_with(&["create", "-f", "-"], &request.to_string());
            let said = text(&output.stderr);
            if output.status.success() {
                return;
            }
            // An API server that has just started does not know the kind yet, and so cannot apply the policies.
            let starting = said.contains("There can be a delay between when CustomResourceDefinitions are created");
            assert!(starting && std::time::Instant::now() < until, "kubectl create: {said}");
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    pub async fn finished(&self, name: &str) -> Done {
        let request = self.request_when(name, "to finish", |s| s.completion_time.is_some()).await;
        keep(&request);
        Done { status: request.status.clone().expect("a status"), request }
    }

    /// The end of a request, which must be there soon.
    pub async fn soon(&self, name: &str) -> Done {
        let begun = Instant::now();
        let done = self.finished(name).await;
        assert!(begun.elapsed() < SOON, "{:?}: {:#?}", begun.elapsed(), done.status);
        done
    }

    /// Waits until the status of a request is so; says what it is if it never gets there.
    pub async fn request_when(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&ExecRequestStatus) -> bool,
    ) -> ExecRequest {
        let api = self.requests();
        let until = Instant::now() + PATIENCE;
        loop {
            let request = api.get(name).await.unwrap_or_else(|error| panic!("request {name}: {error}"));
            if request.status.as_ref().is_some_and(&holds) {
                return request;
            }
            assert!(Instant::now() < until, "request {name} is not {what} in time:\n{}", self.report(name));
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Everything that helps to see why a request is where it is.
    pub fn report(&self, name: &str) -> String {
        let mut report = String::new();
        for args in [
            &["get", "execrequest", name, "-n", &self.namespace, "-o", "yaml"][..],
            &["get", "events,pods", "-n", &self.namespace],
            &["get", "pods", "-n", NAMESPACE, "-o", "wide"],
            &["logs", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=execlet", "--tail=40", "--prefix"],
        ] {
            let output = kubectl_raw(args);
            writeln!(report, "$ kubectl {}\n{}{}", args.join(" "), text(&output.stdout), text(&output.stderr)).unwrap();
        }
        report
    }

    /// `kubectl` in this namespace; must succeed.
    pub fn kubectl(&self, args: &[&str]) -> String {
        kubectl(&[&["-n", &self.namespace], args].concat())
    }

    /// `kubectl` in this namespace; must fail, and says why.
    pub fn kubectl_fails(&self, args: &[&str]) -> String {
        let output = kubectl_raw(&[&["-n", &self.namespace], args].concat());
        assert!(!output.status.success(), "kubectl {} succeeded: {}", args.join(" "), text(&output.stdout));
        text(&output.stderr)
    }

    /// `sh -c SCRIPT` in a pod, by the call that `kubectl exec` makes: what it wrote, and its exit code.
    pub fn exec(&self, pod: &str, script: &str) -> (Vec<u8>, i32) {
        let (namespace, pod, script) = (self.namespace.clone(), pod.to_owned(), script.to_owned());
        wait_on(async move {
            let pods: Api<Pod> = Api::namespaced(admin().await, &namespace);
            // The first container, as kubectl does.
            let spec = pods.get_opt(&pod).await.ok().flatten().and_then(|found| found.spec);
            let container = spec.and_then(|spec| spec.containers.into_iter().next()).map(|first| first.name);
            let params = AttachParams { container, ..AttachParams::default() };
            match pods.exec(&pod, ["sh", "-c", &script], &params).await {
                Ok(process) => {
                    let (heard, status) = drain(process, None).await;
                    (heard.stdout, code_of(status.as_ref()))
                }
                Err(error) => {
                    eprintln!("exec in {pod}: {error}");
                    (Vec::new(), STREAM_FAILED)
                }
            }
        })
    }

    /// The same by `kubectl exec` itself.
    pub fn kubectl_exec(&self, pod: &str, script: &str) -> (Vec<u8>, i32) {
        let output = kubectl_raw(&["-n", &self.namespace, "exec", pod, "--", "sh", "-c", script]);
        (output.stdout, output.status.code().expect("an exit code"))
    }

    /// The log of a request on its node, decoded: standard output and standard error.
    pub fn spool(&self, request: &ExecRequest) -> [Vec<u8>; 2] {
        let meta = &request.metadata;
        let node = request.status.as_ref().and_then(|s| s.node_name.clone()).expect("a node");
        let folder = format!("{}_{}_{}", self.namespace, meta.name.as_ref().unwrap(), meta.uid.as_ref().unwrap());
        let path = var_log(&node).join("execlet").join(folder).join("output.log");
        let log = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut streams = [Vec::new(), Vec::new()];
        for line in log.split_inclusive(|byte| *byte == b'\n') {
            let record = execlet::wire::cri::decode(line.strip_suffix(b"\n").expect("a whole line")).expect("a record");
            let stream = &mut streams[usize::from(record.stream == execlet::wire::OutputStream::Stderr)];
            stream.extend_from_slice(record.content);
            if record.ends_line {
                stream.push(b'\n');
            }
        }
        streams
    }

    pub async fn delete_pod(&self, name: &str) {
        // With a grace period the object goes when the container has gone, and not before.
        self.pods().delete(name, &DeleteParams::default().grace_period(1)).await.expect("deleted");
        wait_for("the pod to be gone", async || self.pods().get_opt(name).await.ok()?.is_none().then_some(())).await;
    }
}

/// Keeps a finished request for `scripts/audit-check`, which holds all of them against the audit logs.
fn keep(request: &ExecRequest) {
    let folder = root().join("target/e2e");
    fs::create_dir_all(&folder).expect("a folder");
    let instance = env::var("EXECLET_CLUSTER_INSTANCE").unwrap_or_else(|_| "0".to_owned());
    let file = fs::OpenOptions::new().create(true).append(true).open(folder.join(format!("requests-{instance}.jsonl")));
    let line = serde_json::to_string(request).expect("JSON") + "\n";
    file.and_then(|mut file| file.write_all(line.as_bytes())).expect("kept");
}

impl Drop for Lab {
    fn drop(&mut self) {
        kubectl_raw(&["delete", "namespace", &self.namespace, "--wait=false", "--ignore-not-found"]);
    }
}

/// A request at its end.
#[derive(Debug)]
pub struct Done {
    pub request: ExecRequest,
    pub status: ExecRequestStatus,
}

impl Done {
    /// `status` of a condition.
    pub fn condition(&self, kind: &str) -> Option<&str> {
        self.status.conditions.iter().find(|c| c.type_ == kind).map(|c| c.status.as_str())
    }

    pub fn reason(&self) -> &str {
        &self.finished().reason
    }

    pub fn message(&self) -> &str {
        &self.finished().message
    }

    fn finished(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition {
        self.status.conditions.iter().find(|c| c.type_ == "Finished").expect("a condition Finished")
    }

    /// The end of standard output, as text.
    pub fn stdout(&self) -> &str {
        let output = self.status.output.as_ref().expect("output");
        output.stdout.tail.as_deref().unwrap_or_default()
    }

    #[track_caller]
    pub fn ended_with(&self, code: i32) {
        assert_eq!(self.status.exit_code, Some(code), "{:#?}", self.status);
    }

    #[track_caller]
    pub fn never_ran(&self, reason: &str) {
        assert_eq!(self.reason(), reason, "{:#?}", self.status);
        assert_eq!(self.status.phase.to_string(), "Failed");
        assert_eq!((self.status.exit_code, self.condition("Started")), (None, Some("False")), "{:#?}", self.status);
    }
}

/// A container that waits for ever.
pub fn container(name: &str) -> Value {
    json!({"name": name, "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "1000000"]})
}

/// Tries until there is a value.
pub async fn wait_for<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, look).await
}

/// The same, for what takes longer.
pub async fn wait_within<T>(patience: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + patience;
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(Instant::now() < until, "waited {} s in vain for {what}", patience.as_secs());
        sleep(Duration::from_millis(50)).await;
    }
}

/// A name that no other test has.
pub fn unique(prefix: &str) -> String {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() % 100_000_000;
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("{prefix}-{now:08}-{}-{count}", std::process::id())
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A command of kubectl, done by this process if it can, else by kubectl.
pub fn kubectl_with(args: &[&str], input: &str) -> Output {
    done_here(args, input).unwrap_or_else(|| run("kubectl", args, input))
}

/// A command of kubectl, done by kubectl: nobody fills in who asks.
pub fn kubectl_itself(args: &[&str], input: &str) -> Output {
    run("kubectl", args, input)
}

pub fn kubectl_raw(args: &[&str]) -> Output {
    kubectl_with(args, "")
}

#[track_caller]
pub fn kubectl(args: &[&str]) -> String {
    succeeded("kubectl", args, kubectl_raw(args))
}

#[track_caller]
pub fn helm(args: &[&str]) -> String {
    succeeded("helm", args, run("helm", args, ""))
}

/// The tool that runs the test cluster.
pub fn cluster(args: &[&str]) -> Output {
    let tool = root().join("tests/cluster/cluster");
    run(&tool.to_string_lossy(), args, "")
}

/// The same; must succeed.
#[track_caller]
pub fn tool(args: &[&str]) -> String {
    let output = cluster(args);
    assert!(output.status.success(), "cluster {}: {}", args.join(" "), text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

/// `/var/lib` of a node, as this machine sees it.
pub fn var_lib(node: &str) -> PathBuf {
    let socket = PathBuf::from(tool(&["socket", node]));
    let run = socket.ancestors().find(|folder| folder.ends_with("run")).expect("the node's /run");
    run.with_file_name("lib")
}

/// `/var/log` of a node, as this machine sees it.
pub fn var_log(node: &str) -> PathBuf {
    var_lib(node).with_file_name("log")
}

/// The docker command on a node that runs Docker; must succeed.
#[track_caller]
pub fn docker(node: &str, args: &[&str]) -> Vec<u8> {
    let output = cluster(&[&["docker", node], args].concat());
    assert!(output.status.success(), "docker {} on {node}: {}", args.join(" "), text(&output.stderr));
    output.stdout
}

/// The engine's ID of a pod's container.
pub fn container_id(pod: &Pod, name: &str) -> String {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref()).expect("containers");
    let id = statuses.iter().find(|s| s.name == name).and_then(|s| s.container_id.clone()).expect("an ID");
    id.split_once("://").expect("an engine's name before it").1.to_owned()
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn succeeded(program: &str, args: &[&str], output: Output) -> String {
    assert!(output.status.success(), "{program} {}: {}{}", args.join(" "), text(&output.stderr), text(&output.stdout));
    text(&output.stdout)
}

/// A program with this input.
pub fn run(program: &str, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(args)
        .current_dir(root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("the program reads its input");
    child.wait_with_output().expect("the program's output")
}
