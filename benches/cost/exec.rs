//! Latency and rate of a command that does nothing, by three ways, each in this process: by the engine alone, as requests,
//! and by the call that `kubectl exec` makes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::AttachParams};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    figures::{keep, median, percentile, print_table, ratio},
    finished::Finished,
    lab::{Lab, Node, Target},
};

const COMMAND: [&str; 1] = ["true"];
/// One that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// So many commands, the next as soon as one of those that run has ended.
struct Load {
    /// Of one node; the commands take turns.
    containers: usize,
    at_once: usize,
    /// In each round.
    commands: usize,
}

/// The first one tells the latency, and takes enough commands for a 99th percentile.
const LOADS: [Load; 6] = [
    Load { containers: 1, at_once: 1, commands: 34 },
    Load { containers: 4, at_once: 1, commands: 6 },
    Load { containers: 1, at_once: 8, commands: 16 },
    Load { containers: 4, at_once: 8, commands: 16 },
    Load { containers: 1, at_once: 32, commands: 48 },
    Load { containers: 4, at_once: 32, commands: 48 },
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Engine,
    /// From the creation of the request until the watch tells that it has finished.
    Request,
    KubectlExec,
}

impl Way {
    const ALL: [Self; 3] = [Self::Engine, Self::Request, Self::KubectlExec];

    const fn name(self) -> &'static str {
        match self {
            Self::Engine => "the engine alone",
            Self::Request => "ExecRequest",
            Self::KubectlExec => "kubectl exec",
        }
    }

    async fn run(self, lab: &Lab, finished: &Finished, node: &Node, target: &Target) -> anyhow::Result<()> {
        match self {
            Self::Engine => node.engine.run(&target.container, &COMMAND, |_| Ok(())).await,
            Self::Request => finished.run(&lab.request(target, &COMMAND, Value::Null)?).await,
            Self::KubectlExec => by_kubectl_exec(lab, target).await,
        }
    }
}

/// To its status, over a connection of its own, as every such call has.
async fn by_kubectl_exec(lab: &Lab, target: &Target) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(lab.client.clone(), &lab.namespace);
    let mut process = pods.exec(&target.pod, COMMAND, &AttachParams::default()).await?;
    let status = process.take_status().context("a status is to come")?.await.context("no status")?;
    process.join().await?;
    ensure!(status.status.as_deref() == Some("Success"), "{status:?}");
    Ok(())
}

/// What one way did on one node under one load.
struct Row<'a> {
    load: &'static Load,
    node: &'a Node,
    way: Way,
    /// Commands a second, of each round.
    rates: Vec<f64>,
    /// Milliseconds, of each command.
    latencies: Vec<f64>,
}

impl Row<'_> {
    async fn measure(&mut self, lab: &Lab, finished: &Finished, most: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        let latencies: Vec<f64> = stream::iter(0..self.load.commands.min(most))
            .map(async |number| {
                let target = self.node.targets.get(number % self.load.containers).context("too few pods")?;
                let begun = Instant::now();
                timeout(PATIENCE, self.way.run(lab, finished, self.node, target)).await??;
                anyhow::Ok(1e3 * begun.elapsed().as_secs_f64())
            })
            .buffer_unordered(self.load.at_once)
            .try_collect()
            .await
            .with_context(|| format!("{} on {}", self.way.name(), self.node.name))?;
        let commands = f64::from(u32::try_from(latencies.len())?);
        self.rates.push(commands / begun.elapsed().as_secs_f64());
        self.latencies.extend(latencies);
        lab.clear().await
    }

    fn rate(&self) -> f64 {
        median(&self.rates)
    }

    fn latency(&self, percent: usize) -> f64 {
        percentile(&self.latencies, percent)
    }

    /// With its ratios to the engine alone and to `kubectl exec`, under the same load.
    fn figures(&self, engine: &Self, kubectl: &Self) -> Value {
        let compared = |other: &Self| {
            json!({
                "p50": self.latency(50) / other.latency(50), "p99": self.latency(99) / other.latency(99),
                "rate": self.rate() / other.rate(),
            })
        };
        json!({
            "node": self.node.name, "containers": self.load.containers, "atOnce": self.load.at_once,
            "way": self.way.name(), "commands": self.latencies.len(),
            "p50Milliseconds": self.latency(50), "p99Milliseconds": self.latency(99),
            "commandsPerSecond": self.rate(), "commandsPerSecondByRound": self.rates,
            "toTheEngine": compared(engine), "toKubectlExec": compared(kubectl),
        })
    }
}

