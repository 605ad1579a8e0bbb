//! Which children belong to no plan that counts: those of an earlier one, whenever they arrive, and those whose batch is gone.

use super::{seen::Children, situation::Situation};
use crate::api::{ExecBatch, ExecRequest};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broom {
    Keep,
    /// It was never bound, and nobody may bind it.
    Delete,
    /// It was bound: its agent has to end it.
    Cancel,
}

/// What counts of a batch, parsed once for all its children.
#[derive(Debug)]
pub enum Counting<'a> {
    Gone,
    /// A plan may be under way, whose leader is ahead of what was read: its children are kept.
    Planning {
        number: i64,
    },
    /// It has finished without a plan.
    Refused,
    Frozen(Situation<'a>),
}

impl<'a> Counting<'a> {
    /// `batch` is the one of the children's `spec.batch.uid`, by a quorum read after they were read; `None` if it is gone.
    pub fn of(batch: Option<&'a ExecBatch>) -> Self {
        let Some(batch) = batch else { return Self::Gone };
        let status = batch.status.as_ref();
        let at = batch.metadata.creation_timestamp.as_ref().map(|time| time.0).unwrap_or_default();
        match Situation::of(batch, at) {
            Ok(Some(situation)) => Self::Frozen(situation),
            _ if status.is_some_and(|status| status.completion_time.is_some()) => Self::Refused,
            Ok(None) | Err(_) => {
                Self::Planning { number: status.and_then(|status| status.plan.as_ref()).map_or(0, |plan| plan.number) }
            }
        }
    }

    /// Which of the unfinished children of a plan may have to go, as far as a watch has told of them.
    pub fn strays(&self, plan: i64, children: &Children) -> Vec<u16> {
        children.keys().copied().filter(|index| self.is_stray(plan, (*index).into(), false)).collect()
    }

    pub fn sweep(&self, child: &ExecRequest) -> Broom {
        let status = child.status.as_ref();
        let is_bound = status.is_some_and(|status| status.node_name.is_some());
        let is_finished = status.is_some_and(|status| status.completion_time.is_some());
        let place = child.spec.batch.as_ref();
        let is_stray = place.is_some_and(|place| self.is_stray(place.plan, place.index, is_finished));
        match (is_stray, is_bound, is_finished) {
            (false, _, _) | (true, true, true) => Broom::Keep,
            (true, false, _) => Broom::Delete,
            (true, true, false) if child.spec.cancel => Broom::Keep,
            (true, true, false) => Broom::Cancel,
        }
    }

    fn is_stray(&self, plan: i64, index: i32, is_finished: bool) -> bool {
        match self {
            // What has ended is a record, which whoever deleted its batch wanted to keep.
            Self::Gone => !is_finished,
            Self::Planning { number } => plan < *number,
            Self::Refused => true,
            Self::Frozen(situation) => {
                let index = u16::try_from(index).ok().filter(|index| *index < situation.total);
                let Some(index) = index.filter(|_| plan == situation.plan()) else { return true };
                // Nothing is bound that is accounted for.
                !is_finished && situation.ledger.contains(index)
            }
        }
    }
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
