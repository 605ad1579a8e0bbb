//! One episode with batches: a few of them, two managers of which one leads or two believe to, agents, people, and
//! everything that can go wrong, until it stops going wrong and all has to end well.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use execlet::{
    api::{ExecBatch, ExecBatchStatus, ExecRequest},
    core::{
        batch::{
            end::End,
            ledger::Ledger,
            pace::Pace,
            sweep::{Broom, Counting},
        },
        ids::BatchKey,
    },
    manager::controller::batch::{
        pass::Pass,
        sweep::{sweep_ended, sweep_unfinished},
        tend::tend,
    },
};
use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::{apis::meta::v1::Time, util::intstr::IntOrString};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    batches_agents::agent,
    batches_model::{MANAGERS, Model, NAMESPACE, NODES, Planted, State, depose},
    batches_world::{SimWorld, TOO_MANY},
    random::Random,
};

/// Batches in one episode.
pub const BATCHES: u64 = 4;
/// How long things go wrong.
const FAULTS: Duration = Duration::from_secs(25);
/// How long it may take to end well from then on.
const PATIENCE: Duration = Duration::from_secs(600);
/// The same, with a planted bug: what never ends is not to take for ever.
const LITTLE_PATIENCE: Duration = Duration::from_secs(60);
/// Passes over one batch without a pause.
const EAGER: u32 = 20;

/// What came of an episode.
pub struct Report {
    pub violations: Vec<String>,
    pub trace: Vec<String>,
    /// Batches that are there and have finished.
    pub finished: u64,
    pub succeeded: u64,
    pub runs: u64,
    pub crashes: u32,
    pub restores: u32,
}

/// Plays the episode of this seed.
pub fn play(seed: u64, planted: Option<Planted>, trace: bool) -> Report {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let report = runtime.block_on(async {
        let model = Model::new(seed, planted, trace);
        let mut all = JoinSet::new();
        let chaos = all.spawn(chaos(model.clone()));
        all.spawn(people(model.clone()));
        for manager in 0..MANAGERS {
            all.spawn(supervise(model.clone(), manager));
        }
        for node in 0..NODES.len() {
            all.spawn(agent(model.clone(), node));
        }
        sleep(FAULTS).await;
        chaos.abort();
        calm(&model);
        let patience = if planted.is_some() { LITTLE_PATIENCE } else { PATIENCE };
        let ended = timeout(patience, async {
            while !is_over(&model.lock()) {
                sleep(Duration::from_millis(500)).await;
            }
        });
        let in_time = ended.await.is_ok();
        check(&mut model.lock(), in_time);
        all.abort_all();
        report(&model)
    });
    runtime.shutdown_background();
    report
}

fn report(model: &Model) -> Report {
    let mut state = model.lock();
    let ended = |phase: &str| {
        let is = |batch: &&ExecBatch| batch.status.as_ref().is_some_and(|status| status.phase.to_string() == phase);
        state.objects.batches.values().filter(is).count() as u64
    };
    let (succeeded, failed) = (ended("Succeeded"), ended("Failed"));
    Report {
        finished: succeeded + failed,
        succeeded,
        runs: state.runs.values().map(|run| u64::from(run.starts)).sum(),
        crashes: state.crashes,
        restores: state.restores,
        violations: std::mem::take(&mut state.violations),
        trace: state.trace.take().unwrap_or_default(),
    }
}

/// Everything that was broken works again, and one manager leads.
fn calm(model: &Model) {
    let mut state = model.lock();
    state.note(|| "no more faults".to_owned());
    state.faults = false;
    state.api_up = true;
    state.busy = false;
    state.agents_up = [true; NODES.len()];
    state.forbidden.clear();
    state.start_pods();
    for (number, manager) in state.managers.iter_mut().enumerate() {
        (manager.leads, manager.paused) = (number == 0, false);
    }
}

fn is_finished(batch: &ExecBatch) -> bool {
    batch.status.as_ref().is_some_and(|status| status.completion_time.is_some())
}

fn stray(state: &State) -> Vec<String> {
    let is_stray = |child: &&ExecRequest| {
        let place = child.spec.batch.as_ref().expect("a batch");
        let batch =
            state.objects.batches.get(&place.name).filter(|batch| batch.metadata.uid.as_ref() == Some(&place.uid));
        Counting::of(batch).sweep(child) != Broom::Keep
            || child.status.as_ref().is_none_or(|status| status.completion_time.is_none())
    };
    state.objects.children.values().filter(is_stray).filter_map(|child| child.metadata.name.clone()).collect()
}

