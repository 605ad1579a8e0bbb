//! The listener: TLS, HTTP/1.1, and what one connection may cost.
//!
//! A client certificate is asked for and not judged here: whether it is the front proxy's is looked at
//! for each call anew, because whom to trust can change while a connection is open. As in Kubernetes'
//! own servers, whoever has none is answered 401, and not cut off.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use parking_lot::{Mutex, MutexGuard};
use rustls::{
    DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tower::util::MapResponseLayer;

use super::front_proxy;
use crate::{
    infra::{
        buffered::{self, Buffered, buffered},
        clock::Clock,
        listener::keep_alive::keep_alive,
        rarely::Rarely,
    },
    manager::subresources::{
        certificate::Serving,
        metrics::{Dropped, Metrics},
    },
};

/// How long TLS may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at a time. One more ends the oldest: who floods with half-open ones keeps out nobody
/// whose handshake takes milliseconds.
const MOST_HANDSHAKES: usize = 512;
/// Connections of the front proxy at a time, those of streams not counted.
pub(crate) const MOST_CONNECTIONS: usize = 1024;
/// Connections of anybody else at a time: they only get to know that they are nobody.
const MOST_OF_STRANGERS: usize = 64;
/// How long the head of a call may take, and how long a connection may wait for the next call.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
const STRANGERS_HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest head of a call.
const LARGEST_HEAD: usize = 64 << 10;
/// Pause where no connection can be taken: there are no file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// What it has shown, with the key to it; nothing is known of who signed it.
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
    pub(crate) address: SocketAddr,
}

