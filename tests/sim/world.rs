//! The edges of the agent in the simulated world.

use std::{io, sync::Arc, time::Duration};

use execlet::{
    agent::{
        memory::disk::{Disk, SLOT},
        node::World,
    },
    api::{ExecRequest, ExecRequestStatus},
    core::{
        audit::event::{Event, Verb, key},
        family::{Facts, Family, Member},
        ids::{ContainerId, ExecId, ProcessRef, RequestKey, RequestUid},
        kill::Signal,
    },
    engine::{
        Container, ContainerQuery, ContainerState, Engine, EngineError, ExecDied, ExecSpec, ExecState, ExecStream,
        Version,
    },
    infra::{
        audit::{Otherwise, Trail, Unavailable},
        clock::Clock,
        kernel::Kernel,
        requests::{ApiError, Requests, Written},
    },
};
use futures::stream::BoxStream;
use k8s_openapi::jiff::Timestamp;
use kube::core::ObjectMeta;
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    sync::mpsc,
    time::{Instant, sleep},
};

use crate::model::{CONTAINER, Exec, ExecPhase, Model, POD, POD_UID, Plan, Planted, Process, State, reason, stage_of};

pub struct Simulated;

impl World for Simulated {
    type Engine = SimEngine;
    type Requests = SimRequests;
    type Kernel = SimKernel;
    type Disk = SimDisk;
    type Trail = SimTrail;
}

pub struct SimClock(pub Model);

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }
}

// ---- the API server

pub struct SimRequests(pub Model);

fn timeout(call: String) -> ApiError {
    ApiError::Timeout { call, after: Duration::from_secs(15) }
}

impl SimRequests {
    /// Whether the API server takes part in this call.
    async fn call(&self, request: &str, call: &'static str) -> Result<(), ApiError> {
        self.0.point().await;
        let fails = { self.0.chance(10) } || !self.0.lock().api_up;
        if fails { Err(timeout(format!("{call} ExecRequest {request}"))) } else { Ok(()) }
    }
}

impl Requests for SimRequests {
    async fn get(&self, key: &RequestKey) -> Result<Option<ExecRequest>, ApiError> {
        self.call(&key.name, "get").await?;
        let state = self.0.lock();
        let found = state.objects.get(&key.name).map(|object| object.request.clone());
        let hides = state.planted == Some(Planted::HiddenUnbound);
        let is_bound = |request: &ExecRequest| request.status.as_ref().is_some_and(|status| status.node_name.is_some());
        let found = found.filter(|request| !hides || is_bound(request));
        Ok(found.filter(|request| request.metadata.uid.as_deref() == Some(key.uid.as_str())))
    }

    async fn write_status(&self, read: &ExecRequest, mut status: ExecRequestStatus) -> Result<Written, ApiError> {
        let name = read.metadata.name.clone().expect("a name");
        self.call(&name, "update the status of").await?;
        let written = {
            let mut state = self.0.lock();
            let planted = state.planted;
            let now = state.objects.get(&name).map(|object| object.request.clone());
            match now {
                None => Written::Gone,
                Some(now) if now.metadata.uid != read.metadata.uid => Written::Lost,
                Some(_) if planted == Some(Planted::LostReports) && status.completion_time.is_some() => {
                    Written::Won(Box::new(read.clone()))
                }
                Some(now) => {
                    if status.completion_time.is_some() {
                        let (uid, reason) = (now.metadata.uid.clone().unwrap_or_default(), reason(&status).to_owned());
                        state.must_be_recorded(&uid, "the end", |event| {
                            event.verb.is_end() && event.note(key::REASON) == Some(&reason)
                        });
                    }
                    let blind = planted == Some(Planted::BlindWrites);
                    let finished = now.status.as_ref().is_some_and(|status| status.completion_time.is_some());
                    if !blind && now.metadata.resource_version != read.metadata.resource_version {
                        Written::Lost
                    } else if !blind && finished {
                        Written::Refused("its status is final".to_owned())
                    } else {
                        let mut next = now;
                        if planted == Some(Planted::GarbledCodes) && status.exit_code.is_some() {
                            status.exit_code = i32::try_from(state.version % 256).ok();
                        }
                        state.note(|| format!("{name} becomes {} {:?}", status.phase, status.exec_id));
                        next.status = Some(status);
                        Written::Won(Box::new(state.store(next)))
                    }
                }
            }
        };
        // The answer gets lost on its way.
        if self.0.chance(10) {
            self.0.note(|| format!("the answer about {name} is lost"));
            return Err(timeout(format!("update the status of ExecRequest {name}")));
        }
        self.0.point().await;
        Ok(written)
    }

