//! What every test needs: the engine, a container of its own, and patience.

use std::{
    collections::HashMap,
    env,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error as BollardError,
    models::{ContainerCreateBody, ExecConfig, HostConfig},
    query_parameters::{
        CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptions, RemoveContainerOptionsBuilder,
        StartContainerOptions, WaitContainerOptions,
    },
};
use execlet::{
    core::{
        ids::{ContainerId, ContainerRef, ExecId, ProcessRef},
        outcome::{EngineWord, Evidence, StreamEnd, Testimony, Verdict, judge},
    },
    engine::{
        Chunk, Engine as _, ExecInput, ExecSpec, ExecState, ExecStream, StreamError,
        docker::{
            DockerEngine, Inspected,
            calls::{Died, TYPE_CONTAINER, TYPE_LABEL},
            testimony,
        },
    },
    infra::process::ended,
    wire::OutputStream,
};
use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::stage::{ENGINE, Stage, Staged};

const IMAGE: &str = "execlet.test/busybox:1";
/// Whatever happens at all happens by then, on a machine that is busy.
const DEADLINE: Duration = Duration::from_secs(30);
/// On a machine that is slow by nature, as an emulated one is: all deadlines are so many times as long.
const PATIENCE: &str = "EXECLET_TEST_PATIENCE";
/// A task has had its turn by then.
const HANDLE_IS_OPEN: Duration = Duration::from_millis(20);
/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(10);
/// What containers run. One that a test could not remove ends by itself.
const MAIN: &str = "mkfifo /gate; exec sleep 900";
/// The engine's own client, which is preferred to a newer one that refuses an older engine.
const DOCKER: &str = "/usr/bin/docker";

/// What inspect says of an exec that was created and no more. No code is not code 0.
pub const NEVER_STARTED: Inspected = Inspected { running: false, code: None, pid: None };

/// The engine under test, and all ends of execs since the test began.
pub struct Lab {
    pub engine: Arc<DockerEngine>,
    /// The engine without the code under test, to set the stage.
    pub docker: Docker,
    socket: PathBuf,
    deaths: watch::Receiver<HashMap<ExecId, Died>>,
    listener: JoinHandle<()>,
}

/// An exec that was run to its end.
pub struct Run {
    pub exec: ExecId,
    pub output: Output,
    /// What inspect said straight after the end of the stream.
    pub state: Inspected,
}

