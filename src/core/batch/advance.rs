//! What the status of a batch says after its children were looked at: what is folded, what is released, whether it is over.
//!
//! All of it is one write, which wins only if nobody has written since the batch was read. So what is said here of an index
//! that was not released then holds: nobody has released it meanwhile.

use std::collections::BTreeMap;

use super::{
    end::End,
    ledger::Ledger,
    seen::{Children, Found},
    share,
    situation::Situation,
    status::{Going, Write},
    stop::{hold, stop},
};
use crate::api::ExecBatchStatus;

#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    Write(Box<ExecBatchStatus>),
    /// Every index is accounted for: group the ends, and finish.
    Finish(Ledger),
}

pub fn advance(situation: &Situation<'_>, children: &Children, found: &BTreeMap<u16, Found>) -> Next {
    let mut folded = Situation { ledger: fold(situation, found), ..situation.clone() };
    if folded.is_over() {
        return Next::Finish(folded.ledger);
    }
    let stop = stop(&folded);
    if stop.is_none() && all_looked_at(&folded, children, found) {
        let known = |index: &u16| found.contains_key(index) || children.contains_key(index);
        let wanted = next_released(&folded, false);
        let unknown = folded.open().find(|index| *index >= folded.released && !known(index));
        folded.released = unknown.map_or(wanted, |unknown| wanted.min(unknown)).max(folded.released);
    }
    let write = Write { status: situation.status, generation: situation.batch.metadata.generation, at: situation.now };
    let going = Going { situation: &folded, stop: stop.as_ref(), hold: hold(&folded) };
    Next::Write(Box::new(write.going(&going)))
}

/// What was found to have ended goes into its set. What is gone never ran if it was not released, else it may have run, and
/// is not made again.
fn fold(situation: &Situation<'_>, found: &BTreeMap<u16, Found>) -> Ledger {
    let mut ledger = situation.ledger.clone();
    for (index, found) in found {
        match found {
            Found::Ended(end) => ledger.put(*index, *end),
            Found::Absent if *index < situation.released => ledger.put(*index, End::Unknown),
            Found::Absent => ledger.put(*index, End::NotRun),
            Found::Unfinished { .. } => {}
        }
    }
    ledger
}

/// Whether every released child has its own starting deadline: the time of its release is overwritten by the next.
fn all_looked_at(situation: &Situation<'_>, children: &Children, found: &BTreeMap<u16, Found>) -> bool {
    let looked_at = |index: u16| match found.get(&index) {
        Some(Found::Unfinished { was_looked_at }) => *was_looked_at,
        Some(Found::Ended(_) | Found::Absent) => true,
        None => children.get(&index).is_some_and(|seen| seen.stage.was_looked_at()),
    };
    situation.open().take_while(|index| *index < situation.released).all(looked_at)
}

/// How many may be released by now: as many more as may run beside what is active. What is accounted for takes no place.
pub fn next_released(situation: &Situation<'_>, stopped: bool) -> u16 {
    let Situation { batch, total, released, ledger, .. } = situation;
    if stopped || hold(situation).is_some() {
        return *released;
    }
    let limit = share::limit(&batch.spec, *total);
    let mut room = share::parallelism(&batch.spec, *total).saturating_sub(situation.active());
    let mut next = *released;
    while next < limit {
        if !ledger.contains(next) {
            if room == 0 {
                break;
            }
            room -= 1;
        }
        next += 1;
    }
    next
}

#[cfg(test)]
#[path = "advance_tests.rs"]
mod tests;
