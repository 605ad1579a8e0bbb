//! The leader's Lease is there, whoever deletes it: without it nobody can lead.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, api::PostParams, core::ObjectMeta};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::api::names;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Makes it anew as often as it is gone, until `shutdown`.
pub(super) async fn keep(client: Client, namespace: String, shutdown: CancellationToken) {
    let leases: Api<Lease> = Api::namespaced(client, &namespace);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep(LOOK_EVERY) => {}
        }
        if let Err(error) = look(&leases).await {
            tracing::warn!(%error, lease = names::LEADER_LEASE, "whether the leader's Lease is there is not known");
        }
    }
}

async fn look(leases: &Api<Lease>) -> kube::Result<()> {
    if leases.get_metadata_opt(names::LEADER_LEASE).await?.is_some() {
        return Ok(());
    }
    tracing::warn!(lease = names::LEADER_LEASE, "the leader's Lease is gone, it is made anew");
    let metadata = ObjectMeta { name: Some(names::LEADER_LEASE.to_owned()), ..ObjectMeta::default() };
    let lease = Lease { metadata, ..Lease::default() };
    match leases.create(&PostParams::default(), &lease).await {
        // Another replica was faster.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        made => made.map(drop),
    }
}
