//! A containerd of one's own: everything of it is in a folder that goes with the test.
//!
//! `EXECLET_TEST_CONTAINERD` names the folder of other programs than those of the machine's packages (containerd, its shim,
//! ctr), `EXECLET_TEST_RUNC` another runc.

use std::{
    collections::HashMap,
    env, fs,
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex, OnceLock},
};

use execlet::{
    core::ids::{ContainerId, ContainerRef},
    engine::{Engine as _, containerd::ContainerdEngine},
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{
    lab::{unique, until},
    stage::{Stage, Staged},
};

const PROGRAMS: &str = "EXECLET_TEST_CONTAINERD";
const RUNC: &str = "EXECLET_TEST_RUNC";
const NAMESPACE: &str = "k8s.io";
/// What containers run. One that a test could not remove ends by itself.
const MAIN: &str = "mkfifo /gate; exec sleep 900";
/// As the test cluster's image has them.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n";
const GROUP: &str = "root:x:0:\napp:x:1000:\n";

pub struct Node {
    pub engine: ContainerdEngine,
    daemon: Arc<Daemon>,
}

pub struct Daemon {
    folder: TempDir,
    /// A shell that ends it when this program ends, however that happens.
    keeper: Mutex<Option<Child>>,
    containers: Mutex<Vec<String>>,
}

pub struct Boxed {
    pub reference: ContainerRef,
    /// Its root, on this machine.
    pub root: PathBuf,
    gate: Option<File>,
}

impl Node {
    pub async fn open() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let daemon = Arc::new(Daemon { folder, keeper: Mutex::new(None), containers: Mutex::default() });
        daemon.start();
        let node = Self { engine: daemon.engine(), daemon };
        node.answers().await;
        node
    }

    pub async fn answers(&self) {
        until("an engine that answers", async || self.engine.version().await.ok()).await;
    }

    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    pub fn socket(&self) -> PathBuf {
        self.daemon.socket()
    }

    async fn boxed(&self, labels: HashMap<String, String>, runs: bool) -> Boxed {
        let id = unique("container");
        let root = self.daemon.folder.path().join("roots").join(&id);
        populate(&root);
        let label = |(name, value): (String, String)| ["--label".to_owned(), format!("{name}={value}")];
        let mut args: Vec<String> = if runs { vec!["run", "-d", "--null-io"] } else { vec!["container", "create"] }
            .into_iter()
            .map(str::to_owned)
            .collect();
        if let Some(runc) = env::var_os(RUNC).filter(|_| runs) {
            args.extend(["--runc-binary".to_owned(), runc.to_string_lossy().into_owned()]);
        }
        if runs {
            args.extend(["--cgroup".to_owned(), format!("/{id}")]);
        }
        args.extend(["--rootfs", "--env", "PATH=/bin"].map(str::to_owned));
        args.extend(labels.into_iter().flat_map(label));
        args.extend([root.to_string_lossy().into_owned(), id.clone()]);
        // The engine's own client takes an option of a command for its own where nothing is to run.
        let main: &[&str] = if runs { &["sh", "-c", MAIN] } else { &["true"] };
        args.extend(main.iter().map(|word| (*word).to_owned()));
        self.daemon.containers.lock().unwrap().push(id.clone());
        self.daemon.ctr(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let found = self.engine.container(&ContainerId::from(id)).await.expect("an answer").expect("a container");
        Boxed { reference: found.reference, root, gate: None }
    }

    /// The status of a container's task, as the engine's own client says it.
    pub fn task(&self, container: &Boxed) -> String {
        self.of_task(container, 2)
    }

    /// The main process of a container.
    pub fn main(&self, container: &Boxed) -> Pid {
        Pid::from_raw(self.of_task(container, 1).parse().expect("a number")).expect("a PID")
    }

    fn of_task(&self, container: &Boxed, column: usize) -> String {
        let listed = self.daemon.ctr(&["task", "ls"]);
        let line = listed.lines().find(|line| line.starts_with(container.id())).unwrap_or_default().to_owned();
        line.split_whitespace().nth(column).unwrap_or_default().to_owned()
    }
}

impl Daemon {
    pub fn engine(&self) -> ContainerdEngine {
        ContainerdEngine::new(self.socket(), self.base(), None)
    }

    /// As an agent has it that is in this pod: with the pod's holder.
    pub fn engine_in(&self, pod: &str) -> Arc<ContainerdEngine> {
        Arc::new(ContainerdEngine::new(self.socket(), self.base(), Some(pod)))
    }

    /// Where the folders of execs are.
    pub fn base(&self) -> PathBuf {
        self.folder.path().join("execs")
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn socket(&self) -> PathBuf {
        self.state().join("containerd.sock")
    }

    pub fn start(&self) {
        let folder = self.folder.path();
        let (root, state, socket) = (folder.join("root"), self.state(), self.socket());
        let config = format!(
            "version = 2\nroot = '{}'\nstate = '{}'\noom_score = 0\n\
             disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.cri.v1.images', \
             'io.containerd.cri.v1.runtime', 'io.containerd.internal.v1.opt']\n[grpc]\n  address = '{}'\n",
            root.display(),
            state.display(),
            socket.display()
        );
        let path = folder.join("config.toml");
        fs::write(&path, config).expect("written");
        let log = OpenOptions::new().create(true).append(true).open(folder.join("log")).expect("a log");
        let mut keeper = Command::new("sh")
            // Its input ends with this program.
            .args(["-c", r#""$@" & echo $!; read _; kill -9 $! 2>/dev/null; wait"#, "sh"])
            .arg(program("containerd"))
            .args(["--log-level", "debug", "--config"])
            .arg(&path)
            .env("PATH", search_path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("a shell");
        let mut line = String::new();
        let output = keeper.stdout.as_mut().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a PID");
        fs::write(folder.join("pid"), line.trim()).expect("written");
        *self.keeper.lock().unwrap() = Some(keeper);
    }

    pub fn pid(&self) -> Pid {
        let pid = fs::read_to_string(self.folder.path().join("pid")).expect("a PID");
        Pid::from_raw(pid.parse().expect("a number")).expect("a PID")
    }

    /// Ends it as a crash would, and waits for that.
    pub fn kill(&self) {
        kill_process(self.pid(), Signal::KILL).expect("killed");
        self.end();
    }

    fn end(&self) {
        if let Some(mut keeper) = self.keeper.lock().unwrap().take() {
            drop(keeper.stdin.take());
            keeper.wait().expect("the shell ends");
        }
    }

    /// Runs the engine's own client, which must succeed.
    pub fn ctr(&self, args: &[&str]) -> String {
        let output = self.try_ctr(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ctr {}: {error}", args.join(" "));
        String::from_utf8(output.stdout).expect("text")
    }

    fn try_ctr(&self, args: &[&str]) -> Output {
        Command::new(program("ctr"))
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", NAMESPACE])
            .args(args)
            .output()
            .expect("ctr")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for id in std::mem::take(&mut *self.containers.lock().unwrap()) {
            for args in [
                &["task", "resume", &id][..],
                &["task", "kill", "-s", "SIGKILL", &id],
                &["task", "rm", "-f", &id],
                &["container", "rm", &id],
            ] {
                // Not all of them apply.
                self.try_ctr(args);
            }
        }
        self.end();
    }
}

impl Stage for Node {
    type Engine = ContainerdEngine;
    type Container = Boxed;

    fn engine(&self) -> &ContainerdEngine {
        &self.engine
    }

    fn kind_label(is_container: bool) -> (&'static str, &'static str) {
        ("io.cri-containerd.kind", if is_container { "container" } else { "sandbox" })
    }

    async fn gated(&self) -> Boxed {
        let mut container = self.boxed(HashMap::new(), true).await;
        let gate = container.root.join("gate");
        // Open for both, it waits for nobody, and keeps what nobody has read yet.
        let open = async || OpenOptions::new().read(true).write(true).open(&gate).ok();
        container.gate = Some(until("the gate", open).await);
        container
    }

    async fn with_labels(&self, labels: HashMap<String, String>) -> Boxed {
        self.boxed(labels, true).await
    }

    async fn never_started(&self, labels: HashMap<String, String>) -> Boxed {
        self.boxed(labels, false).await
    }

    async fn pause(&self, container: &Boxed) {
        self.daemon.ctr(&["task", "pause", container.id()]);
    }

    async fn resume(&self, container: &Boxed) {
        self.daemon.ctr(&["task", "resume", container.id()]);
    }

    async fn end(&self, container: &Boxed) {
        self.daemon.ctr(&["task", "kill", "-s", "SIGKILL", container.id()]);
        until("the end of the container", async || (self.task(container) == "STOPPED").then_some(())).await;
    }
}

impl Boxed {
    pub fn id(&self) -> &str {
        self.reference.id.as_str()
    }

    /// The lines of a file in it; none, if there is no such file.
    pub fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.root.join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Staged for Boxed {
    fn reference(&self) -> ContainerRef {
        self.reference.clone()
    }

    fn pass(&self) {
        let mut gate = self.gate.as_ref().expect("a container with a gate");
        gate.write_all(b"\n").expect("an open gate");
    }
}

fn program(name: &str) -> PathBuf {
    env::var_os(PROGRAMS).map_or_else(|| PathBuf::from(name), |folder| Path::new(&folder).join(name))
}

/// The engine looks for its shim there.
fn search_path() -> String {
    let path = env::var("PATH").unwrap_or_default();
    let path = format!("{path}:/usr/sbin:/usr/bin:/sbin:/bin");
    env::var(PROGRAMS).map_or_else(|_| path.clone(), |folder| format!("{folder}:{path}"))
}

/// The files of the test cluster's image of busybox.
fn populate(root: &Path) {
    static APPLETS: OnceLock<String> = OnceLock::new();
    let applets = APPLETS.get_or_init(|| {
        let listed = Command::new("/bin/busybox").arg("--list").output().expect("busybox");
        String::from_utf8(listed.stdout).expect("text")
    });
    for folder in ["bin", "dev", "etc", "home/app", "proc", "root", "sys", "tmp", "var"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("open to all");
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox");
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).expect("a link");
    }
    fs::write(root.join("etc/passwd"), PASSWD).expect("written");
    fs::write(root.join("etc/group"), GROUP).expect("written");
}
