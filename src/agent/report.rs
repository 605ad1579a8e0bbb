//! Report: the outcome into the status, once and for ever.

use std::time::Duration;

use tokio::time::sleep;

use super::node::{Node, StepError};
use crate::{
    api::{ExecRequest, ExecRequestStatus},
    core::{
        ids::RequestKey,
        outcome::Outcome,
        transition::{Write, without_tails},
    },
    engine::Engine,
    infra::requests::Written,
};

/// Pause before a report that was refused is tried again.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// Writes the outcome until the API server has it, or has no such request any more.
pub(super) async fn report<E: Engine>(
    node: &Node<E>,
    key: &RequestKey,
    seen: ExecRequest,
    mut outcome: Outcome,
) -> Result<(), StepError> {
    let mut current = Some(seen);
    let mut shortened = false;
    while let Some(object) = current {
        let from = object.status.clone().unwrap_or_else(ExecRequestStatus::default);
        if from.completion_time.is_some() {
            return Ok(());
        }
        let write = Write { from: &from, generation: object.metadata.generation, at: node.clock.now() };
        match node.requests.write_status(&object, write.finished(&outcome)).await? {
            Written::Won(_) => {
                said(node, key, &outcome).await;
                return Ok(());
            }
            Written::Lost => {}
            Written::Gone => break,
            Written::Refused(message) if shortened => {
                tracing::error!(request = %key, uid = %key.uid, why = message, "the API server refuses the outcome; it stays in the journal");
                sleep(REFUSED_PAUSE).await;
            }
            Written::Refused(message) => {
                tracing::warn!(request = %key, uid = %key.uid, why = message, "the API server refuses the outcome; tried without the output's end");
                outcome = without_tails(outcome);
                shortened = true;
            }
        }
        current = node.requests.get(key).await?;
    }
    tracing::info!(request = %key, uid = %key.uid, reason = %outcome.reason, "the request was deleted before its outcome could be reported");
    Ok(())
}

async fn said<E: Engine>(node: &Node<E>, key: &RequestKey, outcome: &Outcome) {
    let code = outcome.exit.map(|exit| exit.code);
    tracing::info!(request = %key, uid = %key.uid, reason = %outcome.reason, code, why = outcome.message, "finished");
    node.metrics.finished(outcome.reason);
    node.events.publish(key, "Exec", outcome.reason, &outcome.message).await;
}