/// With so many commands at most of each way under each load in a round.
pub async fn measure(lab: &Lab, rounds: usize, most: usize) -> anyhow::Result<()> {
    let finished = Finished::watch(lab.requests());
    let each = lab.nodes.iter().flat_map(|node| Way::ALL.map(|way| (node, way)));
    let row = |load| each.clone().map(move |(node, way)| Row { load, node, way, rates: vec![], latencies: vec![] });
    let mut rows: Vec<Row> = LOADS.iter().flat_map(row).collect();
    // The first of each finds no connection and nothing in a cache.
    for (node, way) in each {
        way.run(lab, &finished, node, &node.targets[0]).await?;
    }
    for round in 0..rounds {
        println!("latency and rate: round {} of {rounds} (1 min)", round + 1);
        for group in rows.as_chunks_mut::<{ Way::ALL.len() }>().0 {
            // Each comes first in its turn: what it leaves to be done falls on the next one.
            group.rotate_left(round % Way::ALL.len());
            for row in group.iter_mut() {
                row.measure(lab, &finished, most).await?;
            }
            group.rotate_right(round % Way::ALL.len());
        }
    }
    let mut figures = Vec::new();
    for node in &lab.nodes {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.node.name == node.name).collect();
        let (groups, _) = rows.as_chunks();
        print_latency(groups);
        print_rates(groups, rounds);
        for [engine, request, kubectl] in groups {
            figures.extend([engine, request, kubectl].map(|row| row.figures(engine, kubectl)));
        }
    }
    keep(lab, "exec", rounds, &figures)
}

/// Of the first load.
fn print_latency(groups: &[[&Row; 3]]) {
    let Some(group @ [engine, _, kubectl]) = groups.first() else { return };
    let (node, commands) = (engine.node, engine.latencies.len());
    println!("\n{}, {}: latency of `true`, one at a time in one container; {commands} of each", node.name, node.runs);
    let head = ["", "p50, ms", "p99, ms", "p50 to the engine", "p99", "p50 to kubectl exec", "p99"];
    let cells = |row: &&Row| {
        let [p50, p99] = [50, 99].map(|percent| format!("{:.0}", row.latency(percent)));
        let compared = [engine, kubectl].map(|other| [50, 99].map(|at| ratio(row.latency(at), other.latency(at))));
        [&[row.way.name().to_owned(), p50, p99][..], &compared.concat()].concat()
    };
    print_table(&head, &group.iter().map(cells).collect::<Vec<_>>());
}

fn print_rates(groups: &[[&Row; 3]], rounds: usize) {
    println!("\ncommands a second, median of {rounds}");
    let head = [
        "containers, at once",
        "the engine alone, 1/s",
        "ExecRequest, 1/s",
        "to the engine",
        "to kubectl exec",
        "kubectl exec, 1/s",
        "to the engine",
    ];
    let cells = |[engine, request, kubectl]: &[&Row; 3]| {
        let load = engine.load;
        let [by_engine, by_request, by_kubectl] = [engine, request, kubectl].map(|row| row.rate());
        let rate = |rate: f64| format!("{rate:.1}");
        vec![
            format!("{}, {}", load.containers, load.at_once),
            rate(by_engine),
            rate(by_request),
            ratio(by_request, by_engine),
            ratio(by_request, by_kubectl),
            rate(by_kubectl),
            ratio(by_kubectl, by_engine),
        ]
    };
    print_table(&head, &groups.iter().map(cells).collect::<Vec<_>>());
}
