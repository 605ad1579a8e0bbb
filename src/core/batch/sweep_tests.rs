use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::batch::Plan,
    core::batch::{
        child,
        end::End,
        fixture::{at, batch, frozen, target},
        ledger::Ledger,
        seen::Seen,
    },
};

fn made(plan: i64, index: u16, status: &Value) -> ExecRequest {
    let mut child = child::child(&batch(&json!({})), plan, index, &target(index)).expect("a child");
    child.status = Some(serde_json::from_value(status.clone()).expect("a status"));
    child
}

fn held() -> Value {
    json!({})
}

fn bound() -> Value {
    json!({"nodeName": "n"})
}

fn ended() -> Value {
    json!({"completionTime": "1970-01-01T00:00:01.000000Z"})
}

fn ended_on_node() -> Value {
    json!({"nodeName": "n", "completionTime": "1970-01-01T00:00:01.000000Z"})
}

#[test]
fn of_a_frozen_plan_its_own_children_are_kept_and_every_other_goes() {
    let batch = frozen(&json!({}), 2, 1);
    for (plan, index, status, wanted) in [
        (1, 0, held(), Broom::Keep),
        (1, 1, held(), Broom::Keep),
        (1, 0, ended(), Broom::Keep),
        (1, 2, held(), Broom::Delete),
        (2, 0, held(), Broom::Delete),
        (0, 0, held(), Broom::Delete),
        (0, 0, ended(), Broom::Delete),
        (0, 0, bound(), Broom::Cancel),
        (0, 0, ended_on_node(), Broom::Keep),
    ] {
        assert_eq!(Counting::of(Some(&batch)).sweep(&made(plan, index, &status)), wanted, "{plan} {index} {status}");
    }
}

#[test]
fn while_a_plan_is_under_way_only_those_of_earlier_ones_go() {
    let mut batch = batch(&json!({}));
    let status = batch.status.as_mut().expect("a status");
    status.plan = Some(Plan { number: 2, ..Plan::default() });
    for (plan, wanted) in [(1, Broom::Delete), (2, Broom::Keep), (3, Broom::Keep)] {
        assert_eq!(Counting::of(Some(&batch)).sweep(&made(plan, 0, &held())), wanted, "{plan}");
    }
    batch.status.as_mut().expect("a status").completion_time = Some(MicroTime(at(1)));
    assert_eq!(
        Counting::of(Some(&batch)).sweep(&made(2, 0, &held())),
        Broom::Delete,
        "it was refused: nothing of it runs"
    );
}

#[test]
fn what_is_accounted_for_is_bound_by_nobody() {
    let mut batch = frozen(&json!({}), 2, 2);
    let mut ledger = Ledger::default();
    ledger.put(0, End::Unknown);
    ledger.write(batch.status.as_mut().expect("a status"));
    for (index, status, wanted) in
        [(0, held(), Broom::Delete), (1, held(), Broom::Keep), (0, ended(), Broom::Keep), (0, bound(), Broom::Cancel)]
    {
        assert_eq!(Counting::of(Some(&batch)).sweep(&made(1, index, &status)), wanted, "{index} {status}");
    }
}

#[test]
fn of_a_batch_that_is_gone_nothing_starts_and_nothing_goes_on() {
    for (status, wanted) in [(held(), Broom::Delete), (bound(), Broom::Cancel), (ended(), Broom::Keep)] {
        assert_eq!(Counting::of(None).sweep(&made(1, 0, &status)), wanted, "{status}");
    }
    let mut canceled = made(1, 0, &bound());
    canceled.spec.cancel = true;
    assert_eq!(Counting::of(None).sweep(&canceled), Broom::Keep, "it was told already");
}

#[test]
fn of_what_a_watch_has_told_only_strays_are_looked_at() {
    let mut batch = frozen(&json!({}), 3, 2);
    let mut ledger = Ledger::default();
    ledger.put(1, End::Unknown);
    ledger.write(batch.status.as_mut().expect("a status"));
    let all: Children = (0..4).map(|index| (index, Seen::of(&made(1, index, &held())))).collect();
    assert_eq!(Counting::of(Some(&batch)).strays(1, &all), [1, 3]);
    assert_eq!(Counting::of(Some(&batch)).strays(2, &all), [0, 1, 2, 3]);
    assert_eq!(Counting::of(None).strays(1, &all), [0, 1, 2, 3]);
}
