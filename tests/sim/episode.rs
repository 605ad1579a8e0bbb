//! One episode: a handful of requests, a node, and everything that can go wrong, until it stops
//! going wrong and all has to end well.

use std::{collections::HashSet, path::Path, sync::Arc, time::Duration};

use execlet::{
    agent::{
        batches::Batches,
        gate::Gate,
        intake::{
            desk::{self, Intake},
            watch::Event,
        },
        memory::{exec_exits::ExecExits, journal::Journal},
        node::Node,
        streams::{
            hub::Hubs,
            ring::{Follows, ViewPosition},
            spool::Spool,
            turns::Writers,
        },
    },
    api::{ExecRequest, ExecRequestStatus, Reason},
    core::{
        outcome::Outcome,
        queue::Limits,
        transition::{Binding, Write},
    },
    engine::Engine,
    infra::{
        audit::{Audit, Policy},
        clock::Clock,
        events::Events,
        health::Readiness,
        metrics::Metrics,
    },
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::DeserializeGuard;
use prometheus_client::metrics::gauge::Gauge;
use serde_json::json;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    fences::FencingEngine,
    model::{CONTAINER, Change, Model, NAMESPACE, NODE, Nature, POD, POD_UID, Plan, Planted, Truth, reason},
    targets::{self, SimBatches, batch, is_forgotten, plan_anew},
    tokens::SimEngine,
    world::{SimClock, SimDisk, SimKernel, SimRequests, SimTrail, Simulated},
};

/// How many of a thousand requests are of a batch.
const OF_BATCHES: u64 = 300;
/// Requests in one episode.
pub const REQUESTS: u64 = 8;
/// How long things go wrong.
const FAULTS: Duration = Duration::from_secs(20);
/// How long it may take to end well from then on.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long a command may go on beyond its time, or from the start of an agent that finds it so: it is given up to three
/// seconds to end, and may be frozen for two.
const DEADLINE_SLACK: Duration = Duration::from_secs(8);

/// How long after the end of a command that of its output may come: what it left behind may have to be killed first.
const VIEWERS_PATIENCE: Duration = Duration::from_secs(15);

/// What came of an episode.
pub struct Report {
    pub violations: Vec<String>,
    pub trace: Vec<String>,
    pub finished: u64,
    pub unknown: u64,
    /// Those of them whose truth was lost: the others were given up.
    pub lost: u64,
    /// Those of these that the end of the engine or a reboot of the node has taken.
    pub shaken: u64,
    pub crashes: u32,
}

/// What happens in an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Everything that can go wrong.
    Disturbed,
    /// Nothing goes wrong, but every command is canceled about when it starts, and leaves a child
    /// that only its output betrays.
    Hasty,
}

/// Plays the episode of this seed, with an engine of this nature.
pub fn play(seed: u64, kind: Kind, nature: Nature, planted: Option<Planted>, trace: bool, spool: &Path) -> Report {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let report = runtime.block_on(async {
        let model = Model::new(seed, nature, planted, trace);
        let mut all = JoinSet::new();
        let chaos = match kind {
            Kind::Disturbed => all.spawn(chaos(model.clone())),
            Kind::Hasty => {
                model.lock().faults = false;
                all.spawn(async {})
            }
        };
        all.spawn(users(model.clone(), kind));
        all.spawn(manager(model.clone()));
        all.spawn(watch_deadlines(model.clone()));
        all.spawn(agent(model.clone(), spool.to_owned()));
        sleep(FAULTS).await;
        // What it has broken and not yet mended is mended now.
        chaos.abort();
        calm(&model);
        let ended = timeout(PATIENCE, async {
            while !is_over(&model) {
                sleep(Duration::from_millis(100)).await;
            }
        });
        let in_time = ended.await.is_ok();
        check(&model, in_time);
        all.abort_all();
        report(&model)
    });
    runtime.shutdown_background();
    report
}