fn is_over(state: &State) -> bool {
    state.made == BATCHES
        && state.objects.batches.values().all(is_finished)
        && stray(state).is_empty()
        && state.journal.values().all(|memory| memory.ended)
}

fn check(state: &mut State, in_time: bool) {
    if !in_time {
        let unfinished: Vec<String> = state
            .objects
            .batches
            .iter()
            .filter(|(_, batch)| !is_finished(batch))
            .map(|(name, _)| name.clone())
            .collect();
        if !unfinished.is_empty() {
            state.violated(format!("never finished: {}", unfinished.join(", ")));
        }
        let stray = stray(state);
        if !stray.is_empty() {
            state.violated(format!("left behind: {}", stray.join(", ")));
        }
        if state.journal.values().any(|memory| !memory.ended) {
            state.violated("a command runs on".to_owned());
        }
    }
    let batches: Vec<ExecBatch> = state.objects.batches.values().filter(|batch| is_finished(batch)).cloned().collect();
    for batch in batches {
        check_end(state, &batch);
    }
}

/// Whether what a batch says of its targets is so.
fn check_end(state: &mut State, batch: &ExecBatch) {
    let name = batch.metadata.name.clone().unwrap_or_default();
    let uid = batch.metadata.uid.clone().unwrap_or_default();
    let status: ExecBatchStatus = batch.status.clone().unwrap_or_default();
    let history = state.history(&uid).clone();
    let Some((number, total)) = status.plan.as_ref().and_then(|plan| Some((plan.number, plan.total?))) else {
        if status.conditions.iter().any(|condition| condition.message.contains(TOO_MANY)) {
            state.violated(format!("{name} was refused because the API server had no time"));
        }
        if state.runs.keys().any(|(of, _)| *of == uid) && !history.restored {
            state.violated(format!("{name} was refused, and ran"));
        }
        return;
    };
    let Ok(ledger) = Ledger::of(&status) else {
        return state.violated(format!("the status of {name} cannot be read"));
    };
    for index in 0..total {
        let Some(end) = u16::try_from(index).ok().and_then(|index| ledger.end_of(index)) else {
            state.violated(format!("index {index} of {name} is not accounted for"));
            continue;
        };
        let pods = history.targets.get(&(number, index)).cloned().unwrap_or_default();
        let runs: Vec<_> = pods.iter().filter_map(|pod| state.runs.get(&(uid.clone(), pod.clone())).cloned()).collect();
        let ran = runs.iter().any(|run| run.starts > 0);
        match end {
            End::NotRun | End::Skipped if ran && !history.reused && runs.iter().all(|run| !run.restored) => {
                state.violated(format!("index {index} of {name} is said never to have run ({end:?}), and ran"));
            }
            End::Succeeded if !runs.iter().any(|run| run.code == Some(0)) => {
                state.violated(format!("index {index} of {name} is said to have succeeded, and did not: {runs:?}"));
            }
            End::Failed if !runs.iter().any(|run| run.code.is_some()) => {
                state.violated(format!("index {index} of {name} is said to have failed, and never ran"));
            }
            _ => {}
        }
    }
    if i32::from(ledger.len()) != total {
        state.violated(format!("{name} has {total} targets, and {} are accounted for", ledger.len()));
    }
}

fn random_spec(random: &mut Random) -> Value {
    let pods: Vec<Value> = (0..=random.below(5)).map(|number| json!({"name": format!("web-{}", number * 2)})).collect();
    let targets = match random.below(6) {
        0 => json!({"pods": pods}),
        1 => json!({"all": true, "pick": "OnePerNode"}),
        2 => json!({"all": true, "onForbidden": "Skip"}),
        3 => json!({"all": true, "maxTargets": 4}),
        _ => json!({"all": true}),
    };
    let mut spec = json!({
        "targets": targets,
        "template": {"spec": {"command": ["true"],
            "startingDeadlineSeconds": random.pick(&[2, 10, 60, 600]).copied().unwrap_or(60)}},
        "parallelism": random.below(4) + 1,
        "releaseLimit": random.pick(&["0%", "1%", "50%", "100%", "100%", "100%"]).copied().unwrap_or("100%"),
        "suspend": random.chance(100),
        "failurePolicy": {"maxFailed": random.pick(&["0%", "20%", "100%"]).copied().unwrap_or("0%"),
            "action": random.pick(&["StopReleasing", "CancelRunning"]).copied().unwrap_or("StopReleasing")},
        "approval": {"required": random.chance(150)},
        "requestedBy": {"username": "alice"},
    });
    if random.chance(100) {
        spec["activeDeadlineSeconds"] = json!(random.below(10) + 1);
    }
    spec
}

