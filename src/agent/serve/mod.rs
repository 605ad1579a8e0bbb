//! The stream server: attach and log over HTTPS, for the manager alone.
//!
//! `GET /v1/namespaces/NAMESPACE/execrequests/NAME/UID/attach` and `.../log`, with the query of
//! the public API. It knows the commands by their hubs and logs, and the requests by
//! the API server; what they do it never waits for, nor they for it.

pub mod admission;
pub mod identity;
pub mod limits;

mod attach;
mod connection;
mod lines;
mod log;
mod refuse;
mod seats;
mod viewer;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, Request as HttpRequest, State},
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, StatusCode, header};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    admission::{Admission, Refusal},
    limits::{Slot, Viewers},
    refuse::Refused,
    seats::Seat,
};
use super::streams::{
    hub::{Hub, Hubs},
    ring::Written,
    spool::Spool,
    turns::Readers,
};
use crate::{
    api::{ExecRequest, ExecResult, Requester, names},
    core::ids::{NodeName, RequestKey, RequestUid},
    infra::{
        audit::{Audit, writer::Log},
        clock::Clock,
        metrics::Metrics,
        requests::Requests,
    },
};

/// What the server stands on.
pub struct StreamServer<R> {
    /// This node.
    pub node: NodeName,
    /// The requests, as the API server has them.
    pub requests: R,
    /// Who may come.
    pub admission: Admission,
    /// The commands that run, or wait to.
    pub hubs: Arc<Hubs>,
    /// The logs.
    pub spool: Spool,
    /// Who watches what, for auditors.
    pub audit: Audit<Log>,
    /// What is counted.
    pub metrics: Metrics,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// How patient it is.
    pub pace: limits::Pace,
    /// When to stop.
    pub shutdown: CancellationToken,
}

/// What every handler has.
struct ServerState<R> {
    streams: StreamServer<R>,
    viewers: Viewers,
    readers: Readers,
    tasks: TaskTracker,
}

/// A command that somebody wants to see.
struct Subject {
    request: ExecRequest,
    key: RequestKey,
    hub: Arc<Hub>,
    _place: Slot<RequestUid>,
    /// Who, as the manager says.
    by: Requester,
    /// From where, as far as it is known.
    address: String,
}

impl Subject {
    /// Who views, in words.
    fn viewer(&self) -> String {
        let who = if self.by.username.is_empty() { "somebody" } else { &self.by.username };
        if self.address.is_empty() { who.to_owned() } else { format!("{who} from {}", self.address) }
    }
}

/// Serves until told to stop; then tells all who watch, and waits for them for a moment.
pub async fn serve<R: Requests>(listener: TcpListener, tls: Arc<ServerConfig>, streams: StreamServer<R>) {
    let (viewers, readers) = (Viewers::new(limits::VIEWERS), Readers::default());
    let shared = Arc::new(ServerState { streams, viewers, readers, tasks: TaskTracker::new() });
    let router = Router::new()
        .route("/v1/namespaces/{namespace}/execrequests/{name}/{uid}/attach", get(attach::attach::<R>))
        .route("/v1/namespaces/{namespace}/execrequests/{name}/{uid}/log", get(log::log::<R>))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), admit::<R>))
        .fallback(|| async { Refused::new(StatusCode::NOT_FOUND, "there is nothing here") })
        .with_state(Arc::clone(&shared));
    connection::accept(listener, tls, router, &shared.tasks, &shared.streams.metrics, &shared.streams.shutdown).await;
    shared.tasks.close();
    shared.tasks.wait().await;
}

/// Lets the manager through, and nobody else.
async fn admit<R: Requests>(State(shared): State<Arc<ServerState<R>>>, request: HttpRequest, next: Next) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Err(refusal) = shared.streams.admission.admit(authorization).await {
        shared.streams.metrics.stream_refused();
        let status = match refusal {
            Refusal::NoToken | Refusal::Invalid => StatusCode::UNAUTHORIZED,
            Refusal::NotTheManager(_) => StatusCode::FORBIDDEN,
            Refusal::Unknown(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let peer = request.extensions().get().map(|connection::Peer(address)| *address);
        tracing::info!(path = request.uri().path(), ?peer, code = status.as_u16(), why = %refusal, "refused");
        return axum::response::IntoResponse::into_response(Refused::new(status, refusal.to_string()));
    }
    if let Some(seat) = request.extensions().get::<Arc<Seat>>() {
        seat.admit();
    }
    next.run(request).await
}

/// Finds the command that a path names.
async fn find<R: Requests>(
    shared: &ServerState<R>,
    Path((namespace, name, uid)): Path<(String, String, String)>,
    headers: &HeaderMap,
) -> Result<Subject, Refused> {
    let key = RequestKey { namespace, name, uid: uid.as_str().into() };
    let place = shared.viewers.enter(&key.uid).ok_or_else(|| {
        let message = format!("this request has {} viewers already, and cannot have more", limits::VIEWERS);
        Refused::new(StatusCode::TOO_MANY_REQUESTS, message)
    })?;
    // Taken before the object is read: if that is not finished, whoever works on it has the same one, or will.
    let hub = shared.streams.hubs.of(&key.uid);
    let found = shared.streams.requests.get(&key).await;
    let found = found.map_err(|error| Refused::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let missing = || Refused::new(StatusCode::NOT_FOUND, format!("there is no ExecRequest {key} with UID {}", key.uid));
    let request = found.ok_or_else(missing)?;
    let status = request.status.clone().unwrap_or_default();
    if status.node_name.as_deref() != Some(shared.streams.node.as_str()) {
        let message = format!("ExecRequest {key} is not bound to node {}", shared.streams.node);
        return Err(Refused::new(StatusCode::NOT_FOUND, message));
    }
    let hub = match (&status.completion_time, status.result) {
        (None, _) => hub,
        (Some(_), result) => {
            let size = shared.streams.spool.size(&key);
            let written = Written::said(status.output.as_ref(), status.start_time.is_some());
            if size == 0 && written.bytes > 0 && request.spec.output.spool_bytes > 0 {
                let message = "the output is no longer kept: it had to make room on its node (agent.spoolTotalBytes)";
                return Err(Refused::new(StatusCode::GONE, message));
            }
            Hub::ended(size, written, result.unwrap_or_else(|| ExecResult::of_error("the request has finished")))
        }
    };
    let (by, address) = viewer(headers);
    Ok(Subject { request, key, hub, _place: place, by, address })
}

/// Who views, and from where.
fn viewer(headers: &HeaderMap) -> (Requester, String) {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let user = text(names::USER_HEADER).and_then(|user| STANDARD.decode(user).ok());
    let by = user.and_then(|user| serde_json::from_slice(&user).ok()).unwrap_or_default();
    (by, text(names::CLIENT_HEADER).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests;