fn report(model: &Model) -> Report {
    let mut state = model.lock();
    let finals: Vec<_> = state.truth.values().filter_map(|truth| truth.finished.clone()).collect();
    let lost = |truth: &&Truth| truth.finished.as_ref().is_some_and(|status| reason(status) == "OutcomeLost");
    let (lost, shaken) = {
        let all = || state.truth.values().filter(lost);
        (all().count() as u64, all().filter(|truth| truth.shaken).count() as u64)
    };
    Report {
        violations: std::mem::take(&mut state.violations),
        trace: state.trace.take().unwrap_or_default(),
        finished: finals.len() as u64,
        unknown: finals.iter().filter(|status| status.phase.to_string() == "Unknown").count() as u64,
        lost,
        shaken,
        crashes: state.agent_crashes,
    }
}

/// Everything that was broken works again.
fn calm(model: &Model) {
    let mut state = model.lock();
    state.note(|| "no more faults".to_owned());
    state.faults = false;
    state.api_up = true;
    state.manager_up = true;
    if !state.engine_up {
        state.forget_execs();
        state.engine_up = true;
    }
    state.disk_full = false;
    state.container_paused = false;
    if !state.container_runs {
        state.restart_container();
    }
}

fn is_over(model: &Model) -> bool {
    let state = model.lock();
    let all = state.objects.values().all(|object| is_finished(&object.request));
    // What was deleted or given up is ended too.
    let gone =
        state.processes.values().filter(|process| process.alive).all(|process| !is_unwanted(&state, &process.uid));
    all && gone && state.untold().is_empty() && state.truth.len() as u64 >= REQUESTS
}

/// Whether a process must not go on: its request was deleted, given up or ended by force.
fn is_unwanted(state: &crate::model::State, uid: &str) -> bool {
    let object = state.objects.values().find(|object| object.request.metadata.uid.as_deref() == Some(uid));
    let Some(object) = object else { return state.truth.get(uid).is_some_and(|truth| truth.code.is_none()) };
    let Some(status) = object.request.status.as_ref().filter(|status| status.completion_time.is_some()) else {
        return false;
    };
    matches!(reason(status), "Canceled" | "DeadlineExceeded" | "Deleted" | "KillFailed")
        || (reason(status) == "NodeLost" && state.truth.get(uid).is_some_and(|truth| truth.code.is_none()))
}

fn is_finished(request: &ExecRequest) -> bool {
    request.status.as_ref().is_some_and(|status| status.completion_time.is_some())
}

fn check(model: &Model, in_time: bool) {
    let mut state = model.lock();
    if in_time {
        return;
    }
    let unfinished: Vec<String> = state
        .objects
        .values()
        .filter(|object| !is_finished(&object.request))
        .map(|object| object.request.metadata.name.clone().unwrap_or_default())
        .collect();
    if !unfinished.is_empty() {
        state.violated(format!("never finished: {}", unfinished.join(", ")));
    }
    let left: Vec<String> = state
        .processes
        .values()
        .filter(|process| process.alive && is_unwanted(&state, &process.uid))
        .map(|process| format!("{} of {}", process.this.pid, process.uid))
        .collect();
    if !left.is_empty() {
        state.violated(format!("left alive: {}", left.join(", ")));
    }
    let untold = state.untold();
    if !untold.is_empty() {
        state.violated(format!("their ends are not on record: {}", untold.join(", ")));
    }
}

