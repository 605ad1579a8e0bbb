//! That the engine of this node is not one to work with: told in the log, by readiness and metrics, and in the Lease, from
//! where the manager tells who waits for it.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    api::names,
    core::ids::NodeName,
    infra::{health::Readiness, metrics::Metrics},
};

/// Name in `/readyz`.
pub(super) const ENGINE_CHECK: &str = "engine";
/// Shorter than that of a renewal, which comes after it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

pub struct Refusal {
    mark: Mark,
    readiness: Readiness,
    metrics: Metrics,
    /// What was said last, and whether the Lease has it.
    said: Option<(String, bool)>,
}

impl Refusal {
    pub(super) fn new(mark: Mark, readiness: Readiness, metrics: Metrics) -> Self {
        Self { mark, readiness, metrics, said: None }
    }

    /// It may be one to work with; it is not known yet.
    pub(super) fn wait(&self, why: &str) {
        tracing::warn!(why, "waiting for the engine");
        self.readiness.not_ready(ENGINE_CHECK, why);
    }

    /// It is not. Said again, it costs nothing, unless the Lease could not be written.
    pub(super) async fn refuse(&mut self, why: &str) {
        self.readiness.not_ready(ENGINE_CHECK, why);
        self.metrics.engine_supported.set(0);
        let told = self.said.as_ref().is_some_and(|(said, _)| said == why);
        if !told {
            tracing::error!(why, "this agent takes no requests");
            self.said = Some((why.to_owned(), false));
        }
        if let Some((_, written @ false)) = &mut self.said {
            *written = self.mark.set(Some(why)).await;
        }
    }
}

/// The mark of a refusal on the agent's Lease. The rest of the Lease stays as it is.
#[derive(Clone)]
pub struct Mark {
    leases: Api<Lease>,
    name: String,
}

impl Mark {
    pub(super) fn new(client: Client, namespace: &str, node: &NodeName) -> Self {
        Self { leases: Api::namespaced(client, namespace), name: names::agent_lease(node.as_str()) }
    }

    /// Sets it, or takes it away. Whether that is done.
    pub(super) async fn set(&self, why: Option<&str>) -> bool {
        let mut metadata = json!({"name": self.name});
        if let Some(why) = why {
            metadata["annotations"] = json!({names::ENGINE_REFUSED_ANNOTATION: why});
            // The manager watches only those: an agent that has never taken work has no other.
            metadata["labels"] = json!({names::COMPONENT_LABEL: names::COMPONENT_AGENT});
        }
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata});
        let params = PatchParams::apply(names::ENGINE_REFUSED_MANAGER).force();
        let written = timeout(WRITE_TIMEOUT, self.leases.patch(&self.name, &params, &Patch::Apply(lease))).await;
        let failed = match written {
            Ok(Ok(_)) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the API server did not answer in time".to_owned(),
        };
        tracing::warn!(lease = self.name, why = failed, "the Lease does not say yet whether the engine is refused");
        false
    }
}
