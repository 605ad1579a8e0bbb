//! What is recorded of a batch, and the record of each act on it.

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::{
    event::{Event, ObjectReference, Verb},
    key,
    redact::CommandDetail,
    subject::{Asked, Subject},
};
use crate::{
    api::{
        ExecBatch, ExecBatchStatus, Reason,
        batch::{Input, Plan},
        conditions::{self, ConditionType, Truth},
    },
    core::{batch::indexes::IndexSet, ids::BatchKey},
};

/// What a write of a batch's status does, for which a record comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Its targets are fixed.
    Planned {
        plan: PlanId,
        total: i32,
        approval_required: bool,
    },
    Approved {
        plan: PlanId,
        by: Option<Word>,
    },
    /// Indexes from `from` on and below `to` may run.
    Released {
        plan: PlanId,
        from: i32,
        to: i32,
        by: Option<Word>,
    },
    /// The requests of these indexes were deleted before they had ended: they count as they were left.
    RequestsGone {
        plan: PlanId,
        indexes: IndexSet,
    },
    Finished {
        reason: String,
        message: String,
        plan: Option<PlanId>,
        counts: Vec<(&'static str, i32)>,
    },
    /// Its `ttlSecondsAfterFinished` has passed: it is deleted, and its requests with it.
    Expired,
}

/// A plan, told from every other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanId {
    pub number: i64,
    pub digest: String,
}

/// By whose word something is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Word {
    pub username: String,
    pub uid: String,
}

/// That the requests of these indexes are gone. `None`: there are none, or there is no plan.
pub fn requests_gone(batch: &ExecBatch, indexes: IndexSet) -> Option<Act> {
    let plan = batch.status.as_ref()?.plan.as_ref().and_then(plan_id)?;
    (!indexes.is_empty()).then_some(Act::RequestsGone { plan, indexes })
}

/// Who let targets run: whoever has changed the batch last so that more may, or who created it.
pub fn released_by(batch: &ExecBatch) -> Option<Word> {
    let of_requester = || batch.spec.requested_by.as_ref().map(|by| (&by.username, &by.uid));
    let by = batch.spec.released_by.as_ref().map(|by| (&by.username, &by.uid)).or_else(of_requester);
    by.map(|(username, uid)| Word { username: username.clone(), uid: uid.clone() })
}

/// Who approved the plan.
pub fn approved_by(batch: &ExecBatch) -> Option<Word> {
    let by = batch.spec.approval.by.as_ref()?;
    Some(Word { username: by.username.clone(), uid: by.uid.clone() })
}

/// What this write does, in the order in which it is recorded.
pub fn acts(batch: &ExecBatch, next: &ExecBatchStatus) -> Vec<Act> {
    let empty = ExecBatchStatus::default();
    let from = batch.status.as_ref().unwrap_or(&empty);
    let plan = next.plan.as_ref().and_then(plan_id);
    let mut acts = Vec::new();
    if let Some(plan) = &plan {
        if from.plan.as_ref().and_then(plan_id).is_none() {
            let total = next.plan.as_ref().and_then(|plan| plan.total).unwrap_or_default();
            acts.push(Act::Planned { plan: plan.clone(), total, approval_required: batch.spec.approval.required });
        }
        if is_approved(next) && !is_approved(from) {
            acts.push(Act::Approved { plan: plan.clone(), by: approved_by(batch) });
        }
        if next.released > from.released {
            let by = released_by(batch);
            acts.push(Act::Released { plan: plan.clone(), from: from.released, to: next.released, by });
        }
    }
    if next.completion_time.is_some() && from.completion_time.is_none() {
        let finished = conditions::get(&next.conditions, ConditionType::Finished);
        let [reason, message] = finished.map_or([""; 2], |finished| [&finished.reason, &finished.message]);
        let (reason, message) = (reason.to_owned(), message.to_owned());
        acts.push(Act::Finished { reason, message, plan, counts: counts(next).to_vec() });
    }
    acts
}

fn plan_id(plan: &Plan) -> Option<PlanId> {
    Some(PlanId { number: plan.number, digest: plan.digest.clone()? })
}

fn is_approved(status: &ExecBatchStatus) -> bool {
    conditions::get(&status.conditions, ConditionType::Approved)
        .is_some_and(|approved| approved.status == Truth::True.as_str())
}

