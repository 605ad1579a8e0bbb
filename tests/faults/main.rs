//! Faults on the real cluster: agents, engines and the API server are killed with
//! SIGKILL at random moments while requests run, and then every request is held
//! against what really happened in its pod.
//!
//! `make faults` does 300 rounds, `make faults-short` a few. `FAULT_ROUNDS` sets how
//! many, `FAULT_MINUTES` how long they may take, `FAULT_SEED` which choices are made.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::needless_pass_by_value,
    reason = "tests: a failure is to be loud, and the lab is shared with the end-to-end tests"
)]

#[path = "../e2e/clients.rs"]
mod clients;
#[path = "../e2e/follower.rs"]
mod follower;
#[path = "../e2e/kubectl/mod.rs"]
mod kubectl;
#[path = "../e2e/lab.rs"]
mod lab;
#[path = "../e2e/leading.rs"]
mod leading;
#[path = "../e2e/live_restore.rs"]
mod live_restore;
#[path = "../e2e/node.rs"]
mod node;
#[path = "../sim/random.rs"]
mod random;
mod verdict;

mod batches;
mod beside;
mod fleet;
mod flood;
mod watched;

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use execlet::api::ExecRequest;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use serde_json::json;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use lab::{IMAGE, Lab, NAMESPACE, cluster, kubectl_raw, text, wait_for};
use live_restore::LiveRestore;
use random::Random;
use verdict::{Fault, Kind, Told, Written, judge};

/// Requests that are unfinished at a time.
const IN_FLIGHT: usize = 10;
const NODES: [&str; 2] = ["n1", "n2"];
/// The containers of this one outlive its engine.
const LIVE: &str = NODES[1];
/// How long everything may take to end well after the last fault.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a component may take to be back.
const BACK: Duration = Duration::from_secs(60);

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// What a request was told to do.
#[derive(Clone, Debug)]
struct Order {
    code: i32,
    node: &'static str,
    falsified: bool,
    terminal: bool,
    output: Written,
}

type Orders = Arc<Mutex<BTreeMap<String, Order>>>;

