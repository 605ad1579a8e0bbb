use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{ExecRequest, Reason},
    core::batch::{
        end::End,
        fixture::{at, batch, frozen, held},
        ledger::Ledger,
    },
};

/// A child with these fields of its status, as a watch tells of it.
fn seen(batch: &ExecBatch, index: u16, status: &Value) -> Seen {
    let mut child: ExecRequest = held(batch, index);
    child.status = Some(serde_json::from_value(status.clone()).expect("a status"));
    Seen::of(&child)
}

fn of(stage: &str) -> Value {
    let by = json!("1970-01-01T00:02:40.000000Z");
    match stage {
        "held" => json!({}),
        "waiting" => json!({"startBy": by}),
        "bound" => json!({"startBy": by, "nodeName": "n"}),
        "running" => json!({"startBy": by, "nodeName": "n", "execID": "e"}),
        "ended" => json!({"startBy": by, "completionTime": by}),
        other => panic!("{other}"),
    }
}

/// The tasks of a batch of four, of which two are released, with these stages of its children; `-` is one that the watch
/// does not know.
fn tasks_of(batch: &ExecBatch, stages: [&str; 4], second: i64) -> Vec<(u16, Task)> {
    let children = (0..)
        .zip(stages)
        .filter(|(_, stage)| *stage != "-")
        .map(|(index, stage)| (index, seen(batch, index, &of(stage))));
    match step(batch, &children.collect(), at(second)).expect("a step") {
        Step::Tend(tasks) => tasks,
        other => panic!("{other:?}"),
    }
}

fn looks(indexes: &[u16]) -> Vec<(u16, Task)> {
    indexes.iter().map(|index| (*index, Task::Look)).collect()
}

#[test]
fn a_stage_is_told_by_the_status() {
    let batch = frozen(&json!({}), 1, 1);
    for (stage, wanted) in [
        ("held", Stage::Held),
        ("waiting", Stage::Waiting { start_by: Some(at(160)) }),
        ("bound", Stage::Bound { start_by: Some(at(160)) }),
        ("running", Stage::Running),
        ("ended", Stage::Ended),
    ] {
        assert_eq!(seen(&batch, 0, &of(stage)).stage, wanted);
    }
}

#[test]
fn what_is_not_frozen_is_planned_with_the_next_number() {
    let now = at(1);
    let mut batch = batch(&json!({}));
    assert_eq!(step(&batch, &Children::new(), now), Ok(Step::Plan(1)));
    batch.status.as_mut().expect("a status").plan = Some(crate::api::batch::Plan { number: 4, ..Default::default() });
    assert_eq!(step(&batch, &Children::new(), now), Ok(Step::Plan(5)), "who began the fourth did not freeze it");
    batch.spec.suspend = true;
    assert_eq!(step(&batch, &Children::new(), now), Ok(Step::Plan(5)), "planning runs nothing");
    batch.spec.cancel = true;
    assert!(matches!(step(&batch, &Children::new(), now), Ok(Step::Refuse(why)) if why.reason == Reason::Canceled));
    batch.metadata.deletion_timestamp = Some(Time(now));
    assert!(matches!(step(&batch, &Children::new(), now), Ok(Step::Refuse(why)) if why.reason == Reason::Deleted));
}

#[test]
fn what_is_final_is_left_alone() {
    let mut batch = frozen(&json!({}), 2, 2);
    batch.status.as_mut().expect("a status").completion_time = Some(MicroTime(at(1)));
    assert_eq!(step(&batch, &Children::new(), at(2)), Ok(Step::Done));
}

#[test]
fn a_status_that_cannot_be_read_decides_nothing() {
    let mut batch = frozen(&json!({}), 2, 2);
    batch.status.as_mut().expect("a status").failed.indexes = "0-".to_owned();
    assert!(step(&batch, &Children::new(), at(2)).is_err());
}

