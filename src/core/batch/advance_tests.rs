use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{BatchPhase, ExecBatch, Reason, conditions, conditions::ConditionType},
    core::batch::{
        fixture::{at, frozen, held},
        seen::{Seen, Stage},
    },
};

const NOW: i64 = 200;

fn with_ends(mut batch: ExecBatch, ends: &[(u16, End)]) -> ExecBatch {
    let mut ledger = Ledger::default();
    for (index, end) in ends {
        ledger.put(*index, *end);
    }
    ledger.write(batch.status.as_mut().expect("a status"));
    batch
}

/// All children, the released ones running and the others held, as a watch knows them.
fn children(batch: &ExecBatch, total: u16) -> Children {
    let released = batch.status.as_ref().expect("a status").released;
    let stage = |index: u16| if i32::from(index) < released { Stage::Running } else { Stage::Held };
    (0..total).map(|index| (index, Seen { stage: stage(index), ..Seen::of(&held(batch, index)) })).collect()
}

fn after_at(batch: &ExecBatch, children: &Children, found: &[(u16, Found)], second: i64) -> Next {
    let situation = Situation::of(batch, at(second)).expect("readable").expect("frozen");
    advance(&situation, children, &found.iter().copied().collect())
}

fn after(batch: &ExecBatch, found: &[(u16, Found)]) -> ExecBatchStatus {
    let total = batch.status.as_ref().and_then(|status| status.plan.as_ref()?.total).expect("a total");
    match after_at(batch, &children(batch, u16::try_from(total).expect("small")), found, NOW) {
        Next::Write(status) => *status,
        Next::Finish(ledger) => panic!("it is over: {ledger:?}"),
    }
}

fn released(spec: &Value, total: i32, before: i32, ends: &[(u16, End)]) -> i32 {
    after(&with_ends(frozen(spec, total, before), ends), &[]).released
}

#[test]
fn as_many_are_released_as_may_run() {
    for (spec, total, before, ends, wanted) in [
        (json!({}), 5, 0, vec![], 1),
        (json!({"parallelism": 3}), 5, 0, vec![], 3),
        (json!({"parallelism": "50%"}), 5, 0, vec![], 3),
        (json!({"parallelism": 3}), 5, 3, vec![], 3),
        (json!({"parallelism": 3}), 5, 3, vec![(1, End::Succeeded)], 4),
        (json!({"parallelism": 3}), 5, 3, vec![(0, End::Succeeded), (1, End::Succeeded), (2, End::Succeeded)], 5),
        // What never runs takes no place.
        (
            json!({"parallelism": 2, "failurePolicy": {"maxFailed": "100%"}}),
            5,
            0,
            vec![(0, End::NotRun), (2, End::NotRun)],
            4,
        ),
        (json!({"parallelism": 2}), 5, 0, vec![(0, End::Skipped)], 3),
        // Lowered while more run: none is taken back.
        (json!({"parallelism": 1}), 5, 3, vec![], 3),
    ] {
        assert_eq!(released(&spec, total, before, &ends), wanted, "{spec} {total} {before} {ends:?}");
    }
}

#[test]
fn a_limit_holds_and_lowered_it_takes_nothing_back() {
    for (limit, before, wanted) in [
        (json!(0), 0, 0),
        (json!(1), 0, 1),
        (json!("10%"), 0, 2),
        (json!("1%"), 0, 1),
        (json!("100%"), 0, 20),
        (json!(0), 3, 3),
        (json!(30), 0, 20),
    ] {
        let spec = json!({"parallelism": 20, "releaseLimit": limit});
        assert_eq!(released(&spec, 20, before, &[]), wanted, "{limit} {before}");
    }
}

#[test]
fn what_holds_a_batch_is_said() {
    let digest = "d";
    for (spec, reason) in [
        (json!({"releaseLimit": 0}), Some(Reason::ReleaseLimit)),
        (json!({"suspend": true}), Some(Reason::Suspended)),
        (json!({"approval": {"required": true}}), Some(Reason::ApprovalRequired)),
        (json!({"approval": {"required": true, "planDigest": "another"}}), Some(Reason::ApprovalRequired)),
        (json!({"approval": {"required": true, "planDigest": digest}}), None),
        (json!({"approval": {"required": false, "planDigest": ""}}), None),
    ] {
        let status = after(&frozen(&spec, 3, 0), &[]);
        let finished = conditions::get(&status.conditions, ConditionType::Finished).expect("a condition");
        let Some(reason) = reason else {
            assert_eq!((status.released, status.phase), (1, BatchPhase::Running), "{spec}");
            continue;
        };
        assert_eq!(
            (status.released, status.phase, finished.reason.as_str()),
            (0, BatchPhase::Paused, reason.as_str()),
            "{spec}"
        );
    }
    let runs = after(&frozen(&json!({"suspend": true}), 3, 2), &[]);
    assert_eq!((runs.released, runs.phase, runs.active), (2, BatchPhase::Running, 2), "what is released goes its way");
}

