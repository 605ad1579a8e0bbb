//! Heartbeat: the agent renews its Lease for as long as it takes work. The Lease also tells where the agent serves streams,
//! and with which certificate.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::MicroTime};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{refusal::Mark, serve::identity::Published, standby::EngineSaid};
use crate::{
    api::names,
    core::{audit::chain::publish, ids::NodeName},
    infra::{
        audit::{
            published::{Before, head_of},
            writer::Log,
        },
        clock::Clock,
        health::Readiness,
    },
};

const RENEW_EVERY: Duration = Duration::from_secs(10);
const RENEW_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed renewal.
const RETRY: Duration = Duration::from_secs(2);
/// What the Lease says of itself; readers judge by their own clock.
const LEASE_SECONDS: i32 = 40;
/// Name in `/readyz`.
pub const CHECK: &str = "lease";

pub struct Heartbeat {
    leases: Api<Lease>,
    name: String,
    node: NodeName,
    log: Log,
    /// What the Lease had of the audit log before.
    before: Before,
    streams: Option<Published>,
    engine: EngineSaid,
    mark: Mark,
    /// Whether the Lease may have it: from an agent before this one, or from one that came beside it and went.
    is_marked: bool,
}

impl Heartbeat {
    /// For the agent on `node`, in the namespace of the installation.
    pub fn new(
        client: Client,
        namespace: &str,
        node: &NodeName,
        (log, before): (Log, Before),
        streams: Option<Published>,
        engine: EngineSaid,
    ) -> Self {
        let mark = Mark::new(client.clone(), namespace, node);
        let (leases, name) = (Api::namespaced(client, namespace), names::agent_lease(node.as_str()));
        Self { leases, name, node: node.clone(), log, before, streams, engine, mark, is_marked: true }
    }

    pub async fn run(mut self, clock: Arc<dyn Clock>, readiness: Readiness, shutdown: CancellationToken) {
        loop {
            let pause = match timeout(RENEW_TIMEOUT, self.renew(&*clock)).await {
                Ok(Ok(())) => {
                    readiness.ready(CHECK);
                    RENEW_EVERY
                }
                Ok(Err(error)) => self.failed(&readiness, &error.to_string()),
                Err(_) => self.failed(&readiness, "the API server did not answer in time"),
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    fn failed(&self, readiness: &Readiness, why: &str) -> Duration {
        tracing::warn!(lease = self.name, why, "the Lease could not be renewed");
        readiness.not_ready(CHECK, why);
        RETRY
    }

    async fn renew(&mut self, clock: &dyn Clock) -> Result<(), kube::Error> {
        if self.before == Before::Unread {
            let lease = self.leases.get_opt(&self.name).await?;
            self.before.read(lease.and_then(|lease| head_of(&lease, self.log.writer())));
        }
        if self.is_marked {
            self.mark.set(None).await;
        }
        let head = Some(self.before.head(&self.log).await).filter(|head| head.sequence > 0);
        let heads = head.and_then(|head| publish("", self.log.writer(), &head));
        // The API server removes what an agent that serves no streams does not apply.
        let mut annotations = json!({names::BATCHES_ANNOTATION: names::BATCHES_HELD});
        if let Some(published) = &self.streams {
            annotations[names::STREAM_ENDPOINT_ANNOTATION] = json!(published.endpoint.to_string());
            annotations[names::STREAM_CERTIFICATE_ANNOTATION] = json!(published.certificate);
        }
        if let Some(engine) = self.engine.said() {
            annotations[names::ENGINE_ANNOTATION] = json!(engine);
        }
        if let Some(heads) = heads {
            annotations[names::AUDIT_HEADS_ANNOTATION] = json!(heads);
        }
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "annotations": annotations, "labels": {
                names::COMPONENT_LABEL: names::COMPONENT_AGENT,
                "app.kubernetes.io/name": "execlet",
            }},
            "spec": {
                "holderIdentity": self.node.as_str(),
                "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": MicroTime(clock.now()),
            },
        });
        let params = PatchParams::apply(names::AGENT_CONTROLLER).force();
        let renewed = self.leases.patch(&self.name, &params, &Patch::Apply(lease)).await?;
        let annotations = renewed.metadata.annotations.unwrap_or_default();
        self.is_marked = annotations.contains_key(names::ENGINE_REFUSED_ANNOTATION);
        Ok(())
    }
}