/// Everything a command wrote.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Lab {
    pub async fn open() -> Self {
        let Some(socket) = env::var_os(ENGINE).filter(|path| !path.is_empty()).map(PathBuf::from) else {
            panic!(
                "{ENGINE} is not set: it names the socket of the Docker Engine to test on; `make test-engine` sets it"
            );
        };
        Self::at(socket).await
    }

    /// On another engine.
    pub async fn at(socket: PathBuf) -> Self {
        let engine = Arc::new(DockerEngine::new(&socket));
        engine.version().await.expect("an engine that answers");
        let (sender, deaths) = watch::channel(HashMap::new());
        let mut events = engine.exec_deaths(Some(Timestamp::now()));
        let listener = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                // The stream ends with its engine.
                let Ok(died) = event else { return };
                sender.send_modify(|deaths| {
                    deaths.insert(died.exec.clone(), died);
                });
            }
        });
        Self { engine, docker: connect(&socket), socket, deaths, listener }
    }

    /// Whether this engine is older than 28.0, API 1.48, since when a broken stream no longer
    /// overwrites a code. An engine that was built from its module tells no version.
    pub async fn is_old(&self) -> bool {
        let api = self.engine.version().await.unwrap().api;
        let minor = api.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
        minor.expect("an API version") < 48
    }

    /// A running container with a fifo `/gate`, at which a command can wait for a line.
    pub async fn container(&self) -> TestContainer {
        let mut container = self.labelled(HashMap::new()).await;
        let pid = self.main_pid(&container).await;
        let gate = format!("/proc/{pid}/root/gate");
        // Open for both, it waits for nobody, and keeps what nobody has read yet.
        let open = async || OpenOptions::new().read(true).write(true).open(&gate).ok();
        container.gate = Some(until("the gate", open).await);
        container
    }

    /// The PID on this machine of a container's own process.
    pub async fn main_pid(&self, container: &TestContainer) -> u32 {
        let found = self.docker.inspect_container(container.id(), None::<InspectContainerOptions>).await;
        let pid = found.unwrap().state.and_then(|state| state.pid).expect("a process of this machine");
        u32::try_from(pid).expect("a PID")
    }

    /// A running container with these labels.
    pub async fn labelled(&self, labels: HashMap<String, String>) -> TestContainer {
        let container = self.unstarted(labels).await;
        self.docker.start_container(container.id(), None::<StartContainerOptions>).await.expect("a running container");
        container
    }

    /// A container that was never started.
    pub async fn unstarted(&self, labels: HashMap<String, String>) -> TestContainer {
        self.of(labels, HostConfig::default()).await
    }

    /// A running container that shares the PID namespace of this machine.
    pub async fn among_all_processes(&self) -> TestContainer {
        let host = HostConfig { pid_mode: Some("host".to_owned()), ..HostConfig::default() };
        let container = self.of(HashMap::new(), host).await;
        self.docker.start_container(container.id(), None::<StartContainerOptions>).await.expect("a running container");
        container
    }

    async fn of(&self, mut labels: HashMap<String, String>, host: HostConfig) -> TestContainer {
        labels.insert("execlet.test".to_owned(), "1".to_owned());
        let name = unique("container");
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let body = ContainerCreateBody {
            image: Some(IMAGE.to_owned()),
            cmd: Some(["sh", "-c", MAIN].map(str::to_owned).to_vec()),
            labels: Some(labels),
            host_config: Some(HostConfig { network_mode: Some("none".to_owned()), ..host }),
            ..Default::default()
        };
        let created = self.docker.create_container(Some(options), body).await.expect("a container");
        TestContainer { id: created.id.into(), started_at: None, socket: self.socket.clone(), gate: None }
    }

    /// With the moment of its start, as the engine tells it.
    async fn referred(&self, mut container: TestContainer) -> TestContainer {
        let found = self.engine.container(&container.id).await.expect("an answer").expect("a container");
        container.started_at = found.reference.started_at;
        container
    }

    pub async fn create(&self, container: &TestContainer, spec: &ExecSpec) -> ExecId {
        self.engine.create_exec(&container.id, spec).await.expect("an exec")
    }

    /// A terminal whose input is not attached, as the code under test never makes it.
    pub async fn create_without_input(&self, container: &TestContainer, script: &str) -> ExecId {
        let options = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(true),
            cmd: Some(["sh", "-c", script].map(str::to_owned).to_vec()),
            ..Default::default()
        };
        self.docker.create_exec(container.id(), options).await.expect("an exec").id.into()
    }

    pub async fn start(&self, exec: &ExecId) -> ExecStream {
        self.engine.start_exec(exec, false).await.expect("a started exec")
    }

    /// Creates and starts an exec, and waits until it has written something.
    pub async fn begin(&self, container: &TestContainer, spec: &ExecSpec) -> (ExecId, ExecStream) {
        let exec = self.create(container, spec).await;
        let stream = self.begin_created(&exec, spec.tty).await;
        (exec, stream)
    }

    pub async fn begin_created(&self, exec: &ExecId, tty: bool) -> ExecStream {
        let mut stream = self.engine.start_exec(exec, tty).await.expect("a started exec");
        within("first output", stream.next()).await.expect("a stream").expect("output");
        stream
    }

    /// Runs a command to the end of its stream.
    pub async fn run(&self, container: &TestContainer, spec: &ExecSpec) -> Run {
        let exec = self.create(container, spec).await;
        let stream = self.engine.start_exec(&exec, spec.tty).await.expect("a started exec");
        let output = read(stream).await.expect("an unbroken stream");
        let state = self.inspect(&exec).await;
        Run { exec, output, state }
    }

    /// Runs a script that must succeed, and gives its standard output.
    pub async fn sh(&self, container: &TestContainer, script: &str) -> String {
        let run = self.run(container, &shell(script)).await;
        assert_eq!(run.state.code, Some(0), "{script}: {:?}", run.output);
        String::from_utf8(run.output.stdout).expect("text")
    }

    pub async fn inspect(&self, exec: &ExecId) -> Inspected {
        self.engine.inspect_exec(exec).await.expect("an exec that the engine knows")
    }

    /// Waits until inspect has a code.
    pub async fn code(&self, exec: &ExecId) -> i32 {
        until("a code in inspect", async || self.inspect(exec).await.code).await
    }

    /// Waits until inspect has a process.
    pub async fn pid(&self, exec: &ExecId) -> u32 {
        until("a process in inspect", async || self.inspect(exec).await.pid).await
    }

    /// The code in the `exec_die` event, if it has come.
    pub fn died(&self, exec: &ExecId) -> Option<i32> {
        self.deaths.borrow().get(exec).map(|died| died.code)
    }

    /// Waits for the `exec_die` event.
    pub async fn death(&self, exec: &ExecId) -> Died {
        let mut deaths = self.deaths.clone();
        let found = within("an exec_die event", deaths.wait_for(|deaths| deaths.contains_key(exec))).await;
        found.expect("the event stream goes on")[exec].clone()
    }

    /// What all the evidence says, once both inspect and the event have come.
    pub async fn verdict(&self, exec: &ExecId, stream: StreamEnd) -> Verdict {
        let event = Some(self.death(exec).await.code);
        let state = self.inspect(exec).await;
        judge(&Evidence { word: word(state), exit: event.map(exit), kernel: None, stream })
    }

    /// Runs the same with the engine's own client: its output, and its exit code.
    pub async fn docker_exec(&self, container: &TestContainer, script: &str) -> (Output, Option<i32>) {
        let args = ["exec", container.id(), "sh", "-c", script].map(str::to_owned).to_vec();
        self.docker_cli(args).await
    }

    /// Runs the engine's own client.
    pub async fn docker_cli(&self, args: Vec<String>) -> (Output, Option<i32>) {
        let program = if Path::new(DOCKER).exists() { DOCKER } else { "docker" };
        let host = format!("unix://{}", self.socket.display());
        let run = move || Command::new(program).arg("--host").arg(host).args(args).output();
        let output = tokio::task::spawn_blocking(run).await.unwrap().expect("the docker client");
        (Output { stdout: output.stdout, stderr: output.stderr }, output.status.code())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Stage for Lab {
    type Engine = DockerEngine;
    type Container = TestContainer;

    fn engine(&self) -> &DockerEngine {
        &self.engine
    }

    fn kind_label(is_container: bool) -> (&'static str, &'static str) {
        (TYPE_LABEL, if is_container { TYPE_CONTAINER } else { "podsandbox" })
    }

    async fn gated(&self) -> TestContainer {
        self.referred(self.container().await).await
    }

    async fn with_labels(&self, labels: HashMap<String, String>) -> TestContainer {
        self.referred(self.labelled(labels).await).await
    }

    async fn never_started(&self, labels: HashMap<String, String>) -> TestContainer {
        self.referred(self.unstarted(labels).await).await
    }

    async fn pause(&self, container: &TestContainer) {
        self.docker.pause_container(container.id()).await.unwrap();
    }

    async fn resume(&self, container: &TestContainer) {
        self.docker.unpause_container(container.id()).await.unwrap();
    }

    async fn end(&self, container: &TestContainer) {
        self.docker.kill_container(container.id(), None::<KillContainerOptions>).await.unwrap();
        let mut ended = self.docker.wait_container(container.id(), None::<WaitContainerOptions>);
        // The end comes as an error, because its code is not 0.
        within("the end of the container", ended.next()).await.expect("an answer").ok();
    }
}

/// A container that is removed with its value, however the test ends.
pub struct TestContainer {
    pub id: ContainerId,
    started_at: Option<String>,
    socket: PathBuf,
    gate: Option<File>,
}

impl Staged for TestContainer {
    fn reference(&self) -> ContainerRef {
        ContainerRef { id: self.id.clone(), started_at: self.started_at.clone() }
    }

    fn pass(&self) {
        self.open_gate();
    }
}

impl TestContainer {
    pub fn id(&self) -> &str {
        self.id.as_str()
    }

    /// Lets one command pass that waits at the gate, or is about to. No exec is needed,
    /// which could disturb the others of this container.
    pub fn open_gate(&self) {
        let mut gate = self.gate.as_ref().expect("a container with a gate");
        gate.write_all(b"\n").expect("an open gate");
    }
}

impl Drop for TestContainer {
    fn drop(&mut self) {
        let (id, socket) = (self.id.clone(), self.socket.clone());
        // A runtime of its own: that of the test is busy with dropping this value.
        let removed = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(remove(&connect(&socket), id.as_str()))
        });
        if let Err(error) = removed.join().expect("a thread that ends") {
            eprintln!("container {} is left over: {error}", self.id);
        }
    }
}