    async fn write_status_of_unreadable(&self, _: &ObjectMeta, _: &ExecRequestStatus) -> Result<(), ApiError> {
        Ok(())
    }
}

// ---- the disk

pub struct SimDisk(pub Model);

impl Disk for SimDisk {
    fn replace(&self, name: &str, mut text: Vec<u8>) -> impl Future<Output = io::Result<()>> + Send {
        let model = self.0.clone();
        let name = name.to_owned();
        async move {
            model.point().await;
            text.resize(text.len().max(SLOT), b'\n');
            {
                let mut state = model.lock();
                let tells_of_start = matches!(stage_of(&text).as_deref(), Some("starting" | "running"));
                match state.planted {
                    Some(Planted::ForgetfulDisk) => return Ok(()),
                    Some(Planted::StuckDisk) if tells_of_start => return Ok(()),
                    Some(_) | None => {}
                }
                let has_room = state.files.contains_key(&name) && text.len() <= SLOT;
                if state.disk_full && !has_room {
                    return Err(io::Error::from(io::ErrorKind::StorageFull));
                }
                state.files.insert(name, text);
            }
            model.point().await;
            Ok(())
        }
    }

    fn remove(&self, name: &str) -> impl Future<Output = io::Result<()>> + Send {
        let model = self.0.clone();
        let name = name.to_owned();
        async move {
            model.point().await;
            model.lock().files.remove(&name);
            Ok(())
        }
    }

    fn append(&self, name: &str, line: Vec<u8>) -> impl Future<Output = io::Result<u64>> + Send {
        let model = self.0.clone();
        let name = name.to_owned();
        async move {
            model.point().await;
            let torn = model.chance(20);
            let (offset, full) = {
                let mut state = model.lock();
                let full = state.disk_full || torn;
                let keep = if full { line.len() / 3 } else { line.len() };
                let file = state.files.entry(name).or_default();
                let offset = file.len() as u64;
                file.extend_from_slice(&line[..keep]);
                (offset, full)
            };
            model.point().await;
            if full { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(offset) }
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        let file = state.files.remove(from).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        state.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().files.get(name).cloned())
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let state = self.0.lock();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let part = state.files.get(name).and_then(|file| file.get(start..start + length));
        part.map(<[u8]>::to_vec).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().files.keys().cloned().collect())
    }
}

// ---- the audit log

/// Takes what happens in any case, and what may be left undone only while the disk has room.
#[derive(Clone)]
pub struct SimTrail(pub Model);

impl Trail for SimTrail {
    async fn add(&self, event: Event, otherwise: Otherwise) -> Result<(), Unavailable> {
        self.0.point().await;
        {
            let mut state = self.0.lock();
            if state.disk_full && otherwise == Otherwise::Drop {
                return Err(Unavailable("the disk is full".to_owned()));
            }
            state.note(|| format!("recorded: {} {:?}", event.verb, event.uid()));
            if let (Verb::Started, Some(uid)) = (event.verb, event.uid()) {
                state.truth(uid.as_str()).announced = Some(Instant::now());
            }
            if state.planted != Some(Planted::ForgetfulTrail) {
                state.records.push(event);
            }
        }
        self.0.point().await;
        Ok(())
    }

    async fn available(&self) -> Result<(), Unavailable> {
        if self.0.lock().disk_full { Err(Unavailable("the disk is full".to_owned())) } else { Ok(()) }
    }
}

// ---- the kernel

pub struct SimKernel(pub Model);

impl Kernel for SimKernel {
    fn uptime(&self) -> Duration {
        self.0.lock().begun.elapsed()
    }

    fn find(&self, pid: u32) -> Option<ProcessRef> {
        let state = self.0.lock();
        state.processes.get(&pid).filter(|process| process.alive).map(|process| process.this)
    }

    fn leader(&self, pid: u32, container: &ContainerId, uid: &RequestUid) -> Option<ProcessRef> {
        let state = self.0.lock();
        let found = state.processes.get(&pid).filter(|found| found.alive && found.run.id == *container)?;
        let leads = found.session == pid && (found.nameless || found.uid == uid.as_str());
        leads.then_some(found.this)
    }

