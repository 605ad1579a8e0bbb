//! An engine that fences: its callers name the execs, it keeps output and codes until they are released, and an exec that
//! was never started can be taken away. A second start of an exec that failed to start ends the whole pod.

use std::{io, sync::Arc, time::Duration};

use execlet::{
    core::{
        audit::key,
        evidence::Patience,
        ids::{ContainerId, ContainerRef, ExecName, ExecRef},
        offsets::StreamOffsets,
        outcome::{EngineWord, Testimony},
    },
    engine::{
        Container, ContainerQuery, Engine, EngineError, ExecExit, ExecSpec, ExecState, ExecStream, Fenced, Habits,
        Parts, Prepared, Reopened, ReopenedInput, StartError, Started, Version, docker::frames::framing,
    },
};
use futures::stream::BoxStream;
use k8s_openapi::jiff::Timestamp;
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    model::{CONTAINER, ExecPhase, Held, Model, POD, Piece, Plan, Planted, Program, State},
    tokens::{container_of, live},
};

/// Bytes of output that it holds for one exec; a command that has written more waits.
const HOLDS: u64 = 100;
/// Bytes on their way to the reader, so few that frames are cut.
const ON_THE_WAY: usize = 32;

const HABITS: Habits = Habits {
    fences: true,
    keeps_output: true,
    cuts_after: None,
    keeps_unread: HOLDS,
    closes_within: Duration::from_secs(2),
    patience: Patience {
        notices_within: Duration::from_secs(60),
        notices_over_within: Duration::from_secs(10),
        tells_within: Duration::from_secs(2),
        first_word: Duration::from_secs(1),
        recalls_within: Duration::from_secs(2),
    },
};

pub struct FencingEngine(pub Model);

/// What came of a start.
enum Begun {
    Runs(u32),
    Failed,
    /// It is not to be started, or not any more.
    Nothing(&'static str),
}

impl FencingEngine {
    /// Its output from there on, for one reader.
    fn open(&self, id: &str, tty: bool, from: StreamOffsets) -> ExecStream {
        let (ours, theirs) = tokio::io::duplex(ON_THE_WAY);
        tokio::spawn(feed(self.0.clone(), id.to_owned(), tty, from, theirs));
        ExecStream::new(ours, framing(tty), tty)
    }
}

impl Engine for FencingEngine {
    fn habits(&self) -> &Habits {
        &HABITS
    }

    async fn version(&self) -> Result<Version, EngineError> {
        self.0.engine_answers("version")?;
        Ok(Version { name: "sim", engine: "1".to_owned(), api: "2".to_owned() })
    }

    async fn find_containers(&self, query: &ContainerQuery) -> Result<Vec<Container>, EngineError> {
        self.0.engine_call("find containers").await?;
        assert_eq!((query.pod_name.as_str(), query.container.as_str()), (POD, CONTAINER));
        Ok(vec![container_of(&self.0.lock())])
    }

    async fn container(&self, id: &ContainerId) -> Result<Option<Container>, EngineError> {
        self.0.engine_call("look at a container").await?;
        let state = self.0.lock();
        Ok(Some(container_of(&state)).filter(|container| container.reference.id == *id))
    }

    async fn prepare(
        &self,
        container: &ContainerRef,
        name: &ExecName,
        exec: &ExecSpec,
    ) -> Result<Prepared, EngineError> {
        self.0.engine_call("create exec").await?;
        let prepared = {
            let mut state = self.0.lock();
            if state.container.id != container.id {
                return Err(EngineError::NoSuchContainer(container.id.to_string()));
            }
            if !state.container_runs || state.container_paused {
                return Err(EngineError::ContainerNotRunning("it does not run".to_owned()));
            }
            let (id, uid) = (name.to_string(), name.request.as_str().to_owned());
            if state.held.contains_key(&id) {
                Prepared::Existed
            } else {
                state.note(|| format!("{id} is created"));
                state.must_have_client(&uid, "the exec");
                let run = state.container.clone();
                state.held.insert(id.clone(), Held::new(run, uid, Plan::parse(&exec.command), exec.tty));
                Prepared::Created(ExecRef { id: id.into(), container: container.clone() })
            }
        };
        self.0.point().await;
        self.0.engine_answers("create exec")?;
        Ok(prepared)
    }

