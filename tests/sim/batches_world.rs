//! The edges of a manager in an episode with batches.

use std::{collections::BTreeMap, time::Duration};

use execlet::{
    api::{ExecBatch, ExecBatchStatus, ExecRequest, ExecRequestStatus, Reason, Requester, batch::Plan},
    core::{
        access::Right,
        admission::Admission,
        batch::{
            child,
            groups::Ending,
            seen::{Children, Seen},
        },
        bind::Agents,
        ids::BatchKey,
    },
    infra::{
        audit::Unavailable,
        requests::{ApiError, Written},
    },
    manager::controller::batch::world::{Act, BatchError, Candidates, Change, Created, Plans, Swapped, World},
};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use tokio::time::sleep;

use crate::batches_model::{Model, NAMESPACE, NODES, Planted, State};

/// How many of a thousand calls fail, and of how many the answer is lost.
const FAILURES: u64 = 15;
/// How many of a thousand creations come late.
const LATE: u64 = 15;
/// How many of a thousand creations the API server is too busy for.
const BUSY: u64 = 15;
/// What it says then.
pub const TOO_MANY: &str = "too many requests";

pub struct SimWorld {
    pub model: Model,
    pub manager: usize,
    pub agents: SimAgents,
}

pub struct SimAgents(pub Model);

impl Agents for SimAgents {
    fn alive(&self, node: &str) -> Result<(), (Reason, String)> {
        let up = NODES.iter().position(|name| *name == node).is_some_and(|at| self.0.lock().agents_up[at]);
        if up { Ok(()) } else { Err((Reason::AgentNotReady, format!("no agent on {node}"))) }
    }

    fn holds_batches(&self, _: &str) -> bool {
        true
    }
}

fn timeout(call: &str) -> ApiError {
    ApiError::Timeout { call: call.to_owned(), after: Duration::from_secs(15) }
}

impl SimWorld {
    pub fn new(model: &Model, manager: usize) -> Self {
        Self { model: model.clone(), manager, agents: SimAgents(model.clone()) }
    }

    /// Whether the API server takes part in this call.
    async fn call(&self, call: &str) -> Result<(), ApiError> {
        self.model.point(self.manager).await;
        let fails = self.model.chance(FAILURES) || !self.model.lock().api_up;
        if fails { Err(timeout(call)) } else { Ok(()) }
    }

    /// The unfinished requests that the watch has told of.
    fn seen(&self) -> Vec<ExecRequest> {
        let mut state = self.model.lock();
        // A watch that tells nothing for a while.
        if !(state.faults && state.random.chance(300)) {
            let now = state.objects.children.clone();
            state.managers[self.manager].view = now;
        }
        let unfinished =
            |child: &&ExecRequest| child.status.as_ref().is_none_or(|status| status.completion_time.is_none());
        state.managers[self.manager].view.values().filter(unfinished).cloned().collect()
    }

    /// The answer comes, or is lost on its way.
    async fn answer<T>(&self, call: &str, answer: T) -> Result<T, ApiError> {
        let lost = self.model.chance(FAILURES);
        self.model.point(self.manager).await;
        if lost { Err(timeout(call)) } else { Ok(answer) }
    }
}

/// One child, if no other has its name. `late` says that its creator was told nothing, or that it was done.
fn take(state: &mut State, child: &ExecRequest, manager: usize, life: u32) -> Option<ExecRequest> {
    let name = child.metadata.name.clone().expect("a name");
    let place = child.spec.batch.clone().expect("a batch");
    let history = state.history(&place.uid);
    let planner = history.planners.get(&place.plan).filter(|_| !history.restored).copied();
    if planner.is_some_and(|planner| planner != (manager, life)) {
        state.violated(format!("{name} is made by a manager that has not won plan {}", place.plan));
    }
    if state.objects.children.contains_key(&name) {
        return None;
    }
    let mut child = child.clone();
    child.metadata.uid = Some(state.uid("child"));
    child.metadata.generation = Some(1);
    child.metadata.creation_timestamp = Some(Time(state.now()));
    child.status = Some(ExecRequestStatus::default());
    let batch = state.objects.batches.get(&place.name).filter(|batch| batch.metadata.uid.as_ref() == Some(&place.uid));
    let plan = batch.and_then(|batch| batch.status.as_ref()?.plan.clone());
    let history = state.history(&place.uid);
    let pod = child.spec.target.pod_uid.clone().unwrap_or_default();
    history.targets.entry((place.plan, place.index)).or_default().insert(pod);
    let restored = state.history(&place.uid).restored;
    if !restored && plan.is_some_and(|plan| plan.number == place.plan && plan.total.is_some()) {
        state.violated(format!("{name} is made after the freeze of its plan"));
    }
    state.note(|| format!("manager {manager} makes {name}"));
    Some(state.store_child(child))
}

