//! Connections of viewers, and what goes with the requests on one.

use std::{net::SocketAddr, sync::Arc};

use axum::Router;
use hyper::{Request, body::Incoming};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::limits::{self, Share};
use crate::infra::{
    listener::{self, Door, HANDSHAKE_TIMEOUT, Head, Seat},
    metrics::Metrics,
};

#[derive(Clone)]
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    pub(super) share: Share,
    /// A stranger's until a request is admitted.
    pub(super) seat: Arc<Seat>,
}

/// Accepts and serves connections until `shutdown`, and lets those that are open end.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) {
    let counted = metrics.clone();
    let door = Door::new(tls, (limits::CONNECTIONS, limits::STRANGERS), move |_| counted.stream_refused());
    listener::accept(listener, shutdown, |socket, peer| {
        let (seat, crowded) = door.enter(peer)?;
        let connection = Connection { peer, share: Share::among(door.seats_taken()), seat: Arc::new(seat) };
        let (door, router, shutdown) = (Arc::clone(&door), router.clone(), shutdown.clone());
        Some(async move {
            door.unless_crowded(&crowded, peer, serve(&door, socket, router, connection, &shutdown)).await;
        })
    })
    .await;
}

/// Serves one connection. What is upgraded has a task of its own, and the seat.
async fn serve(door: &Door, socket: TcpStream, router: Router, connection: Connection, shutdown: &CancellationToken) {
    let Share { below_tls, tls, .. } = connection.share;
    let Some(stream) = door.handshake(socket, connection.peer, (below_tls, tls)).await else { return };
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        request.map(axum::body::Body::new)
    });
    let head = Head { timeout: HANDSHAKE_TIMEOUT, bytes: limits::HEAD_BYTES };
    let cut = async {
        shutdown.cancelled().await;
        sleep(HANDSHAKE_TIMEOUT).await;
    };
    listener::serve_http(stream, service, head, shutdown, cut).await;
}
