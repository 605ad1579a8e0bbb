use serde_json::json;

use super::*;
use crate::{
    api::batch::{Group, status::MOST_GROUPS},
    core::batch::{
        MOST_TARGETS,
        fixture::{at, batch, frozen},
        indexes::IndexSet,
        stop::stop,
    },
};

/// Most bytes of a status.
const MOST_BYTES: usize = 128 << 10;

fn write(status: &ExecBatchStatus) -> Write<'_> {
    Write { status, generation: Some(1), at: at(300) }
}

fn told(status: &ExecBatchStatus, kind: ConditionType) -> Option<(&str, &str)> {
    conditions::get(&status.conditions, kind).map(|condition| (condition.status.as_str(), condition.reason.as_str()))
}

#[test]
fn a_plan_is_begun_and_frozen() {
    let status = write(&ExecBatchStatus::default()).planning(3);
    assert_eq!((status.phase, told(&status, Planned)), (BatchPhase::Planning, Some(("False", "Planning"))));
    let mut ledger = Ledger::default();
    ledger.put(1, End::NotRun);
    let status = write(&status).frozen(4, "abc", &ledger);
    let plan = Plan { number: 3, total: Some(4), digest: Some("abc".to_owned()), time: Some(MicroTime(at(300))) };
    assert_eq!((status.phase, status.plan.as_ref()), (BatchPhase::Planned, Some(&plan)));
    assert_eq!((status.done.as_str(), status.not_run.indexes.as_str()), ("1/4", "1"));
    assert_eq!(told(&status, Planned), Some(("True", "Planned")));
    let again = write(&status).planning(4);
    assert_eq!(again.plan.and_then(|plan| plan.total), None, "a new plan has no total");
}

/// The end of a batch of four with these ends, of which so many were released.
fn end(spec: &serde_json::Value, released: i32, ends: &[End]) -> ExecBatchStatus {
    let batch = frozen(spec, 4, released);
    let mut situation = Situation::of(&batch, at(300)).expect("readable").expect("frozen");
    (0..).zip(ends).for_each(|(index, end)| situation.ledger.put(index, *end));
    let stop = stop(&situation);
    write(situation.status).finished(&situation, stop.as_ref(), Grouped::default())
}

#[test]
fn the_end_of_a_batch_has_its_name() {
    use End::{Failed, NotRun, Skipped, Succeeded as Good, Unknown};
    let free = json!({"failurePolicy": {"maxFailed": "100%"}});
    for (spec, released, ends, phase, reason) in [
        (json!({}), 4, [Good; 4], BatchPhase::Succeeded, "Completed"),
        (json!({}), 4, [Good, Skipped, Good, Good], BatchPhase::Succeeded, "Completed"),
        (json!({"cancel": true}), 4, [Good; 4], BatchPhase::Succeeded, "Completed"),
        (free.clone(), 4, [Good, Failed, Good, Good], BatchPhase::Failed, "TargetsFailed"),
        (free, 4, [Good, Unknown, NotRun, Good], BatchPhase::Failed, "TargetsFailed"),
        (json!({}), 4, [Good, Good, Good, Failed], BatchPhase::Failed, "TargetsFailed"),
        (json!({}), 1, [Failed, NotRun, NotRun, NotRun], BatchPhase::Failed, "TooManyFailed"),
        (json!({"cancel": true}), 1, [Good, NotRun, NotRun, NotRun], BatchPhase::Failed, "Canceled"),
    ] {
        let status = end(&spec, released, &ends);
        let succeeded = if phase == BatchPhase::Succeeded { "True" } else { "False" };
        assert_eq!((status.phase, told(&status, Finished)), (phase, Some(("True", reason))), "{spec} {ends:?}");
        assert_eq!(told(&status, Succeeded), Some((succeeded, reason)));
        assert_eq!(told(&status, Stalled).is_some(), phase == BatchPhase::Failed);
        assert_eq!((told(&status, Reconciling), status.done.as_str(), status.active), (None, "4/4", 0));
        assert!(status.completion_time.is_some());
    }
}

#[test]
fn what_is_refused_says_that_nothing_ran() {
    let status = write(&ExecBatchStatus::default()).refused(&Refusal::new(Reason::NoTargets, "none"));
    assert_eq!((status.phase, told(&status, Finished)), (BatchPhase::Failed, Some(("True", "NoTargets"))));
    let finished = conditions::get(&status.conditions, Finished).expect("a condition");
    assert_eq!(finished.message, "nothing ran: none");
}

#[test]
fn ten_thousand_targets_with_the_worst_pattern_of_ends_stay_below_128_kib() {
    let batch = batch(&json!({}));
    let mut ledger = Ledger::default();
    // No two neighbours ended the same.
    for index in 0..MOST_TARGETS {
        ledger.put(index, End::ALL[usize::from(index) % End::ALL.len()]);
    }
    let long = "x".repeat(2 * LONGEST_MESSAGE);
    let mut status = write(&ExecBatchStatus::default()).planning(i64::MAX);
    status = write(&status).frozen(MOST_TARGETS, &"d".repeat(64), &Ledger::default());
    status.released = MOST_TARGETS.into();
    for kind in [Planned, Approved, Finished, Succeeded, Reconciling, Stalled] {
        write(&ExecBatchStatus::default()).set(
            &mut status,
            kind,
            Truth::Unknown,
            Reason::StartingDeadlineExceeded,
            &long,
        );
    }
    // All in groups, and none next to one of its own.
    let group = |number: usize| {
        let members = (0..MOST_TARGETS).filter(|index| usize::from(*index) % MOST_GROUPS == number);
        let indexes: IndexSet = members.collect();
        Group {
            count: indexes.len().into(),
            indexes: indexes.to_string(),
            reason: Reason::StartingDeadlineExceeded.to_string(),
            exit_code: Some(255),
            stdout_sha256: Some("a".repeat(64)),
            stderr_sha256: Some("b".repeat(64)),
            output_complete: Some(false),
            example: "x".repeat(63),
        }
    };
    let mut batch = batch;
    batch.status = Some(status);
    let mut situation = Situation::of(&batch, at(300)).expect("readable").expect("frozen");
    situation.ledger = ledger;
    let grouped = Grouped { groups: (0..MOST_GROUPS).map(group).collect(), others: 0 };
    let status = write(situation.status).finished(&situation, None, grouped);
    let bytes = serde_json::to_vec(&status).expect("JSON").len();
    println!("the largest status has {bytes} bytes");
    assert!(bytes < MOST_BYTES, "{bytes} bytes");
    assert!(bytes > 100_000, "{bytes} bytes: this is not the worst");
}
