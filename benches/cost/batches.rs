//! How fast one command gets through many pods: as a batch, by the engines alone, and by as many `kubectl exec` at a time.
//!
//! Each from the first call to the last answer, in turn, on the same pods.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use execlet::{
    api::ExecBatch,
    core::ids::ContainerId,
    engine::{ExecSpec, docker::DockerEngine},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;
use tokio::{task::spawn_blocking, time::sleep};

use crate::lab::{AT_A_TIME, Lab, cluster};

const NODES: [&str; 2] = ["n1", "n2"];
const PARALLELISM: [usize; 2] = [16, 64];
/// Of the engines' rate, in percent; and how many times that of `kubectl exec`.
const AIM_OF_THE_ENGINES: u32 = 95;
const AIM_OF_KUBECTL: u32 = 2;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The pods of this measurement: names, and where their containers are.
struct Fleet<'a> {
    lab: &'a Lab,
    pods: Vec<(String, DockerEngine, ContainerId)>,
}

pub async fn measure(lab: &Lab, pods: usize, rounds: usize) -> anyhow::Result<()> {
    println!(
        "\none command in {pods} pods on {} nodes, best and median of {rounds}; making the pods first",
        NODES.len()
    );
    let fleet = Fleet::make(lab, pods).await?;
    for parallelism in PARALLELISM {
        let mut took: [Vec<f64>; 3] = Default::default();
        for _ in 0..rounds {
            for (way, took) in took.iter_mut().enumerate() {
                let begun = Instant::now();
                match way {
                    0 => fleet.by_the_engines(parallelism).await?,
                    1 => fleet.by_a_batch(parallelism).await?,
                    _ => fleet.by_kubectl(parallelism).await?,
                }
                took.push(begun.elapsed().as_secs_f64());
            }
        }
        for took in &mut took {
            took.sort_by(f64::total_cmp);
        }
        let [best, median] = [0, rounds / 2].map(|at| took.each_ref().map(|took| took[at]));
        println!("parallelism {parallelism}:");
        for (way, name) in ["the engines alone", "a batch", "xargs -P kubectl exec"].iter().enumerate() {
            println!(
                "  {name:<24}{:>7.2} s{:>7.2} s   {:>4.0} % {:>4.0} % of the engines' rate, {:>4.1} and {:>4.1} times kubectl exec's",
                best[way],
                median[way],
                100.0 * best[0] / best[way],
                100.0 * median[0] / median[way],
                best[2] / best[way],
                median[2] / median[way],
            );
        }
    }
    println!("aim of a batch: {AIM_OF_THE_ENGINES} % of the engines' rate, {AIM_OF_KUBECTL} times kubectl exec's");
    Ok(())
}

impl<'a> Fleet<'a> {
    async fn make(lab: &'a Lab, count: usize) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let pods: Vec<_> = stream::iter(0..count)
            .map(async |number| {
                let (name, node) = (format!("f{number}"), NODES[number % NODES.len()]);
                let container = lab.pod(&name, node).await?;
                Ok::<_, anyhow::Error>((name, DockerEngine::new(cluster(&["socket", node])?.trim()), container))
            })
            .buffer_unordered(AT_A_TIME)
            .try_collect()
            .await?;
        println!("{count} pods are ready after {:.0?}", begun.elapsed());
        Ok(Self { lab, pods })
    }

    async fn by_the_engines(&self, parallelism: usize) -> anyhow::Result<()> {
        let spec = ExecSpec { command: vec!["true".to_owned()], ..ExecSpec::default() };
        stream::iter(&self.pods)
            .map(async |(name, engine, container)| {
                let exec = engine.create_exec(container, &spec).await?;
                let mut output = engine.start_exec(&exec, false).await?;
                while output.next().await?.is_some() {}
                let code = engine.inspect_exec(&exec).await?.code;
                ensure!(code == Some(0), "{name}: {code:?}");
                Ok(())
            })
            .buffer_unordered(parallelism)
            .try_collect()
            .await
    }

    async fn by_a_batch(&self, parallelism: usize) -> anyhow::Result<()> {
        let api: Api<ExecBatch> = Api::namespaced(self.lab.client.clone(), &self.lab.namespace);
        let names: Vec<_> = self.pods.iter().map(|(name, ..)| json!({"name": name})).collect();
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
            .map(async |(name, ..)| {
                let mut exec = Command::new("kubectl");
                exec.args(["exec", "--namespace", namespace, name, "--", "true"]).stdin(Stdio::null());
                let status = spawn_blocking(move || exec.status()).await?.context("kubectl")?;
                ensure!(status.success(), "kubectl exec {name}: {status}");
                Ok(())
            })
            .buffer_unordered(parallelism)
            .try_collect()
            .await
    }
}
