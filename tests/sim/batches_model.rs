//! The cluster of an episode with batches: an API server that holds them with their requests and pods, and the truth of
//! what ran beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use execlet::{
    api::{ExecBatch, ExecBatchStatus, ExecRequest},
    core::batch::{end::End, ledger::Ledger},
};
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use serde_json::json;
use tokio::{sync::Notify, time::Instant};

use crate::random::Random;

pub const NAMESPACE: &str = "shop";
pub const NODES: [&str; 2] = ["n1", "n2"];
/// Managers that lead, or believe to.
pub const MANAGERS: usize = 2;

/// In how many of a thousand steps a manager is stopped, and another leads.
const STOPS: u64 = 2;
/// The same, with a planted bug that shows only where one was stopped.
const MANY_STOPS: u64 = 30;

/// A bug planted in the edges of the manager or in an agent, which the simulation has to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A plan that is not frozen is shown as if it were.
    EarlyRelease,
    /// Whoever begins a plan is told to have won.
    UnfencedPlan,
    /// The status of a batch whose plan is frozen is written whoever has written to it since it was read.
    BlindWrites,
    /// A creation that comes late is said to be done.
    LateCreation,
    /// An agent knows the targets of no other request.
    NoTargetKey,
    /// More is shown to be released than is.
    OpenGate,
    /// Nothing is ever deleted for the manager.
    NoBroom,
    /// The end of a child is read as that of another kind.
    LostEnds,
}

/// What is true of one target of one batch, whatever anybody says.
#[derive(Clone, Debug, Default)]
pub struct Run {
    pub starts: u32,
    pub code: Option<i32>,
    /// An older state was restored since its start: who said before that it never ran may say so again.
    pub restored: bool,
}

/// What is known of a batch by its UID, over all states that were ever restored.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The highest `released` that was ever written.
    pub released: i32,
    /// Who won each number of a plan, since the last restore.
    pub planners: BTreeMap<i64, (usize, u32)>,
    /// Pod UID of each child that was ever made, by plan and index.
    pub targets: BTreeMap<(i64, i32), BTreeSet<String>>,
    pub restored: bool,
    /// Versions were given out a second time: a manager that has slept through it may write what was so before.
    pub reused: bool,
}

/// A process, and what its agent's journal remembers of it for ever.
#[derive(Clone, Debug)]
pub struct Memory {
    pub batch: String,
    pub pod: String,
    pub started: bool,
    pub runs_until: Instant,
    pub code: i32,
    pub canceled: bool,
    pub ended: bool,
}

#[derive(Clone, Default)]
pub struct Backup {
    pub batches: BTreeMap<String, ExecBatch>,
    pub children: BTreeMap<String, ExecRequest>,
}

/// One replica of the manager.
pub struct Manager {
    /// Counts its starts.
    pub life: u32,
    pub leads: bool,
    pub paused: bool,
    pub crashed: bool,
    pub crash: Arc<Notify>,
    /// What its watch has told last.
    pub view: BTreeMap<String, ExecRequest>,
}

pub struct State {
    pub random: Random,
    pub planted: Option<Planted>,
    pub trace: Option<Vec<String>>,
    pub begun: Instant,
    pub faults: bool,

    pub version: u64,
    pub next_uid: u64,
    pub api_up: bool,
    /// It takes no creations.
    pub busy: bool,
    pub objects: Backup,
    pub backup: Option<Backup>,
    pub pods: BTreeMap<String, Pod>,
    /// Pods that the requester may not exec into.
    pub forbidden: BTreeSet<String>,

    pub managers: Vec<Manager>,
    pub crashes_per_mille: u64,
    pub agents_up: [bool; NODES.len()],
    /// By the UID of the request.
    pub journal: BTreeMap<String, Memory>,

    /// By batch UID and pod UID.
    pub runs: BTreeMap<(String, String), Run>,
    pub histories: BTreeMap<String, History>,
    pub violations: Vec<String>,
    pub crashes: u32,
    pub restores: u32,
    /// Batches that people have created.
    pub made: u64,
}

