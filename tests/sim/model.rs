//! The world of one episode: an API server, an engine, a kernel and a disk, as far as the
//! agent can see them, with the truth of what ran beside them.
//!
//! What the engine does is what `docs/engine.md` says that it does.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use execlet::{
    agent::hub::Hubs,
    api::{ExecRequest, ExecRequestStatus},
    core::{
        audit::event::Event,
        ids::{ContainerRef, ProcessRef},
    },
    engine::ExecDied,
};
use k8s_openapi::jiff::Timestamp;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};

use crate::random::Random;

pub const NAMESPACE: &str = "shop";
pub const POD: &str = "web";
pub const POD_UID: &str = "pod-1";
pub const CONTAINER: &str = "app";
pub const NODE: &str = "n1";

/// A bug planted in the edges of the agent, which the simulation has to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// The engine's missing exit code is taken for 0.
    NullIsZero,
    /// Journal writes are said to be on the disk, and are not.
    ForgetfulDisk,
    /// Status writes do not look at the resource version, nor at whether it has finished.
    BlindWrites,
    /// Reports are said to be written, and are not.
    LostReports,
    /// No process of a command is ever found.
    BlindKernel,
    /// Output is lost between engine and agent, and nobody is told.
    LeakyStream,
    /// Audit records are said to be written, and are not.
    ForgetfulTrail,
    /// The engine, which runs on, knows nothing of an exec any more when it has ended.
    ForgetfulEngine,
}

/// What the command of a request does, written into the command itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub runs_for: Duration,
    pub code: i32,
    /// Writes, every 50 ms.
    pub noisy: bool,
    /// There is no such program.
    pub missing: bool,
    pub ignores_term: bool,
    /// Leaves a child that holds its output.
    pub leaves_child: bool,
    /// That child has a session of its own and no environment.
    pub nameless_child: bool,
}

impl Plan {
    pub fn random(random: &mut Random) -> Self {
        let long = random.chance(200);
        Self {
            runs_for: if long { random.millis(1000..20_000) } else { random.millis(0..1500) },
            code: *random.pick(&[0, 0, 1, 3, 7, 126, 127, 137, 143, 255]).unwrap_or(&0),
            noisy: random.chance(400),
            missing: random.chance(50),
            ignores_term: random.chance(150),
            leaves_child: random.chance(100),
            nameless_child: false,
        }
    }

    /// One that has to be ended, and leaves what is hard to find.
    pub fn furtive(random: &mut Random) -> Self {
        let plan = Self { runs_for: Duration::from_secs(3600), code: 0, missing: false, ..Self::random(random) };
        Self { leaves_child: true, nameless_child: true, ..plan }
    }

    pub fn command(self) -> Vec<String> {
        let flag = |on: bool| if on { "1" } else { "0" };
        let words = [
            "plan".to_owned(),
            self.runs_for.as_millis().to_string(),
            self.code.to_string(),
            flag(self.noisy).to_owned(),
            flag(self.missing).to_owned(),
            flag(self.ignores_term).to_owned(),
            flag(self.leaves_child).to_owned(),
            flag(self.nameless_child).to_owned(),
        ];
        words.to_vec()
    }

    pub fn parse(command: &[String]) -> Self {
        let on = |index: usize| command[index] == "1";
        Self {
            runs_for: Duration::from_millis(command[1].parse().expect("a number")),
            code: command[2].parse().expect("a number"),
            noisy: on(3),
            missing: on(4),
            ignores_term: on(5),
            leaves_child: on(6),
            nameless_child: on(7),
        }
    }
}

/// What is true of a request, whatever anybody says.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// Times that a process of it was started.
    pub starts: u32,
    /// Times that the engine failed to start it, for want of such a program.
    pub failed_starts: u32,
    /// The real exit code, once it has ended.
    pub code: Option<i32>,
    /// Bytes that it wrote.
    pub written: i64,
    /// Its input is to come from a client, and whether one has ever come.
    pub awaits_client: bool,
    pub client_came: bool,
    /// A signal of the agent reached it.
    pub signalled: bool,
    /// Before it had finished, the engine or the agent was ended by force; or it was made unfinished again.
    pub shaken: bool,
    /// An agent that was told to stop went before its process ended.
    pub let_go: bool,
    /// The kernel told an agent with which code its process ended.
    pub seen_to_end: bool,
    /// The first final status, and whether an older state was restored since.
    pub finished: Option<ExecRequestStatus>,
    pub restored: bool,
}

pub struct Object {
    pub request: ExecRequest,
}

