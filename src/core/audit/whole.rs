//! Checks that a batch is whole: that each of its targets ran if it was released, not before, and once at most, and that
//! the records of its requests say so.

use super::{
    event::{Event, Verb},
    key,
    members::{Member, twice},
};
use crate::core::batch::{MOST_TARGETS, indexes::IndexSet};

/// What the records of a batch itself say.
struct Told<'a> {
    planned: Vec<&'a Event>,
    approved: Vec<&'a Event>,
    released: Vec<&'a Event>,
    gone: Vec<&'a Event>,
    /// The last, if it was repeated.
    end: Option<&'a Event>,
}

/// Number and digest of a plan.
type Plan<'a> = (i64, &'a str);

impl<'a> Told<'a> {
    fn by(events: &[&'a Event]) -> Self {
        let of = |verb| events.iter().copied().filter(|event| event.verb == verb).collect();
        Self {
            planned: of(Verb::Planned),
            approved: of(Verb::Approved),
            released: of(Verb::Released),
            gone: of(Verb::RequestsGone),
            end: events
                .iter()
                .copied()
                .filter(|e| e.verb.is_end())
                .max_by(|a, b| a.stage_timestamp.cmp(&b.stage_timestamp)),
        }
    }

    /// The plan that counts: nothing of another one is released.
    fn plan(&self) -> Option<Plan<'a>> {
        let ended = self.end.and_then(plan_of);
        let planned = || self.planned.iter().filter_map(|event| plan_of(event)).max();
        self.released.first().and_then(|event| plan_of(event)).or(ended).or_else(planned)
    }

    fn planned_as(&self, plan: Plan<'_>) -> Option<&'a Event> {
        self.planned.iter().copied().find(|event| plan_of(event) == Some(plan))
    }

    /// Those whose requests were deleted before they had ended, which only the batch can know.
    fn gone(&self, plan: Plan<'_>) -> IndexSet {
        let of_plan = self.gone.iter().filter(|event| plan_of(event) == Some(plan));
        let sets = of_plan.filter_map(|event| event.note(key::INDEXES)?.parse::<IndexSet>().ok());
        sets.flat_map(|set| set.iter().collect::<Vec<_>>()).collect()
    }

    /// Indexes below it were let run.
    fn released_to(&self) -> i64 {
        self.released.iter().filter_map(|event| event.number(key::RELEASED_TO)).max().unwrap_or(0)
    }
}

fn plan_of(event: &Event) -> Option<Plan<'_>> {
    Some((event.number(key::BATCH_PLAN)?, event.note(key::PLAN_DIGEST)?))
}

/// What is missing or wrong. That it has no end is neither: it may go on, or was deleted before it had finished, which nobody
/// records.
pub(super) fn gaps(events: &[&Event], members: &[Member]) -> Vec<String> {
    let told = Told::by(events);
    let mut gaps = of_the_plan(&told);
    gaps.extend(of_members(&told, members));
    gaps.extend(twice(members));
    if let (Some(end), Some(plan)) = (told.end, told.plan()) {
        gaps.extend(of_the_end(&told, end, plan, members));
    }
    gaps
}

fn of_the_plan(told: &Told<'_>) -> Vec<String> {
    let mut gaps = Vec::new();
    let mut plans: Vec<Plan<'_>> = told.released.iter().filter_map(|event| plan_of(event)).collect();
    plans.sort_unstable();
    plans.dedup();
    if plans.len() > 1 {
        let plans = plans.iter().map(|(number, digest)| format!("{number} ({digest})")).collect::<Vec<_>>();
        gaps.push(format!("it was released under several plans: {}", plans.join(" and ")));
    }
    for plan in plans {
        let Some(planned) = told.planned_as(plan) else {
            gaps.push(format!("it was released under plan {}, but has no record of that", plan.0));
            continue;
        };
        let required = planned.note(key::APPROVAL_REQUIRED) == Some("true");
        if required && !told.approved.iter().any(|event| plan_of(event) == Some(plan)) {
            gaps.push("it was released, but has no record of its approval".to_owned());
        }
    }
    gaps
}

/// Nothing may run that was not released.
fn of_members(told: &Told<'_>, members: &[Member]) -> Vec<String> {
    let (plan, released) = (told.plan(), told.released_to());
    let mut gaps = Vec::new();
    for Member { uid, plan: number, index, .. } in members.iter().filter(|member| member.says_it_ran()) {
        if *index >= released {
            gaps.push(format!("index {index} ran, but has no record of its release (request {uid})"));
        } else if let Some((counts, _)) = plan.filter(|(counts, _)| counts != number) {
            gaps.push(format!("index {index} ran under plan {number}, and plan {counts} was released (request {uid})"));
        }
    }
    gaps
}

/// Everything that was released has ended, and the numbers are those of the records.
fn of_the_end(told: &Told<'_>, end: &Event, plan: Plan<'_>, members: &[Member]) -> Vec<String> {
    let mut gaps = Vec::new();
    let number = |key| end.number(key).unwrap_or(0);
    let released = number(key::RELEASED);
    if released > told.released_to() {
        gaps.push(format!(
            "{released} of its targets were released at its end, but the records say that {} were",
            told.released_to()
        ));
    }
    let counts = plan.0;
    let of_plan = || members.iter().filter(move |member| member.plan == counts);
    let indexes = |wanted: &dyn Fn(&Member) -> bool| -> IndexSet {
        let all = of_plan().filter(|member| wanted(member)).filter_map(|member| u16::try_from(member.index).ok());
        all.filter(|index| *index < MOST_TARGETS).collect()
    };
    let ended = indexes(&Member::has_ended);
    let released = u16::try_from(released).unwrap_or(0).min(MOST_TARGETS);
    let gone = told.gone(plan);
    let accounted = |index: u16| ended.contains(index) || gone.contains(index);
    let missing: IndexSet = (0..released).filter(|index| !accounted(*index)).collect();
    if !missing.is_empty() {
        gaps.push(format!(
            "of the released indexes {missing} no request has a record of its end: {} of {released}",
            missing.len()
        ));
    }
    if end.verb == Verb::Denied {
        return gaps;
    }
    let succeeded = indexes(&Member::succeeded);
    // One that was deleted right after it had succeeded counts as gone.
    let at_least = succeeded.iter().filter(|index| !gone.contains(*index)).count();
    let succeeded = succeeded.len();
    if number(key::SUCCEEDED) > succeeded.into() || number(key::SUCCEEDED) < i64::try_from(at_least).unwrap_or(0) {
        gaps.push(format!(
            "{} targets are said to have succeeded, and the records of its requests say that {succeeded} did",
            number(key::SUCCEEDED)
        ));
    }
    let total = told.planned_as(plan).and_then(|planned| planned.number(key::TOTAL));
    let keys = [key::SUCCEEDED, key::FAILED, key::NOT_RUN, key::UNKNOWN, key::SKIPPED];
    let accounted: i64 = keys.into_iter().map(number).sum();
    if let Some(total) = total.filter(|total| *total != accounted) {
        gaps.push(format!("it has ended, and {accounted} of {total} targets are accounted for"));
    }
    if let Some(member) = of_plan().find(|member| total.is_some_and(|total| member.index >= total)) {
        gaps.push(format!(
            "index {} is none of its {} targets (request {})",
            member.index,
            total.unwrap_or(0),
            member.uid
        ));
    }
    gaps
}

#[cfg(test)]
#[path = "whole_tests.rs"]
mod tests;
