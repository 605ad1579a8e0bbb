//! The heads of the managers' audit chains, in the leader's Lease: each replica publishes its own.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    api::names,
    core::audit::chain,
    infra::audit::{
        published::{Before, head_of},
        writer::Log,
    },
};

const EVERY: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(5);

/// Publishes until `shutdown`, and then once more.
pub(super) async fn publish(
    client: Client,
    namespace: String,
    log: Log,
    mut before: Before,
    shutdown: CancellationToken,
) {
    let leases: Api<Lease> = Api::namespaced(client, &namespace);
    let mut known = 0;
    loop {
        let stopping = tokio::select! {
            () = shutdown.cancelled() => true,
            () = sleep(EVERY) => false,
        };
        if log.head().sequence != known {
            match timeout(TIMEOUT, set(&leases, &log, &mut before)).await {
                Ok(Ok(sequence)) => known = sequence,
                Ok(Err(error)) => tracing::warn!(%error, "the head of the audit log could not be published"),
                Err(_) => tracing::warn!("the head of the audit log could not be published in time"),
            }
        }
        if stopping {
            return;
        }
    }
}

/// Publishes the head, unless the Lease has been written meanwhile. Gives its number.
async fn set(leases: &Api<Lease>, log: &Log, before: &mut Before) -> Result<u64, kube::Error> {
    let lease = leases.get(names::LEADER_LEASE).await?;
    before.read(head_of(&lease, log.writer()));
    let head = before.head(log).await;
    let annotations = lease.metadata.annotations.unwrap_or_default();
    let now = annotations.get(names::AUDIT_HEADS_ANNOTATION).map(String::as_str).unwrap_or_default();
    let Some(next) = chain::publish(now, log.writer(), &head) else { return Ok(head.sequence) };
    let patch = json!({"metadata": {
        "resourceVersion": lease.metadata.resource_version,
        "annotations": {names::AUDIT_HEADS_ANNOTATION: next},
    }});
    leases.patch(names::LEADER_LEASE, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| head.sequence)
}
