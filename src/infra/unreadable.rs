//! An object that cannot be read as a request is refused.

use k8s_openapi::jiff::Timestamp;
use kube::core::error_boundary::InvalidObject;

use super::{
    audit::{Audit, Trail},
    call::ApiError,
    events::Events,
    metrics::Metrics,
    requests::Requests,
};
use crate::{
    api::{ExecRequestStatus, Reason},
    core::{ids::RequestKey, outcome::Outcome, transition::Write},
};

/// Who refuses it.
pub(crate) struct Refuser<'a, R, T> {
    pub(crate) requests: &'a R,
    pub(crate) audit: &'a Audit<T>,
    pub(crate) events: &'a Events,
    pub(crate) metrics: &'a Metrics,
    /// `action` of the Event.
    pub(crate) action: &'static str,
}

impl<R: Requests, T: Trail> Refuser<'_, R, T> {
    /// Records, writes and publishes the refusal. `from` is what is known of the object's status.
    pub(crate) async fn refuse(
        &self,
        key: &RequestKey,
        invalid: &InvalidObject,
        from: &ExecRequestStatus,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let message = format!("this object cannot be read as an ExecRequest: {}", invalid.error);
        tracing::error!(request = %key, uid = %key.uid, why = message, "refused");
        let outcome = Outcome::refused(Reason::InvalidRequest, message, now);
        self.audit.ended(&self.audit.unread(key), &outcome).await;
        let status = Write { from, generation: invalid.metadata.generation, at: now }.finished(&outcome);
        self.requests.write_status_of_unreadable(&invalid.metadata, &status).await?;
        self.metrics.finished(outcome.reason);
        self.events.publish(key, self.action, outcome.reason, &outcome.message).await;
        Ok(())
    }
}