fn is_frozen(batch: &ExecBatch) -> bool {
    batch.status.as_ref().and_then(|status| status.plan.as_ref()?.total).is_some()
}

impl World for SimWorld {
    type Agents = SimAgents;

    fn now(&self) -> Timestamp {
        self.model.lock().now()
    }

    fn agents(&self) -> &SimAgents {
        &self.agents
    }

    async fn batch(&self, key: &BatchKey) -> Result<Option<ExecBatch>, ApiError> {
        self.call("get the batch").await?;
        let state = self.model.lock();
        let found = state.objects.batches.get(&key.name).cloned();
        let mut found = found.filter(|batch| batch.metadata.uid.as_deref() == Some(key.uid.as_str()));
        let status = found.as_mut().and_then(|batch| batch.status.as_mut());
        match (state.planted, status) {
            (Some(Planted::EarlyRelease), Some(status)) => {
                if let Some(plan) = status.plan.as_mut().filter(|plan| plan.total.is_none()) {
                    let of_plan =
                        |child: &&ExecRequest| child::index_in(child, key.uid.as_str(), plan.number).is_some();
                    let made = state.objects.children.values().filter(of_plan).count();
                    if made > 0 {
                        let total = Some(i32::try_from(made).expect("few children"));
                        *plan = Plan { total, digest: Some("early".to_owned()), ..plan.clone() };
                    }
                }
            }
            (Some(Planted::OpenGate), Some(status)) => {
                if let Some(total) = status.plan.as_ref().and_then(|plan| plan.total) {
                    status.released = total.min(status.released + 1);
                }
            }
            _ => {}
        }
        Ok(found)
    }

    async fn write_batch(&self, read: &ExecBatch, status: ExecBatchStatus) -> Result<Swapped, ApiError> {
        self.call("write the status of the batch").await?;
        let written = {
            let mut state = self.model.lock();
            let planted = state.planted;
            let name = read.metadata.name.clone().expect("a name");
            let is_begun = status.plan.as_ref().is_some_and(|plan| plan.total.is_none());
            match state.objects.batches.get(&name).cloned() {
                None => Swapped::Gone,
                Some(now) if now.metadata.uid != read.metadata.uid => Swapped::Lost,
                Some(now)
                    if now.metadata.resource_version != read.metadata.resource_version
                        && !(planted == Some(Planted::BlindWrites) && is_frozen(&now) && is_frozen(read)) =>
                {
                    if is_begun && planted == Some(Planted::UnfencedPlan) {
                        Swapped::Won(Box::new(ExecBatch { status: Some(status), ..now }))
                    } else {
                        Swapped::Lost
                    }
                }
                Some(now) if now.status.as_ref().is_some_and(|status| status.completion_time.is_some()) => {
                    Swapped::Refused("its status is final".to_owned())
                }
                Some(now) => {
                    let manager = self.manager;
                    state.note(|| {
                        format!(
                            "manager {manager} writes {name}: {} plan {:?} released {} done {}",
                            status.phase,
                            status.plan.as_ref().map(|plan| (plan.number, plan.total)),
                            status.released,
                            status.done
                        )
                    });
                    let taken = state.check_batch_write(&now, &status);
                    let life = state.managers[manager].life;
                    if taken.is_err() {
                        // As it was.
                    } else if let Some(plan) =
                        status.plan.as_ref().filter(|_| is_begun && status.completion_time.is_none())
                    {
                        let (number, uid) = (plan.number, now.metadata.uid.clone().unwrap_or_default());
                        let was =
                            now.status.as_ref().and_then(|status| status.plan.as_ref()).map_or(0, |plan| plan.number);
                        if number > was {
                            state.history(&uid).planners.insert(number, (manager, life));
                        }
                    }
                    match taken {
                        Ok(()) => Swapped::Won(Box::new(state.store_batch(ExecBatch { status: Some(status), ..now }))),
                        Err(why) => Swapped::Refused(why),
                    }
                }
            }
        };
        self.answer("write the status of the batch", written).await
    }

