//! Which children belong to no plan that counts: those of an earlier one, whenever they arrive, and those whose batch is gone.

use super::situation::Situation;
use crate::api::{ExecBatch, ExecRequest};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broom {
    Keep,
    /// It was never bound, and nobody may bind it.
    Delete,
    /// It was bound: its agent has to end it.
    Cancel,
}

/// `batch` is the one of the child's `spec.batch.uid`, by a quorum read after the child was listed; `None` if it is gone.
pub fn sweep(child: &ExecRequest, batch: Option<&ExecBatch>) -> Broom {
    let status = child.status.as_ref();
    let is_bound = status.is_some_and(|status| status.node_name.is_some());
    let is_finished = status.is_some_and(|status| status.completion_time.is_some());
    let stray = match batch {
        // What has ended is a record, which whoever deleted its batch wanted to keep.
        None => !is_finished,
        Some(batch) => is_stray(child, batch, is_finished),
    };
    match (stray, is_bound, is_finished) {
        (false, _, _) | (true, true, true) => Broom::Keep,
        (true, false, _) => Broom::Delete,
        (true, true, false) if child.spec.cancel => Broom::Keep,
        (true, true, false) => Broom::Cancel,
    }
}

fn is_stray(child: &ExecRequest, batch: &ExecBatch, is_finished: bool) -> bool {
    let Some(place) = &child.spec.batch else { return false };
    let status = batch.status.as_ref();
    let number = status.and_then(|status| status.plan.as_ref()).map_or(0, |plan| plan.number);
    let at = batch.metadata.creation_timestamp.as_ref().map(|time| time.0).unwrap_or_default();
    let Some(situation) = Situation::of(batch, at).ok().flatten() else {
        // A plan may be under way, whose leader is ahead of what was read: its children are kept.
        let over = status.is_some_and(|status| status.completion_time.is_some());
        return over || place.plan < number;
    };
    let index = u16::try_from(place.index).ok().filter(|index| *index < situation.total);
    let Some(index) = index.filter(|_| place.plan == number) else { return true };
    // Nothing is bound that is accounted for.
    !is_finished && situation.ledger.contains(index)
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