/// People who create, cancel and delete.
async fn users(model: Model, kind: Kind) {
    for number in 0..REQUESTS {
        sleep(model.millis(0..2000)).await;
        let mut name = format!("r{number}");
        {
            let mut state = model.lock();
            let plan = match kind {
                Kind::Disturbed => Plan::random(&mut state.random),
                Kind::Hasty => Plan::furtive(&mut state.random),
            };
            let tty = state.random.chance(300);
            let active = state.random.chance(150).then(|| state.random.below(5) + 1);
            let grace = state.random.below(4);
            let starting = *state.random.pick(&[5, 60, 600]).unwrap_or(&60);
            // Some have their input from a client, who comes, now or after the deadline, or never.
            let awaits = kind == Kind::Disturbed && state.random.chance(200);
            let (comes, starting) =
                if awaits { (state.random.chance(700), starting.min(60)) } else { (false, starting) };
            let cancels = state.random.chance(300);
            let on_disconnect = if cancels { "Cancel" } else { "KeepRunning" };
            let known = awaits && state.planted != Some(Planted::ForgottenInput);
            let stdin = known.then(|| json!({"attach": {"onDisconnect": on_disconnect}}));
            let request = json!({
                "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
                "metadata": {"name": name, "namespace": NAMESPACE, "uid": format!("uid-{number}"), "generation": 1},
                "spec": {
                    "target": {"podName": POD}, "command": plan.command(), "tty": tty,
                    "startingDeadlineSeconds": starting, "activeDeadlineSeconds": active,
                    "terminationGracePeriodSeconds": grace, "output": {"spoolBytes": 0, "tailBytes": 16},
                    "stdin": stdin,
                },
            });
            let mut request: ExecRequest = serde_json::from_value(request).expect("a request");
            request.metadata.creation_timestamp = Some(Time(state.now()));
            request.status = Some(ExecRequestStatus::default());
            if kind == Kind::Disturbed && !awaits && state.random.chance(OF_BATCHES) {
                let mut template = serde_json::to_value(&request.spec).expect("JSON");
                template
                    .as_object_mut()
                    .expect("fields")
                    .retain(|field, _| !["target", "cancel"].contains(&field.as_str()));
                request = targets::plan(&mut state, &batch(&name, &template), &format!("uid-{number}"));
                name = request.metadata.name.clone().expect("a name");
            }
            let truth = state.truth(&format!("uid-{number}"));
            (truth.awaits_client, truth.may_run_for) = (awaits, active.map(Duration::from_secs));
            tokio::spawn(viewer(model.clone(), name.clone(), format!("uid-{number}")));
            if comes {
                tokio::spawn(client(model.clone(), format!("uid-{number}"), cancels));
            }
            state.note(|| format!("{name} is created: {plan:?} tty {tty} active {active:?} starting {starting}"));
            state.store(request);
            if state.faults && state.random.chance(100) {
                // While it is not bound.
                state.back_up();
            }
        }
        let (fates, within) = match kind {
            Kind::Disturbed => (10, 6000),
            Kind::Hasty => (1, 500),
        };
        let fate = model.lock().random.below(fates);
        let when = model.millis(0..within);
        let model = model.clone();
        tokio::spawn(async move {
            sleep(when).await;
            // Held for a moment, while it ends, or until everything is over.
            let held = *model.lock().random.pick(&[500, 10_000, 100_000]).unwrap_or(&500);
            meet(&model, fate, &name);
            if fate == HELD {
                sleep(model.millis(0..held)).await;
                model.lock().delete(&name);
            }
        });
    }
}

/// What becomes of a request that a finalizer holds: it is deleted, and there all the same.
const HELD: u64 = 3;

fn meet(model: &Model, fate: u64, name: &str) {
    let mut state = model.lock();
    match fate {
        0 | 1 => {
            let Some(mut request) = state.objects.get(name).map(|object| object.request.clone()) else { return };
            if !is_finished(&request) {
                request.spec.cancel = true;
                state.truth(request.metadata.uid.as_deref().unwrap_or_default()).to_be_ended = true;
                state.note(|| format!("{name} is canceled"));
                state.store(request);
            }
        }
        2 => state.delete(name),
        HELD => state.delete_held(name),
        _ => {}
    }
}