    fn children(&self, key: &BatchKey, plan: i64) -> Children {
        let seen = self.seen();
        seen.iter()
            .filter_map(|child| Some((child::index_in(child, key.uid.as_str(), plan)?, Seen::of(child))))
            .collect()
    }

    async fn child(&self, _: &str, name: &str) -> Result<Option<ExecRequest>, ApiError> {
        self.call("get a request").await?;
        let state = self.model.lock();
        let mut found = state.objects.children.get(name).cloned();
        if state.planted == Some(Planted::LostEnds) {
            let status = found.as_mut().and_then(|child| child.status.as_mut());
            if let Some(status) = status.filter(|status| status.completion_time.is_some()) {
                status.phase = execlet::api::Phase::Failed;
                status.conditions.retain(|condition| condition.type_ != "Started");
            }
        }
        Ok(found)
    }

    async fn create(&self, child: &ExecRequest) -> Created {
        if let Err(error) = self.call("create a request").await {
            return Created::Doubt(error.to_string());
        }
        let (manager, life) = (self.manager, self.model.lock().managers[self.manager].life);
        if self.model.chance(LATE) {
            let (model, late) = (self.model.clone(), child.clone());
            let after = model.millis(100..15_000);
            tokio::spawn(async move {
                sleep(after).await;
                take(&mut model.lock(), &late, manager, life);
            });
            if self.model.lock().planted == Some(Planted::LateCreation) {
                return Created::Made(Box::new(child.clone()));
            }
            // It is given up before it is taken.
            sleep(self.model.millis(1..1000)).await;
            return Created::Doubt("no answer".to_owned());
        }
        let made = {
            let mut state = self.model.lock();
            if state.faults && state.random.chance(2) {
                return Created::Refused("exceeded quota".to_owned());
            }
            if state.busy || state.faults && state.random.chance(BUSY) {
                return Created::NotNow(TOO_MANY.to_owned());
            }
            take(&mut state, child, manager, life)
        };
        match (made, self.answer("create a request", ()).await) {
            (_, Err(error)) => Created::Doubt(error.to_string()),
            (Some(made), Ok(())) => Created::Made(Box::new(made)),
            (None, Ok(())) => Created::Exists,
        }
    }

    async fn write_child(
        &self,
        read: &ExecRequest,
        status: ExecRequestStatus,
        _: Change,
        vouched_for: bool,
    ) -> Result<Written, BatchError> {
        self.call("write the status of a request").await?;
        let written = {
            let mut state = self.model.lock();
            let name = read.metadata.name.clone().expect("a name");
            let manager = self.manager;
            if !vouched_for {
                state.violated(format!("the requester of {name} is recorded as one that nobody vouches for"));
            }
            match state.objects.children.get(&name).cloned() {
                None => Written::Gone,
                Some(now) if now.metadata.uid != read.metadata.uid => Written::Lost,
                Some(now) if now.metadata.resource_version != read.metadata.resource_version => Written::Lost,
                Some(now) if now.status.as_ref().is_some_and(|status| status.completion_time.is_some()) => {
                    Written::Refused("its status is final".to_owned())
                }
                Some(now) => {
                    let next = ExecRequest { status: Some(status), ..now.clone() };
                    let node = |child: &ExecRequest| child.status.as_ref().and_then(|status| status.node_name.clone());
                    state.note(|| {
                        let status = next.status.as_ref().expect("a status");
                        format!("manager {manager} writes {name}: {} {:?}", status.phase, status.node_name)
                    });
                    if node(&now).is_none() && node(&next).is_some() {
                        state.check_bind(&next);
                    }
                    Written::Won(Box::new(state.store_child(next)))
                }
            }
        };
        Ok(self.answer("write the status of a request", written).await?)
    }

