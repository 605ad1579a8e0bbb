//! Two managers that believe to lead, in the middle of a plan.

use std::{collections::BTreeSet, time::Duration};

use execlet::api::ExecRequest;
use kube::api::ListParams;
use serde_json::json;

use crate::{
    batch_lab::{Seen, everywhere},
    lab::{Lab, wait_for, wait_within},
    leader::{self, Stopped},
    leading::leader,
    turnstile::Turnstile,
};

/// More than are made beside each other.
const PODS: usize = 18;
/// What is left of a plan that does not count is swept once a minute.
const SWEPT_WITHIN: Duration = Duration::from_secs(150);

impl Lab {
    /// The requests of one plan of a batch that are there.
    async fn of_plan(&self, seen: &Seen, plan: i64) -> Vec<ExecRequest> {
        let params = ListParams::default().fields(&format!("spec.batch.uid={}", seen.uid()));
        let all = self.requests().list(&params).await.expect("a list").items;
        all.into_iter().filter(|child| child.spec.batch.as_ref().is_some_and(|place| place.plan == plan)).collect()
    }
}

// The webhook answers beside kubectl.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_stopped_while_it_plans_and_goes_on_after_another_has_planned_runs_nothing() {
    let lab = Lab::alone().await;
    lab.pods_named("web", PODS).await;
    let turnstile = Turnstile::holding(&lab, 1).await;
    let name = lab.batch(everywhere("echo ran >> /tmp/runs; sleep 0.5", json!({"parallelism": 3})));
    wait_for("the first plan to be under way", async || (turnstile.arrived(1).len() >= 8).then_some(())).await;
    let stopped = Stopped::leader();
    assert!(turnstile.arrived(1).len() < PODS, "some of its creations are sent, and others not");
    // It does not know that, and goes on as if it led when it can.
    leader::give_back();
    let seen = lab.batch_when(&name, "to be planned by another", |seen| seen.total() > 0).await;
    assert_eq!(seen.status.plan.as_ref().map(|plan| plan.number), Some(2), "the first plan was never frozen");
    assert_ne!(leader().as_ref(), Some(&stopped.pod));
    turnstile.open();
    drop(stopped);
    let late = wait_for("requests of the first plan to come late", async || {
        Some(lab.of_plan(&seen, 1).await).filter(|late| !late.is_empty())
    })
    .await;
    let done = lab.batch_ended(&name).await;
    done.ended("Succeeded", "Completed", [18, 0, 0, 0, 0]);
    let mut unbound: BTreeSet<String> = late.iter().filter_map(|child| child.metadata.name.clone()).collect();
    wait_within(SWEPT_WITHIN, "the requests of the first plan to be swept", async || {
        let left = lab.of_plan(&seen, 1).await;
        for child in &left {
            let status = child.status.as_ref().expect("a status");
            assert_eq!((&status.node_name, &status.exec_id), (&None, &None), "{status:#?}");
            unbound.extend(child.metadata.name.clone());
        }
        left.is_empty().then_some(())
    })
    .await;
    println!("{} requests of the first plan came late", unbound.len());
    for index in 0..PODS {
        assert_eq!(lab.runs(&format!("web-{index}")), 1, "web-{index}");
    }
    assert_eq!(lab.of_plan(&seen, 2).await.len(), PODS);
}
