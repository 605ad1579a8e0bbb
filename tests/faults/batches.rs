//! Batches while what leads, runs and stores them is killed: the leading manager most of all, agents, and the API server.
//!
//! `make faults-batches` does 50 rounds of a batch of 200 targets; `FAULT_ROUNDS` and `FAULT_TARGETS` set how many,
//! `FAULT_SEED` which choices are made.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use execlet::{
    api::{ExecBatch, ExecBatchStatus},
    core::batch::{end::End, ledger::Ledger},
};
use k8s_openapi::jiff::Timestamp;
use kube::{Api, api::PostParams};
use serde_json::json;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    NODES,
    lab::{IMAGE, Lab, cluster},
    leading, mend, node, number,
    random::Random,
    runs, strike,
    verdict::Kind,
};

/// How long a batch may take to end after the last fault was mended.
const PATIENCE: Duration = Duration::from_secs(300);
/// So many pods are started at a time: a node that starts a hundred keeps some of them waiting for minutes.
const AT_A_TIME: u64 = 20;

/// Kills whichever manager leads, if one does.
fn kill_leader() -> bool {
    let found = leading::leader().and_then(|leader| leading::container(&leader));
    found.is_some_and(|(node, id)| node::try_kill(&node, &id).status.success())
}

/// Strikes at random until told to stop; gives how often at what.
async fn strike_until(stop: CancellationToken, mut random: Random) -> BTreeMap<&'static str, u32> {
    let mut struck = BTreeMap::new();
    while !stop.is_cancelled() {
        sleep(random.millis(200..2500)).await;
        let what = match random.below(10) {
            0..7 => kill_leader().then_some("manager"),
            7..9 => strike(Kind::Agent(random.pick(&NODES).unwrap())).await.map(|_| "agent"),
            _ => strike(Kind::ApiServer).await.map(|_| "API server"),
        };
        if let Some(what) = what {
            *struck.entry(what).or_default() += 1;
        }
    }
    struck
}

async fn targets(lab: &Lab, folder: &str, count: u64) {
    for first in (0..count).step_by(usize::try_from(AT_A_TIME).unwrap()) {
        some_targets(lab, folder, first..count.min(first + AT_A_TIME)).await;
    }
}

