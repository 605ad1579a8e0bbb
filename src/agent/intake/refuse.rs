//! Refuses an object that cannot be read as a request.

use std::sync::Arc;

use kube::core::error_boundary::InvalidObject;

use crate::{
    agent::node::{Node, World},
    api::{ExecRequestStatus, Reason},
    core::{ids::RequestKey, outcome::Outcome, transition::Write},
    infra::requests::Requests,
};

pub(super) async fn refuse_unreadable<W: World>(node: Arc<Node<W>>, key: RequestKey, invalid: InvalidObject) {
    let message = format!("this object cannot be read as an ExecRequest: {}", invalid.error);
    tracing::error!(request = %key, uid = %key.uid, why = message, "refused");
    let now = node.clock.now();
    let outcome = Outcome::refused(Reason::InvalidRequest, message, now);
    node.audit.ended(&node.audit.unread(&key), &outcome).await;
    let from = ExecRequestStatus { node_name: Some(node.name.to_string()), ..ExecRequestStatus::default() };
    let status = Write { from: &from, generation: invalid.metadata.generation, at: now }.finished(&outcome);
    match node.requests.write_status_of_unreadable(&invalid.metadata, &status).await {
        Ok(()) => {
            node.metrics.finished(outcome.reason);
            node.events.publish(&key, "Exec", outcome.reason, &outcome.message).await;
        }
        Err(error) => tracing::error!(request = %key, %error, "an object that cannot be read could not be refused"),
    }
}
