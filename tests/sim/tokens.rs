//! An engine whose execs are tokens, as those of Docker are: it loses what it knows when it is killed, cuts output, and
//! gives other codes than the true ones when a stream breaks.

use std::{io, sync::Arc, time::Duration};

use execlet::{
    core::{
        audit::key,
        execution::{Author, Heard},
        ids::{ContainerId, ContainerRef, ExecName, ExecRef},
    },
    engine::{
        Container, ContainerQuery, ContainerState, Engine, EngineError, ExecExit, ExecSpec, ExecState, ExecStream,
        Habits, Parts, Prepared, StartError, Started, Surroundings, Version,
        docker::{HABITS, Inspected, frames::framing, testimony},
        runc,
    },
};
use futures::stream::BoxStream;
use k8s_openapi::jiff::Timestamp;
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    sync::mpsc,
    time::{Instant, sleep},
};

use crate::model::{CONTAINER, Exec, ExecPhase, Model, POD, POD_UID, Plan, Planted, Process, Program, State};

/// Pieces of output that nobody reads before a command has to wait.
const FITS: u32 = 10;

pub struct SimEngine(pub Model);

pub fn container_of(state: &State) -> Container {
    let container = match (state.container_runs, state.container_paused) {
        (true, false) => ContainerState::Running,
        (true, true) => ContainerState::Paused,
        (false, _) => ContainerState::Stopped("exited".to_owned()),
    };
    Container { reference: state.container.clone(), pod_uid: POD_UID.to_owned(), state: container }
}

impl Engine for SimEngine {
    fn habits(&self) -> &Habits {
        &HABITS
    }

    async fn version(&self) -> Result<Version, EngineError> {
        self.0.engine_answers("version")?;
        Ok(Version { name: "sim", engine: "1".to_owned(), api: "1.41".to_owned() })
    }

    async fn find_containers(&self, query: &ContainerQuery) -> Result<Vec<Container>, EngineError> {
        self.0.engine_call("find containers").await?;
        assert_eq!((query.pod_name.as_str(), query.container.as_str()), (POD, CONTAINER));
        Ok(vec![container_of(&self.0.lock())])
    }

    async fn container(&self, id: &ContainerId) -> Result<Option<Container>, EngineError> {
        self.0.engine_call("inspect container").await?;
        let state = self.0.lock();
        Ok(Some(container_of(&state)).filter(|container| container.reference.id == *id))
    }

