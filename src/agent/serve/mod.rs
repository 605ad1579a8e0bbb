//! The stream server: attach and log over HTTPS, for the manager alone.
//!
//! `GET /v1/namespaces/NAMESPACE/execrequests/NAME/UID/attach` and `.../log`, with the query of
//! the public API. It knows commands by their hubs and logs, and requests by the API server; it
//! never waits for the steps of a request, nor they for it.

pub mod admission;
pub mod identity;
pub mod limits;

mod attach;
mod connection;
mod lines;
mod log;
mod subject;
mod viewer;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::{StatusCode, header};
use rustls::ServerConfig;
use tokio::net::TcpListener;

pub use self::subject::StreamServer;
use self::{admission::NotAdmitted, connection::Connection, subject::ServerState};
use crate::infra::{refusal::Refusal, requests::Requests};

/// Serves until told to stop; then tells all viewers, and gives them a moment.
pub async fn serve<R: Requests>(listener: TcpListener, tls: Arc<ServerConfig>, streams: StreamServer<R>) {
    let shared = Arc::new(ServerState::new(streams));
    let router = Router::new()
        .route("/v1/namespaces/{namespace}/execrequests/{name}/{uid}/attach", get(attach::attach::<R>))
        .route("/v1/namespaces/{namespace}/execrequests/{name}/{uid}/log", get(log::log::<R>))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), admit::<R>))
        .fallback(|| async { Refusal::not_found("there is nothing at this path") })
        .with_state(Arc::clone(&shared));
    connection::accept(listener, tls, router, &shared.streams.metrics, &shared.streams.shutdown).await;
    shared.tasks.close();
    shared.tasks.wait().await;
}

async fn admit<R: Requests>(State(shared): State<Arc<ServerState<R>>>, request: Request, next: Next) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let connection = request.extensions().get::<Connection>();
    if let Err(why) = shared.streams.admission.admit(authorization).await {
        shared.streams.metrics.stream_refused();
        let code = match why {
            NotAdmitted::NoToken | NotAdmitted::Invalid => StatusCode::UNAUTHORIZED,
            NotAdmitted::NotTheManager(_) => StatusCode::FORBIDDEN,
            NotAdmitted::Unknown(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let peer = connection.map(|connection| connection.peer);
        tracing::info!(path = request.uri().path(), ?peer, code = code.as_u16(), %why, "refused");
        return Refusal::new(code, why.to_string()).into_response();
    }
    if let Some(connection) = connection {
        connection.seat.admit();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests;
