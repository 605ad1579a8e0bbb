//! Batches in the words of tests.

use std::{collections::BTreeMap, time::Duration};

use execlet::api::{ExecBatch, ExecBatchStatus, ExecRequest, batch::Ends};
use kube::{Api, api::ListParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::lab::{Lab, kubectl_raw, kubectl_with, text, unique, wait_for};

/// A batch of some tens of targets, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A batch as it was read.
#[derive(Debug)]
pub struct Seen {
    pub batch: ExecBatch,
    pub status: ExecBatchStatus,
}

impl Seen {
    pub fn uid(&self) -> &str {
        self.batch.metadata.uid.as_deref().expect("a UID")
    }

    pub fn phase(&self) -> String {
        self.status.phase.to_string()
    }

    fn finished(&self) -> (&str, &str) {
        let found = self.status.conditions.iter().find(|condition| condition.type_ == "Finished");
        found.map_or(("", ""), |condition| (&condition.reason, &condition.message))
    }

    pub fn reason(&self) -> &str {
        self.finished().0
    }

    pub fn message(&self) -> &str {
        self.finished().1
    }

    pub fn total(&self) -> i32 {
        self.status.plan.as_ref().and_then(|plan| plan.total).unwrap_or(0)
    }

    pub fn digest(&self) -> String {
        self.status.plan.as_ref().and_then(|plan| plan.digest.clone()).expect("a digest")
    }

    /// How many succeeded, failed, never ran, are unknown, and were skipped.
    pub fn counts(&self) -> [i32; 5] {
        let ExecBatchStatus { succeeded, failed, not_run, unknown, skipped, .. } = &self.status;
        [succeeded, failed, not_run, unknown, skipped].map(|Ends { count, .. }| *count)
    }

    #[track_caller]
    pub fn ended(&self, phase: &str, reason: &str, counts: [i32; 5]) {
        let found = (self.phase(), self.reason(), self.counts());
        assert_eq!(found, (phase.to_owned(), reason, counts), "{}: {:#?}", self.message(), self.status);
        let accounted_for: i32 = counts.iter().sum();
        assert_eq!(accounted_for, self.total(), "every target is accounted for");
        assert_eq!(self.status.done, format!("{accounted_for}/{}", self.total()));
    }
}

/// `sh -c SCRIPT` in all pods of the namespace, with these fields beside.
pub fn everywhere(script: &str, fields: Value) -> Value {
    let mut spec = json!({"targets": {"all": true}, "template": {"spec": {"command": ["sh", "-c", script]}}});
    merge(&mut spec, fields);
    spec
}

fn merge(into: &mut Value, fields: Value) {
    match (into, fields) {
        (Value::Object(into), Value::Object(fields)) => {
            for (key, value) in fields {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, value) => *into = value,
    }
}

impl Lab {
    pub fn batches(&self) -> Api<ExecBatch> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Pods `NAME-0`, `NAME-1`, … in turn on both nodes, ready.
    pub async fn pods_named(&self, name: &str, count: usize) {
        for index in 0..count {
            let node = ["n1", "n2"][index % 2];
            let spec = json!({"nodeName": node, "containers": [crate::lab::container("main")]});
            self.create_pod(&format!("{name}-{index}"), spec, json!({})).await;
        }
        for index in 0..count {
            self.ready(&format!("{name}-{index}")).await;
        }
    }

    /// Creates a batch, and gives its name.
    pub fn batch(&self, spec: Value) -> String {
        let name = unique("b");
        let created = self.try_batch(&name, spec);
        assert!(created.is_ok(), "{created:?}");
        name
    }

    /// What the API server says if it does not take it.
    pub fn try_batch(&self, name: &str, spec: Value) -> Result<(), String> {
        let meta = json!({"name": name, "namespace": self.namespace});
        let batch = json!({"apiVersion": "execlet.dev/v1alpha1", "kind": "ExecBatch", "metadata": meta, "spec": spec});
        let output = kubectl_with(&["create", "-f", "-"], &batch.to_string());
        if output.status.success() { Ok(()) } else { Err(text(&output.stderr)) }
    }

    pub async fn patch_batch(&self, name: &str, spec: Value) {
        let patch = json!({"spec": spec}).to_string();
        wait_for("the API server to know the kind", async || {
            let patched = kubectl_raw(&["-n", &self.namespace, "patch", "xb", name, "--type=merge", "-p", &patch]);
            let said = text(&patched.stderr);
            // One that has just started does not, and so cannot apply the policies.
            let starts = said.contains("There can be a delay between when CustomResourceDefinitions are created");
            assert!(patched.status.success() || starts, "kubectl patch: {said}");
            (!starts).then_some(())
        })
        .await;
    }

    pub async fn batch_when(&self, name: &str, what: &str, holds: impl Fn(&Seen) -> bool) -> Seen {
        let until = Instant::now() + PATIENCE;
        loop {
            let batch = self.batches().get(name).await.unwrap_or_else(|error| panic!("batch {name}: {error}"));
            let seen = Seen { status: batch.status.clone().unwrap_or_default(), batch };
            if holds(&seen) {
                return seen;
            }
            assert!(Instant::now() < until, "batch {name} is not {what} in time:\n{}", self.batch_report(name));
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn batch_ended(&self, name: &str) -> Seen {
        self.batch_when(name, "to finish", |seen| seen.status.completion_time.is_some()).await
    }

    /// Once nothing more of it is going to happen by itself.
    pub async fn batch_paused(&self, name: &str, released: i32) -> Seen {
        let what = format!("to pause after {released}");
        self.batch_when(name, &what, |seen| seen.phase() == "Paused" && seen.status.released == released).await
    }

    fn batch_report(&self, name: &str) -> String {
        let batch = self.kubectl(&["get", "execbatch", name, "-o", "yaml"]);
        let children = self.kubectl(&["get", "execrequests", "-o", "wide"]);
        format!("{batch}\n{children}\n{}", self.report("-"))
    }

    /// The requests of a batch, by index.
    pub async fn children(&self, seen: &Seen) -> BTreeMap<i32, ExecRequest> {
        let params = ListParams::default().fields(&format!("spec.batch.uid={}", seen.uid()));
        let list = self.requests().list(&params).await.expect("a list");
        list.items.into_iter().map(|child| (child.spec.batch.as_ref().expect("a batch").index, child)).collect()
    }

    /// How many lines a command has left in `/tmp/runs` of a pod.
    pub fn runs(&self, pod: &str) -> usize {
        let (lines, code) = self.exec(pod, "cat /tmp/runs 2>/dev/null || true");
        assert_eq!(code, 0, "{pod}");
        text(&lines).lines().count()
    }
}