    async fn prepare(&self, container: &ContainerRef, _: &ExecName, exec: &ExecSpec) -> Result<Prepared, EngineError> {
        self.0.engine_call("create exec").await?;
        let id = {
            let mut state = self.0.lock();
            assert_eq!(state.container.id, container.id);
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
                both: state.random.chance(300),
                phase: ExecPhase::Created,
                pid_shows: None,
                code: None,
                client_gone: false,
            };
            state.execs.insert(id.clone(), exec);
            id
        };
        self.0.point().await;
        Ok(Prepared::Created(ExecRef { id: id.into(), container: container.clone() }))
    }

    async fn start(&self, exec: &ExecRef, tty: bool) -> Result<Started, StartError> {
        let no_such_exec = || StartError::Absent(exec.id.to_string());
        self.0.engine_call("start exec").await.map_err(StartError::Unclear)?;
        {
            let state = self.0.lock();
            let found = state.execs.get(exec.id.as_str()).ok_or_else(no_such_exec)?;
            if found.phase == ExecPhase::Created {
                if found.run != state.container {
                    return Err(no_such_exec());
                }
                if !state.container_runs && !state.modern {
                    return Err(StartError::Refused(EngineError::Failed("it is not running".to_owned())));
                }
                if !state.container_runs || state.container_paused {
                    let gone = EngineError::ContainerNotRunning("it is paused or gone".to_owned());
                    return Err(StartError::Refused(gone));
                }
            }
        }
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        // The call is on its way, whatever becomes of the caller.
        let way = self.0.millis(0..20);
        let (done, answer) = tokio::sync::oneshot::channel();
        let (model, id) = (self.0.clone(), exec.id.as_str().to_owned());
        tokio::spawn(async move {
            sleep(way).await;
            done.send(begin(&model, &id, theirs)).ok();
        });
        let started = answer.await.unwrap_or(false);
        self.0.point().await;
        self.0.engine_answers("start exec").map_err(StartError::Unclear)?;
        let stream = ExecStream::new(ours, framing(tty), tty);
        if started { Ok(Started { pid: None, stream, unheld: None }) } else { Err(no_such_exec()) }
    }

    async fn drain(&self, exec: &ExecRef) {
        if self.0.lock().planted == Some(Planted::BlockedWriters) {
            return;
        }
        let _reading = Reading::begin(&self.0, exec.id.as_str());
        std::future::pending::<()>().await;
    }

    fn take_over(&self, _: Parts) -> io::Result<ExecStream> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn resize(&self, _: &ExecRef, _: u16, _: u16) -> Result<(), EngineError> {
        self.0.engine_call("resize exec").await
    }

    async fn state(&self, exec: &ExecRef) -> Result<ExecState, EngineError> {
        self.0.engine_call("inspect exec").await?;
        let state = self.0.lock();
        let Some(found) = state.execs.get(exec.id.as_str()) else { return Ok(ExecState::Absent) };
        if found.phase == ExecPhase::Created && found.run != state.container {
            return Ok(ExecState::Absent);
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
        Ok(testimony::state(Inspected { running, code, pid: pid.filter(|_| !hidden) }))
    }

    fn author(&self, program: &str, code: i32, heard: Option<&Heard>) -> Author {
        runc::author(program, code, heard)
    }

    fn surely_failed(&self, words: &str) -> bool {
        runc::surely_failed(words)
    }

    async fn surroundings(&self, container: &ContainerRef) -> Result<Option<Surroundings>, EngineError> {
        self.0.engine_call("inspect container").await?;
        let state = self.0.lock();
        let here = state.container_runs && state.container == *container;
        let surroundings = Surroundings { main: 1, folder: "/".to_owned(), search_path: Some("/bin".to_owned()) };
        Ok(Some(surroundings).filter(|_| here))
    }

    fn exits(&self, since: Option<Timestamp>) -> BoxStream<'static, Result<ExecExit, EngineError>> {
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

/// The output of an exec is read in place of the engine.
struct Reading(Model, String);

impl Reading {
    fn begin(model: &Model, exec: &str) -> Self {
        model.lock().drained.insert(exec.to_owned());
        Self(model.clone(), exec.to_owned())
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.lock().drained.remove(&self.1);
    }
}

/// Whether somebody reads what this exec writes.
fn is_read(model: &Model, id: &str, run: u64) -> bool {
    let state = model.lock();
    state.engine_up && state.engine_run == run || state.drained.contains(id)
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
        // A second start runs nothing, and is answered as the first.
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
    if plan.program == Program::Broken {
        state.truth(&uid).failed_starts += 1;
        if let Some(process) = state.processes.get_mut(&pid) {
            process.executes = None;
        }
    } else {
        state.starts(&uid);
    }
    state.note(|| format!("{id} starts as {pid}"));
    if plan.leaves_child && plan.program != Program::Broken {
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
pub async fn live(model: Model, pid: u32) {
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
    let runs_for = match plan.program {
        Program::Runs | Program::Forged => plan.runs_for.max(Duration::from_millis(5)),
        Program::Broken => model.millis(0..40),
    };
    let ends = Instant::now() + runs_for;
    let noisy = plan.noisy && plan.program == Program::Runs;
    let mut unread = 0;
    'running: loop {
        let next = if noisy { ends.min(Instant::now() + Duration::from_millis(50)) } else { ends };
        tokio::select! {
            biased;
            () = kill.notified() => break,
            () = tokio::time::sleep_until(next) => {}
        }
        if next >= ends {
            break;
        }
        write(&model, &id, &mut stream, run, tty, b"noise", 1).await;
        unread = if is_read(&model, &id, run) { 0 } else { unread + 1 };
        while unread >= FITS && !is_read(&model, &id, run) {
            tokio::select! {
                biased;
                () = kill.notified() => break 'running,
                () = sleep(Duration::from_millis(50)) => {}
            }
        }
    }
    if plan.program != Program::Runs {
        let end = if tty { "\r\n" } else { "\n" };
        let words = format!("exec /bin/{}: no such file or directory{end}", plan.program.name());
        write(&model, &id, &mut stream, run, tty, words.as_bytes(), 2).await;
    }
    let code = {
        let mut state = model.lock();
        let Some(code) = state.ends(pid, code_of(plan, &id)) else { return };
        state.note(|| format!("{pid} of {id} ends with {code}"));
        code
    };
    settle(&model, &id, pid, code, stream, run).await;
}

/// That of the command, or of the runtime that could not execute it.
fn code_of(plan: Plan, id: &str) -> i32 {
    match plan.program {
        Program::Runs => plan.code,
        Program::Broken | Program::Forged => {
            if id.len().is_multiple_of(2) {
                1
            } else {
                255
            }
        }
    }
}

/// One piece of output, which the engine passes on if it still can.
async fn write(model: &Model, id: &str, stream: &mut Option<DuplexStream>, run: u64, tty: bool, bytes: &[u8], to: u8) {
    {
        let mut state = model.lock();
        let Some(uid) = state.execs.get(id).map(|exec| exec.uid.clone()) else { return };
        if tty || to == 1 {
            state.truth(&uid).written += i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        }
        if state.engine_run != run || !state.engine_up {
            *stream = None;
        }
        if state.planted == Some(Planted::LeakyStream) && state.random.chance(100) {
            return;
        }
    }
    let Some(open) = stream else { return };
    let header = [to, 0, 0, 0, 0, 0, 0, u8::try_from(bytes.len()).unwrap_or(u8::MAX)];
    let frame = if tty { bytes.to_vec() } else { [&header, bytes].concat() };
    if open.write_all(&frame).await.is_err() {
        *stream = None;
        let mut state = model.lock();
        if let Some(exec) = state.execs.get_mut(id) {
            exec.client_gone = true;
            if exec.both {
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
        let Some((falsified, both)) = state.execs.get(id).map(|exec| (state.falsifies(exec), exec.both)) else {
            return;
        };
        let Some(exec) = state.execs.get_mut(id) else { return };
        exec.pid_shows.get_or_insert_with(Instant::now);
        let (shown, told) = match (falsified, both) {
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