/// Watches a request, and is told what its object says, when it says it.
async fn viewer(model: Model, name: String, uid: String) {
    loop {
        let hubs = Arc::clone(&model.lock().hubs);
        let hub = hubs.of(&uid.as_str().into());
        while Arc::ptr_eq(&hubs, &model.lock().hubs) {
            sleep(Duration::from_millis(100)).await;
            let Some(told) = hub.result() else { continue };
            // They hear it only at the end of the output.
            let end = ViewPosition { output: hub.now(), ..ViewPosition::START };
            let patience = Instant::now() + VIEWERS_PATIENCE;
            let deaf = model.lock().planted == Some(Planted::DeafViewers);
            let heard = if deaf { Hubs::default().of(&uid.as_str().into()) } else { Arc::clone(&hub) };
            while matches!(heard.after(end, 1), Follows::NotYet) && Arc::ptr_eq(&hubs, &model.lock().hubs) {
                if Instant::now() > patience {
                    return model.lock().violated(format!("the output of {name} never ends for those who watch"));
                }
                sleep(Duration::from_millis(100)).await;
            }
            let mut state = model.lock();
            let Some(object) = state.objects.get(&name) else { return };
            let said = object.request.status.as_ref().filter(|status| status.completion_time.is_some());
            let said = said.map(|status| status.result.clone());
            if state.restores == 0 && said != Some(Some((*told).clone())) {
                state.violated(format!("those who watch {name} are told {told:?}, and its object says {said:?}"));
            }
            return;
        }
    }
}

/// Holds the input of a request for a while, lets it go, and comes again; each agent that crashes takes it away.
async fn client(model: Model, uid: String, cancels: bool) {
    sleep(model.millis(0..8000)).await;
    loop {
        let hubs = Arc::clone(&model.lock().hubs);
        let hold = hubs.of(&uid.as_str().into()).input.hold("a client");
        let Ok(hold) = hold else { return };
        {
            let mut state = model.lock();
            state.truth(&uid).client_came = true;
            state.note(|| format!("a client holds the input of {uid}"));
        }
        let until = Instant::now() + model.millis(1..10_000);
        while Instant::now() < until && Arc::ptr_eq(&hubs, &model.lock().hubs) {
            sleep(Duration::from_millis(20)).await;
        }
        {
            let mut state = model.lock();
            state.note(|| format!("a client lets go of the input of {uid}"));
            // With an agent that is gone already, its command goes on.
            let goes = cancels && !state.crashed && Arc::ptr_eq(&hubs, &state.hubs);
            state.truth(&uid).to_be_ended |= goes;
        }
        drop(hold);
        sleep(model.millis(1..2000)).await;
    }
}

/// Binds what is not bound, and sometimes gives up what runs.
async fn manager(model: Model) {
    loop {
        sleep(model.millis(10..300)).await;
        let mut state = model.lock();
        if !state.api_up || !state.manager_up {
            continue;
        }
        let unbound: Vec<ExecRequest> = state
            .objects
            .values()
            .filter(|object| object.request.status.as_ref().is_none_or(|status| status.node_name.is_none()))
            .filter(|object| !is_finished(&object.request))
            .map(|object| object.request.clone())
            .collect();
        for mut request in unbound {
            let binding = Binding {
                node: NODE.to_owned(),
                pod_uid: POD_UID.to_owned(),
                container: CONTAINER.to_owned(),
                caveat: None,
            };
            let from = request.status.clone().unwrap_or_else(ExecRequestStatus::default);
            let status = Write { from: &from, generation: Some(1), at: state.now() }.bound(&binding);
            request.status = Some(status);
            state.store(request);
        }
        // Who writes without looking has to meet another who writes.
        let gives_up = if state.planted == Some(Planted::BlindWrites) { 100 } else { 3 };
        if state.faults && state.random.chance(gives_up) {
            let running: Vec<ExecRequest> = state
                .objects
                .values()
                .filter(|object| !is_finished(&object.request))
                .filter(|object| object.request.status.as_ref().is_some_and(|status| status.exec_id.is_some()))
                .map(|object| object.request.clone())
                .collect();
            if let Some(mut request) = state.random.pick(&running).cloned() {
                let now = state.now();
                let from = request.status.clone().unwrap_or_else(ExecRequestStatus::default);
                let outcome = Outcome { reason: Reason::NodeLost, ..Outcome::lost("the node is lost", None, now) };
                request.status = Some(Write { from: &from, generation: Some(1), at: now }.finished(&outcome));
                state.abandon(&request);
                state.store(request);
            }
        }
    }
}