/// What is counted at the end, by the keys of the record.
pub(super) fn counts(status: &ExecBatchStatus) -> [(&'static str, i32); 6] {
    [
        (key::RELEASED, status.released),
        (key::SUCCEEDED, status.succeeded.count),
        (key::FAILED, status.failed.count),
        (key::NOT_RUN, status.not_run.count),
        (key::UNKNOWN, status.unknown.count),
        (key::SKIPPED, status.skipped.count),
    ]
}

impl Subject {
    /// A batch. `None`: it has no key, as every object that was read has.
    pub fn of_batch(batch: &ExecBatch, detail: CommandDetail) -> Option<Self> {
        let (meta, template) = (&batch.metadata, &batch.spec.template.spec);
        let uid = meta.uid.as_deref()?.into();
        let key = BatchKey { namespace: meta.namespace.clone()?, name: meta.name.clone()?, uid };
        let mut subject = Self::new(ObjectReference::batch(&key), detail);
        subject.note(key::CONTAINER, batch.spec.targets.container.as_deref());
        subject.asked_for(&Asked {
            at: meta.creation_timestamp.as_ref(),
            by: batch.spec.requested_by.as_ref(),
            command: &template.command,
            env: &template.env,
            user: template.user.as_deref(),
            stdin: template.stdin.as_ref().map(input_kind),
            why: batch.spec.reason.as_deref(),
        });
        Some(subject)
    }

    /// The record of an act on a batch.
    pub fn batch_did(&self, act: &Act, at: Timestamp) -> Event {
        match act {
            Act::Planned { plan, total, approval_required } => {
                let mut event = self.of_plan(Verb::Planned, plan, &[], at);
                event.add(key::TOTAL, total);
                event.add(key::APPROVAL_REQUIRED, approval_required);
                event
            }
            Act::Approved { plan, by } => self.by(self.of_plan(Verb::Approved, plan, &[], at), by.as_ref()),
            Act::Released { plan, from, to, by } => {
                let mut event = self.of_plan(Verb::Released, plan, &[&from.to_string(), &to.to_string()], at);
                event.add(key::RELEASED_FROM, from);
                event.add(key::RELEASED_TO, to);
                self.by(event, by.as_ref())
            }
            Act::RequestsGone { plan, indexes } => {
                let indexes = indexes.to_string();
                let mut event = self.of_plan(Verb::RequestsGone, plan, &[&indexes], at);
                event.add(key::INDEXES, &indexes);
                event
            }
            Act::Finished { reason, message, plan, counts } => {
                let forbidden = reason == Reason::Forbidden.as_str();
                let verb = if forbidden { Verb::Denied } else { Verb::BatchFinished };
                let numbers = counts.iter().map(|(_, count)| count.to_string()).collect::<Vec<_>>().join(" ");
                let mut event = self.event(verb, &[reason, &numbers], at);
                event.add(key::REASON, reason);
                if let Some(message) = self.message(message) {
                    event.add(key::MESSAGE, &message);
                }
                if let Some(plan) = plan {
                    event.name_plan(plan);
                }
                for (key, count) in counts {
                    event.add(key, count);
                }
                event
            }
            Act::Expired => self.event(Verb::Expired, &[], at),
        }
    }

    fn of_plan(&self, verb: Verb, plan: &PlanId, act: &[&str], at: Timestamp) -> Event {
        let mut event = self.event(verb, &[&[&plan.number.to_string(), plan.digest.as_str()], act].concat(), at);
        event.name_plan(plan);
        event
    }

    /// Whose word it was is known as well as who created the batch: the same policies vouch for both.
    fn by(&self, mut event: Event, by: Option<&Word>) -> Event {
        if let Some(Word { username, uid }) = by {
            event.add(if self.is_vouched_for() { key::BY } else { key::CLAIMED_BY }, username);
            if !uid.is_empty() {
                event.add(key::BY_UID, uid);
            }
        }
        event
    }
}

impl Event {
    fn add(&mut self, key: &str, value: &impl ToString) {
        self.annotations.insert(key.to_owned(), value.to_string());
    }

    fn name_plan(&mut self, plan: &PlanId) {
        self.add(key::BATCH_PLAN, &plan.number);
        self.add(key::PLAN_DIGEST, &plan.digest);
    }
}

const fn input_kind(input: &Input) -> &'static str {
    if input.data.is_some() { "data" } else { "text" }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