/// Whoever creates batches, and lets them run.
async fn people(model: Model) {
    for number in 0..BATCHES {
        sleep(model.millis(0..4000)).await;
        let mut state = model.lock();
        let spec = random_spec(&mut state.random);
        let uid = state.uid("batch");
        let batch = json!({
            "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecBatch",
            "metadata": {"name": format!("b{number}"), "namespace": NAMESPACE, "uid": uid, "generation": 1},
            "spec": spec,
        });
        let mut batch: ExecBatch = serde_json::from_value(batch).expect("a batch");
        batch.metadata.creation_timestamp = Some(Time(state.now()));
        batch.status = Some(ExecBatchStatus::default());
        state.note(|| format!("b{number} is created: {spec}"));
        state.made += 1;
        state.store_batch(batch);
        if state.faults && state.random.chance(150) {
            state.back_up();
        }
    }
    loop {
        sleep(model.millis(200..3000)).await;
        let mut state = model.lock();
        if !state.api_up {
            continue;
        }
        let batches: Vec<ExecBatch> =
            state.objects.batches.values().filter(|batch| !is_finished(batch)).cloned().collect();
        let surely = !state.faults;
        for mut batch in batches {
            let before = batch.spec.clone();
            let digest = batch.status.as_ref().and_then(|status| status.plan.as_ref()?.digest.clone());
            let approves = batch.spec.approval.required && batch.spec.approval.plan_digest.is_empty();
            if let Some(digest) = digest.filter(|_| approves && (surely || state.random.chance(300))) {
                batch.spec.approval.plan_digest = digest;
            }
            if surely || state.random.chance(200) {
                batch.spec.release_limit = IntOrString::String("100%".to_owned());
                batch.spec.suspend = false;
            }
            if batch.spec != before {
                state.note(|| format!("{} is let go", batch.metadata.name.clone().unwrap_or_default()));
                state.store_batch(batch);
            }
        }
    }
}

/// Breaks things, and mends them a little later.
async fn chaos(model: Model) {
    loop {
        sleep(model.millis(100..1500)).await;
        let kind = model.lock().random.below(17);
        match kind {
            0 => {
                let mut state = model.lock();
                let manager = usize::try_from(state.random.below(MANAGERS as u64)).unwrap_or(0);
                if !state.managers[manager].crashed {
                    state.crash(manager);
                }
            }
            1..=3 => {
                let manager = usize::from(model.chance(500));
                tokio::spawn(depose(model.clone(), manager));
            }
            4 => {
                model.lock().api_up = false;
                sleep(model.millis(50..4000)).await;
                model.lock().api_up = true;
            }
            5 => {
                let mut state = model.lock();
                let all: Vec<ExecBatch> = state.objects.batches.values().cloned().collect();
                if let Some(batch) = state.random.pick(&all).cloned() {
                    // Somebody labels it: a conflict for whoever read it before.
                    state.store_batch(batch);
                }
            }
            6 => {
                let mut state = model.lock();
                let all: Vec<String> = state.objects.children.keys().cloned().collect();
                if let Some(name) = state.random.pick(&all).cloned() {
                    state.note(|| format!("{name} is deleted"));
                    state.objects.children.remove(&name);
                }
            }
            7 => cancel_one(&mut model.lock()),
            8 => {
                let mut state = model.lock();
                let all: Vec<String> = state.pods.keys().cloned().collect();
                if let Some(name) = state.random.pick(&all).cloned() {
                    state.note(|| format!("pod {name} is replaced"));
                    state.add_pod(&name);
                }
            }
            9 => {
                let mut state = model.lock();
                let name = format!("web-{}", state.pods.len());
                state.add_pod(&name);
            }
            10 => model.lock().back_up(),
            11 => model.lock().restore(),
            12 => {
                let node = usize::try_from(model.lock().random.below(NODES.len() as u64)).unwrap_or(0);
                model.lock().agents_up[node] = false;
                sleep(model.millis(100..5000)).await;
                model.lock().agents_up[node] = true;
            }
            13 => {
                let mut state = model.lock();
                let all: Vec<String> = state.pods.keys().cloned().collect();
                let one = state.random.pick(&all).cloned();
                if state.random.chance(500) {
                    state.forbidden.extend(one);
                } else {
                    state.forbidden.clear();
                }
            }
            14 => model.lock().start_pods(),
            15 => {
                model.lock().busy = true;
                sleep(model.millis(100..10_000)).await;
                model.lock().busy = false;
            }
            _ => {
                tokio::spawn(end_a_batch(model.clone()));
            }
        }
    }
}