async fn watch_deadlines(model: Model) {
    loop {
        sleep(Duration::from_millis(500)).await;
        model.lock().check_deadlines(DEADLINE_SLACK);
    }
}

/// Breaks things, and mends them a little later.
async fn chaos(model: Model) {
    loop {
        sleep(model.millis(200..3000)).await;
        let kind = {
            let mut state = model.lock();
            if !state.faults {
                return;
            }
            state.random.below(13)
        };
        match kind {
            0 => {
                model.lock().crash_agent();
            }
            1 | 2 => restart_engine(&model).await,
            3 => {
                {
                    let mut state = model.lock();
                    state.note(|| "the API server is down".to_owned());
                    state.api_up = false;
                    state.break_watches();
                }
                if model.chance(200) {
                    // For so long that the next agent has to do without.
                    sleep(model.millis(50..1000)).await;
                    model.lock().crash_agent();
                    sleep(model.millis(8000..14_000)).await;
                } else {
                    sleep(model.millis(50..3000)).await;
                }
                model.lock().api_up = true;
            }
            4 => restart_container(&model).await,
            5 => {
                let paused = {
                    let mut state = model.lock();
                    state.container_paused = state.container_runs;
                    state.note(|| "the container is paused".to_owned());
                    state.random.millis(50..2000)
                };
                sleep(paused).await;
                model.lock().container_paused = false;
            }
            6 => reboot(&model).await,
            7 => {
                // Somebody labels an object: a conflict for whoever read it before.
                let mut state = model.lock();
                let all: Vec<ExecRequest> = state.objects.values().map(|object| object.request.clone()).collect();
                if let Some(request) = state.random.pick(&all).cloned() {
                    state.store(request);
                }
            }
            8 => model.lock().back_up(),
            9 => {
                restore(&model);
                if model.chance(300) {
                    leave_unbound(&model).await;
                }
            }
            10 => {
                model.note(|| "the disk is full".to_owned());
                model.lock().disk_full = true;
                sleep(model.millis(100..3000)).await;
                model.lock().disk_full = false;
            }
            11 => leave_unbound(&model).await,
            _ => model.lock().break_watches(),
        }
    }
}

async fn leave_unbound(model: &Model) {
    model.note(|| "the manager is away".to_owned());
    model.lock().manager_up = false;
    sleep(model.millis(300..4000)).await;
    model.lock().manager_up = true;
}

async fn restart_engine(model: &Model) {
    let pause = {
        let mut state = model.lock();
        state.note(|| "the engine is killed".to_owned());
        state.engine_up = false;
        if state.nature == Nature::Tokens {
            state.shake();
        }
        state.listeners.clear();
        state.random.millis(50..2500)
    };
    sleep(pause).await;
    let lives_on = {
        let mut state = model.lock();
        state.forget_execs();
        state.live_restore || state.nature == Nature::Fences
    };
    sleep(model.millis(1..50)).await;
    {
        let mut state = model.lock();
        state.engine_up = true;
        state.note(|| "the engine is back".to_owned());
    }
    if !lives_on {
        sleep(model.millis(10..1000)).await;
        let mut state = model.lock();
        if !state.container_runs {
            state.restart_container();
        }
    }
}

async fn restart_container(model: &Model) {
    {
        let mut state = model.lock();
        state.note(|| "the container ends".to_owned());
        state.end_container();
    }
    sleep(model.millis(20..1500)).await;
    let mut state = model.lock();
    if !state.container_runs {
        state.restart_container();
    }
}

