//! What the leader does for as long as it leads, or until its watches have lost their place.

use std::sync::Arc;

use futures::StreamExt;
use kube::{
    Api,
    runtime::{Controller, controller},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    batch,
    bind::{Guarded, on_error, reconcile},
    write::Leader,
};
use crate::infra::retry::{self, WatchPauses};

/// What is neither running nor finished: unbound, or bound and not yet committed. A batch's requests are not among them:
/// they wait for their batch.
const SELECTOR: &str = "status.phase!=Running,status.completionTime=,spec.batch.uid=";
const CONCURRENCY: u16 = 16;

impl Leader {
    pub(in crate::manager) async fn lead(self, namespace: &str, term: CancellationToken) {
        let (told, synced) = watch::channel(false);
        let watching = self.agents.watch(self.client.clone(), namespace, || {
            told.send_replace(true);
        });
        let api: Api<Guarded> = Api::all(self.client.clone());
        // Without the Leases every node would look dead.
        let leases = async || synced.clone().wait_for(|known| *known).await.is_ok();
        let binding = async {
            if !leases().await {
                return;
            }
            Controller::new(api, retry::watching().fields(SELECTOR))
                .with_config(controller::Config::default().concurrency(CONCURRENCY))
                .trigger_backoff(WatchPauses::default())
                .graceful_shutdown_on(term.cancelled_owned())
                .run(reconcile, on_error, Arc::new(self.clone()))
                .for_each(|result| async {
                    if let Err(error) = result {
                        tracing::debug!(%error, "reconcile");
                    }
                })
                .await;
        };
        let tending = async {
            if leases().await {
                Box::pin(batch::lead::lead(self.clone())).await;
            }
        };
        tokio::select! {
            () = watching => {}
            () = binding => {}
            () = tending => {}
            () = self.give_up_lost() => {}
        }
    }
}
