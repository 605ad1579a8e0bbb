//! One batch of 2,000 targets, on nodes whose agents are simulated.
//!
//! Real are the API server with its policies, the managers, and every call that an agent makes for a request of a batch.
//! Simulated are the nodes, the pods and the commands, which end at once: every other one fails, so that no two indexes in
//! a row are in one set. `make fleet`; `FLEET_TARGETS` sets how many targets.

mod agent;
#[path = "../e2e/batch_lab.rs"]
mod batch_lab;
mod ground;
mod leader;
mod somebody;
mod watched;

use std::{collections::BTreeMap, pin::pin, time::Duration};

use execlet::{
    api::{
        ExecBatch, ExecBatchStatus, ExecRequest,
        batch::{Ends, Group},
    },
    core::batch::indexes::IndexSet,
};
use futures::StreamExt;
use kube::{
    Api,
    api::{ListParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use self::{
    batch_lab::{Seen, everywhere},
    ground::Fleet,
    leader::Leader,
    somebody::{Somebody, spread},
    watched::{Watched, watch_to_its_end},
};
use crate::{
    lab::{Lab, unique, wait_within},
    number,
};

/// For all of it.
const LIMIT: Duration = Duration::from_secs(45 * 60);
/// For a batch of ten thousand.
const PATIENCE: Duration = Duration::from_secs(25 * 60);
/// For what a plan that was given up has left, three calls a request on a machine that is too busy.
const SWEPT: Duration = Duration::from_secs(10 * 60);
/// Fewer would fit into the API server whatever their tails are.
const FEWEST: u64 = 500;
const MOST: u64 = 10_000;
const PARALLELISM: &str = "10%";
const TAIL_BYTES: u32 = 256;
/// What an object may hold without being a burden.
const MOST_STATUS_BYTES: usize = 128 << 10;
/// How soon the request of somebody else has to be bound meanwhile.
const SOON: Duration = Duration::from_secs(2);
const ASKED_AT_REST: usize = 20;
/// The chart's limit for a manager.
const MEMORY_LIMIT_KIB: u64 = 512 * 1024;

/// The code of the command of an index.
pub fn code(index: i32) -> i32 {
    index % 2
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make fleet"]
async fn a_batch_of_thousands_ends_with_exact_counts_and_nobody_else_waits_for_it() {
    timeout(LIMIT, Box::pin(play())).await.expect("it ends in time");
}

async fn play() {
    let targets = number("FLEET_TARGETS", 2000);
    assert!((FEWEST..=MOST).contains(&targets), "FLEET_TARGETS={targets}: {FEWEST} to {MOST} can be shown");
    let targets = u16::try_from(targets).unwrap();
    let lab = Lab::alone().await;
    let leader = Leader::find();
    let at_rest = leader.resident();
    let begun = Instant::now();
    let fleet = Fleet::arrive(&lab).await;
    fleet.pods(&lab, targets).await;
    println!("fleet         {} nodes, {targets} pods, there after {:.0?}", fleet.nodes.len(), begun.elapsed());
    let somebody = Somebody::arrive().await;
    leader.forget_most();
    refuses(&lab, targets).await;
    let quiet = somebody.ask_often(ASKED_AT_REST).await;

    let stop = CancellationToken::new();
    let asking = AbortOnDropHandle::new(tokio::spawn(somebody.ask_until(stop.clone())));
    let begun = Instant::now();
    let (batch, watched) = run(&lab, &fleet, targets).await;
    let took = begun.elapsed();
    stop.cancel();
    let meanwhile = asking.await.expect("somebody asks to the end");
    let most = leader.most();

    let Watched { writes, largest, planned, status } = watched;
    println!(
        "batch         {}: {} succeeded, {} failed, {PARALLELISM} at a time",
        status.phase, status.succeeded.count, status.failed.count
    );
    let number = status.plan.as_ref().map_or(0, |plan| plan.number);
    println!("took          {took:.1?}, {:.1?} of it to plan; this was plan {number}", planned.expect("a plan"));
    println!("rate          {:.1} targets a second", f64::from(targets) / took.as_secs_f64());
    println!("status        {writes} writes, {largest} bytes at most");
    for (when, asked) in [("at rest", &quiet), ("meanwhile", &meanwhile)] {
        let ([taken, most_taken], [bound, most_bound]) = (spread(asked, |it| it.taken), spread(asked, |it| it.bound));
        println!(
            "somebody else {} requests {when}: bound after {bound:.0?}, {most_bound:.0?} at worst; \
             the API server took them after {taken:.0?}, {most_taken:.0?} at worst",
            asked.len()
        );
    }
    println!("manager       {at_rest} KiB at rest, {most} KiB at most");

    counts_are_exact(&status, targets);
    each_ran_once(&lab, &fleet, Seen { batch, status }, targets).await;
    assert!(largest < MOST_STATUS_BYTES, "{largest} bytes of status");
    assert!(writes < u32::from(targets), "one write tells of many targets: {writes} writes of {targets}");
    assert_eq!(Leader::find(), leader, "the manager that led still leads");
    assert!(most < MEMORY_LIMIT_KIB, "{most} KiB");
    let [_, waited] = spread(&meanwhile, |it| it.bound);
    assert!(waited < SOON, "somebody else waited {waited:.1?}");
    fleet.leave().await;
}

/// What is too much is refused whole.
async fn refuses(lab: &Lab, targets: u16) {
    let (fewer, output) = (targets - 1, json!({"tailBytes": 65536}));
    for (reason, numbers, spec) in [
        (
            "TooManyTargets",
            format!("{targets} pods were found, and targets.maxTargets is {fewer}"),
            everywhere("true", json!({"targets": {"maxTargets": fewer}})),
        ),
        (
            "PlanTooLarge",
            format!("the requests of {targets} targets would hold"),
            everywhere("true", json!({"targets": {"maxTargets": targets}, "template": {"spec": {"output": output}}})),
        ),
    ] {
        let begun = Instant::now();
        let batch = create(lab, spec).await;
        let seen = lab.batch_ended(batch.metadata.name.as_deref().expect("a name")).await;
        println!("refused       {reason} after {:.1?}: {}", begun.elapsed(), seen.message());
        assert_eq!((seen.phase().as_str(), seen.reason()), ("Failed", reason), "{:#?}", seen.status);
        assert!(seen.message().contains(&numbers), "{}", seen.message());
        let ExecBatchStatus { released, start_time, plan, .. } = &seen.status;
        let total = plan.as_ref().and_then(|plan| plan.total);
        assert_eq!((seen.counts(), *released, start_time, total), ([0; 5], 0, &None, None), "{:#?}", seen.status);
        let made = made_since(&lab.requests(), &batch).await;
        assert!(made.is_empty(), "{reason}: {made:?}");
        assert!(lab.children(&seen).await.is_empty(), "{reason}: nothing is left");
    }
}

async fn create(lab: &Lab, spec: Value) -> ExecBatch {
    let batch = json!({"apiVersion": "execlet.dev/v1alpha1", "kind": "ExecBatch",
        "metadata": {"name": unique("b")}, "spec": spec});
    let batch = serde_json::from_value(batch).expect("a batch");
    lab.batches().create(&PostParams::default(), &batch).await.expect("a batch")
}

/// What has happened to requests of a batch since it was created, whether they are still there or not.
async fn made_since(api: &Api<ExecRequest>, batch: &ExecBatch) -> Vec<String> {
    let [uid, version] = [&batch.metadata.uid, &batch.metadata.resource_version].map(|field| field.clone().unwrap());
    let params = WatchParams::default().fields(&format!("spec.batch.uid={uid}")).timeout(2);
    let mut events = pin!(api.watch(&params, &version).await.expect("a watch"));
    let mut made = Vec::new();
    while let Some(event) = events.next().await {
        match event.expect("an event") {
            WatchEvent::Bookmark(_) => {}
            event => made.push(format!("{event:?}")),
        }
    }
    made
}

/// The batch, from its creation to its end.
async fn run(lab: &Lab, fleet: &Fleet, targets: u16) -> (ExecBatch, Watched) {
    let begun = Instant::now();
    let fields = json!({
        "targets": {"maxTargets": targets}, "parallelism": PARALLELISM, "failurePolicy": {"maxFailed": "100%"},
        "template": {"spec": {"startingDeadlineSeconds": 600, "output": {"tailBytes": TAIL_BYTES}}},
    });
    let batch = create(lab, everywhere("exit $((EXECLET_BATCH_INDEX % 2))", fields)).await;
    let watching = watch_to_its_end(lab.batches(), batch.clone(), begun);
    let mut watching = AbortOnDropHandle::new(tokio::spawn(watching));
    let watched = loop {
        if let Ok(watched) = timeout(Duration::from_secs(1), &mut watching).await {
            break watched.expect("the batch is watched to its end");
        }
        let wrong = fleet.tally.wrong();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(begun.elapsed() < PATIENCE, "it does not end:\n{}", lab.report("none"));
    };
    let wrong = fleet.tally.wrong();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    (batch, watched)
}

/// Each index is in the one set that it belongs to, and in the one group.
fn counts_are_exact(status: &ExecBatchStatus, targets: u16) {
    let of = |first: u16| -> IndexSet { (first..targets).step_by(2).collect() };
    let ends = |set: &IndexSet| Ends { count: set.len().into(), indexes: set.to_string() };
    let (succeeded, failed) = (of(0), of(1));
    assert_eq!((&status.succeeded, &status.failed), (&ends(&succeeded), &ends(&failed)));
    let none = Ends::default();
    assert_eq!([&status.not_run, &status.unknown, &status.skipped], [&none; 3]);
    assert_eq!(status.done, format!("{targets}/{targets}"));
    assert_eq!((i32::from(targets), 0), (status.released, status.active));
    let told = |group: &Group| (group.reason.clone(), group.exit_code, group.count, group.indexes.clone());
    let group = |reason: &str, code, set: &IndexSet| (reason.to_owned(), Some(code), set.len().into(), set.to_string());
    let groups: Vec<_> = status.groups.iter().map(told).collect();
    assert_eq!(groups, [group("Completed", 0, &succeeded), group("NonZeroExitCode", 1, &failed)]);
    assert_eq!(status.others, Some(0));
}

/// What the requests say, and what their agents did.
async fn each_ran_once(lab: &Lab, fleet: &Fleet, seen: Seen, targets: u16) {
    let plan = seen.status.plan.as_ref().expect("a plan").number;
    let fields = ListParams::default().fields(&format!("spec.batch.uid={}", seen.uid()));
    let children = wait_within(SWEPT, "the requests of a plan that was given up to be gone", async || {
        let list = lab.requests().list(&fields).await.ok()?.items;
        let place = |child: &ExecRequest| child.spec.batch.as_ref().map(|place| (place.plan, place.index));
        let children: BTreeMap<_, _> = list.into_iter().map(|child| (place(&child).expect("a batch"), child)).collect();
        children.keys().all(|(of, _)| *of == plan).then_some(children)
    })
    .await;
    let indexes: Vec<i32> = children.keys().map(|(_, index)| *index).collect();
    assert_eq!(indexes, (0..targets.into()).collect::<Vec<i32>>());
    let started = fleet.tally.started(seen.uid());
    for ((_, index), child) in children {
        let status = child.status.as_ref().expect("a status");
        let node = fleet.node_of(usize::try_from(index).expect("an index"));
        assert_eq!(
            (status.exit_code, status.node_name.as_deref()),
            (Some(code(index)), Some(node)),
            "{index}: {status:?}"
        );
        assert_eq!(started.get(&index), Some(&1), "{index}");
    }
    assert_eq!(started.len(), usize::from(targets), "nothing else ran");
}
