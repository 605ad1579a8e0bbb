//! Leader election by a Lease, which is created if it does not exist.
//!
//! The library sleeps until another replica's hold of the Lease ends, and would not notice that the Lease was deleted or
//! given back meanwhile. So a replica that does not lead starts over every few seconds.

use std::time::Duration;

use kube::Client;
use kube_lease_manager::{LeaseManagerBuilder, LeaseManagerError};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{api::names, infra::health::Readiness};

const LEADER_SECONDS: u64 = 15;
/// How long before its end it is renewed, in seconds.
const LEADER_GRACE_SECONDS: u64 = 5;
const LOOK_EVERY: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(1);
/// Name in `/readyz`.
pub(super) const CHECK: &str = "leader-lease";

pub(super) struct Candidate {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) identity: String,
    pub(super) readiness: Readiness,
}

impl Candidate {
    /// Tells whether this replica leads, until the receiver is dropped; then gives the Lease back.
    pub(super) async fn stand(self, tell: watch::Sender<bool>) {
        // When the leader was last known.
        let mut known = Instant::now();
        while !tell.is_closed() {
            if let Err(error) = self.look(&tell, &mut known).await {
                tracing::warn!(%error, lease = names::LEADER_LEASE, "the leader is not known; retrying");
                // Another replica may lead by now.
                if known.elapsed() >= Duration::from_secs(LEADER_SECONDS) {
                    told(&tell, false);
                }
                tokio::select! {
                    () = sleep(RETRY) => {}
                    () = tell.closed() => {}
                }
            }
        }
    }

    /// One look, or as long as this replica leads.
    async fn look(&self, tell: &watch::Sender<bool>, known: &mut Instant) -> Result<(), LeaseManagerError> {
        let lease = LeaseManagerBuilder::new(self.client.clone(), names::LEADER_LEASE)
            .with_namespace(&self.namespace)
            .with_identity(&self.identity)
            .with_duration(LEADER_SECONDS)
            .with_grace(LEADER_GRACE_SECONDS)
            .build()
            .await?;
        self.readiness.ready(CHECK);
        let leading = async {
            let Ok(changed) = timeout(LOOK_EVERY, lease.changed()).await else {
                *known = Instant::now();
                told(tell, false);
                return Ok(());
            };
            let mut leads = changed?;
            loop {
                *known = Instant::now();
                told(tell, leads);
                if !leads {
                    return Ok(());
                }
                leads = lease.changed().await.inspect_err(|_| *known = Instant::now())?;
            }
        };
        tokio::select! {
            biased;
            () = tell.closed() => {}
            end = leading => return end,
        }
        lease.release().await
    }
}

fn told(tell: &watch::Sender<bool>, leads: bool) {
    tell.send_if_modified(|told| std::mem::replace(told, leads) != leads);
}