/// The place that a connection takes among those that are waited for or asked something. A stream is
/// counted elsewhere, and gives it back.
#[derive(Clone)]
pub(crate) struct Seat(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Seat {
    /// From here on the connection is a stream's, and closed after it.
    pub(crate) fn leave(&self) {
        drop(self.lock().take());
    }

    /// The answer, after which a connection without a place is not used again.
    fn answer(&self, mut response: Response) -> Response {
        if self.lock().is_none() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn lock(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.0.lock()
    }
}

/// What the listener needs.
pub(crate) struct Server {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) router: Router,
    pub(crate) front_proxy: front_proxy::Current,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    /// Connections of the front proxy at a time: [`MOST_CONNECTIONS`].
    pub(crate) most_connections: usize,
}

/// What connections share.
struct Shared {
    acceptor: TlsAcceptor,
    router: Router,
    front_proxy: front_proxy::Current,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    handshakes: Handshakes,
    connections: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    too_many: Rarely,
    failures: Rarely,
}

/// TLS as it is spoken here.
pub(crate) fn tls(serving: Serving, provider: Arc<CryptoProvider>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(AskForOne(provider)))
        .with_cert_resolver(Arc::new(serving));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl Server {
    /// Serves. From `stop` on nobody new is taken, and connections end after the call that they are at;
    /// those that `cut` finds open are ended.
    pub(crate) async fn run(self, stop: CancellationToken, cut: CancellationToken) {
        let Self { listener, tls, router, front_proxy, clock, metrics, most_connections } = self;
        let shared = Arc::new(Shared {
            acceptor: TlsAcceptor::from(tls),
            router,
            front_proxy,
            clock,
            metrics,
            handshakes: Handshakes::default(),
            connections: Arc::new(Semaphore::new(most_connections)),
            strangers: Arc::new(Semaphore::new(MOST_OF_STRANGERS)),
            too_many: Rarely::default(),
            failures: Rarely::default(),
        });
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next() => log_panic(ended),
                accepted = listener.accept() => match accepted {
                    Ok((socket, address)) => {
                        connections.spawn(Arc::clone(&shared).connection(socket, address, stop.clone(), cut.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be taken");
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
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection ended in a panic");
    }
}

impl Shared {
    async fn connection(
        self: Arc<Self>,
        socket: TcpStream,
        address: SocketAddr,
        stop: CancellationToken,
        cut: CancellationToken,
    ) {
        let Some(stream) = self.handshake(socket, address).await else { return };
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = Peer { chain: chain.iter().cloned().map(CertificateDer::into_owned).collect(), address };
        let known = self.front_proxy.borrow().clone();
        let trusted = known.is_some_and(|known| known.admit(&peer.chain, self.clock.now()).is_ok());
        let (places, head_timeout) =
            if trusted { (&self.connections, HEAD_TIMEOUT) } else { (&self.strangers, STRANGERS_HEAD_TIMEOUT) };
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            self.metrics.dropped(Dropped::Full);
            if let Some(times) = self.too_many.happened() {
                tracing::warn!(%address, trusted, times, "connections are closed: there are too many");
            }
            return;
        };
        let seat = Seat(Arc::new(Mutex::new(Some(place))));
        let answering = seat.clone();
        let router = self
            .router
            .clone()
            .layer(Extension(peer))
            .layer(Extension(seat))
            .layer(MapResponseLayer::new(move |response| answering.answer(response)));
        let service = TowerToHyperService::new(router);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head_timeout)
            .max_buf_size(LARGEST_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = cut.cancelled() => return,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = cut.cancelled() => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, %address, "a connection broke");
        }
    }

    async fn handshake(&self, socket: TcpStream, address: SocketAddr) -> Option<TlsStream<Buffered>> {
        let prepared = socket.set_nodelay(true).and_then(|()| keep_alive(&socket));
        let (_turn, crowded) = self.handshakes.enter();
        let shaken = tokio::select! {
            () = crowded.cancelled() => {
                self.metrics.dropped(Dropped::Crowded);
                if let Some(times) = self.too_many.happened() {
                    tracing::warn!(%address, times, "connections are closed: too many are in their TLS handshake");
                }
                return None;
            }
            shaken = timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(buffered(socket, buffered::SMALL))) => shaken,
        };
        let shaken =
            shaken.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time")));
        match prepared.and(shaken) {
            Ok(stream) => Some(stream),
            Err(error) => {
                self.metrics.dropped(Dropped::Handshake);
                if let Some(times) = self.failures.happened() {
                    tracing::warn!(%error, %address, times, "TLS handshakes fail");
                }
                None
            }
        }
    }
}

/// The handshakes that go on, the oldest first.
#[derive(Clone, Default)]
struct Handshakes(Arc<Mutex<Turns>>);

#[derive(Default)]
struct Turns {
    next: u64,
    going_on: BTreeMap<u64, CancellationToken>,
}

/// One handshake, over when dropped.
struct Turn {
    all: Handshakes,
    number: u64,
}

impl Handshakes {
    /// One more; the oldest is ended if they are too many. The token says that it is this one's end.
    fn enter(&self) -> (Turn, CancellationToken) {
        let crowded = CancellationToken::new();
        let mut turns = self.0.lock();
        let number = turns.next;
        turns.next += 1;
        turns.going_on.insert(number, crowded.clone());
        if turns.going_on.len() > MOST_HANDSHAKES
            && let Some((_, oldest)) = turns.going_on.pop_first()
        {
            oldest.cancel();
        }
        (Turn { all: self.clone(), number }, crowded)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.all.0.lock().going_on.remove(&self.number);
    }
}

/// Asks for a client certificate, and takes any whose key is shown to be at hand.
#[derive(Debug)]
struct AskForOne(Arc<CryptoProvider>);

impl ClientCertVerifier for AskForOne {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: the API server then shows the one it has.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_handshake_too_many_ends_the_oldest_and_no_other() {
        let handshakes = Handshakes::default();
        let first = handshakes.enter();
        let second = handshakes.enter();
        drop(second);
        let rest: Vec<_> = (0..MOST_HANDSHAKES - 1).map(|_| handshakes.enter()).collect();
        assert!(!first.1.is_cancelled());
        let newest = handshakes.enter();
        assert!(first.1.is_cancelled());
        assert!(rest.iter().all(|(_, crowded)| !crowded.is_cancelled()) && !newest.1.is_cancelled());
        drop((first, rest, newest));
        assert!(handshakes.0.lock().going_on.is_empty());
    }
}
