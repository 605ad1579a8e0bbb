//! Report: the outcome into the status, once and for ever.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    agent::node::{Node, StepError, World},
    api::{ExecRequest, ExecRequestStatus, ExecResult},
    core::{
        batch::told::{has_events, tells_its_end},
        ids::RequestKey,
        outcome::Outcome,
        transition::{Write, without_tails},
    },
    infra::{
        events::PodRef,
        requests::{Requests, Written},
    },
};

/// Pause before a report that was refused is tried again.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// The request as it is finished; nothing, if there is none any more.
#[derive(Debug, Default)]
pub(crate) struct Reported {
    /// Its resource version.
    pub(crate) version: Option<String>,
    /// How it ended: somebody else may have said so first.
    pub(crate) result: Option<ExecResult>,
}

impl Reported {
    fn by(object: ExecRequest) -> Self {
        let result = object.status.and_then(|status| status.result);
        Self { version: object.metadata.resource_version, result }
    }
}

/// Writes the outcome until the API server has it, or another, or no such request any more.
pub(crate) async fn report<W: World>(
    node: &Node<W>,
    key: &RequestKey,
    seen: ExecRequest,
    outcome: &Outcome,
) -> Result<Reported, StepError> {
    let mut current = Some(seen);
    let mut shortened = None;
    while let Some(object) = current {
        let from = object.status.clone().unwrap_or_else(ExecRequestStatus::default);
        if from.completion_time.is_some() {
            return Ok(Reported::by(object));
        }
        let write = Write { from: &from, generation: object.metadata.generation, at: node.clock.now() };
        match node.requests.write_status(&object, write.finished(shortened.as_ref().unwrap_or(outcome))).await? {
            Written::Won(written) => {
                said(node, key, &from, &object, outcome).await;
                return Ok(Reported::by(*written));
            }
            Written::Lost => {}
            Written::Gone => break,
            Written::Refused(message) if shortened.is_some() => {
                tracing::error!(request = %key, uid = %key.uid, why = message, "the API server refuses the outcome; it stays in the journal");
                sleep(REFUSED_PAUSE).await;
            }
            Written::Refused(message) => {
                tracing::warn!(request = %key, uid = %key.uid, why = message, "the API server refuses the outcome; tried without the output's end");
                shortened = Some(without_tails(outcome.clone()));
            }
        }
        current = node.requests.get(key).await?;
    }
    tracing::info!(request = %key, uid = %key.uid, reason = %outcome.reason, "the request was deleted before its outcome could be reported");
    Ok(Reported::default())
}

async fn said<W: World>(
    node: &Node<W>,
    key: &RequestKey,
    from: &ExecRequestStatus,
    object: &ExecRequest,
    outcome: &Outcome,
) {
    let code = outcome.exit.map(|exit| exit.code);
    tracing::info!(request = %key, uid = %key.uid, reason = %outcome.reason, code, why = outcome.message, "finished");
    node.metrics.finished(outcome.reason);
    let on_request = async {
        if tells_its_end(object, outcome) {
            node.events.publish(key, "Exec", outcome.reason, &outcome.message).await;
        }
    };
    let on_pod = async {
        // What never ran is no news of the pod.
        if outcome.may_have_run
            && has_events(object)
            && let Some(uid) = &from.pod_uid
        {
            let pod = PodRef { name: object.spec.target.pod_name.clone(), uid: uid.clone() };
            let words = format!("the command of ExecRequest {} has ended: {}", key.name, outcome.reason);
            node.events.publish_on_pod(&pod, key, "Exec", outcome.reason, &words).await;
        }
    };
    tokio::join!(biased; on_request, on_pod);
}
