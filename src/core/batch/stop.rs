//! Why nothing more of a batch is released: for good, or for now.

use std::time::Duration;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::SignedDuration};

use super::{plan::Refusal, share, situation::Situation};
use crate::api::{ExecBatch, Reason, batch::FailureAction};

/// How long a batch may be held without anything of it being released.
const NOT_RELEASED: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Nothing more is released, ever: what is not released never runs. What stops a batch once does so from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    pub why: Refusal,
    /// What runs is ended, too.
    pub ends_running: bool,
}

pub fn stop(situation: &Situation<'_>) -> Option<Stop> {
    let Situation { batch, status, total, released, ledger, now, .. } = situation;
    let stop = |reason, message: String, ends_running| Some(Stop { why: Refusal::new(reason, message), ends_running });
    let since = |time: &Option<MicroTime>| time.as_ref().map(|time| now.duration_since(time.0));
    if let Some(why) = given_up(batch) {
        return Some(Stop { why, ends_running: true });
    }
    if let Some(seconds) = batch.spec.active_deadline_seconds {
        let limit = SignedDuration::from_secs(seconds.into());
        if since(&status.start_time).is_some_and(|time| time >= limit) {
            let message =
                format!("the batch was not done {seconds} s after its first release, its activeDeadlineSeconds");
            return stop(Reason::DeadlineExceeded, message, true);
        }
    }
    let (without, most) = (ledger.without_success(), share::max_failed(&batch.spec, *total));
    if without > most {
        let message =
            format!("more targets ended without success than failurePolicy.maxFailed allows ({most} of {total})");
        return stop(Reason::TooManyFailed, message, batch.spec.failure_policy.action == FailureAction::CancelRunning);
    }
    let planned = status.plan.as_ref().and_then(|plan| plan.time.clone());
    if *released == 0 && *total > 0 && since(&planned).is_some_and(|time| time >= NOT_RELEASED) {
        return stop(Reason::NotReleased, "nothing of the batch was released within 7 days".to_owned(), true);
    }
    None
}

/// How long until `activeDeadlineSeconds` has passed, if it has not.
pub fn until_deadline(situation: &Situation<'_>) -> Option<Duration> {
    let limit = SignedDuration::from_secs(situation.batch.spec.active_deadline_seconds?.into());
    let due = situation.status.start_time.as_ref()?.0.checked_add(limit).ok()?;
    due.duration_since(situation.now).try_into().ok()
}

/// Somebody wants nothing more of it.
pub fn given_up(batch: &ExecBatch) -> Option<Refusal> {
    if batch.metadata.deletion_timestamp.is_some() {
        return Some(Refusal::new(Reason::Deleted, "the batch was deleted"));
    }
    batch.spec.cancel.then(|| Refusal::new(Reason::Canceled, "the batch was canceled"))
}

/// Nothing more is released for now.
pub fn hold(situation: &Situation<'_>) -> Option<Refusal> {
    let Situation { batch, status, total, released, .. } = situation;
    let (approval, digest) = (&batch.spec.approval, status.plan.as_ref().and_then(|plan| plan.digest.as_deref()));
    if approval.required && digest != Some(approval.plan_digest.as_str()) {
        let message = "somebody else than the requester has to look at the plan, and to set approval.planDigest to \
                       status.plan.digest";
        return Some(Refusal::new(Reason::ApprovalRequired, message));
    }
    if batch.spec.suspend {
        return Some(Refusal::new(Reason::Suspended, "suspend is set: set it to false to go on"));
    }
    let limit = share::limit(&batch.spec, *total);
    let message = format!("{released} of {total} targets are released: raise releaseLimit to go on");
    (limit < *total && limit <= *released).then(|| Refusal::new(Reason::ReleaseLimit, message))
}