async fn remove(docker: &Docker, id: &str) -> Result<(), BollardError> {
    // Fails for all but a paused one, which could not be killed.
    docker.unpause_container(id).await.ok();
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    match docker.remove_container(id, Some(options)).await {
        Err(BollardError::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
        result => result,
    }
}

fn connect(socket: &Path) -> Docker {
    Docker::connect_with_unix(&socket.to_string_lossy(), patient(DEADLINE).as_secs(), API_DEFAULT_VERSION)
        .expect("a client")
}

/// A name that no other test has, of this run or another.
pub fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("execlet-test-{what}-{}-{}-{count}", process::id(), Timestamp::now().as_millisecond())
}

pub fn command<const N: usize>(words: [&str; N]) -> ExecSpec {
    ExecSpec { command: words.map(str::to_owned).to_vec(), ..ExecSpec::default() }
}

pub fn shell(script: &str) -> ExecSpec {
    command(["sh", "-c", script])
}

pub fn on_a_terminal(script: &str) -> ExecSpec {
    ExecSpec { tty: true, ..shell(script) }
}

/// What the trust rule is told of an exec.
pub fn word(state: Inspected) -> Option<EngineWord> {
    match testimony::state(state) {
        ExecState::Ended { word, .. } => Some(word),
        ExecState::Absent | ExecState::Untouched | ExecState::Spent | ExecState::Running { .. } => None,
    }
}