#[test]
fn nothing_is_released_while_a_released_child_was_not_looked_at() {
    let batch = frozen(&json!({"parallelism": 5}), 5, 2);
    let mut children = children(&batch, 5);
    children.get_mut(&1).expect("a child").stage = Stage::Held;
    let next = |children: &Children, found: &[(u16, Found)]| match after_at(&batch, children, found, NOW) {
        Next::Write(status) => status.released,
        Next::Finish(_) => panic!("it is not over"),
    };
    assert_eq!(next(&children, &[]), 2);
    assert_eq!(next(&children, &[(1, Found::Unfinished { was_looked_at: false })]), 2, "its write lost");
    assert_eq!(next(&children, &[(1, Found::Unfinished { was_looked_at: true })]), 5);
    children.remove(&1);
    assert_eq!(next(&children, &[]), 2, "the watch does not know it");
}

#[test]
fn nothing_is_released_that_nobody_has_seen() {
    let batch = frozen(&json!({"parallelism": 5}), 5, 0);
    let mut children = children(&batch, 5);
    children.remove(&3);
    let Next::Write(status) = after_at(&batch, &children, &[], NOW) else { panic!("it is not over") };
    assert_eq!(status.released, 3);
    let Next::Write(status) = after_at(&batch, &children, &[(3, Found::Absent)], NOW) else { panic!("it is not over") };
    assert_eq!((status.released, status.not_run.indexes.as_str()), (0, "3"), "and one that never ran is one too many");
}

#[test]
fn what_is_gone_never_ran_if_it_was_not_released() {
    let batch = frozen(&json!({"parallelism": 2, "failurePolicy": {"maxFailed": "100%"}}), 5, 2);
    let status = after(&batch, &[(1, Found::Absent), (4, Found::Absent), (0, Found::Ended(End::Failed))]);
    let sets = [&status.failed, &status.unknown, &status.not_run].map(|ends| ends.indexes.as_str());
    assert_eq!((sets, status.done.as_str()), (["0", "1", "4"], "3/5"));
}

#[test]
fn the_first_release_is_the_start_and_each_has_its_time() {
    let status = after(&frozen(&json!({}), 3, 0), &[]);
    assert_eq!((status.start_time, status.released_at), (Some(MicroTime(at(NOW))), Some(MicroTime(at(NOW)))));
    let status = after(&frozen(&json!({}), 3, 1), &[(0, Found::Ended(End::Succeeded))]);
    assert_eq!((status.start_time, status.released_at), (Some(MicroTime(at(100))), Some(MicroTime(at(NOW)))));
}

/// With these of ten children ended without success, whether the batch stops, and why.
fn stops(spec: &Value, ends: &[(u16, End)], second: i64) -> Option<(Reason, bool)> {
    let batch = with_ends(frozen(spec, 10, 5), ends);
    let situation = Situation::of(&batch, at(second)).expect("readable").expect("frozen");
    stop(&situation).map(|stop| (stop.why.reason, stop.ends_running))
}

#[test]
fn a_batch_stops_when_more_end_without_success_than_may() {
    let ends = [(0, End::Failed), (1, End::NotRun), (2, End::Unknown), (3, End::Skipped), (4, End::Succeeded)];
    let may_fail = |most: &Value| json!({"failurePolicy": {"maxFailed": most}});
    for (most, stopped) in [
        (json!(0), true),
        (json!(2), true),
        (json!(3), false),
        (json!("29%"), true),
        (json!("30%"), false),
        (json!("39%"), false),
    ] {
        let wanted = stopped.then_some((Reason::TooManyFailed, false));
        assert_eq!(stops(&may_fail(&most), &ends, NOW), wanted, "{most}");
    }
    assert_eq!(stops(&may_fail(&json!("100%")), &ends, NOW), None);
    let hard = json!({"failurePolicy": {"maxFailed": 0, "action": "CancelRunning"}});
    assert_eq!(stops(&hard, &ends, NOW), Some((Reason::TooManyFailed, true)));
    assert_eq!(released(&json!({"parallelism": 9}), 10, 5, &[(0, End::Failed)]), 5, "nothing more is released");
}

