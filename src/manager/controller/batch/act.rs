//! One child of a frozen plan. Each act begins with a quorum read, and writes only the child, if nobody has written to it
//! since: so it is bound once, or ended once, whoever believes to lead.

use std::collections::BTreeMap;

use futures::StreamExt;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::{SignedDuration, Timestamp},
};
use tokio::sync::OnceCell;

use super::world::{BatchError, Change, World};
use crate::{
    api::{ExecRequest, ExecRequestStatus, Reason},
    core::{
        access,
        admission::Admission,
        batch::{
            child,
            end::End,
            seen::{Children, Found, Seen},
            situation::Situation,
            step::Task,
        },
        bind::{self, Facts},
        outcome::Outcome,
        request::is_being_deleted,
        transition::Write,
    },
    infra::requests::Written,
    manager::controller::write::decided,
};

/// How many children of one batch are looked at beside each other.
const AT_ONCE: usize = 16;

/// What was found of each. Of one of which nothing could be found out there is nothing: it is looked at again.
pub(super) async fn act_on_all<W: World>(
    world: &W,
    situation: &Situation<'_>,
    children: &Children,
    tasks: Vec<(u16, Task)>,
) -> BTreeMap<u16, Found> {
    let admission = &OnceCell::new();
    let acts = tasks.into_iter().map(|(index, task)| async move {
        match act(world, (situation, admission), index, children.get(&index), task).await {
            Ok(found) => Some((index, found)),
            Err(error) => {
                let batch = situation.batch.metadata.name.as_deref();
                tracing::warn!(batch, index, %error, "a request of a batch could not be looked at; retrying");
                None
            }
        }
    });
    futures::stream::iter(acts).buffer_unordered(AT_ONCE).filter_map(|found| async move { found }).collect().await
}

async fn act<W: World>(
    world: &W,
    (situation, admission): (&Situation<'_>, &OnceCell<Admission>),
    index: u16,
    seen: Option<&Seen>,
    task: Task,
) -> Result<Found, BatchError> {
    let meta = &situation.batch.metadata;
    let [namespace, batch, uid] =
        [&meta.namespace, &meta.name, &meta.uid].map(|field| field.as_deref().unwrap_or_default());
    let name = child::name(batch, uid, situation.plan(), index);
    let Some(child) = world.child(namespace, &name).await? else { return Ok(Found::Absent) };
    let is_it = child::index_in(&child, uid, situation.plan()) == Some(index);
    let was_replaced = seen.is_some_and(|seen| child.metadata.uid.as_deref() != Some(seen.uid.as_str()));
    if !is_it || was_replaced {
        return Ok(Found::Absent);
    }
    let status = child.status.clone().unwrap_or_default();
    // One that the watch knew was there before the pass looked at the policies.
    let admission = seen.is_some().then_some(admission);
    let looked = Looked { world, admission, read: &child, status, at: world.now() };
    if let Some(end) = End::of(&looked.status) {
        return Ok(Found::Ended(end));
    }
    match task {
        Task::Cancel => looked.cancel().await,
        Task::End(_) if looked.status.node_name.is_some() => looked.cancel().await,
        Task::End(why) => looked.refuse(why.reason, format!("{}: nothing ran", why.message)).await,
        Task::Look if situation.lets_run(index) => looked.due(situation).bind_or_give_up().await,
        Task::Look => looked.unless_given_up().await,
    }
}

/// A child as it was read, and the status that the next write begins with.
struct Looked<'a, W> {
    world: &'a W,
    /// Asked for once in a pass, after the batch was read; for each child that may have been made since, once more.
    admission: Option<&'a OnceCell<Admission>>,
    read: &'a ExecRequest,
    status: ExecRequestStatus,
    at: Timestamp,
}