/// The same, of an event with this code.
pub fn exit(code: i32) -> Testimony {
    testimony::exit(Died { exec: "e".into(), code, at: Timestamp::UNIX_EPOCH }).testimony
}

/// Reads to the end.
pub async fn read(mut stream: ExecStream) -> Result<Output, StreamError> {
    let mut output = Output::default();
    let all = async {
        while let Some(Chunk { stream, bytes }) = stream.next().await? {
            match stream {
                OutputStream::Stdout => output.stdout.extend_from_slice(&bytes),
                OutputStream::Stderr => output.stderr.extend_from_slice(&bytes),
            }
        }
        Ok(())
    };
    within("the end of the stream", all).await.map(|()| output)
}

/// A deadline, as this machine needs it.
pub fn patient(deadline: Duration) -> Duration {
    let Ok(factor) = env::var(PATIENCE) else { return deadline };
    deadline * factor.parse::<u32>().unwrap_or_else(|_| panic!("{PATIENCE} is a whole number, not {factor:?}"))
}

/// Whether this kernel keeps exit codes, and which it is: Linux 6.15 and later do.
pub fn kernel_keeps_codes() -> (bool, String) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release").trim().to_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    ((numbers.next(), numbers.next()) >= (Some(6), Some(15)), release)
}

/// The end of a process and the code that the kernel tells, for whoever watches it from now on.
pub async fn watched(process: ProcessRef) -> JoinHandle<io::Result<Option<i32>>> {
    let ended = tokio::spawn(ended(process));
    // Until the handle is open, there is nothing to keep the code for.
    sleep(patient(HANDLE_IS_OPEN)).await;
    ended
}

/// Waits for something that will come.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let deadline = patient(DEADLINE);
    timeout(deadline, future).await.unwrap_or_else(|_| panic!("{what} did not come within {deadline:?}"))
}

/// Looks again and again, until there is something to see.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(PAUSE).await;
        }
    };
    within(what, found).await
}

/// With an input.
pub fn fed(spec: ExecSpec) -> ExecSpec {
    ExecSpec { stdin: true, ..spec }
}

pub async fn write(input: &ExecInput, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let written = within("room for input", input.write(bytes)).await.expect("a command that reads");
        bytes = &bytes[written..];
    }
}
