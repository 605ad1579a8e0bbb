//! How fast one command gets through many pods: by the engines alone, as a batch, and by as many `kubectl exec` at a time.
//!
//! Each from the first call to the last answer, in turn, on the same pods.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use execlet::api::ExecBatch;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{task::spawn_blocking, time::sleep};

use crate::{
    figures::{keep, median, percentile, print_table, ratio},
    lab::{AT_A_TIME, Lab, Node, Target},
};

const PARALLELISM: [usize; 2] = [16, 64];
/// To the rate of the engines, and to that of `kubectl exec`.
const AIM_TO_THE_ENGINES: f64 = 0.95;
const AIM_TO_KUBECTL: f64 = 2.0;
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Engines,
    Batch,
    KubectlExec,
}

impl Way {
    const ALL: [Self; 3] = [Self::Engines, Self::Batch, Self::KubectlExec];

    const fn name(self) -> &'static str {
        match self {
            Self::Engines => "the engines alone",
            Self::Batch => "a batch",
            Self::KubectlExec => "xargs -P kubectl exec",
        }
    }
}

/// What one way took.
struct Row {
    parallelism: usize,
    way: Way,
    /// Seconds, of each round.
    times: Vec<f64>,
}

impl Row {
    /// Best and median.
    fn times(&self) -> [f64; 2] {
        [percentile(&self.times, 0), median(&self.times)]
    }

    /// Rate to rate: best to best, and median to median.
    fn compared(&self, other: &Self) -> [String; 2] {
        let ([best, median], [other_best, other_median]) = (self.times(), other.times());
        [ratio(other_best, best), ratio(other_median, median)]
    }

    fn figures(&self) -> Value {
        let [best, median] = self.times();
        json!({"parallelism": self.parallelism, "way": self.way.name(), "bestSeconds": best, "medianSeconds": median,
            "secondsByRound": self.times})
    }
}

/// The pods of this measurement, and the nodes that they are on.
struct Fleet<'a> {
    lab: &'a Lab,
    pods: Vec<(&'a Node, Target)>,
}

pub async fn measure(lab: &Lab, pods: usize, rounds: usize) -> anyhow::Result<()> {
    let nodes = lab.nodes.len();
    println!("\none command in {pods} pods on {nodes} nodes, best and median of {rounds}; making the pods first");
    let fleet = Fleet::make(lab, pods).await?;
    let row = |parallelism| Way::ALL.map(|way| Row { parallelism, way, times: Vec::new() });
    let mut rows: Vec<Row> = PARALLELISM.into_iter().flat_map(row).collect();
    for _ in 0..rounds {
        for row in &mut rows {
            let begun = Instant::now();
            fleet.run(row.way, row.parallelism).await.with_context(|| row.way.name())?;
            row.times.push(begun.elapsed().as_secs_f64());
        }
    }
    let cells = |group: &[Row; 3]| {
        let [engines, _, kubectl] = group;
        group.each_ref().map(|row| {
            let times = row.times().map(|time| format!("{time:.2}"));
            let name = [format!("{}, parallelism {}", row.way.name(), row.parallelism)];
            [&name[..], &times, &row.compared(engines), &row.compared(kubectl)].concat()
        })
    };
    let head = ["", "best, s", "median, s", "rate to the engines", "", "rate to kubectl exec", ""];
    print_table(&head, &rows.as_chunks().0.iter().flat_map(cells).collect::<Vec<_>>());
    println!("aim of a batch: {AIM_TO_THE_ENGINES} to the engines, {AIM_TO_KUBECTL} to kubectl exec");
    keep(lab, "batches", rounds, &rows.iter().map(Row::figures).collect::<Vec<_>>())
}

impl<'a> Fleet<'a> {
    async fn make(lab: &'a Lab, count: usize) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let pods: Vec<_> = stream::iter(0..count)
            .map(async |number| {
                let node = lab.nodes.get(number % lab.nodes.len()).context("no node")?;
                anyhow::Ok((node, lab.target(node, format!("f{number}")).await?))
            })
            .buffer_unordered(AT_A_TIME)
            .try_collect()
            .await?;
        println!("{count} pods are ready after {:.0?}", begun.elapsed());
        Ok(Self { lab, pods })
    }

    async fn run(&self, way: Way, parallelism: usize) -> anyhow::Result<()> {
        match way {
            Way::Engines => self.by_the_engines(parallelism).await,
            Way::Batch => self.by_a_batch(parallelism).await,
            Way::KubectlExec => self.by_kubectl(parallelism).await,
        }
    }

    async fn by_the_engines(&self, parallelism: usize) -> anyhow::Result<()> {
        stream::iter(&self.pods)
            .map(async |(node, target)| node.engine.run(&target.container, &["true"], |_| Ok(())).await)
            .buffer_unordered(parallelism)
            .try_collect()
            .await
    }

    async fn by_a_batch(&self, parallelism: usize) -> anyhow::Result<()> {
        let api: Api<ExecBatch> = Api::namespaced(self.lab.client.clone(), &self.lab.namespace);
        let names: Vec<_> = self.pods.iter().map(|(_, target)| json!({"name": target.pod})).collect();
        let batch: ExecBatch = serde_json::from_value(json!({
            "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecBatch", "metadata": {"generateName": "b-"},
            "spec": {"targets": {"pods": names}, "parallelism": parallelism,
                "template": {"spec": {"command": ["true"], "startingDeadlineSeconds": 600}}},
        }))?;
        let made = api.create(&PostParams::default(), &batch).await?;
        let name = made.metadata.name.context("a batch without a name")?;
        let status = loop {
            let status = api.get(&name).await?.status.unwrap_or_default();
            if status.completion_time.is_some() {
                break status;
            }
            sleep(LOOK_EVERY).await;
        };
        ensure!(usize::try_from(status.succeeded.count) == Ok(self.pods.len()), "{status:#?}");
        api.delete(&name, &DeleteParams::background()).await?;
        Ok(())
    }

    async fn by_kubectl(&self, parallelism: usize) -> anyhow::Result<()> {
        let namespace = &self.lab.namespace;
        stream::iter(&self.pods)
            .map(async |(_, target)| {
                let mut exec = Command::new("kubectl");
                exec.args(["exec", "--namespace", namespace, &target.pod, "--", "true"]).stdin(Stdio::null());
                let status = spawn_blocking(move || exec.status()).await?.context("kubectl")?;
                ensure!(status.success(), "kubectl exec {}: {status}", target.pod);
                Ok(())
            })
            .buffer_unordered(parallelism)
            .try_collect()
            .await
    }
}