impl<W: World> Looked<'_, W> {
    /// After its release: its own status says from now on by when it must start.
    fn due(mut self, situation: &Situation<'_>) -> Self {
        let released = situation.status.released_at.as_ref().map_or(self.at, |time| time.0);
        let time = SignedDuration::from_secs(self.read.spec.starting_deadline_seconds.into());
        let by = released.checked_add(time).unwrap_or(Timestamp::MAX);
        self.status.start_by.get_or_insert(MicroTime(by));
        self
    }

    /// Takes it through the decision that every request goes through.
    async fn bind_or_give_up(self) -> Result<Found, BatchError> {
        let request = ExecRequest { status: Some(self.status.clone()), ..self.read.clone() };
        if self.status.node_name.is_some() {
            return match bind::bound_too_long(&request, self.world.agents(), self.at) {
                Some((reason, message)) => self.refuse(reason, message).await,
                None => Ok(self.unfinished()),
            };
        }
        let admission = self.admission().await;
        let rights = access::rights(&request);
        let lacks = match bind::requester_to_check(&request, &admission) {
            Some(by) => self.world.lacks(by, &rights).await?,
            None => None,
        };
        let namespace = request.metadata.namespace.as_deref().unwrap_or_default();
        let pod = self.world.pod(namespace, &request.spec.target.pod_name).await?;
        let facts = Facts { request: &request, admission: &admission, lacks: lacks.as_ref(), pod: pod.as_ref() };
        let decision = bind::bind(&facts, self.world.agents(), self.at);
        let decision = bind::unless_unrecorded(decision, self.world.available().await);
        let (next, change) = decided(self.write(), decision, pod.as_ref());
        self.apply(next, change, bind::vouched_for(&request, &admission)).await
    }

    /// One that is held, and that somebody may have canceled or deleted.
    async fn unless_given_up(self) -> Result<Found, BatchError> {
        match bind::given_up(self.read) {
            Some((reason, message)) if self.status.node_name.is_none() => self.refuse(reason, message.to_owned()).await,
            Some(_) | None => Ok(self.unfinished()),
        }
    }

    /// It never ran, and never will.
    async fn refuse(self, reason: Reason, message: String) -> Result<Found, BatchError> {
        let outcome = Outcome::refused(reason, message, self.at);
        let next = self.write().finished(&outcome);
        let vouched_for = self.is_vouched_for().await;
        self.apply(next, Change::Finished(outcome), vouched_for).await
    }

    /// What was bound says so itself.
    async fn is_vouched_for(&self) -> bool {
        if self.status.node_name.is_some() {
            return bind::was_vouched_for(self.read);
        }
        bind::vouched_for(self.read, &self.admission().await)
    }

    /// What stands in the way now may be gone for the next child.
    async fn admission(&self) -> Admission {
        let Some(known) = self.admission else { return self.world.admission().await };
        if let Some(known) = known.get() {
            return known.clone();
        }
        let found = self.world.admission().await;
        if !matches!(found, Admission::Broken(_)) {
            // Another child of the pass may have been first.
            known.set(found.clone()).unwrap_or_default();
        }
        found
    }

    async fn cancel(self) -> Result<Found, BatchError> {
        if !self.read.spec.cancel && !is_being_deleted(self.read) {
            self.world.cancel(self.read).await?;
        }
        Ok(self.unfinished())
    }

    async fn apply(self, next: ExecRequestStatus, change: Change, vouched_for: bool) -> Result<Found, BatchError> {
        Ok(match self.world.write_child(self.read, next, change, vouched_for).await? {
            Written::Won(child) => {
                let status = child.status.as_ref();
                let was_looked_at = status.is_some_and(|status| status.start_by.is_some());
                status.and_then(End::of).map_or(Found::Unfinished { was_looked_at }, Found::Ended)
            }
            // Read again: nothing is known of what it is now.
            Written::Lost | Written::Gone => Found::Unfinished { was_looked_at: false },
            Written::Refused(why) => {
                let (name, uid) = (self.read.metadata.name.as_deref(), self.read.metadata.uid.as_deref());
                tracing::error!(request = name, uid, why, "the API server refuses the status");
                Found::Unfinished { was_looked_at: false }
            }
        })
    }

    fn write(&self) -> Write<'_> {
        Write { from: &self.status, generation: self.read.metadata.generation, at: self.at }
    }

    /// As the object says by itself.
    fn unfinished(&self) -> Found {
        let status = self.read.status.as_ref();
        Found::Unfinished { was_looked_at: status.is_some_and(|status| status.start_by.is_some()) }
    }
}