/// Somebody cancels a request of a batch.
fn cancel_one(state: &mut State) {
    let open = |child: &&ExecRequest| child.status.as_ref().is_none_or(|status| status.completion_time.is_none());
    let all: Vec<ExecRequest> = state.objects.children.values().filter(open).cloned().collect();
    if let Some(mut child) = state.random.pick(&all).cloned() {
        child.spec.cancel = true;
        state.note(|| format!("{} is canceled", child.metadata.name.clone().unwrap_or_default()));
        state.store_child(child);
    }
}

/// Somebody cancels or deletes a batch.
async fn end_a_batch(model: Model) {
    let batch = {
        let mut state = model.lock();
        let all: Vec<ExecBatch> = state.objects.batches.values().cloned().collect();
        let Some(mut batch) = state.random.pick(&all).cloned() else { return };
        let name = batch.metadata.name.clone().unwrap_or_default();
        if state.random.chance(500) {
            if !is_finished(&batch) {
                batch.spec.cancel = true;
                state.note(|| format!("{name} is canceled"));
                state.store_batch(batch);
            }
            return;
        }
        state.delete_batch(&name);
        if state.random.chance(300) {
            return;
        }
        batch
    };
    sleep(model.millis(10..5000)).await;
    // With a restore in between there is no garbage.
    let mut state = model.lock();
    let uid = batch.metadata.uid.clone().unwrap_or_default();
    if !state.objects.batches.values().any(|there| there.metadata.uid.as_ref() == Some(&uid)) {
        state.collect_garbage(&uid);
    }
}

/// A manager, from start to crash to start.
async fn supervise(model: Model, manager: usize) {
    loop {
        let crash = {
            let mut state = model.lock();
            let this = &mut state.managers[manager];
            this.life += 1;
            this.crashed = false;
            this.view.clear();
            Arc::clone(&this.crash)
        };
        tokio::select! {
            biased;
            () = crash.notified() => {}
            () = manage(model.clone(), manager) => {}
        }
        sleep(model.millis(50..2000)).await;
    }
}

async fn manage(model: Model, manager: usize) {
    let world = SimWorld::new(&model, manager);
    let mut paces: BTreeMap<BatchKey, Pace> = BTreeMap::new();
    loop {
        sleep(model.millis(50..500)).await;
        let keys: Vec<BatchKey> = {
            let state = model.lock();
            if !state.managers[manager].leads {
                continue;
            }
            state.objects.batches.values().filter(|batch| !is_finished(batch)).map(key_of).collect()
        };
        let mut tended: Vec<_> = keys.into_iter().map(|key| (paces.remove(&key).unwrap_or_default(), key)).collect();
        join_all(tended.iter_mut().map(|(pace, key)| pass_over(&world, key, pace))).await;
        paces.extend(tended.into_iter().map(|(pace, key)| (key, pace)));
        if model.lock().random.chance(100) {
            // It is tried again.
            drop(sweep_unfinished(&world).await);
            drop(sweep_ended(&world).await);
        }
    }
}

async fn pass_over(world: &SimWorld, key: &BatchKey, pace: &mut Pace) {
    for _ in 0..EAGER {
        match tend(world, key, pace).await {
            Ok(Pass::Again(Duration::ZERO)) => {}
            Ok(Pass::Again(_) | Pass::NotBefore(_) | Pass::Over) | Err(_) => return,
        }
    }
}

fn key_of(batch: &ExecBatch) -> BatchKey {
    let meta = &batch.metadata;
    BatchKey {
        namespace: NAMESPACE.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default().as_str().into(),
    }
}