pub enum Change {
    Applied(Box<ExecRequest>),
    Deleted(Box<ExecRequest>),
    Broken,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecPhase {
    Created,
    /// Not to be started: the runtime refused it.
    Refused(i32),
    Started(u32),
}

pub struct Exec {
    pub run: ContainerRef,
    pub uid: String,
    pub plan: Plan,
    pub tty: bool,
    pub phase: ExecPhase,
    /// From when on inspect shows the PID.
    pub pid_shows: Option<Instant>,
    pub code: Option<i32>,
    /// The stream to the client broke, so that codes get falsified.
    pub client_gone: bool,
    /// A second start confused the engine.
    pub confused: bool,
}

pub struct Process {
    pub this: ProcessRef,
    pub uid: String,
    pub session: u32,
    pub run: ContainerRef,
    pub alive: bool,
    pub ignores_term: bool,
    pub holds_output: bool,
    /// Nothing but its output tells whose it is.
    pub nameless: bool,
    /// Tells its exit code to whoever waits.
    pub ended: watch::Sender<Option<i32>>,
    /// Ends it, with this code.
    pub kill: Arc<Notify>,
    pub killed_with: Option<i32>,
}

pub struct State {
    pub random: Random,
    pub planted: Option<Planted>,
    pub trace: Option<Vec<String>>,
    pub begun: Instant,
    pub faults: bool,

    // the API server
    pub api_up: bool,
    pub version: u64,
    pub objects: BTreeMap<String, Object>,
    pub backup: Option<Vec<ExecRequest>>,
    pub watchers: Vec<mpsc::UnboundedSender<Change>>,

    // the engine
    pub engine_up: bool,
    /// Changes with each start of the engine: streams of an earlier one are broken.
    pub engine_run: u64,
    pub live_restore: bool,
    /// Docker Engine 28 and later no longer overwrite a code.
    pub modern: bool,
    pub container: ContainerRef,
    pub container_runs: bool,
    pub container_paused: bool,
    pub execs: BTreeMap<String, Exec>,
    pub events: Vec<ExecDied>,
    pub listeners: Vec<mpsc::UnboundedSender<ExecDied>>,
    pub next_id: u64,

    // the kernel
    pub kernel_tells: bool,
    pub boot: u64,
    pub processes: BTreeMap<u32, Process>,
    pub next_pid: u32,

    // the disk
    pub files: BTreeMap<String, Vec<u8>>,
    pub disk_full: bool,
    /// The audit log.
    pub records: Vec<Event>,

    // the agent
    pub hubs: Arc<Hubs>,
    /// An older state of the API server was restored.
    pub restores: u32,
    pub crash: Arc<Notify>,
    pub crashed: bool,
    pub crashes_per_mille: u64,

    pub truth: BTreeMap<String, Truth>,
    pub violations: Vec<String>,
    pub agent_crashes: u32,
    pub container_ends: u32,
}

#[derive(Clone)]
pub struct Model(Arc<Mutex<State>>);

impl Model {
    pub fn new(seed: u64, planted: Option<Planted>, trace: bool) -> Self {
        let mut random = Random::new(seed);
        let live_restore = random.chance(400);
        let modern = random.chance(500);
        let kernel_tells = random.chance(500);
        let crashes_per_mille = *random.pick(&[0, 2, 5, 15]).unwrap_or(&0);
        Self(Arc::new(Mutex::new(State {
            random,
            planted,
            trace: trace.then(Vec::new),
            begun: Instant::now(),
            faults: true,
            api_up: true,
            version: 1,
            objects: BTreeMap::new(),
            backup: None,
            watchers: Vec::new(),
            engine_up: true,
            engine_run: 1,
            live_restore,
            modern,
            container: ContainerRef { id: "container-1".into(), started_at: "run-1".to_owned() },
            container_runs: true,
            container_paused: false,
            execs: BTreeMap::new(),
            events: Vec::new(),
            listeners: Vec::new(),
            next_id: 1,
            kernel_tells,
            boot: 1,
            processes: BTreeMap::new(),
            next_pid: 1000,
            files: BTreeMap::new(),
            disk_full: false,
            records: Vec::new(),
            hubs: Arc::default(),
            restores: 0,
            crash: Arc::new(Notify::new()),
            crashed: false,
            crashes_per_mille,
            truth: BTreeMap::new(),
            violations: Vec::new(),
            agent_crashes: 0,
            container_ends: 0,
        })))
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn note(&self, what: impl FnOnce() -> String) {
        self.lock().note(what);
    }

    pub fn chance(&self, per_mille: u64) -> bool {
        let mut state = self.lock();
        state.faults && state.random.chance(per_mille)
    }

    pub fn millis(&self, range: std::ops::Range<u64>) -> Duration {
        self.lock().random.millis(range)
    }

    /// A step of the agent takes its time here, and the agent may die here.
    pub async fn point(&self) {
        let pause = {
            let mut state = self.lock();
            let per_mille = state.crashes_per_mille;
            if state.faults && !state.crashed && state.random.chance(per_mille) {
                state.crash_agent();
            }
            if state.crashed { None } else { Some(state.random.below(6)) }
        };
        match pause {
            Some(0 | 1) => {}
            Some(pause) => tokio::time::sleep(Duration::from_millis(pause - 1)).await,
            None => std::future::pending().await,
        }
    }

    pub fn now(&self) -> Timestamp {
        self.lock().now()
    }
}

impl State {
    pub fn note(&mut self, what: impl FnOnce() -> String) {
        let at = self.begun.elapsed();
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:9.3} {}", at.as_secs_f64(), what()));
        }
    }