    async fn cancel(&self, child: &ExecRequest) -> Result<(), ApiError> {
        self.call("cancel a request").await?;
        let mut state = self.model.lock();
        let name = child.metadata.name.clone().expect("a name");
        if let Some(mut now) = state.objects.children.get(&name).cloned()
            && now.metadata.uid == child.metadata.uid
            && now.status.as_ref().is_none_or(|status| status.completion_time.is_none())
        {
            now.spec.cancel = true;
            state.note(|| format!("{name} is canceled for its batch"));
            state.store_child(now);
        }
        Ok(())
    }

    async fn delete(&self, child: &ExecRequest) -> Result<(), ApiError> {
        self.call("delete a request").await?;
        let mut state = self.model.lock();
        let name = child.metadata.name.clone().expect("a name");
        let is_it = |now: &ExecRequest| {
            now.metadata.uid == child.metadata.uid && now.metadata.resource_version == child.metadata.resource_version
        };
        if state.objects.children.get(&name).is_some_and(is_it) && state.planted != Some(Planted::NoBroom) {
            state.objects.children.remove(&name);
            state.note(|| format!("{name} is swept away"));
        }
        Ok(())
    }

    async fn candidates(&self, _: &ExecBatch) -> Result<Candidates, ApiError> {
        self.call("list the pods").await?;
        let pods = self.model.lock().pods.values().cloned().collect();
        self.answer("list the pods", Candidates { pods, no_workload: false }).await
    }

    async fn pod(&self, _: &str, name: &str) -> Result<Option<Pod>, ApiError> {
        self.call("get a pod").await?;
        Ok(self.model.lock().pods.get(name).cloned())
    }

    async fn admission(&self) -> Admission {
        self.model.point(self.manager).await;
        let state = self.model.lock();
        Admission::Since(state.now() - state.begun.elapsed())
    }

    async fn lacks(&self, _: &Requester, rights: &[Right]) -> Result<Option<Right>, ApiError> {
        for right in rights {
            self.call("review an access").await?;
            let state = self.model.lock();
            let forbidden =
                if right.name.is_empty() { !state.forbidden.is_empty() } else { state.forbidden.contains(&right.name) };
            if right.subresource == "exec" && forbidden {
                return Ok(Some(right.clone()));
            }
        }
        Ok(None)
    }

    async fn endings(&self, key: &BatchKey, plan: i64) -> Result<Vec<Ending>, ApiError> {
        self.call("list the requests of the batch").await?;
        let state = self.model.lock();
        let all = state.objects.children.values();
        Ok(all.filter_map(|child| Ending::of(child, child::index_in(child, key.uid.as_str(), plan)?)).collect())
    }

    fn unfinished(&self) -> BTreeMap<BatchKey, Plans> {
        let mut all: BTreeMap<BatchKey, Plans> = BTreeMap::new();
        for child in self.seen() {
            let place = child.spec.batch.as_ref().expect("a batch");
            let key =
                BatchKey { namespace: NAMESPACE.to_owned(), name: place.name.clone(), uid: place.uid.as_str().into() };
            let index = u16::try_from(place.index).expect("an index");
            all.entry(key).or_default().entry(place.plan).or_default().insert(index, Seen::of(&child));
        }
        all
    }

    async fn page_of_never_bound(&self, after: Option<String>) -> Result<(Vec<ExecRequest>, Option<String>), ApiError> {
        self.call("list the requests that were never bound").await?;
        let never_bound = |child: &ExecRequest| {
            let status = child.status.as_ref();
            status.is_some_and(|status| status.completion_time.is_some() && status.node_name.is_none())
        };
        let page: Vec<ExecRequest> = {
            let state = self.model.lock();
            let later = state.objects.children.iter().filter(|(name, _)| Some(*name) > after.as_ref());
            later.map(|(_, child)| child).filter(|child| never_bound(child)).take(4).cloned().collect()
        };
        let next = page.last().and_then(|last| last.metadata.name.clone()).filter(|_| page.len() == 4);
        self.answer("list the requests that were never bound", (page, next)).await
    }

    async fn available(&self) -> Result<(), Unavailable> {
        Ok(())
    }

    async fn record(&self, _: &ExecBatch, _: &Act) -> Result<(), Unavailable> {
        self.model.point(self.manager).await;
        Ok(())
    }
}
