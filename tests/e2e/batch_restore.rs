//! Batches after an older state of the API server was restored: nothing runs twice, whatever the batch remembers.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::{
    batch_lab::everywhere,
    chart::NoManagers,
    lab::{Lab, kubectl, kubectl_raw, tool, wait_for, wait_within},
};

const PODS: usize = 6;
/// After a restore every watch begins anew.
const SETTLES_WITHIN: Duration = Duration::from_secs(180);

/// All that the API server keeps, as it was at one moment.
struct Backup(String);

impl Backup {
    fn take(name: &str) -> Self {
        let it = Self(format!("/var/lib/etcd-{name}"));
        Self::while_stopped(&format!("rm -rf {0} && cp -a /var/lib/etcd {0}", it.0));
        it
    }

    fn restore(&self) {
        Self::while_stopped(&format!("rm -rf /var/lib/etcd && cp -a {} /var/lib/etcd", self.0));
    }

    /// As Kubernetes advises: whoever has a cache of what is no more begins anew.
    fn while_stopped(script: &str) {
        let all = ["scheduler", "controller-manager", "apiserver", "etcd"];
        for component in all {
            tool(&["kill", "control", component]);
        }
        tool(&["exec", "control", "sh", "-ec", script]);
        for component in all.into_iter().rev() {
            tool(&["start", "control", component]);
        }
        for node in ["n1", "n2"] {
            tool(&["restart", node, "kubelet"]);
        }
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        tool(&["exec", "control", "rm", "-rf", &self.0]);
    }
}

/// Managers and agents begin anew, too: whoever watches from a version that is no more hears nothing.
async fn settled() {
    kubectl(&[
        "-n",
        crate::lab::NAMESPACE,
        "rollout",
        "restart",
        "deployment/execlet-manager",
        "daemonset/execlet-agent",
    ]);
    for what in ["deployment/execlet-manager", "daemonset/execlet-agent"] {
        wait_within(SETTLES_WITHIN, "the installation to be whole", async || {
            let args = ["-n", crate::lab::NAMESPACE, "rollout", "status", what, "--timeout=5s"];
            kubectl_raw(&args).status.success().then_some(())
        })
        .await;
    }
}

impl Lab {
    fn each_ran_once(&self, when: &str) {
        for index in 0..PODS {
            assert_eq!(self.runs(&format!("web-{index}")), 1, "web-{index}, {when}");
        }
    }
}

#[tokio::test]
async fn a_batch_that_is_set_back_runs_nothing_twice() {
    let lab = Lab::alone().await;
    lab.pods_named("web", PODS).await;
    let without = NoManagers::new().await;
    let name = lab.batch(everywhere("echo ran >> /tmp/runs; sleep 1", json!({"releaseLimit": 2, "parallelism": 2})));
    let before_the_plan = Backup::take("before");
    drop(without);
    lab.batch_paused(&name, 2).await;
    wait_for("two to have run", async || (lab.runs("web-0") + lab.runs("web-1") == 2).then_some(())).await;
    let in_the_middle = Backup::take("middle");
    lab.patch_batch(&name, json!({"releaseLimit": "100%"})).await;
    lab.batch_ended(&name).await.ended("Succeeded", "Completed", [6, 0, 0, 0, 0]);
    lab.each_ran_once("before anything was restored");

    in_the_middle.restore();
    settled().await;
    lab.patch_batch(&name, json!({"releaseLimit": "100%"})).await;
    let again = lab.batch_ended(&name).await;
    assert_eq!(again.counts(), [6, 0, 0, 0, 0], "what ran is told again: {:#?}", again.status);
    lab.each_ran_once("after the middle was restored");

    // The limit of that state lets two of the six go; of these it is told how they ended then.
    before_the_plan.restore();
    kubectl(&["scale", "deployment", "execlet-manager", "-n", crate::lab::NAMESPACE, "--replicas=2"]);
    settled().await;
    lab.patch_batch(&name, json!({"releaseLimit": "100%"})).await;
    let anew = lab.batch_ended(&name).await;
    assert_eq!(anew.counts(), [6, 0, 0, 0, 0], "{:#?}", anew.status);
    lab.each_ran_once("after the state before the plan was restored");
    sleep(Duration::from_secs(3)).await;
    lab.each_ran_once("later");
}