    pub fn violated(&mut self, what: String) {
        self.note(|| format!("VIOLATION: {what}"));
        self.violations.push(what);
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("a time") + self.begun.elapsed()
    }

    pub fn crash_agent(&mut self) {
        self.note(|| "agent crashes".to_owned());
        self.crashed = true;
        self.agent_crashes += 1;
        self.shake();
        self.crash.notify_one();
    }

    /// Something was ended by force that may have known what nobody else does.
    pub fn shake(&mut self) {
        for truth in self.truth.values_mut().filter(|truth| truth.finished.is_none()) {
            truth.shaken = true;
        }
    }

    /// An agent that was told to stop is gone, and what still runs goes on without it.
    pub fn let_go(&mut self) {
        let living: Vec<String> = self.processes.values().filter(|p| p.alive).map(|p| p.uid.clone()).collect();
        for uid in living {
            self.truth(&uid).let_go = true;
        }
    }

    /// Whether no one can know any more how the process of a request ended.
    fn is_lost(&self, uid: &str, truth: &Truth) -> bool {
        // Nobody held the other end of its output, for which the engine changes the code of a terminal, and an old
        // one that of any command; and nobody watched the process itself.
        let falsified = || self.execs.values().any(|exec| exec.uid == uid && self.falsifies(exec));
        truth.shaken || (truth.let_go && !truth.seen_to_end && falsified())
    }

    /// Whether the engine gives another code for it than the true one.
    pub fn falsifies(&self, exec: &Exec) -> bool {
        (exec.client_gone || exec.confused) && (exec.tty || !self.modern)
    }

    pub fn id(&mut self, what: &str) -> String {
        self.next_id += 1;
        format!("{what}-{}", self.next_id)
    }

    /// Nothing may be created or started for a client that has never come.
    pub fn must_have_client(&mut self, uid: &str, act: &str) {
        let truth = self.truth(uid);
        if truth.awaits_client && !truth.client_came {
            self.violated(format!("{act} of {uid} came before any client with its input"));
        }
    }

    /// Nothing may be done to a request that was not recorded before.
    pub fn must_be_recorded(&mut self, uid: &str, act: &str, is: impl Fn(&Event) -> bool) {
        if !self.records.iter().any(|event| event.uid().is_some_and(|of| of.as_str() == uid) && is(event)) {
            self.violated(format!("{act} of {uid} was not recorded before"));
        }
    }

    pub fn truth(&mut self, uid: &str) -> &mut Truth {
        self.truth.entry(uid.to_owned()).or_default()
    }

    // ---- the API server

    /// Stores an object as it is now, and tells all who watch.
    pub fn store(&mut self, mut request: ExecRequest) -> ExecRequest {
        self.version += 1;
        request.metadata.resource_version = Some(self.version.to_string());
        let name = request.metadata.name.clone().expect("a name");
        self.check_final(&request);
        self.objects.insert(name, Object { request: request.clone() });
        self.watchers.retain(|watcher| watcher.send(Change::Applied(Box::new(request.clone()))).is_ok());
        request
    }

    pub fn delete(&mut self, name: &str) {
        if let Some(Object { request }) = self.objects.remove(name) {
            self.version += 1;
            self.note(|| format!("{name} is deleted"));
            self.watchers.retain(|watcher| watcher.send(Change::Deleted(Box::new(request.clone()))).is_ok());
        }
    }

    pub fn break_watches(&mut self) {
        for watcher in self.watchers.drain(..) {
            watcher.send(Change::Broken).ok();
        }
    }

