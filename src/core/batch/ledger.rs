//! Which index ended how: the sets of a batch's status, parsed once. Each index is in one of them at most.

use thiserror::Error;

use super::{
    end::End,
    indexes::{IndexSet, NotIndexes},
};
use crate::api::batch::{Ends, ExecBatchStatus};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger([IndexSet; End::ALL.len()]);

/// Somebody else has written the status: nothing is decided on what it may mean.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unreadable {
    #[error(transparent)]
    NotIndexes(#[from] NotIndexes),
    #[error("index {0} is said to have ended in two ways")]
    Twice(u16),
}

impl Ledger {
    pub fn of(status: &ExecBatchStatus) -> Result<Self, Unreadable> {
        let mut ledger = Self::default();
        for end in End::ALL {
            let set: IndexSet = field(status, end).indexes.parse()?;
            if let Some(index) = set.iter().find(|index| ledger.contains(*index)) {
                return Err(Unreadable::Twice(index));
            }
            ledger.0[end as usize] = set;
        }
        Ok(ledger)
    }

    pub fn contains(&self, index: u16) -> bool {
        self.0.iter().any(|set| set.contains(index))
    }

    /// How it ended, if it has.
    pub fn end_of(&self, index: u16) -> Option<End> {
        End::ALL.into_iter().find(|end| self.set(*end).contains(index))
    }

    /// The first that is said of an index stands.
    pub fn put(&mut self, index: u16, end: End) {
        if !self.contains(index) {
            self.0[end as usize].insert(index);
        }
    }

    pub fn set(&self, end: End) -> &IndexSet {
        &self.0[end as usize]
    }

    /// How many are accounted for.
    pub fn len(&self) -> u16 {
        self.0.iter().map(IndexSet::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those that count against `maxFailed`.
    pub fn without_success(&self) -> u16 {
        [End::Failed, End::NotRun, End::Unknown].into_iter().map(|end| self.set(end).len()).sum()
    }

    /// Whether every target of `total` that was not skipped succeeded.
    pub fn all_succeeded(&self, total: u16) -> bool {
        self.set(End::Succeeded).len() + self.set(End::Skipped).len() == total
    }

    pub fn write(&self, status: &mut ExecBatchStatus) {
        for end in End::ALL {
            let set = self.set(end);
            *field_mut(status, end) = Ends { count: set.len().into(), indexes: set.to_string() };
        }
    }
}

fn field(status: &ExecBatchStatus, end: End) -> &Ends {
    match end {
        End::Succeeded => &status.succeeded,
        End::Failed => &status.failed,
        End::NotRun => &status.not_run,
        End::Unknown => &status.unknown,
        End::Skipped => &status.skipped,
    }
}

fn field_mut(status: &mut ExecBatchStatus, end: End) -> &mut Ends {
    match end {
        End::Succeeded => &mut status.succeeded,
        End::Failed => &mut status.failed,
        End::NotRun => &mut status.not_run,
        End::Unknown => &mut status.unknown,
        End::Skipped => &mut status.skipped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_read_back_and_the_first_word_stands() {
        let mut ledger = Ledger::default();
        for (index, end) in
            [(0, End::Succeeded), (1, End::Failed), (2, End::Skipped), (4, End::Unknown), (1, End::NotRun)]
        {
            ledger.put(index, end);
        }
        let mut status = ExecBatchStatus::default();
        ledger.write(&mut status);
        assert_eq!((status.failed.count, status.failed.indexes.as_str(), status.not_run.count), (1, "1", 0));
        assert_eq!(Ledger::of(&status), Ok(ledger.clone()));
        assert_eq!((ledger.len(), ledger.without_success(), ledger.contains(3)), (4, 2, false));
        assert_eq!((ledger.end_of(4), ledger.end_of(3)), (Some(End::Unknown), None));
    }

    #[test]
    fn an_index_that_ended_in_two_ways_is_not_believed() {
        let ends = |indexes: &str| Ends { count: 1, indexes: indexes.to_owned() };
        let status = ExecBatchStatus { failed: ends("1-3"), succeeded: ends("2"), ..ExecBatchStatus::default() };
        assert_eq!(Ledger::of(&status), Err(Unreadable::Twice(2)));
    }

    #[test]
    fn the_skipped_do_not_keep_a_batch_from_success() {
        let mut ledger = Ledger::default();
        ledger.put(0, End::Succeeded);
        ledger.put(1, End::Skipped);
        assert!(ledger.all_succeeded(2) && !ledger.all_succeeded(3));
    }
}