#[derive(Clone)]
pub struct Model(Arc<Mutex<State>>);

impl Model {
    pub fn new(seed: u64, planted: Option<Planted>, trace: bool) -> Self {
        let mut random = Random::new(seed ^ 0x0BA7_C4E5);
        let crashes_per_mille = *random.pick(&[0, 3, 10, 30]).unwrap_or(&0);
        let manager = |number| Manager {
            life: 0,
            leads: number == 0,
            paused: false,
            crashed: false,
            crash: Arc::new(Notify::new()),
            view: BTreeMap::new(),
        };
        let mut state = State {
            random,
            planted,
            trace: trace.then(Vec::new),
            begun: Instant::now(),
            faults: true,
            version: 1,
            next_uid: 1,
            api_up: true,
            busy: false,
            objects: Backup::default(),
            backup: None,
            pods: BTreeMap::new(),
            forbidden: BTreeSet::new(),
            managers: (0..MANAGERS).map(manager).collect(),
            crashes_per_mille,
            agents_up: [true; NODES.len()],
            journal: BTreeMap::new(),
            runs: BTreeMap::new(),
            histories: BTreeMap::new(),
            violations: Vec::new(),
            crashes: 0,
            restores: 0,
            made: 0,
        };
        for number in 0..=state.random.below(6) {
            state.add_pod(&format!("web-{number}"));
        }
        Self(Arc::new(Mutex::new(state)))
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn chance(&self, per_mille: u64) -> bool {
        let mut state = self.lock();
        state.faults && state.random.chance(per_mille)
    }

    pub fn millis(&self, range: std::ops::Range<u64>) -> Duration {
        self.lock().random.millis(range)
    }

    /// A step of a manager takes its time here; it may be stopped here, and may die here.
    pub async fn point(&self, manager: usize) {
        loop {
            let (pause, stopped) = {
                let mut state = self.lock();
                let (per_mille, pause) = (state.crashes_per_mille, state.random.below(6));
                let shows_late = matches!(state.planted, Some(Planted::BlindWrites | Planted::UnfencedPlan));
                let stops = if shows_late { MANY_STOPS } else { STOPS };
                if state.faults && state.managers[manager].leads && state.random.chance(stops) {
                    tokio::spawn(depose(self.clone(), manager));
                }
                if state.faults && !state.managers[manager].crashed && state.random.chance(per_mille) {
                    state.crash(manager);
                }
                let this = &state.managers[manager];
                match (this.crashed, this.paused) {
                    (true, _) => (None, true),
                    (false, true) => (Some(50), true),
                    (false, false) => (Some(pause.saturating_sub(1)), false),
                }
            };
            match pause {
                None => std::future::pending().await,
                Some(0) => {}
                Some(pause) => tokio::time::sleep(Duration::from_millis(pause)).await,
            }
            if !stopped {
                return;
            }
        }
    }
}

/// A manager is stopped, wherever it stands, and another one leads. It wakes up, and believes to lead for a while.
pub async fn depose(model: Model, old: usize) {
    let new = (old + 1) % MANAGERS;
    {
        let mut state = model.lock();
        state.note(|| format!("manager {old} is stopped, and {new} leads"));
        state.managers[old].paused = true;
        state.managers[new].leads = true;
    }
    tokio::time::sleep(model.millis(50..8000)).await;
    {
        let mut state = model.lock();
        state.note(|| format!("manager {old} goes on"));
        state.managers[old].paused = false;
    }
    tokio::time::sleep(model.millis(0..3000)).await;
    let mut state = model.lock();
    if state.faults && state.managers[new].leads {
        state.managers[old].leads = false;
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

    pub fn uid(&mut self, what: &str) -> String {
        self.next_uid += 1;
        format!("{what}-uid-{}", self.next_uid)
    }

    pub fn crash(&mut self, manager: usize) {
        self.note(|| format!("manager {manager} crashes"));
        self.crashes += 1;
        self.managers[manager].crashed = true;
        self.managers[manager].crash.notify_one();
    }

    pub fn add_pod(&mut self, name: &str) {
        let uid = self.uid("pod");
        let node = *self.random.pick(&NODES).unwrap_or(&NODES[0]);
        let runs = !self.random.chance(100);
        let state = if runs { json!({"running": {}}) } else { json!({"waiting": {}}) };
        let pod = json!({
            "metadata": {"name": name, "namespace": NAMESPACE, "uid": uid},
            "spec": {"nodeName": node, "containers": [{"name": "app"}]},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "app", "ready": true, "restartCount": 0, "image": "i", "imageID": "i", "state": state}]},
        });
        self.pods.insert(name.to_owned(), serde_json::from_value(pod).expect("a pod"));
    }

    /// All pods run, whichever did not.
    pub fn start_pods(&mut self) {
        for pod in self.pods.values_mut() {
            let mut value = serde_json::to_value(&*pod).expect("JSON");
            value["status"]["containerStatuses"][0]["state"] = json!({"running": {}});
            *pod = serde_json::from_value(value).expect("a pod");
        }
    }

    pub fn history(&mut self, batch: &str) -> &mut History {
        self.histories.entry(batch.to_owned()).or_default()
    }

    /// The API server takes an object, and gives it a new version.
    pub fn store_batch(&mut self, mut batch: ExecBatch) -> ExecBatch {
        self.version += 1;
        batch.metadata.resource_version = Some(self.version.to_string());
        self.objects.batches.insert(batch.metadata.name.clone().expect("a name"), batch.clone());
        batch
    }

    pub fn store_child(&mut self, mut child: ExecRequest) -> ExecRequest {
        self.version += 1;
        child.metadata.resource_version = Some(self.version.to_string());
        self.objects.children.insert(child.metadata.name.clone().expect("a name"), child.clone());
        child
    }

    /// What must be so whoever writes. What the definition itself refuses nobody tries, unless a version was given out a
    /// second time: then the error says why it is not taken.
    pub fn check_batch_write(&mut self, before: &ExecBatch, status: &ExecBatchStatus) -> Result<(), String> {
        let name = before.metadata.name.clone().unwrap_or_default();
        let uid = before.metadata.uid.clone().unwrap_or_default();
        let old = before.status.clone().unwrap_or_default();
        if let Some(why) = refused_by_definition(&name, &old, status) {
            if self.history(&uid).reused {
                return Err(why);
            }
            self.violated(why);
        }
        let total = |status: &ExecBatchStatus| status.plan.as_ref().and_then(|plan| plan.total);
        if status.released > 0 && total(&old).is_none() {
            self.violated(format!("{name} is released before its plan is frozen"));
        }
        match (Ledger::of(&old), Ledger::of(status)) {
            (Ok(old), Ok(new)) => {
                for end in End::ALL {
                    for index in old.set(end).iter().filter(|index| new.end_of(*index) != Some(end)) {
                        self.violated(format!("the count of {end:?} of {name} falls: it loses index {index}"));
                    }
                }
                if i32::from(new.len()) > total(status).unwrap_or(0) {
                    self.violated(format!("more of {name} is accounted for than there is"));
                }
            }
            (_, Err(why)) => self.violated(format!("the status of {name} cannot be read: {why}")),
            (Err(_), Ok(_)) => {}
        }
        let history = self.history(&uid);
        history.released = history.released.max(status.released);
        Ok(())
    }

    /// Nothing is bound but what was released of a frozen plan.
    pub fn check_bind(&mut self, child: &ExecRequest) {
        let name = child.metadata.name.clone().unwrap_or_default();
        let place = child.spec.batch.clone().expect("a batch");
        let batch =
            self.objects.batches.get(&place.name).filter(|batch| batch.metadata.uid.as_ref() == Some(&place.uid));
        let plan = batch.and_then(|batch| batch.status.as_ref()?.plan.clone());
        let history = self.history(&place.uid).clone();
        if place.index >= history.released {
            self.violated(format!("{name} is bound, and only {} were ever released", history.released));
        }
        // Of a batch that is gone its request may be bound until the sweep: it was released.
        if !history.restored && plan.is_some_and(|plan| plan.number != place.plan || plan.total.is_none()) {
            self.violated(format!("{name} is bound, and is of another plan"));
        }
    }

    /// A process of a target starts.
    pub fn start(&mut self, child: &ExecRequest, pod_uid: &str) {
        let place = child.spec.batch.clone().expect("a batch");
        let name = child.metadata.name.clone().unwrap_or_default();
        self.note(|| format!("{name} starts in {pod_uid}"));
        let history = self.history(&place.uid).clone();
        if place.index >= history.released {
            self.violated(format!("{name} runs, and only {} were ever released", history.released));
        }
        if !history.targets.get(&(place.plan, place.index)).is_some_and(|pods| pods.contains(pod_uid)) {
            self.violated(format!("{name} runs in pod {pod_uid}, which is not its target"));
        }
        let run = self.runs.entry((place.uid.clone(), pod_uid.to_owned())).or_default();
        run.starts += 1;
        run.code = None;
        if run.starts > 1 {
            let starts = run.starts;
            self.violated(format!("the target {pod_uid} of {} runs {starts} times", place.uid));
        }
    }

    pub fn back_up(&mut self) {
        self.note(|| "the API server is backed up".to_owned());
        self.backup = Some(self.objects.clone());
    }

    /// The API server is set back. Versions may be given out a second time; UIDs never are.
    pub fn restore(&mut self) {
        let Some(backup) = self.backup.clone() else { return };
        self.note(|| "an older state of the API server is restored".to_owned());
        self.restores += 1;
        let reused = self.random.chance(500);
        if reused {
            let of = |version: &Option<String>| version.as_deref().and_then(|text| text.parse::<u64>().ok());
            let batches = backup.batches.values().filter_map(|batch| of(&batch.metadata.resource_version));
            let children = backup.children.values().filter_map(|child| of(&child.metadata.resource_version));
            self.version = batches.chain(children).max().unwrap_or(self.version);
        }
        self.objects = backup;
        for history in self.histories.values_mut() {
            history.restored = true;
            history.reused |= reused;
            history.planners.clear();
        }
        for run in self.runs.values_mut() {
            run.restored = true;
        }
    }

    /// Somebody deletes a batch; its requests follow, unless they are to be orphans.
    pub fn delete_batch(&mut self, name: &str) {
        if self.objects.batches.remove(name).is_some() {
            self.note(|| format!("{name} is deleted"));
        }
    }

    pub fn collect_garbage(&mut self, batch_uid: &str) {
        let owned = |child: &ExecRequest| child.spec.batch.as_ref().is_some_and(|place| place.uid == batch_uid);
        self.objects.children.retain(|_, child| !owned(child));
    }
}

/// The rules of the definition about what may come after what.
fn refused_by_definition(name: &str, old: &ExecBatchStatus, new: &ExecBatchStatus) -> Option<String> {
    let number = |status: &ExecBatchStatus| status.plan.as_ref().map_or(0, |plan| plan.number);
    let counts = |status: &ExecBatchStatus| {
        [&status.succeeded, &status.failed, &status.not_run, &status.unknown, &status.skipped].map(|set| set.count)
    };
    if new.released < old.released {
        return Some(format!("released of {name} falls from {} to {}", old.released, new.released));
    }
    if old.plan.as_ref().is_some_and(|plan| plan.total.is_some()) && new.plan != old.plan {
        return Some(format!("the frozen plan of {name} changes"));
    }
    if number(new) < number(old) {
        return Some(format!("the number of the plan of {name} falls"));
    }
    let falls = counts(old).into_iter().zip(counts(new)).any(|(old, new)| new < old);
    falls.then(|| format!("a count of the targets of {name} falls"))
}