    async fn ended(&self, process: ProcessRef) -> Option<i32> {
        let (mut ended, tells) = {
            let state = self.0.lock();
            let found = state.processes.get(&process.pid).filter(|p| p.this == process && p.alive)?;
            (found.ended.subscribe(), state.kernel_tells)
        };
        let code = ended.wait_for(Option::is_some).await.ok().and_then(|code| *code);
        code.filter(|_| tells)
    }

    fn output_pipes(&self, process: ProcessRef) -> Vec<u64> {
        let state = self.0.lock();
        let found = state.processes.get(&process.pid).filter(|found| found.this == process);
        found.map(|found| found.pipe).into_iter().collect()
    }

    async fn family(&self, of: Family, container: ContainerId) -> io::Result<Vec<Member>> {
        self.0.point().await;
        let state = self.0.lock();
        let shows_tags = state.planted != Some(Planted::LostTags);
        let broad = state.planted == Some(Planted::BroadKernel);
        let living = state.processes.values().filter(|process| process.alive && process.run.id == container);
        let claims = |process: &Process| {
            of.claims(&Facts {
                process: process.this,
                session: if process.nameless { process.this.pid } else { process.session },
                tag: (shows_tags && !process.nameless).then(|| process.uid.as_str().into()),
                pipes: process.holds_output.then_some(process.pipe).into_iter().collect(),
            })
        };
        let blind = state.planted == Some(Planted::BlindKernel);
        let sees = |process: &Process| !blind || process.session == process.this.pid;
        let members = living.filter(|process| sees(process) && (broad || claims(process)));
        Ok(members.map(|p| Member { process: p.this, command: "plan".to_owned(), state: 'S' }).collect())
    }

    fn signal(&self, process: ProcessRef, container: &ContainerId, signal: Signal) -> io::Result<bool> {
        let mut state = self.0.lock();
        let paused = state.container_paused;
        let Some(found) = state.processes.get(&process.pid) else { return Ok(false) };
        if found.this != process || !found.alive || found.run.id != *container {
            return Ok(false);
        }
        let (uid, ignores) = (found.uid.clone(), found.ignores_term);
        state.note(|| format!("{signal:?} to {}", process.pid));
        state.must_be_to_end(&uid);
        state.must_be_recorded(&uid, "a signal to a process", |event| event.verb == Verb::Cancelled);
        match signal {
            // A frozen process takes none until it is thawed; the next look finds it again.
            _ if paused => {}
            Signal::Term if ignores => {}
            Signal::Term => state.kill(process.pid, 143),
            Signal::Kill => state.kill(process.pid, 137),
        }
        Ok(true)
    }
}

// ---- the engine

pub struct SimEngine(pub Model);

impl SimEngine {
    async fn call(&self, call: &str) -> Result<(), EngineError> {
        self.0.point().await;
        self.answers(call)
    }

    fn answers(&self, call: &str) -> Result<(), EngineError> {
        if self.0.lock().engine_up {
            return Ok(());
        }
        Err(EngineError::Unreachable { socket: "sim".to_owned(), message: call.to_owned() })
    }
}

fn no_such_exec(exec: &ExecId) -> EngineError {
    EngineError::NoSuchExec(exec.to_string())
}

fn container_of(state: &State) -> Container {
    let container = match (state.container_runs, state.container_paused) {
        (true, false) => ContainerState::Running,
        (true, true) => ContainerState::Paused,
        (false, _) => ContainerState::Stopped("exited".to_owned()),
    };
    Container { reference: state.container.clone(), pod_uid: POD_UID.to_owned(), state: container }
}

impl Engine for SimEngine {
    async fn version(&self) -> Result<Version, EngineError> {
        self.answers("version")?;
        Ok(Version { engine: "sim".to_owned(), api: "1.41".to_owned() })
    }

    async fn find_containers(&self, query: &ContainerQuery) -> Result<Vec<Container>, EngineError> {
        self.call("find containers").await?;
        assert_eq!((query.pod_name.as_str(), query.container.as_str()), (POD, CONTAINER));
        Ok(vec![container_of(&self.0.lock())])
    }

