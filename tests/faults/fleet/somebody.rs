//! Somebody else, with a namespace, a pod on a real node and rights of their own, who asks for one request after another.

use std::time::Duration;

use execlet::api::ExecRequest;
use kube::{Api, Client, Config, api::PostParams, runtime::wait::await_condition};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::ground::LABEL;
use crate::lab::{IMAGE, PATIENCE, kubectl, kubectl_raw, unique, wait_for};

const NAME: &str = "somebody-else";
const NODE: &str = "n1";
const POD: &str = "real";
const PAUSE: Duration = Duration::from_millis(200);

/// How long it took, from before the request was sent, until the API server had taken it, and until it was seen to be bound.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub taken: Duration,
    pub bound: Duration,
}

/// The median and the worst.
pub fn spread(all: &[Asked], of: fn(&Asked) -> Duration) -> [Duration; 2] {
    let mut sorted: Vec<Duration> = all.iter().map(of).collect();
    sorted.sort();
    [sorted[sorted.len() / 2], sorted[sorted.len() - 1]]
}

#[derive(Clone)]
pub struct Somebody {
    api: Api<ExecRequest>,
}

impl Somebody {
    pub async fn arrive() -> Self {
        let namespace = unique("else");
        kubectl(&["create", "namespace", &namespace]);
        kubectl(&["label", "namespace", &namespace, &format!("{LABEL}=")]);
        kubectl(&["create", "rolebinding", "edit", "--clusterrole=edit", &format!("--user={NAME}"), "-n", &namespace]);
        let overrides = json!({"spec": {"nodeName": NODE, "terminationGracePeriodSeconds": 0}}).to_string();
        let pod = ["run", POD, "-n", &namespace, "--image", IMAGE, "--image-pull-policy=IfNotPresent", "--overrides"];
        let command = [overrides.as_str(), "--", "sleep", "1000000"];
        // A new namespace gets its service account a moment later.
        let run = [&pod[..], &command].concat();
        wait_for("the pod to be taken", async || kubectl_raw(&run).status.success().then_some(())).await;
        kubectl(&["wait", "pod", POD, "-n", &namespace, "--for=condition=Ready", "--timeout=180s"]);
        let mut config = Config::infer().await.expect("a readable KUBECONFIG");
        config.auth_info.impersonate = Some(NAME.to_owned());
        let it = Self { api: Api::namespaced(Client::try_from(config).expect("a client"), &namespace) };
        wait_for("the role to count", async || it.create("first").await.ok()).await;
        it
    }

    pub async fn ask_often(&self, times: usize) -> Vec<Asked> {
        let mut took = Vec::new();
        for _ in 0..times {
            took.push(self.ask().await);
            sleep(PAUSE).await;
        }
        took
    }

    pub async fn ask_until(self, stop: CancellationToken) -> Vec<Asked> {
        let mut took = Vec::new();
        while !stop.is_cancelled() {
            took.push(self.ask().await);
            sleep(PAUSE).await;
        }
        took
    }

    async fn ask(&self) -> Asked {
        let (name, begun) = (unique("r"), Instant::now());
        self.create(&name).await.expect("a request");
        let taken = begun.elapsed();
        let is_bound = |request: Option<&ExecRequest>| {
            let status = request.and_then(|request| request.status.as_ref());
            status.is_some_and(|status| status.node_name.as_deref() == Some(NODE))
        };
        let bound = timeout(PATIENCE, await_condition(self.api.clone(), &name, is_bound)).await;
        bound.expect("it is bound in the end").expect("a watch");
        Asked { taken, bound: begun.elapsed() }
    }

    async fn create(&self, name: &str) -> kube::Result<ExecRequest> {
        let request = json!({"apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest", "metadata": {"name": name},
            "spec": {"target": {"podName": POD}, "command": ["true"]}});
        self.api.create(&PostParams::default(), &serde_json::from_value(request).expect("a request")).await
    }
}