async fn reboot(model: &Model) {
    {
        let mut state = model.lock();
        state.note(|| "the node reboots".to_owned());
        state.crash_agent();
        match state.nature {
            Nature::Tokens => state.shake(),
            // What the agent is just writing counts.
            Nature::Fences => state.rebooted = true,
        }
        state.engine_up = false;
        state.engine_run += 1;
        state.listeners.clear();
        state.held.clear();
        state.boot += 1;
        state.end_container();
    }
    sleep(model.millis(20..200)).await;
    {
        let mut state = model.lock();
        state.execs.clear();
        state.events.clear();
    }
    sleep(model.millis(100..2000)).await;
    let mut state = model.lock();
    state.engine_up = true;
    if !state.container_runs {
        state.restart_container();
    }
}

/// The API server is set back to an older state.
fn restore(model: &Model) {
    let mut state = model.lock();
    let Some(backup) = state.backup.take() else { return };
    state.note(|| "an older state of the API server is restored".to_owned());
    state.restores += 1;
    for truth in state.truth.values_mut() {
        truth.restored = true;
    }
    // What was created since is gone. Its resource versions may be given out a second time.
    let gone: Vec<ExecRequest> =
        std::mem::take(&mut state.objects).into_values().map(|object| object.request).collect();
    let (mut forgotten, mut kept) = (Vec::new(), Vec::new());
    for request in backup {
        if is_forgotten(&request) && state.random.chance(500) {
            forgotten.extend(request.spec.batch.as_ref().map(|place| place.name.clone()));
            state.abandon(&request);
        } else {
            kept.push(request);
        }
    }
    let backup = kept;
    for request in gone {
        let of_batch = request.spec.batch.as_ref().map(|place| place.name.clone());
        if of_batch.is_some()
            && !backup.iter().any(|kept| kept.spec.batch.as_ref().map(|place| &place.name) == of_batch.as_ref())
        {
            forgotten.extend(of_batch);
        }
        if !backup.iter().any(|kept| kept.metadata.uid == request.metadata.uid) {
            state.abandon(&request);
        }
    }
    let back = state.random.chance(500);
    if back {
        let last = backup.iter().filter_map(|r| r.metadata.resource_version.as_deref()?.parse().ok()).max();
        state.version = last.unwrap_or(state.version);
    }
    for request in backup {
        let name = request.metadata.name.clone().unwrap_or_default();
        state.objects.insert(name, crate::model::Object { request });
    }
    state.break_watches();
    drop(state);
    forgotten.sort();
    forgotten.dedup();
    plan_anew(model, forgotten);
}

