//! Fifty targets: exactly those run that limits, suspension and failures allow.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    batch_lab::{Seen, everywhere},
    lab::{Lab, cluster, container, kubectl_with, text, wait_for},
};

const PODS: usize = 50;
const NODES: [&str; 2] = ["n1", "n2"];
/// Notes that it runs, waits until it is told how to end, and ends so.
const SCRIPT: &str = r#"me=$EXECLET_BATCH.$EXECLET_BATCH_INDEX; echo "$me" >> /data/runs; \
    until [ -e /data/$me ]; do sleep 0.2; done; exit $(cat /data/$me)"#;

/// Fifty pods that share a folder with their node, so that one look there tells of all.
struct Fifty<'a> {
    lab: &'a Lab,
    folder: String,
}

impl<'a> Fifty<'a> {
    async fn new(lab: &'a Lab) -> Self {
        let it = Self { lab, folder: format!("/var/lib/{}", lab.namespace) };
        let pod = |index: usize| {
            let mut main = container("main");
            main["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
            let volume = json!({"name": "data", "hostPath": {"path": it.folder, "type": "DirectoryOrCreate"}});
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("web-{index}")},
                "spec": {"nodeName": NODES[index % 2], "terminationGracePeriodSeconds": 0,
                    "containers": [main], "volumes": [volume]}})
        };
        let all = json!({"apiVersion": "v1", "kind": "List", "items": (0..PODS).map(pod).collect::<Vec<_>>()});
        wait_for("the namespace to take pods", async || {
            kubectl_with(&["-n", &lab.namespace, "apply", "-f", "-"], &all.to_string()).status.success().then_some(())
        })
        .await;
        lab.kubectl(&["wait", "pods", "--all", "--for=condition=Ready", "--timeout=180s"]);
        it
    }

    fn on(node: &str, script: &str) -> String {
        let done = cluster(&["exec", node, "sh", "-ec", script]);
        assert!(done.status.success(), "{}", text(&done.stderr));
        text(&done.stdout)
    }

    /// The commands of these indexes end with this code.
    fn end(&self, batch: &str, indexes: impl Iterator<Item = usize> + Clone, code: u8) {
        for (at, node) in NODES.into_iter().enumerate() {
            let there = indexes.clone().filter(|index| index % 2 == at);
            let ends: Vec<_> = there.map(|index| format!("echo {code} >x; mv x {batch}.{index};")).collect();
            Self::on(node, &format!("cd {}; {}", self.folder, ends.join(" ")));
        }
    }

    /// How often each index of a batch ran.
    fn ran(&self, batch: &str) -> BTreeMap<usize, usize> {
        let mut ran = BTreeMap::new();
        for node in NODES {
            let all = Self::on(node, &format!("cat {}/runs 2>/dev/null || true", self.folder));
            let prefix = format!("{batch}.");
            for index in all.lines().filter_map(|line| line.strip_prefix(&prefix)) {
                *ran.entry(index.parse().expect("an index")).or_default() += 1;
            }
        }
        ran
    }

    /// The first ones ran, once each, and no other.
    #[track_caller]
    fn only_the_first_ran(&self, batch: &str, count: usize) {
        assert_eq!(self.ran(batch), (0..count).map(|index| (index, 1)).collect());
    }

    /// Until so many run.
    async fn run(&self, batch: &str, count: usize) {
        wait_for(&format!("{count} to run"), async || (self.ran(batch).len() >= count).then_some(())).await;
    }

    /// Once the manager has seen the batch as it is.
    async fn seen(&self, batch: &str, what: &str, holds: impl Fn(&Seen) -> bool) -> Seen {
        self.lab
            .batch_when(batch, what, |seen| {
                seen.status.observed_generation == seen.batch.metadata.generation && holds(seen)
            })
            .await
    }

    async fn limit(&self, batch: &str, limit: Value) {
        self.lab.patch_batch(batch, json!({"releaseLimit": limit})).await;
    }
}

impl Drop for Fifty<'_> {
    fn drop(&mut self) {
        for node in NODES {
            cluster(&["exec", node, "rm", "-rf", &self.folder]);
        }
    }
}

#[tokio::test]
async fn of_fifty_targets_exactly_those_run_that_limits_suspension_and_failures_allow() {
    let lab = Lab::new().await;
    let fifty = Fifty::new(&lab).await;
    fifty.limits_and_suspension().await;
    fifty.no_more_after_too_many_failures().await;
}

impl Fifty<'_> {
    async fn limits_and_suspension(&self) {
        let name = self.lab.batch(everywhere(SCRIPT, json!({"releaseLimit": 0, "parallelism": 20})));
        self.end(&name, 0..5, 0);
        assert_eq!(self.lab.batch_paused(&name, 0).await.total(), 50);
        self.only_the_first_ran(&name, 0);
        for (limit, released) in [(json!(1), 1), (json!("10%"), 5)] {
            self.limit(&name, limit.clone()).await;
            let paused = self.seen(&name, "to pause", |seen| seen.phase() == "Paused").await;
            assert_eq!((paused.status.released, paused.counts()), (released, [released, 0, 0, 0, 0]), "{limit}");
            self.only_the_first_ran(&name, usize::try_from(released).expect("a count"));
        }
        self.limit(&name, json!("100%")).await;
        self.run(&name, 25).await;
        self.lab.patch_batch(&name, json!({"suspend": true})).await;
        self.seen(&name, "to be suspended", |seen| seen.status.released == 25).await;
        self.end(&name, 5..50, 0);
        let paused = self.seen(&name, "to pause", |seen| seen.phase() == "Paused").await;
        assert_eq!((paused.reason(), paused.status.released, paused.counts()), ("Suspended", 25, [25, 0, 0, 0, 0]));
        self.only_the_first_ran(&name, 25);
        self.lab.patch_batch(&name, json!({"suspend": false})).await;
        self.lab.batch_ended(&name).await.ended("Succeeded", "Completed", [50, 0, 0, 0, 0]);
        self.only_the_first_ran(&name, 50);
    }

    async fn no_more_after_too_many_failures(&self) {
        let fields = json!({"parallelism": 20, "failurePolicy": {"maxFailed": "10%"}});
        let name = self.lab.batch(everywhere(SCRIPT, fields));
        self.run(&name, 20).await;
        // Five may fail: for each of them another one runs.
        self.end(&name, 0..5, 1);
        self.run(&name, 25).await;
        let five = self.seen(&name, "to have counted five", |seen| seen.status.failed.count == 5).await;
        assert_eq!((five.status.released, five.status.active), (25, 20));
        self.end(&name, 5..6, 1);
        let six = self.seen(&name, "to have counted the sixth", |seen| seen.status.failed.count == 6).await;
        assert_eq!((six.status.released, six.phase().as_str(), six.reason()), (25, "Running", "TooManyFailed"));
        self.end(&name, 6..25, 0);
        let done = self.lab.batch_ended(&name).await;
        done.ended("Failed", "TooManyFailed", [19, 6, 25, 0, 0]);
        assert_eq!(done.status.released, 25);
        self.only_the_first_ran(&name, 25);
    }
}