#[test]
fn a_batch_stops_for_those_who_give_it_up_and_for_the_clock() {
    assert_eq!(stops(&json!({}), &[], NOW), None);
    assert_eq!(stops(&json!({"cancel": true}), &[], NOW), Some((Reason::Canceled, true)));
    let limited = json!({"activeDeadlineSeconds": 50});
    assert_eq!(stops(&limited, &[], 149), None);
    assert_eq!(stops(&limited, &[], 150), Some((Reason::DeadlineExceeded, true)));
    let mut deleted = frozen(&json!({}), 3, 1);
    deleted.metadata.deletion_timestamp = Some(Time(at(1)));
    let situation = Situation::of(&deleted, at(NOW)).expect("readable").expect("frozen");
    assert_eq!(stop(&situation).map(|stop| stop.why.reason), Some(Reason::Deleted));
}

#[test]
fn what_is_never_released_is_given_up_after_a_week() {
    let week = 7 * 24 * 3600;
    let preview = frozen(&json!({"releaseLimit": 0}), 3, 0);
    for (second, wanted) in [(50 + week - 1, None), (50 + week, Some(Reason::NotReleased))] {
        let situation = Situation::of(&preview, at(second)).expect("readable").expect("frozen");
        assert_eq!(stop(&situation).map(|stop| stop.why.reason), wanted);
    }
    let canary = frozen(&json!({"releaseLimit": 1}), 3, 1);
    let situation = Situation::of(&canary, at(50 + week)).expect("readable").expect("frozen");
    assert_eq!(stop(&situation), None);
}

#[test]
fn it_is_over_when_every_index_is_accounted_for() {
    let batch = with_ends(frozen(&json!({}), 3, 3), &[(0, End::Succeeded), (1, End::Skipped)]);
    let next = after_at(&batch, &Children::new(), &[(2, Found::Ended(End::Succeeded))], NOW);
    assert!(matches!(next, Next::Finish(ledger) if ledger.all_succeeded(3)));
    assert!(
        matches!(after_at(&frozen(&json!({}), 0, 0), &Children::new(), &[], NOW), Next::Finish(_)),
        "none is enough"
    );
}

#[test]
fn the_same_facts_again_change_nothing() {
    let mut batch = frozen(&json!({}), 3, 1);
    let first = after(&batch, &[]);
    batch.status = Some(first.clone());
    let Next::Write(second) = after_at(&batch, &children(&batch, 3), &[], NOW + 60) else { panic!("it is not over") };
    assert_eq!(*second, first, "so nothing is written");
}

mod property {
    use proptest::prelude::*;

    use super::*;

    fn any_end() -> impl Strategy<Value = End> {
        prop::sample::select(End::ALL.to_vec())
    }

    proptest! {
        /// Whatever is found, in whichever order: no count falls, nothing is released beyond the limit or beyond what may
        /// run, each index stays in its set, and `released` never falls.
        #[test]
        fn a_batch_only_goes_forward(
            parallelism in 1..6_i32,
            limit in 0..14_i32,
            most in 0..14_i32,
            rounds in prop::collection::vec(prop::collection::vec((0..12_u16, any_end(), any::<bool>()), 0..6), 1..10),
        ) {
            let spec = json!({"parallelism": parallelism, "releaseLimit": limit, "failurePolicy": {"maxFailed": most}});
            let mut batch = frozen(&spec, 12, 0);
            for round in rounds {
                let before = batch.status.clone().expect("a status");
                let found: Vec<(u16, Found)> =
                    round.iter().map(|(index, end, absent)| (*index, if *absent { Found::Absent } else { Found::Ended(*end) })).collect();
                let known = children(&batch, 12);
                let status = match after_at(&batch, &known, &found, NOW) {
                    Next::Write(status) => *status,
                    Next::Finish(ledger) => {
                        prop_assert_eq!(ledger.len(), 12);
                        break;
                    }
                };
                prop_assert!(status.released >= before.released);
                prop_assert!(status.released <= before.released.max(limit));
                let ledger = Ledger::of(&status).expect("readable");
                for (index, end) in (0..12).filter_map(|index| Some((index, Ledger::of(&before).expect("readable").end_of(index)?))) {
                    prop_assert_eq!(ledger.end_of(index), Some(end));
                }
                if status.released > before.released {
                    prop_assert!(status.active <= parallelism);
                    prop_assert!(i32::from(ledger.without_success()) <= most);
                }
                batch.status = Some(status);
            }
        }
    }
}