    async fn container(&self, id: &ContainerId) -> Result<Option<Container>, EngineError> {
        self.call("inspect container").await?;
        let state = self.0.lock();
        Ok(Some(container_of(&state)).filter(|container| container.reference.id == *id))
    }

    async fn create_exec(&self, container: &ContainerId, exec: &ExecSpec) -> Result<ExecId, EngineError> {
        self.call("create exec").await?;
        let id = {
            let mut state = self.0.lock();
            assert_eq!(state.container.id, *container);
            if !state.container_runs || state.container_paused {
                return Err(EngineError::ContainerNotRunning("it is not running".to_owned()));
            }
            let tag = exec.env.iter().find_map(|variable| variable.strip_prefix("EXECLET_UID="));
            let uid = tag.expect("a tag").to_owned();
            let id = state.id("exec");
            let run = state.container.clone();
            state.note(|| format!("{id} is created for {uid}"));
            state.must_have_client(&uid, "the exec");
            let exec = Exec {
                run,
                uid,
                plan: Plan::parse(&exec.command),
                tty: exec.tty,
                phase: ExecPhase::Created,
                pid_shows: None,
                code: None,
                client_gone: false,
                confused: false,
            };
            state.execs.insert(id.clone(), exec);
            id
        };
        self.0.point().await;
        Ok(id.into())
    }

    async fn start_exec(&self, exec: &ExecId, tty: bool) -> Result<ExecStream, EngineError> {
        self.call("start exec").await?;
        {
            let state = self.0.lock();
            let found = state.execs.get(exec.as_str()).ok_or_else(|| no_such_exec(exec))?;
            if found.phase == ExecPhase::Created {
                if found.run != state.container {
                    return Err(no_such_exec(exec));
                }
                if !state.container_runs && !state.modern {
                    return Err(EngineError::Refused { status: 500, message: "it is not running".to_owned() });
                }
                if !state.container_runs || state.container_paused {
                    return Err(EngineError::ContainerNotRunning("it is paused or gone".to_owned()));
                }
            }
        }
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        // The call is on its way, whatever becomes of the caller.
        let way = self.0.millis(0..20);
        let (done, answer) = tokio::sync::oneshot::channel();
        let (model, id) = (self.0.clone(), exec.as_str().to_owned());
        tokio::spawn(async move {
            sleep(way).await;
            done.send(begin(&model, &id, theirs)).ok();
        });
        let started = answer.await.unwrap_or(false);
        self.0.point().await;
        self.answers("start exec")?;
        if started { Ok(ExecStream::new(ours, tty)) } else { Err(no_such_exec(exec)) }
    }

    async fn resize_exec(&self, _: &ExecId, _: u16, _: u16) -> Result<(), EngineError> {
        self.call("resize exec").await
    }

    async fn inspect_exec(&self, exec: &ExecId) -> Result<ExecState, EngineError> {
        self.call("inspect exec").await?;
        let state = self.0.lock();
        let found = state.execs.get(exec.as_str()).ok_or_else(|| no_such_exec(exec))?;
        if found.phase == ExecPhase::Created && found.run != state.container {
            return Err(no_such_exec(exec));
        }
        let pid = match found.phase {
            ExecPhase::Started(pid) => found.pid_shows.filter(|at| *at <= Instant::now()).map(|_| pid),
            ExecPhase::Created | ExecPhase::Refused(_) => None,
        };
        let mut code = found.code;
        if code.is_none() && state.planted == Some(Planted::NullIsZero) && found.phase != ExecPhase::Created {
            code = Some(0);
        }
        let running = found.phase != ExecPhase::Created && found.code.is_none();
        let pid = if code.is_some() { pid.or_else(|| started(found)) } else { pid };
        let hidden = state.planted == Some(Planted::HiddenPid) && code.is_some();
        Ok(ExecState { running, code, pid: pid.filter(|_| !hidden) })
    }

    fn exec_deaths(&self, since: Option<Timestamp>) -> BoxStream<'static, Result<ExecDied, EngineError>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.0.lock();
        if !state.engine_up {
            let down = EngineError::Unreachable { socket: "sim".to_owned(), message: "events".to_owned() };
            return Box::pin(futures::stream::once(async { Err(down) }));
        }
        for event in state.events.iter().filter(|event| since.is_none_or(|since| event.at >= since)) {
            sender.send(event.clone()).ok();
        }
        state.listeners.push(sender);
        Box::pin(futures::stream::unfold(receiver, async |mut receiver| {
            let event = receiver.recv().await?;
            Some((Ok(event), receiver))
        }))
    }
}

