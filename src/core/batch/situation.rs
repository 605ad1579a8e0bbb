//! A batch whose plan is frozen, parsed once.

use k8s_openapi::jiff::Timestamp;

use super::{
    MOST_TARGETS,
    ledger::{Ledger, Unreadable},
};
use crate::api::{ExecBatch, ExecBatchStatus};

#[derive(Clone, Debug)]
pub struct Situation<'a> {
    pub batch: &'a ExecBatch,
    pub status: &'a ExecBatchStatus,
    pub total: u16,
    /// Indexes below it are released.
    pub released: u16,
    pub ledger: Ledger,
    pub now: Timestamp,
}

impl<'a> Situation<'a> {
    /// `None`: nothing of it can run, because its plan is not frozen.
    pub fn of(batch: &'a ExecBatch, now: Timestamp) -> Result<Option<Self>, Unreadable> {
        let Some(status) = &batch.status else { return Ok(None) };
        let Some(total) = status.plan.as_ref().and_then(|plan| plan.total) else { return Ok(None) };
        let total = u16::try_from(total).unwrap_or(0).min(MOST_TARGETS);
        let released = u16::try_from(status.released).unwrap_or(0).min(total);
        Ok(Some(Self { batch, status, total, released, ledger: Ledger::of(status)?, now }))
    }

    pub fn plan(&self) -> i64 {
        self.status.plan.as_ref().map_or(0, |plan| plan.number)
    }

    /// The gate: whether a child of this plan and index may be bound.
    pub fn lets_run(&self, index: u16) -> bool {
        index < self.released && !self.ledger.contains(index)
    }

    /// What is not accounted for.
    pub fn open(&self) -> impl Iterator<Item = u16> + '_ {
        (0..self.total).filter(|index| !self.ledger.contains(*index))
    }

    pub fn is_over(&self) -> bool {
        self.ledger.len() == self.total
    }

    pub fn active(&self) -> u16 {
        let active = self.open().take_while(|index| *index < self.released).count();
        u16::try_from(active).unwrap_or(u16::MAX)
    }
}