    async fn start(&self, exec: &ExecRef, tty: bool) -> Result<Started, StartError> {
        // No connection is made.
        self.0.engine_call("start exec").await.map_err(StartError::Refused)?;
        let stream = self.open(exec.id.as_str(), tty, StreamOffsets::default());
        // The call is on its way, whatever becomes of the caller, and for long now and then.
        let way = if self.0.chance(100) { self.0.millis(0..5000) } else { self.0.millis(0..20) };
        let (done, answer) = oneshot::channel();
        let (model, id) = (self.0.clone(), exec.id.as_str().to_owned());
        tokio::spawn(async move {
            sleep(way).await;
            done.send(begin(&model, &id)).ok();
        });
        let begun = answer.await.unwrap_or(Begun::Nothing("it is gone"));
        self.0.point().await;
        self.0.engine_answers("start exec").map_err(StartError::Unclear)?;
        let hides = self.0.lock().planted == Some(Planted::HiddenFailures);
        match begun {
            Begun::Runs(pid) => Ok(Started { pid: Some(pid), stream, unheld: None }),
            Begun::Failed if hides => Err(StartError::Refused(EngineError::Failed("try again".to_owned()))),
            Begun::Failed => Err(StartError::Failed("no such program".to_owned())),
            Begun::Nothing(why) => Err(StartError::Unclear(EngineError::Failed(why.to_owned()))),
        }
    }

    async fn reopen(&self, exec: &ExecRef, tty: bool, from: StreamOffsets) -> Result<Option<Reopened>, EngineError> {
        self.0.engine_call("open output").await?;
        let unbroken = {
            let state = self.0.lock();
            let held = state.held.get(exec.id.as_str()).filter(|held| held.phase != ExecPhase::Created);
            let Some(held) = held else { return Ok(None) };
            let released = held.released;
            state.planted == Some(Planted::LyingReader)
                || from.stdout >= released.stdout && from.stderr >= released.stderr
        };
        self.0.note(|| format!("the output of {} is opened again from {from:?}: {unbroken}", exec.id));
        Ok(Some(Reopened { stream: self.open(exec.id.as_str(), tty, from), unbroken, input: ReopenedInput::Over }))
    }

    async fn release(&self, exec: &ExecRef, before: StreamOffsets) -> Result<(), EngineError> {
        self.0.engine_call("release output").await?;
        {
            let mut state = self.0.lock();
            let greedy = matches!(state.planted, Some(Planted::GreedyRelease | Planted::LyingReader));
            if let Some(held) = state.held.get_mut(exec.id.as_str()) {
                let before = if greedy { held.written() } else { before };
                held.release(before);
            }
        }
        self.0.point().await;
        self.0.engine_answers("release output")
    }

    fn take_over(&self, _: Parts) -> io::Result<ExecStream> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn resize(&self, _: &ExecRef, _: u16, _: u16) -> Result<(), EngineError> {
        self.0.engine_call("resize exec").await
    }

    async fn state(&self, exec: &ExecRef) -> Result<ExecState, EngineError> {
        self.0.engine_call("look at an exec").await?;
        let state = self.0.lock();
        let Some(held) = state.held.get(exec.id.as_str()) else { return Ok(ExecState::Absent) };
        let word = |code, ran| EngineWord { testimony: Testimony { code, certain: ran }, ran };
        Ok(match held.phase {
            ExecPhase::Created if held.run != state.container => ExecState::Absent,
            ExecPhase::Created => ExecState::Untouched,
            ExecPhase::Refused(_) if state.planted == Some(Planted::HiddenFailures) => ExecState::Untouched,
            ExecPhase::Refused(code) => ExecState::Ended { word: word(code, false), pid: None },
            ExecPhase::Started(pid) => match *held.code.borrow() {
                Some(code) => ExecState::Ended { word: word(code, true), pid: Some(pid) },
                None => ExecState::Running { pid: Some(pid) },
            },
        })
    }

    async fn wait(&self, exec: &ExecRef) -> Result<(), EngineError> {
        self.0.engine_call("wait for an exec").await?;
        let code = self.0.lock().held.get(exec.id.as_str()).map(|held| held.code.subscribe());
        let mut code = code.ok_or_else(|| EngineError::NoSuchExec(exec.id.to_string()))?;
        drop(code.wait_for(Option::is_some).await);
        self.0.engine_answers("wait for an exec")
    }

    async fn fence(&self, exec: &ExecRef) -> Result<Fenced, EngineError> {
        self.0.engine_call("take an exec away").await?;
        let fenced = {
            let mut state = self.0.lock();
            let hollow = state.planted == Some(Planted::HollowFence);
            let phase = state.held.get(exec.id.as_str()).map(|held| held.phase.clone());
            match phase {
                None => Fenced::NeverRan,
                Some(ExecPhase::Created) => {
                    state.note(|| format!("{} is taken away", exec.id));
                    if !hollow {
                        state.held.remove(exec.id.as_str());
                    }
                    Fenced::NeverRan
                }
                Some(ExecPhase::Started(_) | ExecPhase::Refused(_)) => Fenced::Started,
            }
        };
        self.0.point().await;
        self.0.engine_answers("take an exec away")?;
        Ok(fenced)
    }

