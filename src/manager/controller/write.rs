//! Records, writes and publishes what was decided of a request, with one compare-and-swap of its status.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{Client, runtime::controller::Action};
use thiserror::Error;

use crate::{
    api::{ExecRequest, ExecRequestStatus, Reason},
    core::{
        batch::told::{has_events, tells_its_end},
        bind::{self, BindDecision},
        ids::RequestKey,
        outcome::Outcome,
        request::{NotBound, starting_deadline, waits_since},
        transition::{Binding, Write},
    },
    infra::{
        access::Access,
        audit::{Audit, Unavailable, writer::Log},
        call::ApiError,
        clock::Clock,
        events::{Events, PodRef},
        metrics::{Metrics, Step},
        requests::{KubeRequests, Requests, Written},
    },
    manager::{agents::LiveAgents, gate::Gate},
};

/// How soon a request that waits is looked at again: a tenth of its age, within these.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const LOOK_AGAIN_AT_LAST: Duration = Duration::from_secs(10);
pub(super) const RETRY: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(in crate::manager) struct Leader {
    pub(in crate::manager) client: Client,
    pub(in crate::manager) requests: KubeRequests,
    pub(in crate::manager) audit: Audit<Log>,
    pub(in crate::manager) events: Events,
    pub(in crate::manager) access: Access,
    pub(in crate::manager) gate: Gate,
    pub(in crate::manager) agents: LiveAgents,
    pub(in crate::manager) metrics: Metrics,
    pub(in crate::manager) clock: Arc<dyn Clock>,
    pub(in crate::manager) node_lost: Duration,
}

#[derive(Debug, Error)]
pub(super) enum BindError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    NoKey(#[from] NotBound),
    #[error(transparent)]
    Audit(#[from] Unavailable),
}

impl Leader {
    async fn record(&self, read: &ExecRequest, change: &Change, vouched_for: bool) -> Result<(), BindError> {
        let mut subject = self.audit.subject(read)?;
        if vouched_for {
            subject = subject.vouched_for();
        }
        match change {
            Change::Bound(binding, image) => self.audit.bound(&subject, binding, image.as_deref()).await?,
            Change::Waits(..) => {}
            Change::Finished(outcome) => self.audit.ended(&subject, outcome).await,
        }
        Ok(())
    }

    /// Records and writes a status, and says what happened if the write won. `vouched_for`: whether the
    /// admission policies vouch for the requester, as was found out now.
    pub(super) async fn apply(
        &self,
        read: &ExecRequest,
        key: &RequestKey,
        next: ExecRequestStatus,
        change: Change,
        vouched_for: bool,
    ) -> Result<Action, BindError> {
        match Box::pin(self.write(read, key, next, &change, vouched_for)).await? {
            Written::Won(_) => Ok(change.then(read, self.clock.now())),
            // The watch brings the newer object.
            Written::Lost | Written::Gone => Ok(Action::await_change()),
            Written::Refused(message) => {
                tracing::error!(request = %key, uid = %key.uid, why = message, "the API server refuses the status");
                Ok(Action::requeue(RETRY))
            }
        }
    }

    /// The same, and what came of the write.
    pub(super) async fn write(
        &self,
        read: &ExecRequest,
        key: &RequestKey,
        next: ExecRequestStatus,
        change: &Change,
        vouched_for: bool,
    ) -> Result<Written, BindError> {
        let changed = read.status.as_ref() != Some(&next);
        if changed {
            self.record(read, change, vouched_for).await?;
        }
        let written = self.requests.write_status(read, next).await?;
        if changed && let Written::Won(now) = &written {
            self.say(now, key, change).await;
        }
        Ok(written)
    }

    async fn say(&self, now: &ExecRequest, key: &RequestKey, change: &Change) {
        match change {
            Change::Bound(Binding { node, pod_uid, container, .. }, _) => {
                if let Some(since) = waits_since(now) {
                    let took = self.clock.now().duration_since(since);
                    self.metrics.step(Step::Bind, took.try_into().unwrap_or_default());
                }
                tracing::info!(request = %key, uid = %key.uid, node, "bound");
                if !has_events(now) {
                    return;
                }
                self.events.publish(key, "Bind", Reason::Bound, &format!("bound to node {node}")).await;
                let pod = PodRef { name: now.spec.target.pod_name.clone(), uid: pod_uid.clone() };
                let by = now.spec.requested_by.as_ref().map_or("an unknown user", |by| by.username.as_str());
                let note = format!("ExecRequest {} of {by} is to run a command in container {container}", key.name);
                self.events.publish_on_pod(&pod, key, "Bind", Reason::Bound, &note).await;
            }
            Change::Waits(reason, message) => {
                tracing::info!(request = %key, uid = %key.uid, %reason, why = message, "waits");
                if has_events(now) {
                    self.events.publish(key, "Bind", *reason, message).await;
                }
            }
            Change::Finished(outcome) => {
                let Outcome { reason, message, .. } = outcome;
                tracing::info!(request = %key, uid = %key.uid, %reason, why = message, "finished");
                self.metrics.finished(*reason);
                if tells_its_end(now, outcome) {
                    self.events.publish(key, "Bind", *reason, message).await;
                }
            }
        }
    }
}

/// What a status write says of a request.
#[derive(Clone, Debug)]
pub enum Change {
    /// To what, and the image of the container.
    Bound(Binding, Option<String>),
    Waits(Reason, String),
    Finished(Outcome),
}

/// What was decided of a request that is not bound yet: its status then, and what that says.
pub(super) fn decided(write: Write<'_>, decision: BindDecision, pod: Option<&Pod>) -> (ExecRequestStatus, Change) {
    match decision {
        BindDecision::Bind(binding) => {
            let image = pod.and_then(|pod| bind::image(pod, &binding.container));
            (write.bound(&binding), Change::Bound(binding, image))
        }
        BindDecision::Wait(reason, message) => (write.pending(reason, &message), Change::Waits(reason, message)),
        BindDecision::Refuse(reason, message) => {
            let outcome = Outcome::refused(reason, message, write.at);
            (write.finished(&outcome), Change::Finished(outcome))
        }
    }
}

impl Change {
    fn then(&self, read: &ExecRequest, now: Timestamp) -> Action {
        match self {
            Self::Bound(..) => at_deadline(read, now),
            Self::Waits(..) => Action::requeue(look_again(read, now)),
            Self::Finished(..) => Action::await_change(),
        }
    }
}

/// Soon for a new request, seldom for one that has waited long: each look reads a pod.
fn look_again(request: &ExecRequest, now: Timestamp) -> Duration {
    let age = request.metadata.creation_timestamp.as_ref().map(|created| now.duration_since(created.0).unsigned_abs());
    let left = starting_deadline(request).map(|deadline| now.duration_until(deadline).unsigned_abs());
    let pause = (age.unwrap_or_default() / 10).clamp(LOOK_AGAIN, LOOK_AGAIN_AT_LAST);
    left.map_or(pause, |left| pause.min(left.max(LOOK_AGAIN)))
}

pub(super) fn at_deadline(request: &ExecRequest, now: Timestamp) -> Action {
    let left = starting_deadline(request).map(|deadline| deadline.duration_since(now));
    let left: Duration = left.and_then(|left| left.try_into().ok()).unwrap_or_default();
    Action::requeue(left.max(LOOK_AGAIN))
}
