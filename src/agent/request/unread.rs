//! Unread: looking after a command while its request cannot be read, by what the journal has of it.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::{
    attend,
    work::{LONGEST_PAUSE, Next, Object, Work, attended, settle_unseen},
};
use crate::{
    agent::{
        command::running::WatchEnd,
        node::{StepError, World},
    },
    core::{
        decide::{Action, RequestView},
        ids::ExecRef,
    },
    infra::requests::Requests,
};

/// How long it is waited for a request of which something may run, before that is looked after without it.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

impl<W: World> Work<W> {
    /// Reads the object. One of which something may run is not waited for without end.
    pub(super) async fn read(&self) -> Result<Object, StepError> {
        let reading = self.node.requests.get(self.key());
        if !self.memory.entry().is_some_and(|entry| entry.needs_looking_after()) {
            return Ok(Object::of(reading.await?));
        }
        Ok(match timeout(ANSWERS_WITHIN, reading).await {
            Ok(Ok(found)) => Object::of(found),
            Ok(Err(_)) | Err(_) => Object::Unread,
        })
    }

    /// The API server does not answer. What runs is looked after all the same, by what the journal has of it.
    pub(super) async fn act_unread(&mut self) -> Result<Next, StepError> {
        let terms = self.memory.terms();
        let wanted = RequestView::Unread(terms);
        let action = self.decide(wanted).await?;
        if self.node.stopping.is_cancelled() {
            return Ok(Next::Done);
        }
        tracing::debug!(request = %self.key(), uid = %self.key().uid, ?action, "decided, without the API server");
        let (exec, watched) = match action {
            Action::Adopt(exec) => {
                let process = self.process(&exec).await;
                let attended = attended(&self.node, &self.memory, &self.hub, wanted, &exec);
                let watched = attend::without_output(&attended, &mut self.news, process).await;
                (exec, watched)
            }
            Action::Settle(exec) => {
                let attended = attended(&self.node, &self.memory, &self.hub, wanted, &exec);
                let outcome = settle_unseen(&attended).await;
                (exec, WatchEnd::Ended(outcome))
            }
            Action::Guard(exec) => return Ok(self.guard(wanted, Some(exec)).await),
            Action::Prepare(_)
            | Action::AwaitBinding
            | Action::AwaitClient
            | Action::Commit(_)
            | Action::Start { .. }
            | Action::Fence(_)
            | Action::AwaitRequest
            | Action::Kill
            | Action::Report(_)
            | Action::Forget => return Ok(self.guard(wanted, None).await),
        };
        let watched = match terms {
            Some(terms) => self.with_input_lost(watched, terms),
            None => watched,
        };
        Ok(self.end(&exec, watched, None).await)
    }

    /// Waits for the request, and sees meanwhile to it that this exec ends in time.
    async fn guard(&mut self, wanted: RequestView<'_>, exec: Option<ExecRef>) -> Next {
        let node = Arc::clone(&self.node);
        let key = self.key().clone();
        let reading = async {
            loop {
                match node.requests.get(&key).await {
                    Ok(found) => return found,
                    Err(error) => {
                        tracing::debug!(request = %key, uid = %key.uid, %error, "it cannot be read yet");
                        sleep(LONGEST_PAUSE).await;
                    }
                }
            }
        };
        let process = match &exec {
            Some(exec) => self.process(exec).await,
            None => None,
        };
        let guarding = async {
            match &exec {
                Some(exec) => {
                    let attended = attended(&self.node, &self.memory, &self.hub, wanted, exec);
                    attend::guard(&attended, &mut self.news, process).await
                }
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            biased;
            () = node.stopping.cancelled() => return Next::Done,
            found = reading => {
                self.seen = Object::of(found);
                return Next::Again;
            }
            outcome = guarding => outcome,
        };
        match exec {
            Some(exec) => self.end(&exec, WatchEnd::Ended(outcome), None).await,
            None => Next::Again,
        }
    }
}