/// The process of an exec that was started, also when it has ended.
fn started(exec: &Exec) -> Option<u32> {
    match exec.phase {
        ExecPhase::Started(pid) => Some(pid),
        ExecPhase::Created | ExecPhase::Refused(_) => None,
    }
}

/// The engine starts an exec; `false` if it knows none such.
fn begin(model: &Model, id: &str, stream: DuplexStream) -> bool {
    let mut state = model.lock();
    let (up, runs, paused, container) =
        (state.engine_up, state.container_runs, state.container_paused, state.container.clone());
    let Some(exec) = state.execs.get_mut(id).filter(|_| up) else { return false };
    let (plan, uid) = (exec.plan, exec.uid.clone());
    if exec.phase != ExecPhase::Created {
        // A second start runs nothing, is answered as the first, and confuses a terminal's codes.
        exec.confused = exec.tty;
        tokio::spawn(complain(stream, b"exec is already running"));
        return true;
    }
    if exec.run != container || !runs || paused {
        return false;
    }
    let exec_id = Some(id);
    if plan.missing {
        exec.phase = ExecPhase::Refused(127);
        exec.code = Some(if plan.noisy { 126 } else { 127 });
        state.truth(&uid).failed_starts += 1;
        state.must_be_recorded(&uid, "the start", |event| event.note(key::EXEC_ID) == exec_id);
        tokio::spawn(complain(stream, b"no such program"));
        return true;
    }
    state.must_be_recorded(&uid, "the start", |event| event.note(key::EXEC_ID) == exec_id);
    state.must_have_client(&uid, "the start");
    let pid = state.spawn(&uid, None, plan.ignores_term, true);
    let shows = state.random.millis(0..30);
    let truth = state.truth(&uid);
    truth.starts += 1;
    truth.runs_since = truth.announced;
    if truth.starts > 1 {
        let starts = truth.starts;
        state.violated(format!("the command of {uid} was started {starts} times"));
    }
    state.note(|| format!("{id} starts as {pid}"));
    if plan.leaves_child {
        let child = state.spawn(&uid, Some(pid), plan.ignores_term, true);
        if let Some(child) = state.processes.get_mut(&child) {
            child.nameless = plan.nameless_child;
        }
    }
    if let Some(exec) = state.execs.get_mut(id) {
        exec.phase = ExecPhase::Started(pid);
        exec.pid_shows = Some(Instant::now() + shows);
    }
    let run = state.engine_run;
    // Whatever else is in the container may end on its own.
    let in_session = |process: &&Process| process.alive && process.session == pid && process.this.pid != pid;
    let children: Vec<u32> = state.processes.values().filter(in_session).map(|process| process.this.pid).collect();
    drop(state);
    for child in children {
        tokio::spawn(live(model.clone(), child));
    }
    tokio::spawn(run_command(model.clone(), id.to_owned(), pid, plan, stream, run));
    true
}

/// The engine's own words, in place of output.
async fn complain(mut stream: DuplexStream, text: &'static [u8]) {
    let mut frame = vec![1, 0, 0, 0, 0, 0, 0, u8::try_from(text.len()).unwrap_or(0)];
    frame.extend_from_slice(text);
    stream.write_all(&frame).await.ok();
}

/// A process that does nothing until it is killed.
async fn live(model: Model, pid: u32) {
    let Some(kill) = model.lock().processes.get(&pid).map(|process| Arc::clone(&process.kill)) else { return };
    kill.notified().await;
    let mut state = model.lock();
    state.note(|| format!("{pid} is killed"));
    if let Some(process) = state.processes.get_mut(&pid) {
        process.alive = false;
        process.ended_at = Some(Instant::now());
        process.ended.send_replace(Some(process.killed_with.unwrap_or(137)));
    }
}

