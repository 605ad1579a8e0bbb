//! How often a released child that waits is looked at: soon at first, then ever more seldom, and not too many in one pass.
//! Each look reads its pod and the rights of its requester.
//!
//! Of one of which nothing is remembered, a look is due: to forget all of it costs no more than that.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{
    seen::{Children, Seen, Stage},
    step::Task,
};

/// Between two looks: a tenth of the time since the first, within these.
const SOONEST: SignedDuration = SignedDuration::from_secs(1);
const LATEST: SignedDuration = SignedDuration::from_secs(10);
/// Looks of one pass that could wait as well: what else there is to be done must not wait for them.
const AT_ONCE: usize = 256;

/// The looks at what waits.
#[derive(Clone, Debug, Default)]
pub struct Pace(BTreeMap<u16, Looks>);

#[derive(Clone, Copy, Debug)]
struct Looks {
    first: Timestamp,
    last: Timestamp,
}

impl Looks {
    fn next(self) -> Timestamp {
        let pause = (self.last.duration_since(self.first) / 10).clamp(SOONEST, LATEST);
        self.last.checked_add(pause).unwrap_or(Timestamp::MAX)
    }
}

impl Pace {
    /// Leaves out the looks that are not due yet, and notes the others as done.
    pub fn due(&mut self, tasks: Vec<(u16, Task)>, children: &Children, now: Timestamp) -> Vec<(u16, Task)> {
        let waits = |index: &u16| children.get(index).is_some_and(|seen| matches!(seen.stage, Stage::Waiting { .. }));
        self.0.retain(|index, _| waits(index));
        let (looks, mut all): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|(index, task)| {
            *task == Task::Look && children.get(index).is_some_and(|seen| can_wait(seen, now))
        });
        let mut due: Vec<_> =
            looks.into_iter().filter(|(index, _)| self.0.get(index).is_none_or(|looks| looks.next() <= now)).collect();
        due.sort_by_key(|(index, _)| self.0.get(index).map(|looks| looks.last));
        due.truncate(AT_ONCE);
        for (index, _) in &due {
            self.0.entry(*index).or_insert(Looks { first: now, last: now }).last = now;
        }
        all.extend(due);
        all
    }

    /// When to look again, if nothing is heard of the batch or its children, and none of them waits.
    pub fn pause(&self, children: &Children, now: Timestamp) -> Duration {
        let next = |(index, seen): (&u16, &Seen)| match seen.stage {
            Stage::Waiting { start_by } => {
                let looks = self.0.get(index).map_or(now, |looks| looks.next());
                Some(start_by.map_or(looks, |by| by.min(looks)))
            }
            Stage::Held | Stage::Bound { .. } | Stage::Running | Stage::Ended => None,
        };
        let next = children.iter().filter_map(next).min();
        let pause = next.map_or(LATEST, |next| next.duration_since(now).clamp(SOONEST, LATEST));
        pause.unsigned_abs()
    }
}

/// A look at one that waits, and that neither is to be given up nor was.
fn can_wait(seen: &Seen, now: Timestamp) -> bool {
    let waits = matches!(seen.stage, Stage::Waiting { start_by } if start_by.is_none_or(|by| now < by));
    waits && !seen.canceled && !seen.deleting
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::batch::fixture::at;

    fn waiting(start_by: i64) -> Seen {
        let stage = Stage::Waiting { start_by: Some(at(start_by)) };
        Seen { uid: "u".to_owned(), canceled: false, deleting: false, stage }
    }

    fn children(seen: Seen, count: u16) -> Children {
        (0..count).map(|index| (index, seen.clone())).collect()
    }

    fn looks(count: u16) -> Vec<(u16, Task)> {
        (0..count).map(|index| (index, Task::Look)).collect()
    }

    #[test]
    fn one_that_waits_is_looked_at_ever_more_seldom_and_in_time_for_its_deadline() {
        let (mut pace, one) = (Pace::default(), children(waiting(300), 1));
        // News of the batch every second.
        let seen: Vec<i64> = (0..=310).filter(|second| !pace.due(looks(1), &one, at(*second)).is_empty()).collect();
        assert_eq!(seen[..12], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], "soon at first");
        let within: Vec<&i64> = seen.iter().filter(|second| (200..300).contains(*second)).collect();
        assert!((9..=10).contains(&within.len()), "{within:?}");
        assert_eq!(seen[seen.len() - 11..], (300..=310).collect::<Vec<_>>(), "given up as soon as it is too late");
    }

    #[test]
    fn what_somebody_has_given_up_is_looked_at_at_once_and_other_tasks_are_not_held_up() {
        let mut pace = Pace::default();
        let mut all = children(waiting(300), 4);
        all.get_mut(&1).expect("one").canceled = true;
        all.get_mut(&2).expect("one").deleting = true;
        all.get_mut(&3).expect("one").stage = Stage::Held;
        assert_eq!(pace.due(looks(4), &all, at(0)).len(), 4);
        let again: Vec<u16> = pace.due(looks(5), &all, at(0)).into_iter().map(|(index, _)| index).collect();
        assert_eq!(again, [1, 2, 3, 4], "and of the last nothing is known");
        assert_eq!(pace.due(vec![(0, Task::Cancel)], &all, at(0)), [(0, Task::Cancel)]);
    }

    #[test]
    fn many_that_wait_take_turns() {
        let many = u16::try_from(AT_ONCE).expect("few") * 2 + 1;
        let (mut pace, all) = (Pace::default(), children(waiting(300), many));
        let mut seen = std::collections::BTreeSet::new();
        for second in 0..3 {
            let due = pace.due(looks(many), &all, at(second));
            assert!(due.len() <= AT_ONCE);
            seen.extend(due.into_iter().map(|(index, _)| index));
        }
        assert_eq!(seen.len(), usize::from(many));
    }

    #[test]
    fn the_next_pass_is_when_the_next_look_is_due() {
        let seconds = |pace: &Pace, children: &Children, now| pace.pause(children, at(now)).as_secs();
        let (mut pace, one) = (Pace::default(), children(waiting(205), 1));
        assert_eq!(seconds(&pace, &Children::new(), 0), 10);
        assert_eq!(seconds(&pace, &one, 0), 1);
        for second in 0..=200 {
            pace.due(looks(1), &one, at(second));
        }
        let last = pace.0[&0].last;
        let left = pace.pause(&one, last);
        assert_eq!(left.as_secs(), 10.min(205 - u64::try_from(last.as_second()).expect("a small number")));
        let running = children(Seen { stage: Stage::Running, ..waiting(205) }, 1);
        pace.due(Vec::new(), &running, at(201));
        assert!(pace.0.is_empty(), "nothing is kept of what waits no more");
    }
}
