//! HTTP/1.1 on one connection.

use std::{error::Error, pin::pin, time::Duration};

use axum::response::Response;
use hyper::{Request, body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tower::Service;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// How long it may take, and how long a connection may wait for the next one.
    pub(crate) timeout: Duration,
    pub(crate) bytes: usize,
}

/// Serves one connection until it ends or is upgraded. From `stop` on it ends after the call that it is at; `cut` ends
/// it at once.
pub(crate) async fn serve_http<S>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    service: S,
    head: Head,
    stop: &CancellationToken,
    cut: impl Future<Output = ()>,
) where
    S: Service<Request<Incoming>, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head.timeout)
        .max_buf_size(head.bytes)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    let (mut connection, mut cut) = (pin!(connection), pin!(cut));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = &mut cut => return,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = cut => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}