/// Creates requests until told to stop, and tries again while the API server is down.
async fn create(api: Api<ExecRequest>, namespace: String, orders: Orders, mut random: Random, stop: CancellationToken) {
    let mut count = 0;
    while !stop.is_cancelled() {
        let unfinished = ListParams::default().fields("status.completionTime=");
        match api.list(&unfinished).await {
            Ok(list) if list.items.len() < IN_FLIGHT => {}
            Ok(_) | Err(_) => {
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        }
        count += 1;
        let name = format!("r{count}");
        let node = *random.pick(&NODES).unwrap();
        let code = i32::try_from(random.below(100)).unwrap();
        let tty = random.chance(250);
        // On both streams, on one, on none; less than a FIFO holds, or more than is kept of a stream that nobody takes.
        let lines = if random.chance(500) { 3000 } else { 100_000 };
        let streams = match random.below(10) {
            0..2 => 2,
            2..4 => 1,
            _ => 0,
        };
        let noise = [format!("seq 1 {lines}; "), format!("seq 1 {lines} >&2; ")][..streams].concat();
        let pause = if random.chance(300) { 0 } else { random.below(2000) };
        let script = format!(
            "echo {name} start >> /data/runs; {noise}sleep {}.{:03}; {noise}echo {name} end >> /data/runs; exit {code}",
            pause / 1000,
            pause % 1000
        );
        let request = json!({
            "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"target": {"podName": node}, "command": ["sh", "-c", script], "tty": tty,
                "startingDeadlineSeconds": 300},
        });
        let request: ExecRequest = serde_json::from_value(request).unwrap();
        let falsified = streams == 2 || tty && streams > 0;
        // The noise is made twice.
        let output = Written::counting(lines, streams, 2, tty);
        orders.lock().unwrap().insert(name.clone(), Order { code, node, falsified, terminal: tty, output });
        loop {
            match api.create(&PostParams::default(), &request).await {
                Ok(_) => break,
                // An answer that got lost is found on the next try.
                Err(kube::Error::Api(status)) if status.code == 409 => break,
                Err(_) if stop.is_cancelled() => {
                    orders.lock().unwrap().remove(&name);
                    break;
                }
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    }
}

/// The PID of a node's agent on this machine, if it runs.
fn agent(node: &str) -> Option<String> {
    let label = format!("{}=agent", node::CONTAINER_NAME);
    let found = cluster(&["containers", node, &label]);
    let id = text(&found.stdout).split_whitespace().next()?.to_owned();
    let pid = cluster(&["container", node, "pid", &id]);
    Some(text(&pid.stdout).trim().to_owned()).filter(|pid| pid.parse::<u32>().is_ok_and(|pid| pid > 1))
}

/// Kills something, and has it back. Gives what was killed and when, or nothing if it did not run.
async fn strike(kind: Kind) -> Option<Fault> {
    let at = Timestamp::now();
    match kind {
        Kind::Agent(node) => {
            let pid = agent(node)?;
            let killed = lab::run("kill", &["-9", &pid], "");
            killed.status.success().then_some(())?;
        }
        Kind::Engine(node) => restart(node, "engine").await,
        Kind::ApiServer => restart("control", "apiserver").await,
    }
    Some(Fault { kind, at, back: Timestamp::now() })
}

async fn restart(place: &str, component: &str) {
    cluster(&["kill", place, component]);
    let until = Instant::now() + BACK;
    while !cluster(&["start", place, component]).status.success() {
        assert!(Instant::now() < until, "{component} of {place} does not come back");
        sleep(Duration::from_millis(200)).await;
    }
}

/// The lines that the commands left on a node.
fn runs(node: &str, folder: &str) -> Vec<String> {
    let found = cluster(&["exec", node, "cat", &format!("{folder}/runs")]);
    text(&found.stdout).lines().map(str::to_owned).collect()
}

/// Everything runs again, whatever happened.
async fn mend() {
    for node in NODES {
        cluster(&["start", node, "engine"]);
    }
    cluster(&["start", "control", "apiserver"]);
    wait_for("the agents to be ready", async || {
        let args = ["rollout", "status", "daemonset/execlet-agent", "-n", NAMESPACE, "--timeout=5s"];
        kubectl_raw(&args).status.success().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_every_request_runs_at_most_once_and_ends_with_the_truth() {
    let (rounds, minutes) = (number("FAULT_ROUNDS", 300), number("FAULT_MINUTES", 40));
    let seed = number("FAULT_SEED", u64::try_from(Timestamp::now().as_second()).unwrap());
    let mut random = Random::new(seed);
    let lab = Lab::alone().await;
    let folder = format!("/var/lib/execlet-faults-{}", lab.namespace);
    for node in NODES {
        // On the node, so that it outlives the container.
        let volume = json!({"name": "data", "hostPath": {"path": folder, "type": "DirectoryOrCreate"}});
        let container = json!({"name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "1000000"], "volumeMounts": [{"name": "data", "mountPath": "/data"}]});
        lab.pod_of(node, json!({"nodeName": node, "containers": [container], "volumes": [volume]})).await;
    }
    let live = LiveRestore::on(LIVE);
    println!("{rounds} rounds in at most {minutes} min, FAULT_SEED={seed}");

    let orders = Orders::default();
    let stop = CancellationToken::new();
    let creating = tokio::spawn({
        let (orders, stop, random) = (Arc::clone(&orders), stop.clone(), Random::new(seed ^ 0xFACE));
        create(lab.requests(), lab.namespace.clone(), orders, random, stop)
    });
    let begun = Instant::now();
    let mut faults: Vec<Fault> = Vec::new();
    let mut said = Instant::now();
    while (faults.len() as u64) < rounds && begun.elapsed() < Duration::from_secs(minutes * 60) {
        sleep(random.millis(0..1500)).await;
        let node = *random.pick(&NODES).unwrap();
        let kind = match random.below(10) {
            0..6 => Kind::Agent(node),
            6..9 => Kind::Engine(node),
            _ => Kind::ApiServer,
        };
        faults.extend(strike(kind).await);
        if said.elapsed() > Duration::from_secs(10) {
            said = Instant::now();
            println!(
                "round {} of {rounds}, {} requests, {:.0?}",
                faults.len(),
                orders.lock().unwrap().len(),
                begun.elapsed()
            );
        }
    }
    let done = faults.len() as u64;
    mend().await;
    stop.cancel();
    creating.await.expect("the creator ends");
    let last = Instant::now();
    let api: Api<ExecRequest> = lab.requests();
    let all = loop {
        let all = api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        let finished = |request: &ExecRequest| request.status.as_ref().is_some_and(|s| s.completion_time.is_some());
        if (!all.is_empty() && all.iter().all(finished)) || last.elapsed() > PATIENCE {
            break all;
        }
        sleep(Duration::from_millis(250)).await;
    };
    let settled = last.elapsed();
    drop(live);

    let engines = BTreeMap::from(NODES.map(|node| (node, node::kind(node))));
    let mut told: BTreeMap<String, Told> = BTreeMap::new();
    let orders = orders.lock().unwrap().clone();
    for (name, order) in &orders {
        let told_of = Told::new(order.code, order.node, engines[order.node], order.output.clone());
        let (falsified, terminal, outlives) = (order.falsified, order.terminal, order.node == LIVE);
        told.insert(name.clone(), Told { falsified, terminal, outlives, ..told_of });
    }
    for node in NODES {
        for line in runs(node, &folder) {
            let (name, what) = line.split_once(' ').unwrap_or((&line, ""));
            if let Some(told) = told.get_mut(name) {
                match what {
                    "start" => told.starts += 1,
                    "end" => told.ends += 1,
                    _ => {}
                }
            }
        }
    }
    for request in all {
        if let Some(told) = told.get_mut(request.metadata.name.as_deref().unwrap_or_default()) {
            told.request = Some(request);
        }
    }
    let violations: Vec<String> = told
        .iter()
        .flat_map(|(name, told)| judge(told, &faults).into_iter().map(move |what| format!("{name}: {what}")))
        .collect();
    let of = |is: fn(&Kind) -> bool| faults.iter().filter(|fault| is(&fault.kind)).count();
    println!(
        "faults        {done}: agent {}, engine {}, API server {}",
        of(|kind| matches!(kind, Kind::Agent(_))),
        of(|kind| matches!(kind, Kind::Engine(_))),
        of(|kind| matches!(kind, Kind::ApiServer))
    );
    for node in NODES {
        let told: Vec<&Told> = told.values().filter(|told| told.node == node).collect();
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        let mut outputs: BTreeMap<&str, usize> = BTreeMap::new();
        for told in &told {
            *reasons.entry(told.reason()).or_default() += 1;
            *outputs.entry(told.output_is()).or_default() += 1;
        }
        let unknown = told.iter().filter(|told| told.is_unknown()).count();
        println!("{node}            {}", node::version(node));
        println!("  requests    {} {reasons:?}", told.len());
        println!("  output      {outputs:?}");
        println!("  duplicates  {}", told.iter().filter(|told| told.starts > 1).count());
        println!("  Unknown     {unknown}, {} per mille", unknown * 1000 / told.len().max(1));
        let falls_short = |told: &&&Told| told.is_unknown() || told.output_is() != "complete";
        let starting = told.iter().filter(falls_short).filter(|told| told.was_starting(&faults)).count();
        println!("  starting    {starting} of those Unknown or not complete, when their engine was killed");
    }
    println!("settled       {settled:.1?} after the last fault was mended");
    println!("violations    {}", violations.len());
    println!("took          {:.0?}, FAULT_SEED={seed}", begun.elapsed());

    if !violations.is_empty() {
        let file = lab::root().join("target/faults.txt");
        let mut report = violations.join("\n");
        for violation in &violations {
            let name = violation.split(':').next().unwrap_or_default();
            let request = told.get(name).and_then(|told| told.request.clone());
            write!(report, "\n\n{request:#?}").unwrap();
        }
        write!(report, "\n\n{faults:#?}\n\n{}", lab.report("none")).unwrap();
        fs::write(&file, report).expect("a report");
        panic!("{}\nall of it is in target/faults.txt", violations.join("\n"));
    }
    for node in NODES {
        cluster(&["exec", node, "rm", "-r", &folder]);
    }
    assert!(done >= rounds, "only {done} of {rounds} rounds were done in {minutes} min");
    assert!(told.len() as u64 > rounds, "requests ran all the while");
}
