//! Requests whose node has been silent for too long are given up.

use kube::{Api, api::ListParams, core::DeserializeGuard};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::write::{Change, Leader};
use crate::{
    api::{ExecRequest, Reason},
    core::{bind, outcome::Outcome, request::key_of, transition::Write},
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

    async fn look_for_lost(&self, watching: Instant) -> Result<(), kube::Error> {
        let api: Api<DeserializeGuard<ExecRequest>> = Api::all(self.client.clone());
        let mut params = ListParams::default().fields(RUNNING).limit(PAGE);
        loop {
            let list = api.list(&params).await?;
            for request in list.items.iter().filter_map(|guard| guard.0.as_ref().ok()) {
                let node = request.status.as_ref().and_then(|status| status.node_name.as_deref()).unwrap_or_default();
                let silent = self.agents.silent_for(node, watching);
                if let Some((reason, message)) = bind::node_lost(request, silent, self.node_lost) {
                    self.give_up(request, reason, message).await;
                }
            }
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(()),
            }
        }
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