    /// It remembers none.
    fn exits(&self, _: Option<Timestamp>) -> BoxStream<'static, Result<ExecExit, EngineError>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.0.lock();
        if !state.engine_up {
            let down = EngineError::Unreachable { socket: "sim".to_owned(), message: "exits".to_owned() };
            return Box::pin(futures::stream::once(async { Err(down) }));
        }
        state.listeners.push(sender);
        Box::pin(futures::stream::unfold(receiver, async |mut receiver| {
            let event = receiver.recv().await?;
            Some((Ok(event), receiver))
        }))
    }

    async fn forget(&self, exec: &ExecRef) -> Result<(), EngineError> {
        self.0.engine_call("forget an exec").await?;
        {
            let mut state = self.0.lock();
            if let Some(held) = state.held.remove(exec.id.as_str()) {
                state.note(|| format!("{} is forgotten", exec.id));
                if held.phase != ExecPhase::Created && !state.end_is_put_down(&held.uid) {
                    state.violated(format!("the exec of {} is forgotten before its end is put down", held.uid));
                }
            }
        }
        self.0.point().await;
        self.0.engine_answers("forget an exec")
    }
}

impl Held {
    fn new(run: ContainerRef, uid: String, plan: Plan, tty: bool) -> Self {
        Self {
            run,
            uid,
            plan,
            tty,
            phase: ExecPhase::Created,
            code: watch::channel(None).0,
            pieces: Vec::new(),
            pipe: None,
            over: false,
            released: StreamOffsets::default(),
            changed: watch::channel(()).0,
        }
    }

    fn written(&self) -> StreamOffsets {
        let bytes = |stderr| self.pieces.iter().filter(|p| p.stderr == stderr).map(|p| p.bytes.len() as u64).sum();
        StreamOffsets { stdout: bytes(false), stderr: bytes(true) }
    }

    fn release(&mut self, before: StreamOffsets) {
        self.released.stdout = self.released.stdout.max(before.stdout);
        self.released.stderr = self.released.stderr.max(before.stderr);
        self.changed.send_replace(());
    }

    fn has_room(&self) -> bool {
        self.written().total() - self.released.total() < HOLDS
    }
}

/// How far a reader has come with each stream.
struct Reader {
    /// It has everything before that.
    from: [u64; 2],
    /// The next piece, and where it begins.
    next: usize,
    begins: [u64; 2],
}

impl Reader {
    const fn new(from: StreamOffsets) -> Self {
        Self { from: [from.stdout, from.stderr], next: 0, begins: [0, 0] }
    }

    /// What comes next and is still held; of a terminal without a header.
    fn read(&mut self, held: &Held) -> Option<Vec<u8>> {
        while let Some(piece) = held.pieces.get(self.next) {
            let stream = usize::from(piece.stderr);
            let begin = self.begins[stream];
            let end = begin + piece.bytes.len() as u64;
            let released = if piece.stderr { held.released.stderr } else { held.released.stdout };
            (self.begins[stream], self.next) = (end, self.next + 1);
            let first = self.from[stream].max(released);
            if first >= end {
                continue;
            }
            let bytes = &piece.bytes[usize::try_from(first.saturating_sub(begin)).unwrap_or(0)..];
            self.from[stream] = end;
            let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
            let header = [1 + u8::from(piece.stderr), 0, 0, 0, 0, 0, 0, length];
            return Some(if held.tty { bytes.to_vec() } else { [&header[..], bytes].concat() });
        }
        None
    }
}

/// Gives a reader what is held from there on, and what comes, until nobody can write any more.
async fn feed(model: Model, id: String, tty: bool, from: StreamOffsets, mut to: DuplexStream) {
    let mut reader = Reader::new(from);
    let changed = model.lock().held.get(&id).map(|held| held.changed.subscribe());
    let Some(mut changed) = changed else { return };
    loop {
        changed.borrow_and_update();
        let (piece, over, pipe) = {
            let state = model.lock();
            // What reads from an exec that was taken away is at its end.
            let Some(held) = state.held.get(&id) else { return };
            assert_eq!(held.tty, tty);
            (reader.read(held), held.over, held.pipe)
        };
        if let Some(piece) = piece {
            if to.write_all(&piece).await.is_err() {
                return;
            }
        } else if over {
            // A child may hold it open.
            while let Some(mut ended) = pipe.and_then(|pipe| holder(&model.lock(), pipe)) {
                drop(ended.wait_for(Option::is_some).await);
            }
            return;
        } else if changed.changed().await.is_err() {
            return;
        }
    }
}

/// The end of a process that holds this pipe.
fn holder(state: &State, pipe: u64) -> Option<watch::Receiver<Option<i32>>> {
    let mut holders = state.processes.values().filter(|p| p.alive && p.pipe == pipe && p.holds_output);
    holders.next().map(|holder| holder.ended.subscribe())
}

