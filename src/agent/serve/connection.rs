//! Connections: accepted, counted, through TLS, and served. One that does not come through in time is closed.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{Router, extract::Request};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustix::net::sockopt;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use super::limits::{self, Share};
use crate::infra::{
    buffered::buffered,
    listener::seats::{Seat, Seats},
    metrics::Metrics,
    rarely::Rarely,
};

/// Pause after a connection could not be accepted: the process has too many files open.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Goes with each request: who has called.
#[derive(Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Accepts until told to stop.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    tasks: &TaskTracker,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let seats = Seats::new(limits::CONNECTIONS, limits::STRANGERS);
    let refusals =
        Arc::new(Refusals { metrics: metrics.clone(), too_many: Rarely::default(), failures: Rarely::default() });
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (connection, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some((seat, crowded)) = seats.enter(address.ip()) else {
            refusals.too_many(address);
            continue;
        };
        let share = Share::among(seats.taken());
        let caller = Caller { address, seat: Arc::new(seat), share, refusals: Arc::clone(&refusals) };
        let serving = one(connection, acceptor.clone(), router.clone(), caller, shutdown.clone());
        let refusals = Arc::clone(&refusals);
        tasks.spawn(async move {
            tokio::select! {
                () = crowded.cancelled() => refusals.too_many(address),
                () = serving => {}
            }
        });
    }
}

/// Connections that came to nothing.
struct Refusals {
    metrics: Metrics,
    too_many: Rarely,
    failures: Rarely,
}

impl Refusals {
    fn too_many(&self, address: SocketAddr) {
        self.metrics.stream_refused();
        if let Some(times) = self.too_many.happened() {
            tracing::warn!(%address, times, "connections are closed: there are too many");
        }
    }

    fn failed(&self, address: SocketAddr, error: &io::Error) {
        self.metrics.stream_refused();
        if let Some(times) = self.failures.happened() {
            tracing::warn!(%address, %error, times, "TLS handshakes fail");
        }
    }
}

/// What goes with a connection.
struct Caller {
    address: SocketAddr,
    /// A stranger's until a request is admitted.
    seat: Arc<Seat>,
    share: Share,
    refusals: Arc<Refusals>,
}

/// Serves one connection. What is upgraded has a task of its own, and its seat.
async fn one(
    connection: TcpStream,
    acceptor: TlsAcceptor,
    router: Router,
    caller: Caller,
    shutdown: CancellationToken,
) {
    let Caller { address, seat, share, refusals } = caller;
    if let Err(error) = prepare(&connection) {
        tracing::debug!(%error, "a connection will be slower, or longer dead than anybody knows");
    }
    let connection = buffered(connection, share.below_tls);
    let shaking = acceptor.accept_with(connection, |session| session.set_buffer_limit(Some(share.tls)));
    let shaken = timeout(limits::HANDSHAKE_TIMEOUT, shaking).await;
    let connection = match shaken.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long"))) {
        Ok(connection) => connection,
        Err(error) => return refusals.failed(address, &error),
    };
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(address));
        request.extensions_mut().insert(share);
        request.extensions_mut().insert(Arc::clone(&seat));
        request.map(axum::body::Body::new)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HANDSHAKE_TIMEOUT)
        .max_buf_size(limits::HEAD_BYTES)
        .serve_connection(TokioIo::new(connection), TowerToHyperService::new(service))
        .with_upgrades();
    tokio::pin!(serving);
    let served = tokio::select! {
        served = &mut serving => served,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            timeout(limits::HANDSHAKE_TIMEOUT, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended");
    }
}

/// What is written goes at once; and if the other end's node is gone, the connection ends, also of one who follows the
/// log of a command that is silent.
fn prepare(connection: &TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    sockopt::set_tcp_keepidle(connection, limits::KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(connection, limits::KEEPALIVE_AGAIN)?;
    sockopt::set_tcp_keepcnt(connection, limits::KEEPALIVE_TIMES)?;
    Ok(sockopt::set_socket_keepalive(connection, true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_whose_other_end_has_vanished_is_found_dead() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let _other = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (connection, _) = listener.accept().await.expect("a connection");
        prepare(&connection).expect("prepared");
        assert!(sockopt::socket_keepalive(&connection).expect("an option"));
        assert_eq!(sockopt::tcp_keepidle(&connection).expect("an option"), limits::KEEPALIVE);
        assert_eq!(sockopt::tcp_keepintvl(&connection).expect("an option"), limits::KEEPALIVE_AGAIN);
    }
}
