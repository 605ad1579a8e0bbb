//! What is to be done of a batch now.

use k8s_openapi::jiff::Timestamp;

use super::{
    advance::next_released,
    ledger::Unreadable,
    plan::Refusal,
    seen::{Children, Seen, Stage},
    situation::Situation,
    stop::{Stop, given_up, stop},
};
use crate::api::ExecBatch;

/// How many held children are ended between two writes of the batch's status.
const ENDED_AT_ONCE: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its status is final.
    Done,
    /// Finish it: nothing of it can run.
    Refuse(Refusal),
    /// Raise the number of its plan to this one, and plan.
    Plan(i64),
    /// Do this with its children, then write what its status says then ([`advance`](super::advance::advance)).
    Tend(Vec<(u16, Task)>),
}

/// What is to be done with one child. Each begins with a quorum read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// See how it ended, or whether it can be bound or must be given up.
    Look,
    /// It is held, and is never to be released: say so in its own status.
    End(Refusal),
    /// Set its `cancel`: its agent, or a look at it, ends it.
    Cancel,
}

pub fn step(batch: &ExecBatch, children: &Children, now: Timestamp) -> Result<Step, Unreadable> {
    if batch.status.as_ref().is_some_and(|status| status.completion_time.is_some()) {
        return Ok(Step::Done);
    }
    let Some(situation) = Situation::of(batch, now)? else {
        let number = batch.status.as_ref().and_then(|status| status.plan.as_ref()).map_or(0, |plan| plan.number);
        return Ok(match given_up(batch) {
            Some(why) => Step::Refuse(why),
            // Whoever began the plan with this number did not freeze it, and cannot any more once there is another.
            None => Step::Plan(number + 1),
        });
    };
    Ok(Step::Tend(tasks(&situation, children)))
}

fn tasks(situation: &Situation<'_>, children: &Children) -> Vec<(u16, Task)> {
    let stop = stop(situation);
    let next = next_released(situation, stop.is_some());
    let mut tasks = Vec::new();
    let mut ended = 0;
    for index in situation.open() {
        let seen = children.get(&index);
        let task = if index < situation.released {
            of_released(situation, seen, stop.as_ref())
        } else {
            of_held(seen, index < next, stop.as_ref())
        };
        if matches!(task, Some(Task::End(_))) {
            ended += 1;
        }
        if ended <= ENDED_AT_ONCE {
            tasks.extend(task.map(|task| (index, task)));
        }
    }
    tasks
}

fn of_released(situation: &Situation<'_>, seen: Option<&Seen>, stop: Option<&Stop>) -> Option<Task> {
    let Some(seen) = seen else { return Some(Task::Look) };
    let ends = stop.is_some_and(|stop| stop.ends_running);
    if ends && !seen.canceled && seen.stage != Stage::Ended {
        return Some(Task::Cancel);
    }
    let due = match seen.stage {
        Stage::Held | Stage::Waiting { .. } | Stage::Ended => true,
        Stage::Bound { start_by } => seen.deleting || start_by.is_none_or(|by| situation.now >= by),
        Stage::Running => false,
    };
    due.then_some(Task::Look)
}

/// One that is about to be released is looked for where the watch has not told of it: it may have been deleted.
fn of_held(seen: Option<&Seen>, is_next: bool, stop: Option<&Stop>) -> Option<Task> {
    let Some(stop) = stop else {
        let look = match seen {
            None => is_next,
            Some(seen) => seen.canceled || seen.deleting || seen.stage == Stage::Ended,
        };
        return look.then_some(Task::Look);
    };
    match seen.map(|seen| seen.stage) {
        // An older state of the API server was restored, before its release.
        Some(Stage::Bound { .. } | Stage::Running) => (!seen.is_some_and(|seen| seen.canceled)).then_some(Task::Cancel),
        Some(Stage::Held | Stage::Waiting { .. } | Stage::Ended) | None => Some(Task::End(stop.why.clone())),
    }
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
