//! Which targets of a batch ended the same: for the same reason, with the same exit code, and with the same output.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{indexes::IndexSet, ledger::Ledger};
use crate::api::{
    ExecRequest,
    batch::{Group, status::MOST_GROUPS},
    conditions::{self, ConditionType},
};

/// How one target ended, without its tails: of ten thousand none is to be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    pub index: u16,
    pub name: String,
    pub kind: Kind,
}

/// What has to be the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    reason: String,
    exit_code: Option<i32>,
    stdout: Option<String>,
    stderr: Option<String>,
    complete: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grouped {
    /// The largest first, and of those of one size the one with the smallest index.
    pub groups: Vec<Group>,
    /// How many targets are in none of them.
    pub others: i32,
}

impl Ending {
    /// `None` of one that has not ended.
    pub fn of(child: &ExecRequest, index: u16) -> Option<Self> {
        let status = child.status.as_ref().filter(|status| status.completion_time.is_some())?;
        let finished = conditions::get(&status.conditions, ConditionType::Finished)?;
        let output = status.output.as_ref();
        let kind = Kind {
            reason: finished.reason.clone(),
            exit_code: status.exit_code,
            stdout: output.and_then(|output| output.stdout.sha256.clone()),
            stderr: output.and_then(|output| output.stderr.sha256.clone()),
            complete: output.map(|output| output.complete),
        };
        Some(Self { index, name: child.metadata.name.clone().unwrap_or_default(), kind })
    }
}

/// Of those that the ledger has. Of one whose request is gone nobody can say how it ended.
pub fn group(endings: Vec<Ending>, ledger: &Ledger) -> Grouped {
    let mut groups = group_all(endings, ledger);
    groups.truncate(MOST_GROUPS);
    let in_groups: i32 = groups.iter().map(|group| group.count).sum();
    Grouped { groups, others: i32::from(ledger.len()) - in_groups }
}

/// The same, in as many groups as there are.
pub fn group_all(endings: Vec<Ending>, ledger: &Ledger) -> Vec<Group> {
    let mut kinds: BTreeMap<Kind, BTreeMap<u16, String>> = BTreeMap::new();
    for Ending { index, name, kind } in endings.into_iter().filter(|ending| ledger.contains(ending.index)) {
        kinds.entry(kind).or_default().insert(index, name);
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, members)| (Reverse(members.len()), members.keys().next().copied()));
    kinds.into_iter().map(|(kind, members)| of(kind, members)).collect()
}

fn of(kind: Kind, mut members: BTreeMap<u16, String>) -> Group {
    let indexes: IndexSet = members.keys().copied().collect();
    Group {
        count: indexes.len().into(),
        indexes: indexes.to_string(),
        reason: kind.reason,
        exit_code: kind.exit_code,
        stdout_sha256: kind.stdout,
        stderr_sha256: kind.stderr,
        output_complete: kind.complete,
        example: members.pop_first().map(|(_, name)| name).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::batch::end::End;

    fn ending(index: u16, code: i32, stdout: &str) -> Ending {
        let kind = Kind {
            reason: "NonZeroExitCode".to_owned(),
            exit_code: Some(code),
            stdout: Some(stdout.to_owned()),
            stderr: None,
            complete: Some(true),
        };
        Ending { index, name: format!("b-x-{index}"), kind }
    }

    fn ledger(total: u16) -> Ledger {
        let mut ledger = Ledger::default();
        for index in 0..total {
            ledger.put(index, End::Failed);
        }
        ledger
    }

    fn told(grouped: &Grouped) -> Vec<(i32, &str, Option<i32>, &str)> {
        grouped
            .groups
            .iter()
            .map(|group| (group.count, group.indexes.as_str(), group.exit_code, group.example.as_str()))
            .collect()
    }

    #[test]
    fn equal_ends_are_together_the_largest_group_first() {
        let endings =
            vec![ending(4, 1, "a"), ending(0, 1, "b"), ending(1, 2, "a"), ending(2, 2, "a"), ending(3, 1, "a")];
        let grouped = group(endings, &ledger(6));
        assert_eq!(
            told(&grouped),
            [(2, "1-2", Some(2), "b-x-1"), (2, "3-4", Some(1), "b-x-3"), (1, "0", Some(1), "b-x-0")]
        );
        assert_eq!(grouped.others, 1, "the request of index 5 is gone");
    }

    #[test]
    fn output_that_may_be_incomplete_is_not_the_same() {
        let mut cut = ending(1, 0, "a");
        cut.kind.complete = Some(false);
        assert_eq!(group(vec![ending(0, 0, "a"), cut], &ledger(2)).groups.len(), 2);
    }

    #[test]
    fn what_is_in_no_group_is_counted() {
        let endings = (0..100).map(|index| ending(index, i32::from(index), "a")).collect();
        let grouped = group(endings, &ledger(100));
        assert_eq!((grouped.groups.len(), grouped.others), (MOST_GROUPS, 68));
        assert_eq!(grouped.groups[0].indexes, "0");
    }

    #[test]
    fn what_is_not_accounted_for_is_in_no_group() {
        assert_eq!(group(vec![ending(7, 0, "a")], &ledger(2)), Grouped { groups: Vec::new(), others: 2 });
    }
}
