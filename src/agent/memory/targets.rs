//! Which unfinished request holds which target of a batch.
//!
//! Two requests may name the same target: a plan is made anew where an older state of the API server was restored. The first
//! that gets a target here has it until its record is gone from the journal; from then on its tombstone has it.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::record::Record;
use crate::core::ids::{RequestUid, TargetKey};

#[derive(Default)]
pub(super) struct Targets(Mutex<BTreeMap<TargetKey, RequestUid>>);

impl Targets {
    /// As the records say. Of two, which no agent writes, the one whose command may have run has it.
    pub(super) fn of(records: &[Record]) -> Self {
        let targets = Self::default();
        let (may_have_run, others): (Vec<_>, Vec<_>) = records.iter().partition(|record| record.entry.may_have_run());
        for Record { request, entry, .. } in may_have_run.into_iter().chain(others) {
            if let Some(target) = &entry.target
                && !targets.take(target, &request.uid)
            {
                tracing::error!(%request, uid = %request.uid, "two records of the journal are about the same pod and batch: this one starts nothing");
            }
        }
        targets
    }

    /// Whether this request has it, from now on or since before.
    pub(super) fn take(&self, target: &TargetKey, uid: &RequestUid) -> bool {
        self.0.lock().entry(target.clone()).or_insert_with(|| uid.clone()) == uid
    }

    pub(super) fn holder(&self, target: &TargetKey) -> Option<RequestUid> {
        self.0.lock().get(target).cloned()
    }

    /// It has it no longer, if it had it.
    pub(super) fn release(&self, target: &TargetKey, uid: &RequestUid) {
        let mut held = self.0.lock();
        if held.get(target) == Some(uid) {
            held.remove(target);
        }
    }
}
