//! Requests whose node has been silent for too long are given up.

use std::{pin::pin, time::Duration};

use futures::TryStreamExt;
use kube::{Api, api::ListParams, core::DeserializeGuard};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::write::{Change, Leader};
use crate::{
    api::{ExecRequest, Reason},
    core::{bind, outcome::Outcome, request::key_of, transition::Write},
    infra::{call::ApiError, pages::pages},
};

const LOOK_EVERY: Duration = Duration::from_secs(10);
const RUNNING: &str = "status.phase=Running,status.completionTime=";
const PAGE: u32 = 200;

impl Leader {
    /// Gives up what was committed on nodes that are gone.
    pub(super) async fn give_up_lost(&self) {
        let watching = Instant::now();
        let mut clock = interval(LOOK_EVERY);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            // A new leader must have watched for that long itself.
            if watching.elapsed() < self.node_lost {
                continue;
            }
            if let Err(error) = self.look_for_lost(watching).await {
                tracing::warn!(%error, "the requests that run could not be listed");
            }
        }
    }

    async fn look_for_lost(&self, watching: Instant) -> Result<(), ApiError> {
        let api: Api<DeserializeGuard<ExecRequest>> = Api::all(self.client.clone());
        let params = ListParams::default().fields(RUNNING).limit(PAGE);
        let mut pages = pin!(pages(api, params, "list the requests that run".to_owned()));
        while let Some(page) = pages.try_next().await? {
            for request in page.iter().filter_map(|guard| guard.0.as_ref().ok()) {
                let node = request.status.as_ref().and_then(|status| status.node_name.as_deref()).unwrap_or_default();
                let silent = self.agents.silent_for(node, watching);
                if let Some((reason, message)) = bind::node_lost(request, silent, self.node_lost) {
                    self.give_up(request, reason, message).await;
                }
            }
        }
        Ok(())
    }

    async fn give_up(&self, request: &ExecRequest, reason: Reason, message: String) {
        let (Ok(key), Some(from)) = (key_of(&request.metadata), &request.status) else { return };
        let now = self.clock.now();
        let outcome = Outcome { reason, ..Outcome::lost(message, None, now) };
        let next = Write { from, generation: request.metadata.generation, at: now }.finished(&outcome);
        if let Err(error) =
            self.apply(request, &key, next, Change::Finished(outcome), bind::was_vouched_for(request)).await
        {
            tracing::warn!(request = %key, %error, "a lost request could not be given up; retrying");
        }
    }
}