    /// A finished status is held against the truth, and against the one before.
    fn check_final(&mut self, request: &ExecRequest) {
        let Some(status) = request.status.clone().filter(|status| status.completion_time.is_some()) else { return };
        let uid = request.metadata.uid.clone().unwrap_or_default();
        let name = request.metadata.name.clone().unwrap_or_default();
        let plan = Plan::parse(&request.spec.command);
        let truth = self.truth(&uid).clone();
        let reason = reason(&status).to_owned();
        self.note(|| format!("{name} finishes: {reason} code {:?}", status.exit_code));
        if let Some(first) = &truth.finished
            && !truth.restored
            && *first != status
        {
            self.violated(format!("{name} finished twice: {} and {reason}", crate::model::reason(first)));
        }
        if let Some(first) = &truth.finished
            && let (Some(before), Some(now)) = (first.exit_code, status.exit_code)
            && before != now
        {
            self.violated(format!("{name} had exit code {before} and has {now}"));
        }
        let mine = self.truth(&uid);
        mine.finished = Some(status.clone());
        mine.restored = false;
        let started = status.conditions.iter().any(|c| c.type_ == "Started" && c.status != "False");
        if let Some(code) = status.exit_code
            && truth.code != Some(code)
        {
            self.violated(format!("{name} is said to have code {code}, and has {:?}", truth.code));
        }
        if !started && truth.starts > 0 {
            self.violated(format!("{name} is said never to have started ({reason}), and was"));
        }
        if reason == "StartFailed" && !plan.missing {
            self.violated(format!("{name} is said not to be startable, and is"));
        }
        if status.phase.to_string() == "Succeeded" && truth.code != Some(0) {
            self.violated(format!("{name} is said to have succeeded with {:?}", truth.code));
        }
        if reason == "OutcomeLost" && !truth.restored && !self.is_lost(&uid, &truth) {
            self.violated(format!("the outcome of {name} is said to be lost, and nothing had happened to lose it"));
        }
        if let Some(output) = &status.output {
            let whole = output.incomplete_reason.as_deref().is_none_or(|why| why == "SpoolLimit");
            if whole && output.stdout.bytes != truth.written {
                self.violated(format!(
                    "the output of {name} is said to be whole with {} bytes, and has {}",
                    output.stdout.bytes, truth.written
                ));
            }
        }
    }

    // ---- the kernel

    pub fn spawn(&mut self, uid: &str, session: Option<u32>, ignores_term: bool, holds_output: bool) -> u32 {
        self.next_pid += 1;
        let pid = self.next_pid;
        let ticks = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(0) / 10;
        let process = Process {
            this: ProcessRef { pid, start_ticks: ticks },
            uid: uid.to_owned(),
            session: session.unwrap_or(pid),
            run: self.container.clone(),
            alive: true,
            ignores_term,
            holds_output,
            nameless: false,
            ended: watch::channel(None).0,
            kill: Arc::new(Notify::new()),
            killed_with: None,
        };
        self.processes.insert(pid, process);
        pid
    }

    /// The process ends by this signal's code.
    pub fn kill(&mut self, pid: u32, code: i32) {
        if let Some(process) = self.processes.get_mut(&pid).filter(|process| process.alive) {
            process.killed_with = Some(code);
            process.kill.notify_one();
        }
    }

    /// All processes of the container end.
    pub fn end_container(&mut self) {
        self.container_runs = false;
        self.container_paused = false;
        self.container_ends += 1;
        let all: Vec<u32> = self.processes.keys().copied().collect();
        for pid in all {
            self.kill(pid, 137);
        }
    }

    /// The kubelet starts it again.
    pub fn restart_container(&mut self) {
        let run = self.id("run");
        self.note(|| format!("the container runs again as {run}"));
        self.container.started_at = run;
        self.container_runs = true;
    }

    // ---- the engine

    /// It starts again, and knows nothing of what it did before.
    pub fn forget_execs(&mut self) {
        self.engine_run += 1;
        self.execs.clear();
        self.events.clear();
        if !self.live_restore {
            self.end_container();
        }
    }

    pub fn died(&mut self, exec: &str, code: i32) {
        let event = ExecDied { exec: exec.into(), code, at: self.now() };
        self.note(|| format!("exec_die {exec} {code}"));
        self.events.push(event.clone());
        self.listeners.retain(|listener| listener.send(event.clone()).is_ok());
    }
}

pub fn reason(status: &ExecRequestStatus) -> &str {
    status.conditions.iter().find(|c| c.type_ == "Finished").map_or("", |c| c.reason.as_str())
}
