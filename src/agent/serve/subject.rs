//! What all handlers share, and the command that a call is about.

use std::sync::Arc;

use axum::extract::Path;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, StatusCode};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    admission::Admission,
    limits::{Pace, VIEWERS, ViewerPermit, Viewers},
};
use crate::{
    agent::streams::{
        hub::{Hub, Hubs},
        ring::Written,
        spool::Spool,
        turns::Readers,
    },
    api::{ExecRequest, ExecResult, Requester, names},
    core::ids::{NodeName, RequestKey},
    infra::{
        audit::{Audit, writer::Log},
        clock::Clock,
        metrics::Metrics,
        refusal::Refusal,
        requests::Requests,
    },
};

pub struct StreamServer<R> {
    pub node: NodeName,
    pub requests: R,
    pub admission: Admission,
    /// The commands that run, or wait to.
    pub hubs: Arc<Hubs>,
    pub spool: Spool,
    pub audit: Audit<Log>,
    pub metrics: Metrics,
    pub clock: Arc<dyn Clock>,
    pub pace: Pace,
    pub shutdown: CancellationToken,
}

pub(super) struct ServerState<R> {
    pub(super) streams: StreamServer<R>,
    viewers: Viewers,
    pub(super) readers: Readers,
    pub(super) tasks: TaskTracker,
}

pub(super) struct Subject {
    pub(super) request: ExecRequest,
    pub(super) key: RequestKey,
    pub(super) hub: Arc<Hub>,
    _permit: ViewerPermit,
    pub(super) by: Requester,
    /// From where, as far as it is known.
    pub(super) address: String,
}

impl Subject {
    pub(super) fn viewer(&self) -> String {
        let who = if self.by.username.is_empty() { "somebody" } else { &self.by.username };
        if self.address.is_empty() { who.to_owned() } else { format!("{who} from {}", self.address) }
    }
}

impl<R: Requests> ServerState<R> {
    pub(super) fn new(streams: StreamServer<R>) -> Self {
        Self { streams, viewers: Viewers::new(VIEWERS), readers: Readers::default(), tasks: TaskTracker::new() }
    }

    pub(super) async fn find(
        &self,
        Path((namespace, name, uid)): Path<(String, String, String)>,
        headers: &HeaderMap,
    ) -> Result<Subject, Refusal> {
        let key = RequestKey { namespace, name, uid: uid.as_str().into() };
        let permit = self.viewers.enter(&key.uid).ok_or_else(|| {
            let message = format!("this request has {VIEWERS} viewers already, and cannot have more");
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, message)
        })?;
        // Taken before the object is read: unless that has finished, whoever works on the request has this hub, or
        // will have it.
        let hub = self.streams.hubs.of(&key.uid);
        let found = self.streams.requests.get(&key).await;
        let found = found.map_err(|error| Refusal::unavailable(error.to_string()))?;
        let missing = || Refusal::not_found(format!("there is no ExecRequest {key} with UID {}", key.uid));
        let request = found.ok_or_else(missing)?;
        let status = request.status.clone().unwrap_or_default();
        if status.node_name.as_deref() != Some(self.streams.node.as_str()) {
            return Err(Refusal::not_found(format!("ExecRequest {key} is not bound to node {}", self.streams.node)));
        }
        let hub = match (&status.completion_time, status.result) {
            (None, _) => hub,
            (Some(_), result) => {
                let size = self.streams.spool.size(&key);
                let written = Written::said(status.output.as_ref(), status.start_time.is_some());
                if size == 0 && written.bytes > 0 && request.spec.output.spool_bytes > 0 {
                    let message =
                        "the output is no longer kept: it had to make room on its node (agent.spoolTotalBytes)";
                    return Err(Refusal::new(StatusCode::GONE, message));
                }
                Hub::ended(size, written, result.unwrap_or_else(|| ExecResult::of_error("the request has finished")))
            }
        };
        let (by, address) = viewer(headers);
        Ok(Subject { request, key, hub, _permit: permit, by, address })
    }
}

fn viewer(headers: &HeaderMap) -> (Requester, String) {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let user = text(names::USER_HEADER).and_then(|user| STANDARD.decode(user).ok());
    let by = user.and_then(|user| serde_json::from_slice(&user).ok()).unwrap_or_default();
    (by, text(names::CLIENT_HEADER).unwrap_or_default().to_owned())
}