#[test]
fn a_released_child_is_looked_at_when_there_may_be_something_to_do() {
    let batch = frozen(&json!({"parallelism": 2}), 4, 2);
    for (stages, second, wanted) in [
        (["held", "held", "held", "held"], 101, vec![0, 1]),
        (["waiting", "running", "held", "held"], 101, vec![0]),
        (["bound", "running", "held", "held"], 101, vec![]),
        (["bound", "running", "held", "held"], 160, vec![0]),
        (["ended", "-", "held", "held"], 101, vec![0, 1]),
        // Held ones are another leader's business, but for the next.
        (["running", "running", "-", "-"], 101, vec![]),
        (["running", "running", "ended", "held"], 101, vec![2]),
    ] {
        assert_eq!(tasks_of(&batch, stages, second), looks(&wanted), "{stages:?} at {second}");
    }
}

#[test]
fn the_next_to_be_released_are_looked_for_if_the_watch_does_not_know_them() {
    let batch = frozen(&json!({"parallelism": 3}), 4, 2);
    assert_eq!(tasks_of(&batch, ["running", "running", "-", "-"], 101), looks(&[2]));
    let preview = frozen(&json!({"releaseLimit": 0}), 4, 0);
    assert_eq!(tasks_of(&preview, ["-", "-", "-", "-"], 60), looks(&[]));
}

#[test]
fn a_held_child_that_somebody_gives_up_is_looked_at() {
    let batch = frozen(&json!({}), 4, 0);
    let mut children: Children = (0..4).map(|index| (index, seen(&batch, index, &json!({})))).collect();
    children.get_mut(&2).expect("a child").canceled = true;
    children.get_mut(&3).expect("a child").deleting = true;
    assert_eq!(step(&batch, &children, at(60)), Ok(Step::Tend(looks(&[2, 3]))));
}

#[test]
fn what_is_accounted_for_needs_nothing() {
    let mut batch = frozen(&json!({"parallelism": 2, "failurePolicy": {"maxFailed": "100%"}}), 4, 2);
    let mut ledger = Ledger::default();
    ledger.put(0, End::Succeeded);
    ledger.put(2, End::NotRun);
    ledger.write(batch.status.as_mut().expect("a status"));
    assert_eq!(tasks_of(&batch, ["-", "-", "-", "-"], 101), looks(&[1, 3]), "3 is next: 2 takes no place");
}

#[test]
fn a_stop_ends_what_is_held_and_a_hard_one_what_runs() {
    let failed = |action: &str| {
        let mut batch = frozen(&json!({"failurePolicy": {"maxFailed": 0, "action": action}}), 4, 2);
        let mut ledger = Ledger::default();
        ledger.put(0, End::Failed);
        ledger.write(batch.status.as_mut().expect("a status"));
        batch
    };
    let kinds = |tasks: Vec<(u16, Task)>| -> Vec<(u16, &str)> {
        let kind = |task| match task {
            Task::Look => "look",
            Task::End(why) if why.reason == Reason::TooManyFailed => "end",
            Task::End(why) => panic!("{why:?}"),
            Task::Cancel => "cancel",
        };
        tasks.into_iter().map(|(index, task)| (index, kind(task))).collect()
    };
    let stages = ["-", "running", "held", "-"];
    assert_eq!(kinds(tasks_of(&failed("StopReleasing"), stages, 101)), [(2, "end"), (3, "end")]);
    assert_eq!(kinds(tasks_of(&failed("CancelRunning"), stages, 101)), [(1, "cancel"), (2, "end"), (3, "end")]);
    // An older state was restored, before the release of what runs.
    let stages = ["-", "running", "running", "held"];
    assert_eq!(kinds(tasks_of(&failed("StopReleasing"), stages, 101)), [(2, "cancel"), (3, "end")]);
}

#[test]
fn not_all_of_ten_thousand_are_ended_before_the_first_is_told() {
    let batch = frozen(&json!({"cancel": true}), 10_000, 0);
    let Ok(Step::Tend(tasks)) = step(&batch, &Children::new(), at(60)) else { panic!("it is tended") };
    assert_eq!(tasks.len(), ENDED_AT_ONCE);
}
