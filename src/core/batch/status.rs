//! The status writes in a batch's life: planning, frozen, going on, finished.
//!
//! Each takes the status that was read and returns the one to write.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};

use super::{end::End, groups::Grouped, ledger::Ledger, plan::Refusal, situation::Situation, stop::Stop};
use crate::{
    api::{
        BatchPhase, ExecBatchStatus, Reason,
        batch::Plan,
        conditions::{
            self,
            ConditionType::{self, Approved, Finished, Planned, Reconciling, Stalled, Succeeded},
            Truth,
        },
    },
    core::printable::one_line,
};

/// In characters: the status of a batch has to stay small.
const LONGEST_MESSAGE: usize = 1024;

#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// As it was read.
    pub status: &'a ExecBatchStatus,
    /// Of the object as it was read.
    pub generation: Option<i64>,
    pub at: Timestamp,
}

/// A batch that goes on, as it is to be written.
pub struct Going<'a> {
    /// With what was folded and released now.
    pub situation: &'a Situation<'a>,
    pub stop: Option<&'a Stop>,
    pub hold: Option<Refusal>,
}

impl Write<'_> {
    /// The fence: from now on nobody can freeze a plan of an earlier number.
    pub fn planning(&self, number: i64) -> ExecBatchStatus {
        let mut status = self.start();
        status.phase = BatchPhase::Planning;
        status.plan = Some(Plan { number, total: None, digest: None, time: Some(MicroTime(self.at)) });
        let message = "the targets are being listed, and a request is made for each";
        self.set(&mut status, Planned, Truth::False, Reason::Planning, message);
        self.set(&mut status, Finished, Truth::False, Reason::Planning, message);
        self.set(&mut status, Reconciling, Truth::True, Reason::Planning, message);
        status
    }

    /// A reason why it cannot be planned yet.
    pub fn waiting(&self, why: &Refusal) -> ExecBatchStatus {
        let mut status = self.start();
        self.set(&mut status, Finished, Truth::False, why.reason, &why.message);
        self.set(&mut status, Reconciling, Truth::True, why.reason, &why.message);
        status
    }

    /// Every target has its request, and none is made any more. `ledger`: those that have ended already.
    pub fn frozen(&self, total: u16, digest: &str, ledger: &Ledger) -> ExecBatchStatus {
        let mut status = self.start();
        status.phase = BatchPhase::Planned;
        if let Some(plan) = &mut status.plan {
            (plan.total, plan.digest) = (Some(total.into()), Some(digest.to_owned()));
        }
        ledger.write(&mut status);
        status.done = format!("{}/{total}", ledger.len());
        let message = format!("{total} targets have their requests, digest {digest}");
        self.set(&mut status, Planned, Truth::True, Reason::Planned, &message);
        self.set(&mut status, Finished, Truth::False, Reason::Planned, "nothing is released yet");
        self.set(&mut status, Reconciling, Truth::True, Reason::Planned, &message);
        status
    }

    pub fn going(&self, going: &Going<'_>) -> ExecBatchStatus {
        let Going { situation, stop, hold } = going;
        let mut status = self.start();
        count(&mut status, situation);
        if i32::from(situation.released) > status.released {
            status.released = situation.released.into();
            status.released_at = Some(MicroTime(self.at));
            status.start_time = status.start_time.or(Some(MicroTime(self.at)));
        }
        if situation.batch.spec.approval.required {
            match hold.as_ref().filter(|hold| hold.reason == Reason::ApprovalRequired) {
                Some(hold) => self.set(&mut status, Approved, Truth::False, hold.reason, &hold.message),
                None => self.set(&mut status, Approved, Truth::True, Reason::Approved, "the plan is approved"),
            }
        }
        let (phase, reason, message) = match (stop, hold) {
            (Some(Stop { why, .. }), _) => {
                (BatchPhase::Running, why.reason, format!("{}: what was not released never runs", why.message))
            }
            (None, Some(hold)) if situation.active() == 0 => (BatchPhase::Paused, hold.reason, hold.message.clone()),
            (None, _) if status.released == 0 => {
                (BatchPhase::Planned, Reason::Planned, "nothing is released yet".to_owned())
            }
            (None, _) => {
                let message = format!("{} of {} targets are released", situation.released, situation.total);
                (BatchPhase::Running, Reason::Running, message)
            }
        };
        status.phase = phase;
        self.set(&mut status, Finished, Truth::False, reason, &message);
        self.set(&mut status, Reconciling, Truth::True, reason, &message);
        status
    }

    /// Every index is accounted for.
    pub fn finished(&self, situation: &Situation<'_>, stop: Option<&Stop>, grouped: Grouped) -> ExecBatchStatus {
        let mut status = self.start();
        count(&mut status, situation);
        (status.groups, status.others) = (grouped.groups, Some(grouped.others));
        self.end(status, &conclusion(situation, stop))
    }

    /// Nothing of it ran.
    pub fn refused(&self, why: &Refusal) -> ExecBatchStatus {
        self.end(self.start(), &Refusal::new(why.reason, format!("nothing ran: {}", why.message)))
    }

    fn end(&self, mut status: ExecBatchStatus, why: &Refusal) -> ExecBatchStatus {
        let succeeded = why.reason == Reason::Completed;
        status.phase = if succeeded { BatchPhase::Succeeded } else { BatchPhase::Failed };
        status.completion_time = Some(MicroTime(self.at));
        let truth = if succeeded { Truth::True } else { Truth::False };
        self.set(&mut status, Finished, Truth::True, why.reason, &why.message);
        self.set(&mut status, Succeeded, truth, why.reason, &why.message);
        conditions::remove(&mut status.conditions, Reconciling);
        if !succeeded {
            self.set(&mut status, Stalled, Truth::True, why.reason, &why.message);
        }
        status
    }

    fn start(&self) -> ExecBatchStatus {
        ExecBatchStatus { observed_generation: self.generation, ..self.status.clone() }
    }

    fn set(&self, status: &mut ExecBatchStatus, kind: ConditionType, truth: Truth, reason: Reason, message: &str) {
        let message: String = one_line(message.trim_end()).chars().take(LONGEST_MESSAGE).collect();
        conditions::set(&mut status.conditions, kind, truth, reason, &message, self.generation, self.at);
    }
}

fn count(status: &mut ExecBatchStatus, situation: &Situation<'_>) {
    situation.ledger.write(status);
    status.active = situation.active().into();
    status.done = format!("{}/{}", situation.ledger.len(), situation.total);
}

/// What the end of a batch is called.
fn conclusion(situation: &Situation<'_>, stop: Option<&Stop>) -> Refusal {
    let Situation { total, released, ledger, .. } = situation;
    let count = |end| ledger.set(end).len();
    if ledger.all_succeeded(*total) {
        let skipped = count(End::Skipped);
        let but = if skipped == 0 { String::new() } else { format!("; {skipped} were skipped") };
        return Refusal::new(Reason::Completed, format!("{} of {total} targets succeeded{but}", count(End::Succeeded)));
    }
    let numbers = format!(
        "of {total} targets {} succeeded, {} failed, {} never ran and {} may have run",
        count(End::Succeeded),
        count(End::Failed),
        count(End::NotRun),
        count(End::Unknown)
    );
    match stop {
        // That there were too many has kept none from running.
        Some(stop) if stop.why.reason != Reason::TooManyFailed || released < total => {
            Refusal::new(stop.why.reason, format!("{}: {numbers}", stop.why.message))
        }
        Some(_) | None => Refusal::new(Reason::TargetsFailed, numbers),
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