/// A command from its start to its end, and what the engine makes of it.
async fn run_command(model: Model, id: String, pid: u32, plan: Plan, stream: DuplexStream, run: u64) {
    let mut stream = Some(stream);
    let (kill, tty) = {
        let state = model.lock();
        let Some(process) = state.processes.get(&pid) else { return };
        (Arc::clone(&process.kill), state.execs.get(&id).is_some_and(|exec| exec.tty))
    };
    let ends = Instant::now() + plan.runs_for;
    loop {
        let next = if plan.noisy { ends.min(Instant::now() + Duration::from_millis(50)) } else { ends };
        tokio::select! {
            biased;
            () = kill.notified() => break,
            () = tokio::time::sleep_until(next) => {}
        }
        if next >= ends {
            break;
        }
        write(&model, &id, &mut stream, run, tty).await;
    }
    let code = {
        let mut state = model.lock();
        let Some(process) = state.processes.get_mut(&pid) else { return };
        let code = process.killed_with.unwrap_or(plan.code);
        process.alive = false;
        process.ended_at = Some(Instant::now());
        let uid = process.uid.clone();
        let watched = process.ended.receiver_count() > 0;
        process.ended.send_replace(Some(code));
        let seen = watched && state.kernel_tells && !state.crashed;
        let truth = state.truth(&uid);
        truth.code = Some(code);
        truth.seen_to_end = seen;
        state.note(|| format!("{pid} of {id} ends with {code}"));
        code
    };
    settle(&model, &id, pid, code, stream, run).await;
}

/// One piece of output: five bytes, which the engine passes on if it still can.
async fn write(model: &Model, id: &str, stream: &mut Option<DuplexStream>, run: u64, tty: bool) {
    {
        let mut state = model.lock();
        let Some(uid) = state.execs.get(id).map(|exec| exec.uid.clone()) else { return };
        state.truth(&uid).written += 5;
        if state.engine_run != run || !state.engine_up {
            *stream = None;
        }
        if state.planted == Some(Planted::LeakyStream) && state.random.chance(100) {
            return;
        }
    }
    let Some(open) = stream else { return };
    let frame: &[u8] = if tty { b"noise" } else { b"\x01\0\0\0\0\0\0\x05noise" };
    if open.write_all(frame).await.is_err() {
        *stream = None;
        let mut state = model.lock();
        if let Some(exec) = state.execs.get_mut(id) {
            exec.client_gone = true;
            if exec.tty {
                // It is said to have ended, while it lives.
                exec.code = Some(126);
            }
        }
    }
}

/// The engine takes note of the end of a process.
async fn settle(model: &Model, id: &str, pid: u32, code: i32, stream: Option<DuplexStream>, run: u64) {
    let (notice, holds) = {
        let mut state = model.lock();
        let holds = state.processes.values().any(|p| p.alive && p.session == pid && p.holds_output);
        // The ends of one container are handled one after another.
        (if state.random.chance(50) { state.random.millis(0..5000) } else { state.random.millis(0..15) }, holds)
    };
    sleep(notice).await;
    {
        let mut state = model.lock();
        let same = state.engine_run == run && state.engine_up;
        if !same {
            // An engine that was restarted while it ran tells what it does not know.
            if state.engine_up && state.live_restore {
                state.died(id, 127);
            }
            return;
        }
        if state.planted == Some(Planted::ForgetfulEngine) && state.random.chance(100) {
            state.execs.remove(id);
            return;
        }
        let Some((falsified, tty)) = state.execs.get(id).map(|exec| (state.falsifies(exec), exec.tty)) else { return };
        let Some(exec) = state.execs.get_mut(id) else { return };
        exec.pid_shows.get_or_insert_with(Instant::now);
        let (shown, told) = match (falsified, tty) {
            (false, _) => (code, code),
            (true, true) => (126, 127),
            (true, false) => (126, code),
        };
        exec.code = Some(shown);
        let early = state.random.chance(500);
        if early {
            state.died(id, told);
        } else {
            let (model, id) = (model.clone(), id.to_owned());
            let later = state.random.millis(0..14);
            tokio::spawn(async move {
                sleep(later).await;
                let mut state = model.lock();
                if state.engine_run == run && state.engine_up {
                    state.died(&id, told);
                }
            });
        }
    }
    if holds {
        sleep(Duration::from_secs(2)).await;
        // What the child writes from here on is lost; it may have written already.
    }
    drop(stream);
    // In truth after 5 min or more.
    let remembers = if model.chance(200) { model.millis(3000..20_000) } else { return };
    sleep(remembers).await;
    let mut state = model.lock();
    if state.engine_run == run && state.engine_up {
        state.forget_exec(id);
    }
}
