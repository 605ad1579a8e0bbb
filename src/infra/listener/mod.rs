//! A server over TLS: accepts connections, bounds them, shakes hands, serves HTTP/1.1, and stops gracefully. Who may
//! stay after the handshake is its user's decision.

mod http;
mod seats;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use self::seats::Seats;
pub(crate) use self::{
    http::{Head, serve_http},
    seats::Seat,
};
use super::{
    rarely::Rarely,
    socket::{self, Buffered},
};

pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a connection could not be accepted: most likely the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// TLS failed, or took too long.
    Handshake,
    /// It was the oldest of too many that had not shown yet who they are.
    Crowded,
    Full,
}

pub(crate) struct Door {
    acceptor: TlsAcceptor,
    seats: Seats,
    count: Box<dyn Fn(Dropped) + Send + Sync>,
    too_many: Rarely,
    failures: Rarely,
}

impl Door {
    /// `most` connections, and `most_strangers` of them that are not admitted yet. `count` hears of each that is
    /// dropped.
    pub(crate) fn new(
        tls: Arc<ServerConfig>,
        (most, most_strangers): (usize, usize),
        count: impl Fn(Dropped) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            acceptor: TlsAcceptor::from(tls),
            seats: Seats::new(most, most_strangers),
            count: Box::new(count),
            too_many: Rarely::default(),
            failures: Rarely::default(),
        })
    }

    /// A seat, and the token that tells that another stranger has got it.
    pub(crate) fn enter(&self, address: SocketAddr) -> Option<(Seat, CancellationToken)> {
        let seat = self.seats.enter(address.ip());
        if seat.is_none() {
            self.drop_one(Dropped::Full, address);
        }
        seat
    }

    pub(crate) fn seats_taken(&self) -> usize {
        self.seats.taken()
    }

    /// Polls `future` unless the seat is lost before it is done.
    pub(crate) async fn unless_crowded<T>(
        &self,
        crowded: &CancellationToken,
        address: SocketAddr,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let done = crowded.run_until_cancelled(future).await;
        if done.is_none() {
            self.drop_one(Dropped::Crowded, address);
        }
        done
    }

    /// TLS, with a read buffer below it, and a bound for what TLS itself buffers of what is to be sent.
    pub(crate) async fn handshake(
        &self,
        socket: TcpStream,
        address: SocketAddr,
        (read_buffer, tls_buffer): (usize, usize),
    ) -> Option<TlsStream<Buffered>> {
        let handshake = async {
            let socket = socket::prepare(socket, read_buffer)?;
            self.acceptor.accept_with(socket, |session| session.set_buffer_limit(Some(tls_buffer))).await
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time");
        match timeout(HANDSHAKE_TIMEOUT, handshake).await.unwrap_or_else(|_| Err(late())) {
            Ok(stream) => Some(stream),
            Err(error) => {
                (self.count)(Dropped::Handshake);
                if let Some(times) = self.failures.happened() {
                    tracing::warn!(%error, %address, times, "TLS handshakes fail");
                }
                None
            }
        }
    }

    /// Counts a connection that is closed because there are too many, and warns now and then.
    pub(crate) fn drop_one(&self, why: Dropped, address: SocketAddr) {
        (self.count)(why);
        if let Some(times) = self.too_many.happened() {
            tracing::warn!(%address, ?why, times, "connections are closed: there are too many");
        }
    }
}

/// Accepts connections until `stop`, and waits for those that are open. `connection` gives what serves one, or none
/// if it is not let in.
pub(crate) async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    stop: &CancellationToken,
    connection: impl Fn(TcpStream, SocketAddr) -> Option<F>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => log_panic(ended),
            accepted = listener.accept() => match accepted {
                Ok((socket, address)) => if let Some(serving) = connection(socket, address) {
                    connections.spawn(serving);
                },
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        log_panic(ended);
    }
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection ended in a panic");
    }
}
