//! The world of one episode: an API server, an engine, a kernel and a disk, as far as the
//! agent can see them, with the truth of what ran beside them.
//!
//! What the engine does is what `docs/docker.md` says that it does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use execlet::{
    agent::streams::hub::Hubs,
    api::{ExecBatch, ExecRequest, ExecRequestStatus},
    core::{
        audit::event::{Event, Verb},
        digest::sha256,
        ids::{ContainerRef, ProcessRef},
        offsets::StreamOffsets,
        request::{is_wanted, starting_deadline},
    },
    engine::{
        EngineError, ExecExit,
        docker::{calls::Died, testimony},
    },
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
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
/// How many of a thousand processes get a PID that another one had, which has ended so long ago.
const REUSED_PIDS: u64 = 200;
const PID_REST: Duration = Duration::from_secs(1);

/// What an engine is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// Its execs are tokens, each for at most one process. What it knows ends with it.
    Tokens,
    /// It takes execs away from under a start, and keeps output and codes until they are released.
    Fences,
}

/// A bug planted in the edges of the agent, which the simulation has to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// The engine's missing exit code is taken for 0.
    NullIsZero,
    /// The engine shows no PID of a process that has ended, as if there had been none.
    HiddenPid,
    /// Journal writes are said to be on the disk, and are not.
    ForgetfulDisk,
    /// The same, of those alone that tell of a start.
    StuckDisk,
    /// What a record says of the target of its batch is not on the disk.
    ForgottenTargets,
    /// Status writes do not look at the resource version, nor at whether it has finished.
    BlindWrites,
    /// Reports are said to be written, and are not.
    LostReports,
    /// The API server takes another exit code than was written.
    GarbledCodes,
    /// No signal has an effect while the API server is away.
    DeafProcesses,
    /// What a command writes that no engine reads is read by nobody.
    BlockedWriters,
    /// The API server says of an object that is not bound that there is none.
    HiddenUnbound,
    /// The API server forgets that the input of a command is to come from a client.
    ForgottenInput,
    /// No process of a command is ever found but the first.
    BlindKernel,
    /// All processes of a container are taken for the command's.
    BroadKernel,
    /// No process shows whose it is, but for its session and its output.
    LostTags,
    /// Those who watch are told how a command has ended, and not that its output has.
    DeafViewers,
    /// Output is lost between engine and agent, and nobody is told.
    LeakyStream,
    /// Audit records are said to be written, and are not.
    ForgetfulTrail,
    /// The engine, which runs on, knows nothing of an exec any more when it has ended.
    ForgetfulEngine,
    /// The engine, which runs on, knows nothing of what runs any more when the agent has crashed.
    FragileEngine,
    /// A fence says that nothing ran, and takes nothing away.
    HollowFence,
    /// More output is released than was received.
    GreedyRelease,
    /// The same, and it is said that nothing is missing.
    LyingReader,
    /// A failed start is shown as one that was never made.
    HiddenFailures,
    /// Every program is said to be none that can be executed.
    CredulousKernel,
    /// What is still the engine's runtime is said to have executed the command.
    HastyKernel,
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
    pub program: Program,
}

/// What the kernel makes of a command's program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Runs,
    /// It cannot be executed: the engine's runtime finds that out in the command's own process.
    Broken,
    /// It runs, and says that it could not be executed.
    Forged,
}

impl Program {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Runs => "plan",
            Self::Broken => "broken",
            Self::Forged => "forged",
        }
    }
}

impl Plan {
    pub fn random(random: &mut Random) -> Self {
        let long = random.chance(200);
        let program = match random.below(20) {
            0 => Program::Broken,
            1 => Program::Forged,
            _ => Program::Runs,
        };
        Self {
            runs_for: if long { random.millis(1000..20_000) } else { random.millis(0..1500) },
            code: *random.pick(&[0, 0, 1, 3, 7, 126, 127, 137, 143, 255]).unwrap_or(&0),
            noisy: random.chance(400),
            missing: random.chance(50),
            ignores_term: random.chance(150),
            leaves_child: random.chance(100),
            nameless_child: false,
            program,
        }
    }