/// The agent, from start to crash to start.
async fn agent(model: Model, spool: std::path::PathBuf) {
    loop {
        let crash = {
            let mut state = model.lock();
            state.take_over();
            Arc::clone(&state.crash)
        };
        let shutdown = CancellationToken::new();
        let mut parts = JoinSet::new();
        let nature = model.lock().nature;
        match nature {
            Nature::Tokens => start_agent(SimEngine(model.clone()), &model, &spool, &mut parts, &shutdown),
            Nature::Fences => start_agent(FencingEngine(model.clone()), &model, &spool, &mut parts, &shutdown),
        }
        // Now and then it is told to stop, and stops well.
        let asked = model.chance(100).then(|| model.millis(0..8000));
        let stop = async {
            match asked {
                Some(after) => sleep(after).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = crash.notified() => {}
            _ = parts.join_next() => {}
            () = stop => {
                model.note(|| "the agent is told to stop".to_owned());
                model.lock().agent_since = None;
                shutdown.cancel();
                tokio::select! {
                    biased;
                    () = crash.notified() => {}
                    _ = parts.join_next() => model.lock().let_go(),
                }
            }
        }
        drop(parts);
        sleep(model.millis(100..2000)).await;
        model.note(|| "the agent starts".to_owned());
    }
}

fn start_agent<E: Engine>(
    engine: E,
    model: &Model,
    spool: &Path,
    parts: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) {
    let (journal, records) = Journal::open(SimDisk(model.clone())).expect("a journal");
    let (metrics, _) = Metrics::for_agent();
    let spool = Spool::open(spool, 1 << 30, &HashSet::new(), Gauge::default()).expect("a spool");
    let exec_exits = ExecExits::default();
    let engine = Arc::new(engine);
    let clock: Arc<dyn Clock> = Arc::new(SimClock(model.clone()));
    let listening = exec_exits.clone().listen(Arc::clone(&engine), Readiness::default(), shutdown.clone());
    // Whoever watched an agent before this one has lost it.
    let hubs = Arc::new(Hubs::default());
    model.lock().hubs = Arc::clone(&hubs);
    let boot = model.lock().boot;
    let policy = Policy { required: true, ..Policy::default() };
    let node = Arc::new(Node::<Simulated<E>> {
        name: NODE.into(),
        boot: format!("boot-{boot}").into(),
        engine,
        kernel: SimKernel(model.clone()),
        requests: SimRequests(model.clone()),
        batches: Batches::new(SimBatches(model.clone())),
        audit: Audit::new(SimTrail(model.clone()), policy, Arc::clone(&clock), metrics.clone()),
        events: Events::silent(),
        journal,
        spool,
        writers: Writers::default(),
        gate: Gate::off(),
        hubs,
        exec_exits,
        metrics,
        clock,
        pulse: Arc::default(),
        handover: Arc::default(),
        handed_over: parking_lot::Mutex::default(),
        stopping: shutdown.clone(),
    });
    let limits = Limits { node: 6, namespace: 6, container: 4, reserved_percent: 25 };
    let intake = Intake { limits, drain: Duration::from_secs(2) };
    let (teller, news) = mpsc::unbounded_channel();
    let news = Box::pin(futures::stream::unfold(news, async |mut news| Some((news.recv().await?, news))));
    let watching = desk::run(node, news, intake, records, Readiness::default(), shutdown.clone());
    // The first to end is the one that matters: it ends when the agent does.
    parts.spawn(async {
        tokio::select! {
            biased;
            () = watching => {}
            () = async { listening.await; std::future::pending().await } => {}
        }
    });
    parts.spawn(tell(model.clone(), teller));
}

/// The watch of the API server, late and broken now and then.
async fn tell(model: Model, teller: mpsc::UnboundedSender<Result<Event, String>>) {
    loop {
        let listed = {
            let mut state = model.lock();
            if state.api_up {
                let (sender, receiver) = mpsc::unbounded_channel();
                state.watchers.push(sender);
                let all: Vec<ExecRequest> = state.objects.values().map(|object| object.request.clone()).collect();
                Some((all, receiver))
            } else {
                None
            }
        };
        let Some((all, mut changes)) = listed else {
            sleep(Duration::from_millis(500)).await;
            continue;
        };
        let mut shown: HashSet<String> = HashSet::new();
        teller.send(Ok(Event::Init)).ok();
        sleep(model.millis(0..30)).await;
        for request in all.into_iter().filter(is_selected) {
            shown.insert(request.metadata.uid.clone().unwrap_or_default());
            teller.send(Ok(Event::InitApply(DeserializeGuard(Ok(request))))).ok();
        }
        teller.send(Ok(Event::InitDone)).ok();
        while let Some(change) = changes.recv().await {
            if model.chance(50) {
                sleep(model.millis(0..1000)).await;
            }
            let event = match change {
                Change::Broken => break,
                Change::Applied(request) if is_selected(&request) => {
                    shown.insert(request.metadata.uid.clone().unwrap_or_default());
                    Event::Apply(DeserializeGuard(Ok(*request)))
                }
                Change::Applied(request) | Change::Deleted(request) => {
                    if !shown.remove(request.metadata.uid.as_deref().unwrap_or_default()) {
                        continue;
                    }
                    Event::Delete(DeserializeGuard(Ok(*request)))
                }
            };
            teller.send(Ok(event)).ok();
        }
        teller.send(Err("the watch broke off".to_owned())).ok();
        sleep(model.millis(10..1500)).await;
    }
}

/// Bound to this node, and not finished.
fn is_selected(request: &ExecRequest) -> bool {
    let status = request.status.as_ref();
    status.is_some_and(|status| status.node_name.as_deref() == Some(NODE) && status.completion_time.is_none())
}