async fn some_targets(lab: &Lab, folder: &str, indexes: Range<u64>) {
    for index in indexes.clone() {
        // On the node, so that one look there tells of all.
        let volume = json!({"name": "data", "hostPath": {"path": folder, "type": "DirectoryOrCreate"}});
        let container = json!({"name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "1000000"], "volumeMounts": [{"name": "data", "mountPath": "/data"}]});
        let node = NODES[usize::try_from(index % 2).unwrap()];
        let spec = json!({"nodeName": node, "containers": [container], "volumes": [volume]});
        lab.create_pod(&format!("t-{index}"), spec, json!({})).await;
    }
    for index in indexes {
        lab.ready(&format!("t-{index}")).await;
    }
}

async fn create(api: &Api<ExecBatch>, name: &str, parallelism: u64) {
    let script = r#"echo "$EXECLET_BATCH $EXECLET_BATCH_INDEX" >> /data/runs; sleep 0.2"#;
    let batch: ExecBatch = serde_json::from_value(json!({
        "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecBatch", "metadata": {"name": name},
        "spec": {"targets": {"all": true}, "parallelism": parallelism, "failurePolicy": {"maxFailed": "100%"},
            "template": {"spec": {"command": ["sh", "-c", script], "startingDeadlineSeconds": 300}}},
    }))
    .unwrap();
    loop {
        match api.create(&PostParams::default(), &batch).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.code == 409 => return,
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn ended(api: &Api<ExecBatch>, name: &str, patience: Duration) -> Option<ExecBatchStatus> {
    let until = Instant::now() + patience;
    loop {
        let status = api.get(name).await.ok().and_then(|batch| batch.status);
        if let Some(status) = status.filter(|status| status.completion_time.is_some()) {
            return Some(status);
        }
        if Instant::now() > until {
            return None;
        }
        sleep(Duration::from_millis(250)).await;
    }
}

/// What is wrong with what a batch says, after what ran.
fn judge(name: &str, status: &ExecBatchStatus, targets: u64, ran: &BTreeMap<u16, u32>) -> Vec<String> {
    let mut wrong = Vec::new();
    let ledger = Ledger::of(status).expect("a readable status");
    let total = status.plan.as_ref().and_then(|plan| plan.total);
    if total.and_then(|total| u64::try_from(total).ok()) != Some(targets) {
        wrong.push(format!("{name}: {total:?} targets are planned, not {targets}"));
    }
    for index in 0..u16::try_from(targets).unwrap() {
        let starts = ran.get(&index).copied().unwrap_or(0);
        let end = ledger.end_of(index);
        let fits = match end {
            Some(End::Succeeded) => starts == 1,
            Some(End::NotRun | End::Skipped) => starts == 0,
            Some(End::Failed | End::Unknown) => starts <= 1,
            None => false,
        };
        if !fits {
            wrong.push(format!("{name}: index {index} ran {starts} times and is said to be {end:?}"));
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_a_batch_runs_once_in_each_of_its_targets() {
    let (rounds, targets_of) = (number("FAULT_ROUNDS", 50), number("FAULT_TARGETS", 200));
    let seed = number("FAULT_SEED", u64::try_from(Timestamp::now().as_second()).unwrap());
    let mut random = Random::new(seed);
    let lab = Lab::alone().await;
    let folder = format!("/var/lib/execlet-faults-{}", lab.namespace);
    println!("{rounds} batches of {targets_of} targets, FAULT_SEED={seed}");
    targets(&lab, &folder, targets_of).await;
    let api: Api<ExecBatch> = Api::namespaced(lab.client.clone(), &lab.namespace);
    let begun = Instant::now();
    let (mut violations, mut ends, mut struck) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    let mut duplicates = 0;
    for round in 0..rounds {
        let name = format!("b{round}");
        let stop = CancellationToken::new();
        let striking = tokio::spawn(strike_until(stop.clone(), Random::new(seed ^ (round << 8) ^ 0xBA7C)));
        create(&api, &name, random.below(40) + 10).await;
        // Most of a batch, or all of it.
        ended(&api, &name, random.millis(5_000..30_000)).await;
        stop.cancel();
        for (what, times) in striking.await.expect("the striker ends") {
            *struck.entry(what).or_insert(0) += times;
        }
        mend().await;
        let Some(status) = ended(&api, &name, PATIENCE).await else {
            violations.push(format!("{name} has not finished"));
            break;
        };
        let mut ran: BTreeMap<u16, u32> = BTreeMap::new();
        for line in NODES.iter().flat_map(|node| runs(node, &folder)) {
            if let Some(index) = line.strip_prefix(&format!("{name} ")).and_then(|index| index.parse().ok()) {
                *ran.entry(index).or_default() += 1;
            }
        }
        duplicates += ran.values().filter(|starts| **starts > 1).count();
        violations.extend(judge(&name, &status, targets_of, &ran));
        for end in [("succeeded", &status.succeeded), ("failed", &status.failed), ("notRun", &status.not_run)]
            .into_iter()
            .chain([("unknown", &status.unknown), ("skipped", &status.skipped)])
        {
            *ends.entry(end.0).or_insert(0) += end.1.count;
        }
        println!(
            "batch {} of {rounds}: {}, {duplicates} duplicates, {} violations, killed {struck:?}, {:.0?}",
            round + 1,
            status.phase,
            violations.len(),
            begun.elapsed()
        );
    }
    println!("killed        {struck:?}");
    println!("targets       {} {ends:?}", rounds * targets_of);
    println!("duplicates    {duplicates}");
    println!("violations    {}", violations.len());
    println!("took          {:.0?}, FAULT_SEED={seed}", begun.elapsed());
    assert!(violations.is_empty(), "{}\n{}", violations.join("\n"), lab.report("none"));
    assert!(struck.get("manager").is_some_and(|times| u64::from(*times) >= rounds), "leaders were killed: {struck:?}");
    for node in NODES {
        cluster(&["exec", node, "rm", "-r", &folder]);
    }
}
