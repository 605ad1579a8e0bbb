//! How an agent comes to its engine, with an API server that is made up.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::{sleep, spawn},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// Knows one Node, or nothing; takes what is written to Leases.
#[derive(Clone)]
struct ApiServer {
    address: SocketAddr,
    /// What the Node says of its engine. `None`: no call is answered well.
    runtime: Arc<Mutex<Option<&'static str>>>,
    leases: Arc<Mutex<Vec<Value>>>,
}

impl ApiServer {
    fn new(runtime: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let it = Self { address, runtime: Arc::new(Mutex::new(runtime)), leases: Arc::default() };
        let server = it.clone();
        spawn(move || {
            for connection in listener.incoming().flatten() {
                let server = server.clone();
                spawn(move || server.answer(connection));
            }
        });
        it
    }

    fn says(&self, runtime: &'static str) {
        *self.runtime.lock().expect("no panic") = Some(runtime);
    }

    fn answer(&self, connection: TcpStream) {
        let mut reader = BufReader::new(connection);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or_default() == 0 {
                return;
            }
        }
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let (code, answer) = self.judge(&head, &body);
        let text = answer.to_string();
        let answer = format!(
            "HTTP/1.1 {code}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
            text.len()
        );
        // Whoever asked may have gone.
        reader.into_inner().write_all(answer.as_bytes()).unwrap_or_default();
    }

    fn judge(&self, head: &str, body: &[u8]) -> (&'static str, Value) {
        let failed = |code: u16| json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "no"});
        let Some(runtime) = *self.runtime.lock().expect("no panic") else {
            return ("500 Internal Server Error", failed(500));
        };
        if head.starts_with("GET /api/v1/nodes/n1 ") {
            let info = json!({"containerRuntimeVersion": runtime, "architecture": "", "bootID": "", "kernelVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
                "systemUUID": ""});
            return ("200 OK", json!({"metadata": {"name": "n1"}, "status": {"nodeInfo": info}}));
        }
        if head.starts_with("PATCH ") && head.contains("/leases/execlet-agent.n1") {
            let lease: Value = serde_json::from_slice(body).expect("JSON");
            self.leases.lock().expect("no panic").push(lease.clone());
            return ("200 OK", lease);
        }
        ("404 Not Found", failed(404))
    }
}

struct Agent {
    process: Child,
    http: SocketAddr,
}

impl Agent {
    fn begin(api: &ApiServer, folder: &Path) -> Self {
        let http = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
        let kubeconfig = folder.join("config");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", api.address)}}],
            "users": [{"name": "u", "user": {}}],
        });
        fs::write(&kubeconfig, config.to_string()).expect("written");
        let at = |flag: &str, name: &str| format!("--{flag}={}", folder.join(name).display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_execlet"));
        command
            .args(["agent", "--node-name=n1", "--namespace=execlet", "--manager-service-account=execlet:manager"])
            .args(["--agent-service-account=execlet:agent".to_owned(), format!("--http-addr={http}")])
            .args([at("state-dir", "state"), at("log-dir", "log"), at("audit-dir", "audit"), at("run-dir", "run")])
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

    fn is_not_ready_because(&self, words: &[&str]) {
        until(&format!("an agent that is not ready because {words:?}"), || {
            let answer = self.get("/readyz")?;
            let line = answer.lines().find(|line| line.starts_with("[-] engine failed: "))?;
            words.iter().all(|words| line.contains(words)).then_some(())
        });
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.process.kill().unwrap_or_default();
        drop(self.process.wait());
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited for {what}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_agent_whose_engine_is_not_supported_lives_and_says_so_everywhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let api = ApiServer::new(Some("cri-o://1.30.0"));
    let mut agent = Agent::begin(&api, folder.path());
    agent.is_not_ready_because(&["node n1", "cri-o 1.30.0", "Docker Engine 20.10", "containerd 1.7", "nodeSelector"]);
    let lease = until("a Lease", || api.leases.lock().expect("no panic").first().cloned());
    let why = lease["metadata"]["annotations"]["execlet.dev/engine-refused"].as_str().expect("a reason");
    assert!(why.contains("cri-o 1.30.0"), "{why}");
    assert_eq!(lease["metadata"]["labels"]["app.kubernetes.io/component"], "agent");
    assert_eq!(lease["spec"], Value::Null, "it is not renewed");
    assert!(agent.get("/metrics").is_some_and(|text| text.contains("execlet_engine_supported 0")));
    assert!(agent.get("/livez").is_some_and(|text| text.contains("200 OK")));
    assert!(agent.process.try_wait().expect("a state").is_none(), "it goes on");
    let log = fs::read_to_string(folder.path().join("agent.log")).expect("a log");
    assert!(log.contains("this agent takes no requests"), "{log}");
}

#[test]
fn an_agent_takes_the_engine_that_its_node_names_and_ends_if_that_was_another_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let named = || fs::read_to_string(folder.path().join("state/engine")).unwrap_or_default();
    let api = ApiServer::new(Some("containerd://2.4.2"));
    let agent = Agent::begin(&api, folder.path());
    agent.is_not_ready_because(&["containerd.sock does not answer"]);
    assert_eq!(named(), "containerd://2.4.2");
    drop(agent);

    // The API server is away, and comes back with another engine.
    let api = ApiServer::new(None);
    let mut agent = Agent::begin(&api, folder.path());
    agent.is_not_ready_because(&["named containerd://2.4.2 before"]);
    api.says("docker://20.10.24");
    let end = until("its end", || agent.process.try_wait().expect("a state"));
    assert!(!end.success());
    let log = fs::read_to_string(folder.path().join("agent.log")).expect("a log");
    assert!(log.contains("names docker://20.10.24"), "{log}");
    assert_eq!(named(), "docker://20.10.24");

    let agent = Agent::begin(&ApiServer::new(None), folder.path());
    agent.is_not_ready_because(&["named docker://20.10.24 before"]);
}