/// A start arrives.
fn begin(model: &Model, id: &str) -> Begun {
    let mut state = model.lock();
    let (up, runs, paused) = (state.engine_up, state.container_runs, state.container_paused);
    let container = state.container.clone();
    let Some(held) = state.held.get_mut(id).filter(|_| up) else { return Begun::Nothing("no such exec") };
    let (plan, uid) = (held.plan, held.uid.clone());
    match held.phase {
        ExecPhase::Created => {}
        ExecPhase::Started(_) => return Begun::Nothing("it was started before"),
        ExecPhase::Refused(_) => {
            state.violated(format!("{id}: a second start after a failed one: the pod is killed"));
            return Begun::Nothing("the pod is killed");
        }
    }
    if held.run != container || !runs || paused {
        return Begun::Nothing("the container does not run");
    }
    let exec_id = Some(id);
    if plan.missing || plan.program == Program::Broken {
        held.phase = ExecPhase::Refused(127);
        held.over = true;
        held.changed.send_replace(());
        state.note(|| format!("{id} cannot be started"));
        state.truth(&uid).failed_starts += 1;
        state.must_be_recorded(&uid, "the start", |event| event.note(key::EXEC_ID) == exec_id);
        return Begun::Failed;
    }
    state.must_be_recorded(&uid, "the start", |event| event.note(key::EXEC_ID) == exec_id);
    state.must_have_client(&uid, "the start");
    let pid = state.spawn(&uid, None, plan.ignores_term, true);
    state.note(|| format!("{id} starts as {pid}"));
    state.starts(&uid);
    let child = plan.leaves_child.then(|| state.spawn(&uid, Some(pid), plan.ignores_term, true));
    if let Some(child) = child.and_then(|child| state.processes.get_mut(&child)) {
        child.nameless = plan.nameless_child;
    }
    let pipe = state.processes.get(&pid).map(|process| process.pipe);
    if let Some(held) = state.held.get_mut(id) {
        (held.phase, held.pipe) = (ExecPhase::Started(pid), pipe);
    }
    drop(state);
    if let Some(child) = child {
        tokio::spawn(live(model.clone(), child));
    }
    tokio::spawn(run_command(model.clone(), id.to_owned(), pid, plan));
    Begun::Runs(pid)
}

/// A command from its start to its end.
async fn run_command(model: Model, id: String, pid: u32, plan: Plan) {
    let kill = model.lock().processes.get(&pid).map(|process| Arc::clone(&process.kill));
    let Some(kill) = kill else { return };
    let ends = Instant::now() + plan.runs_for;
    loop {
        let next = if plan.noisy { ends.min(Instant::now() + Duration::from_millis(50)) } else { ends };
        tokio::select! {
            biased;
            () = kill.notified() => break,
            () = sleep_until(next) => {}
        }
        if next >= ends {
            break;
        }
        tokio::select! {
            biased;
            () = kill.notified() => break,
            () = write(&model, &id) => {}
        }
    }
    let code = {
        let mut state = model.lock();
        let Some(code) = state.ends(pid, plan.code) else { return };
        state.note(|| format!("{pid} of {id} ends with {code}"));
        if let Some(held) = state.held.get_mut(&id) {
            held.over = true;
            held.changed.send_replace(());
        }
        code
    };
    notice(&model, &id, code).await;
}

/// One numbered piece of output, as soon as there is room for it.
async fn write(model: &Model, id: &str) {
    loop {
        let mut changed = {
            let mut state = model.lock();
            // Nobody keeps what it writes.
            let Some(held) = state.held.get_mut(id) else { return };
            if held.has_room() {
                let stderr = !held.tty && held.pieces.len() % 3 == 2;
                let bytes = format!("{:04}\n", held.pieces.len() % 10_000).into_bytes();
                held.pieces.push(Piece { stderr, bytes: bytes.clone() });
                held.changed.send_replace(());
                let uid = held.uid.clone();
                state.truth(&uid).writes(stderr, &bytes);
                return;
            }
            held.changed.subscribe()
        };
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// The engine takes note of the end of a process, and tells those who listen then.
async fn notice(model: &Model, id: &str, code: i32) {
    let late = model.chance(50);
    sleep(model.millis(if late { 0..5000 } else { 0..15 })).await;
    if let Some(held) = model.lock().held.get(id) {
        held.code.send_replace(Some(code));
    } else {
        return;
    }
    if !model.chance(500) {
        sleep(model.millis(0..14)).await;
    }
    let mut state = model.lock();
    if state.engine_up {
        let event = ExecExit { exec: id.into(), testimony: Testimony { code, certain: true }, at: state.now() };
        state.tell_exit(&event);
    }
}