    /// One that has to be ended, and leaves what is hard to find.
    pub fn furtive(random: &mut Random) -> Self {
        let program = Program::Runs;
        let plan =
            Self { runs_for: Duration::from_secs(3600), code: 0, missing: false, program, ..Self::random(random) };
        Self { leaves_child: true, nameless_child: true, ..plan }
    }

    pub fn command(self) -> Vec<String> {
        let flag = |on: bool| if on { "1" } else { "0" };
        let words = [
            self.program.name().to_owned(),
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
            program: match command[0].as_str() {
                "broken" => Program::Broken,
                "forged" => Program::Forged,
                _ => Program::Runs,
            },
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
    /// Bytes that it wrote to standard output.
    pub written: i64,
    /// All that it wrote, to either stream, where every byte is to come through.
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// Its input is to come from a client, and whether one has ever come.
    pub awaits_client: bool,
    pub client_came: bool,
    /// How long it may run, and since when it counts: the agent was about to start it.
    pub may_run_for: Option<Duration>,
    pub announced: Option<Instant>,
    pub runs_since: Option<Instant>,
    /// It was canceled, deleted or given up, or the client that it was to end with has gone.
    pub to_be_ended: bool,
    /// Deleted or given up, so that nobody was owed its outcome.
    pub abandoned: bool,
    /// Before it had finished, the engine was killed or the node rebooted.
    pub shaken: bool,
    /// An agent crashed, or stopped, before its process had ended.
    pub left: bool,
    /// An agent ended before it had put down how the command ended, or that it was seen to be executed.
    pub left_unseen: bool,
    /// The same, after the journal said that it is being started, and before it was.
    pub start_cut: bool,
    /// The kernel told an agent with which code its process ended, and that agent could put it down.
    pub seen_to_end: bool,
    /// The first final status, and whether an older state was restored since.
    pub finished: Option<ExecRequestStatus>,
    pub restored: bool,
}

impl Truth {
    /// Whether somebody has taken it away: the node, which was rebooted, or who deleted the request.
    pub fn was_taken_away(&self) -> bool {
        let was_lost = self.finished.as_ref().is_some_and(|first| reason(first) == "OutcomeLost");
        // Who restores what was deleted or given up finds that nobody had asked how it ended.
        let nobody_asked = self.abandoned && self.restored;
        self.shaken || was_lost || nobody_asked
    }

    pub fn writes(&mut self, stderr: bool, bytes: &[u8]) {
        if stderr {
            self.stderr.extend_from_slice(bytes);
        } else {
            self.stdout.extend_from_slice(bytes);
            self.written += i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        }
    }
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
    /// It writes to both streams; or, with a terminal, the engine finds that its input has ended with its client.
    pub both: bool,
    /// The stream to the client broke, so that codes get falsified.
    pub client_gone: bool,
}

/// An exec of an engine that keeps output and codes until they are released.
pub struct Held {
    pub run: ContainerRef,
    pub uid: String,
    pub plan: Plan,
    pub tty: bool,
    pub phase: ExecPhase,
    /// The code of its process, once the engine has noticed.
    pub code: watch::Sender<Option<i32>>,
    /// Everything that it wrote.
    pub pieces: Vec<Piece>,
    /// The pipe that it writes to, once it was started.
    pub pipe: Option<u64>,
    /// Its process writes no more.
    pub over: bool,
    /// What comes before is gone.
    pub released: StreamOffsets,
    /// Tells of output, of its end, and of room.
    pub changed: watch::Sender<()>,
}

/// What a command wrote at once.
pub struct Piece {
    pub stderr: bool,
    pub bytes: Vec<u8>,
}

pub struct Process {
    pub this: ProcessRef,
    pub uid: String,
    pub session: u32,
    pub run: ContainerRef,
    pub alive: bool,
    pub ignores_term: bool,
    pub holds_output: bool,
    /// Inode of the pipe that it writes to.
    pub pipe: u64,
    /// Nothing but its output tells whose it is.
    pub nameless: bool,
    pub ended_at: Option<Instant>,
    /// When it becomes the command; never, if it is the runtime's to its end.
    pub executes: Option<Instant>,
    /// Tells its exit code to whoever waits.
    pub ended: watch::Sender<Option<i32>>,
    /// Ends it, with this code.
    pub kill: Arc<Notify>,
    pub killed_with: Option<i32>,
}

pub struct State {
    pub random: Random,
    pub nature: Nature,
    pub planted: Option<Planted>,
    pub trace: Option<Vec<String>>,
    pub begun: Instant,
    pub faults: bool,

    // the API server
    pub api_up: bool,
    pub version: u64,
    /// By their names.
    pub batches: BTreeMap<String, ExecBatch>,
    /// The batch of each request that has one, by the request's UID.
    pub targets: BTreeMap<String, String>,
    pub objects: BTreeMap<String, Object>,
    pub backup: Option<Vec<ExecRequest>>,
    pub manager_up: bool,
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
    /// Those of an engine that fences.
    pub held: BTreeMap<String, Held>,
    /// Those that ended long ago, of which it knows nothing any more; the events of their ends it still tells.
    pub forgotten: Vec<Exec>,
    pub events: Vec<ExecExit>,
    pub listeners: Vec<mpsc::UnboundedSender<ExecExit>>,
    /// Execs whose output the agent reads in place of an engine that knows them no more.
    pub drained: BTreeSet<String>,
    pub next_id: u64,

    // the kernel
    pub kernel_tells: bool,
    pub boot: u64,
    /// It was rebooted, and no agent has begun since.
    pub rebooted: bool,
    pub processes: BTreeMap<u32, Process>,
    pub next_pid: u32,
    pub next_pipe: u64,

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
    /// Since when an agent works.
    pub agent_since: Option<Instant>,
    pub crashes_per_mille: u64,

    pub truth: BTreeMap<String, Truth>,
    pub violations: Vec<String>,
    pub agent_crashes: u32,
    pub container_ends: u32,
}

#[derive(Clone)]
pub struct Model(Arc<Mutex<State>>);

impl Model {
    pub fn new(seed: u64, nature: Nature, planted: Option<Planted>, trace: bool) -> Self {
        let mut random = Random::new(seed);
        let live_restore = random.chance(400);
        let modern = random.chance(500);
        let kernel_tells = random.chance(500);
        let crashes_per_mille = *random.pick(&[0, 2, 5, 15]).unwrap_or(&0);
        Self(Arc::new(Mutex::new(State {
            random,
            nature,
            planted,
            trace: trace.then(Vec::new),
            begun: Instant::now(),
            faults: true,
            api_up: true,
            version: 1,
            batches: BTreeMap::new(),
            targets: BTreeMap::new(),
            objects: BTreeMap::new(),
            backup: None,
            manager_up: true,
            watchers: Vec::new(),
            engine_up: true,
            engine_run: 1,
            live_restore,
            modern,
            container: ContainerRef { id: "container-1".into(), started_at: Some("run-1".to_owned()) },
            container_runs: true,
            container_paused: false,
            execs: BTreeMap::new(),
            held: BTreeMap::new(),
            forgotten: Vec::new(),
            events: Vec::new(),
            listeners: Vec::new(),
            drained: BTreeSet::new(),
            next_id: 1,
            kernel_tells,
            boot: 1,
            rebooted: false,
            processes: BTreeMap::new(),
            next_pid: 1000,
            next_pipe: 1,
            files: BTreeMap::new(),
            disk_full: false,
            records: Vec::new(),
            hubs: Arc::default(),
            restores: 0,
            crash: Arc::new(Notify::new()),
            crashed: false,
            agent_since: None,
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

    /// A call of the engine takes its time, and is answered if the engine is up.
    pub async fn engine_call(&self, call: &str) -> Result<(), EngineError> {
        self.point().await;
        self.engine_answers(call)
    }

    pub fn engine_answers(&self, call: &str) -> Result<(), EngineError> {
        if self.lock().engine_up {
            return Ok(());
        }
        Err(EngineError::Unreachable { socket: "sim".to_owned(), message: call.to_owned() })
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
        self.agent_since = None;
        self.agent_crashes += 1;
        self.let_go();
        if self.planted == Some(Planted::FragileEngine) {
            self.execs.retain(|_, exec| !matches!(exec.phase, ExecPhase::Started(_)) || exec.code.is_some());
            self.held.retain(|_, held| !matches!(held.phase, ExecPhase::Started(_)));
        }
        self.crash.notify_one();
    }

    /// The engine, or the whole node, was ended by force: what it knew nobody else does.
    pub fn shake(&mut self) {
        let uids: Vec<String> = self.truth.keys().cloned().collect();
        for uid in uids {
            let stage = self.files.get(&format!("{uid}.json")).and_then(|text| stage_of(text));
            // Of what was not about to start, and of what has ended, nothing is in doubt.
            let in_doubt =
                self.nature == Nature::Tokens || matches!(stage.as_deref(), Some("fencing" | "starting" | "running"));
            let truth = self.truth(&uid);
            truth.shaken |= in_doubt && (truth.finished.is_none() || truth.restored);
        }
    }

    /// Whether the journal has how a command ended: in its record, or on a tombstone.
    pub fn end_is_put_down(&self, uid: &str) -> bool {
        let record = self.files.get(&format!("{uid}.json")).and_then(|text| stage_of(text));
        let tombstones = self.files.iter().filter(|(name, _)| name.starts_with("tombstones"));
        let mut lines = tombstones.flat_map(|(_, text)| text.split(|byte| *byte == b'\n'));
        record.as_deref() == Some("ended") || lines.any(|line| is_tombstone_of(line, uid))
    }

    /// The agent is gone, and what runs goes on without it.
    pub fn let_go(&mut self) {
        for truth in self.truth.values_mut() {
            truth.left |= truth.code.is_none();
        }
    }

    /// Another agent begins: what the one before it had not put down is forgotten.
    pub fn take_over(&mut self) {
        self.crashed = false;
        self.agent_since = Some(Instant::now());
        if std::mem::take(&mut self.rebooted) {
            self.shake();
        }
        let uids: Vec<String> = self.truth.keys().cloned().collect();
        for uid in uids {
            let record = self.files.get(&format!("{uid}.json"));
            let stage = record.and_then(|text| stage_of(text));
            let noted = record.is_some_and(|text| String::from_utf8_lossy(text).contains("\"executed\":true"));
            let truth = self.truth(&uid);
            truth.start_cut |= stage.as_deref() == Some("starting") && truth.starts == 0 && truth.failed_starts == 0;
            truth.seen_to_end &= stage.as_deref() == Some("ended");
            let begun = truth.starts + truth.failed_starts > 0;
            truth.left_unseen |= !noted && begun && stage.as_deref() != Some("ended");
        }
    }

    /// Whether no one can know any more how the process of a request ended.
    fn is_lost(&self, request: &ExecRequest, uid: &str, truth: &Truth) -> bool {
        truth.was_taken_away() || self.nature == Nature::Tokens && self.was_forgotten(request, uid, truth)
    }

    /// Whether an engine whose execs are tokens cannot tell it.
    fn was_forgotten(&self, request: &ExecRequest, uid: &str, truth: &Truth) -> bool {
        self.is_untold(uid, truth)
            || self.has_only_a_dubious_event(uid, truth)
            || self.cannot_be_started(request, uid, truth)
            || self.may_be_the_runtimes(request, uid, truth)
    }

    /// Whether it ended as the engine's runtime does where it cannot execute a command, and nothing tells which it was.
    fn may_be_the_runtimes(&self, request: &ExecRequest, uid: &str, truth: &Truth) -> bool {
        let elsewhere = |exec: &Exec| exec.uid == uid && (exec.run != self.container || !self.container_runs);
        // What was written after a second start may be another's.
        let unheard = truth.left_unseen || truth.start_cut;
        match Plan::parse(&request.spec.command).program {
            Program::Runs => unheard && matches!(truth.code, Some(1 | 255)),
            Program::Forged => true,
            Program::Broken => unheard || self.execs.values().any(elsewhere),
        }
    }

    /// Nobody held the other end of its output, for which the engine changes the code in inspect, and that of one that
    /// writes to both streams in the event too; and nobody watched the process itself. An event is to be believed, but for 127.
    fn is_untold(&self, uid: &str, truth: &Truth) -> bool {
        let Some(code) = truth.code.filter(|_| truth.left && !truth.seen_to_end) else { return false };
        let falsified = |exec: &&Exec| exec.uid == uid && self.falsifies(exec);
        self.execs.values().chain(&self.forgotten).filter(falsified).any(|exec| exec.both || code == 127)
    }

    /// Whether only the event is left, and says what it would also say if it were wrong.
    fn has_only_a_dubious_event(&self, uid: &str, truth: &Truth) -> bool {
        truth.code == Some(127) && !truth.seen_to_end && self.forgotten.iter().any(|exec| exec.uid == uid)
    }

    /// The agent was gone between the note that it starts a command and the start, and the start may be on its way
    /// or not. Another one would settle it, and may not be made: the command could read from the wrong connection, it
    /// is not wanted any more, its exec is gone with the container's run, or a restored status does not show it.
    fn cannot_be_started(&self, request: &ExecRequest, uid: &str, truth: &Truth) -> bool {
        let late = || starting_deadline(request).is_some_and(|deadline| self.now() >= deadline);
        let startable = || {
            let mut execs = self.execs.values().filter(|exec| exec.uid == uid);
            execs.any(|exec| exec.phase == ExecPhase::Created && exec.run == self.container)
        };
        truth.start_cut
            && truth.starts == 0
            && (truth.awaits_client || truth.restored || !is_wanted(request) || late() || !startable())
    }

    /// Nobody may end a command without a cause.
    pub fn must_be_to_end(&mut self, uid: &str) {
        let truth = self.truth(uid);
        let overdue = truth.may_run_for.zip(truth.runs_since).is_some_and(|(time, since)| since.elapsed() >= time);
        if !truth.to_be_ended && !overdue {
            self.violated(format!("the command of {uid} was signalled, and there was no cause to end it"));
        }
    }

    /// No command goes on for long beyond its time while an agent works, whoever else is away.
    pub fn check_deadlines(&mut self, slack: Duration) {
        if self.restores > 0 || self.agent_since.is_none_or(|since| since.elapsed() < slack) {
            return;
        }
        let overdue = |truth: &Truth| {
            let (time, since) = truth.may_run_for.zip(truth.runs_since)?;
            (truth.code.is_none() && since.elapsed() >= time + slack).then(|| since.elapsed())
        };
        let runs = |uid: &str| self.processes.values().any(|process| process.alive && process.uid == uid);
        let all = self.truth.iter().filter(|(uid, _)| runs(uid));
        let all: Vec<_> = all.filter_map(|(uid, truth)| Some((uid.clone(), overdue(truth)?))).collect();
        for (uid, time) in all {
            self.violated(format!("the command of {uid} runs beyond its time, for {time:?} by now"));
        }
    }

    /// Whether the engine gives another code for it than the true one.
    pub fn falsifies(&self, exec: &Exec) -> bool {
        exec.client_gone && (exec.both || !self.modern)
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

    /// Requests that are gone, of which a start is on record, and no end. Of one that was given up the manager tells it.
    pub fn untold(&self) -> Vec<String> {
        let is_there =
            |uid: &str| self.objects.values().any(|object| object.request.metadata.uid.as_deref() == Some(uid));
        let has = |uid: &str, is: fn(&Event) -> bool| {
            self.records.iter().any(|event| is(event) && event.uid().is_some_and(|of| of.as_str() == uid))
        };
        let started = |uid: &&String| has(uid, |event| event.verb == Verb::Started);
        let untold = |uid: &&String| !is_there(uid) && !has(uid, |event| event.verb.is_end());
        let unfinished = self.truth.iter().filter(|(_, truth)| truth.finished.is_none());
        unfinished.map(|(uid, _)| uid).filter(started).filter(untold).cloned().collect()
    }

    pub fn truth(&mut self, uid: &str) -> &mut Truth {
        self.truth.entry(uid.to_owned()).or_default()
    }

    /// A process of it was started.
    pub fn starts(&mut self, uid: &str) {
        let truth = self.truth(uid);
        truth.starts += 1;
        truth.runs_since = truth.announced;
        if truth.starts > 1 {
            let starts = truth.starts;
            self.violated(format!("the command of {uid} was started {starts} times"));
        }
        self.check_target(uid);
    }

    /// The first process of a command ends, with this code unless it was killed.
    pub fn ends(&mut self, pid: u32, code: i32) -> Option<i32> {
        let process = self.processes.get_mut(&pid)?;
        let code = process.killed_with.unwrap_or(code);
        process.alive = false;
        process.ended_at = Some(Instant::now());
        let uid = process.uid.clone();
        let watched = process.ended.receiver_count() > 0;
        process.ended.send_replace(Some(code));
        let executed = process.executes.is_some();
        let seen = watched && self.kernel_tells && !self.crashed;
        let truth = self.truth(&uid);
        // A runtime's code is not the command's.
        truth.code = executed.then_some(code);
        truth.seen_to_end = seen;
        Some(code)
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
            self.abandon(&request);
            self.watchers.retain(|watcher| watcher.send(Change::Deleted(Box::new(request.clone()))).is_ok());
        }
    }

    /// It is deleted, and somebody's finalizer holds it: whoever reads it is owed its outcome until it is let go.
    pub fn delete_held(&mut self, name: &str) {
        let Some(mut request) = self.objects.get(name).map(|object| object.request.clone()) else { return };
        self.note(|| format!("{name} is deleted, and held by a finalizer"));
        request.metadata.deletion_timestamp = Some(Time(self.now()));
        self.truth(request.metadata.uid.as_deref().unwrap_or_default()).to_be_ended = true;
        self.store(request);
    }

    /// Nobody waits for its outcome any more.
    pub fn abandon(&mut self, request: &ExecRequest) {
        let truth = self.truth(request.metadata.uid.as_deref().unwrap_or_default());
        (truth.to_be_ended, truth.abandoned) = (true, true);
    }

    /// A backup is made.
    pub fn back_up(&mut self) {
        self.note(|| "a backup is made".to_owned());
        self.backup = Some(self.objects.values().map(|object| object.request.clone()).collect());
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
        let message = status.conditions.iter().find(|c| c.type_ == "Finished").map_or("", |c| c.message.as_str());
        self.note(|| format!("{name} finishes: {reason} code {:?}: {message}", status.exit_code));
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
        // Who comes second for a target tells of the first. What is known of either is from before this end.
        let runner = self.runner(&uid);
        let tells_of_lost = self.tells_of_one_that_is_lost(&uid);
        let truth = if runner == uid { truth } else { self.truth(&runner).clone() };
        let uid = runner;
        if let Some(code) = status.exit_code
            && truth.code != Some(code)
        {
            self.violated(format!("{name} is said to have code {code}, and has {:?}", truth.code));
        }
        if !started && truth.starts > 0 {
            self.violated(format!("{name} is said never to have started ({reason}), and was"));
        }
        if reason == "StartFailed" && !plan.missing && plan.program != Program::Broken {
            self.violated(format!("{name} is said not to be startable, and is"));
        }
        if status.phase.to_string() == "Succeeded" && truth.code != Some(0) {
            self.violated(format!("{name} is said to have succeeded with {:?}", truth.code));
        }
        if reason == "OutcomeLost" && !tells_of_lost && !self.is_lost(request, &uid, &truth) {
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
        if self.nature == Nature::Fences && started && truth.starts > 0 {
            self.check_all(&name, plan, &truth, &status);
        }
    }

    /// Where the engine keeps everything, everything comes through.
    fn check_all(&mut self, name: &str, plan: Plan, truth: &Truth, status: &ExecRequestStatus) {
        let reason = reason(status).to_owned();
        // Who deletes or gives up a request, or reboots its node, or lets its processes live on has less of it.
        if truth.shaken || truth.abandoned || reason == "KillFailed" || reason == "OutcomeLost" {
            return;
        }
        if status.exit_code.is_none() {
            self.violated(format!(
                "{name} ran and ends as {reason} without its code, and nothing had happened to lose it"
            ));
        }
        let output = status.output.clone().unwrap_or_default();
        let why = output.incomplete_reason.as_deref().filter(|why| *why != "SpoolLimit");
        // In an older state it may not have been bound: then the agent has it forgotten, and what is told once it is bound
        // again is the tombstone's, which has no output.
        let is_from_tombstone = why == Some("StreamLost") && output.stdout.bytes == 0 && output.stderr.bytes == 0;
        if truth.restored && is_from_tombstone {
            return;
        }
        // A child may hold it for ever.
        if !(status.output.is_some() && why.is_none_or(|why| why == "ForcedEnd" && plan.leaves_child)) {
            self.violated(format!("the output of {name} ({reason}) is said not to be whole ({why:?}), and nothing had happened to lose any"));
        }
        for (stream, said, written) in
            [("stdout", &output.stdout, &truth.stdout), ("stderr", &output.stderr, &truth.stderr)]
        {
            let same = said.sha256.as_ref().is_none_or(|said| *said == sha256(written));
            if usize::try_from(said.bytes) != Ok(written.len()) || !same {
                self.violated(format!(
                    "of the {} bytes on {stream} of {name} {} have come, the same: {same}",
                    written.len(),
                    said.bytes
                ));
            }
        }
    }

    // ---- the kernel

    pub fn spawn(&mut self, uid: &str, session: Option<u32>, ignores_term: bool, holds_output: bool) -> u32 {
        let pid = self.free_pid();
        self.next_pipe += 1;
        let pipe = session.and_then(|leader| self.processes.get(&leader)).map_or(self.next_pipe, |leader| leader.pipe);
        let ticks = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(0) / 10;
        let executes = Instant::now() + self.random.millis(0..5);
        let process = Process {
            this: ProcessRef { pid, start_ticks: ticks },
            uid: uid.to_owned(),
            session: session.unwrap_or(pid),
            run: self.container.clone(),
            alive: true,
            ignores_term,
            holds_output,
            pipe,
            nameless: false,
            ended_at: None,
            executes: Some(executes),
            ended: watch::channel(None).0,
            kill: Arc::new(Notify::new()),
            killed_with: None,
        };
        self.processes.insert(pid, process);
        pid
    }

    /// A PID that nobody has: now and then one that somebody had, unless a session still goes by it.
    fn free_pid(&mut self) -> u32 {
        if self.faults && self.random.chance(REUSED_PIDS) {
            let old = |process: &Process| process.ended_at.is_some_and(|at| at.elapsed() >= PID_REST);
            let is_session = |pid| self.processes.values().any(|process| process.alive && process.session == pid);
            let free = self.processes.values().filter(|process| old(process) && !is_session(process.this.pid));
            let free: Vec<u32> = free.map(|process| process.this.pid).collect();
            if let Some(pid) = self.random.pick(&free) {
                return *pid;
            }
        }
        self.next_pid += 1;
        self.next_pid
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
        self.container.started_at = Some(run);
        if self.nature == Nature::Fences {
            self.container.id = self.id("container").into();
        }
        self.container_runs = true;
    }

    // ---- the engine

    /// It starts again, and knows nothing of what it did before.
    pub fn forget_execs(&mut self) {
        self.engine_run += 1;
        if self.nature == Nature::Fences {
            // What runs is held by others, and so is what it wrote and how it ended.
            return;
        }
        self.execs.clear();
        self.events.clear();
        if !self.live_restore {
            self.end_container();
        }
    }

    /// It ended long ago.
    pub fn forget_exec(&mut self, id: &str) {
        if let Some(exec) = self.execs.remove(id) {
            self.note(|| format!("the engine forgets {id}, which has ended"));
            self.forgotten.push(exec);
        }
    }

    pub fn died(&mut self, exec: &str, code: i32) {
        let event = testimony::exit(Died { exec: exec.into(), code, at: self.now() });
        self.note(|| format!("exec_die {exec} {code}"));
        self.events.push(event.clone());
        self.tell_exit(&event);
    }

    /// Tells those who listen now.
    pub fn tell_exit(&mut self, event: &ExecExit) {
        self.listeners.retain(|listener| listener.send(event.clone()).is_ok());
    }
}

fn is_tombstone_of(line: &[u8], uid: &str) -> bool {
    // A line that was cut off is not one of JSON, behind its digest.
    let json = line.iter().position(|byte| *byte == b' ').and_then(|digest| line.get(digest + 1..));
    let record = json.and_then(|json| serde_json::from_slice::<serde_json::Value>(json).ok());
    record.is_some_and(|record| record["request"]["uid"] == uid && record["entry"]["stage"]["stage"] == "ended")
}

/// How far a command had come, by the words of a journal's file.
pub fn stage_of(text: &[u8]) -> Option<String> {
    let json = text.split(|byte| *byte == b'\n').next()?;
    let record: serde_json::Value = serde_json::from_slice(json).ok()?;
    Some(record["entry"]["stage"]["stage"].as_str()?.to_owned())
}

pub fn reason(status: &ExecRequestStatus) -> &str {
    status.conditions.iter().find(|c| c.type_ == "Finished").map_or("", |c| c.reason.as_str())
}
