//! The server: who may call, and what a connection may cost.
//!
//! A client certificate is asked for at the handshake, and judged for each call, because the authority to trust may
//! change while a connection is open. As in Kubernetes' own servers, a client without one is answered 401.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use parking_lot::Mutex;
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
};
use tokio_util::sync::CancellationToken;
use tower::util::MapResponseLayer;

use super::front_proxy;
use crate::{
    infra::{
        clock::Clock,
        listener::{self, Door, Dropped, Head},
        socket,
    },
    manager::subresources::{certificate::serving::Serving, metrics::Metrics},
};

const MOST_HANDSHAKES: usize = 512;
/// Connections of the front proxy at a time, without those of streams.
pub(crate) const MOST_CONNECTIONS: usize = 1024;
/// Connections of anybody else at a time: they can only ask for health, or be answered 401.
const MOST_OF_STRANGERS: usize = 64;
/// How long the head of a call may take, and how long a connection may wait for the next call.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
const STRANGERS_HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const LARGEST_HEAD: usize = 64 << 10;
/// What TLS holds of what a client has not taken yet: beyond that, whoever produces it waits.
const TLS_BUFFER: usize = 64 << 10;

#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its certificate chain, whose key it has proved to hold. Who signed it is not checked here.
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
    pub(crate) address: SocketAddr,
}

/// The place of a connection among those that are idle or at a call. A stream gives it back, because streams are
/// bounded elsewhere.
#[derive(Clone)]
pub(crate) struct Seat(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Seat {
    /// From here on the connection is a stream's, and closed after it.
    pub(crate) fn leave(&self) {
        drop(self.0.lock().take());
    }

    fn answer(&self, mut response: Response) -> Response {
        if self.0.lock().is_none() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

pub(crate) struct Server {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) router: Router,
    pub(crate) front_proxy: front_proxy::Current,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    pub(crate) most_connections: usize,
}

struct Shared {
    door: Arc<Door>,
    router: Router,
    front_proxy: front_proxy::Current,
    clock: Arc<dyn Clock>,
    connections: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

pub(crate) fn tls(serving: Serving, provider: Arc<CryptoProvider>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(AskForOne(provider)))
        .with_cert_resolver(Arc::new(serving));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl Server {
    /// Serves. From `stop` on no connection is accepted, and each ends after the call that it is at; `cut` ends those
    /// that are still open.
    pub(crate) async fn run(self, stop: CancellationToken, cut: CancellationToken) {
        let Self { listener, tls, router, front_proxy, clock, metrics, most_connections } = self;
        let shared = Arc::new(Shared {
            door: Door::new(tls, (MOST_HANDSHAKES, MOST_HANDSHAKES), move |why| metrics.dropped(why)),
            router,
            front_proxy,
            clock,
            connections: Arc::new(Semaphore::new(most_connections)),
            strangers: Arc::new(Semaphore::new(MOST_OF_STRANGERS)),
        });
        listener::accept(listener, &stop, |socket, address| {
            Some(Arc::clone(&shared).connection(socket, address, stop.clone(), cut.clone()))
        })
        .await;
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
        let Some((handshake, crowded)) = self.door.enter(address) else { return };
        let shaking = self.door.handshake(socket, address, (socket::SMALL, TLS_BUFFER));
        let Some(Some(stream)) = self.door.unless_crowded(&crowded, address, shaking).await else { return };
        drop(handshake);
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = Peer { chain: chain.iter().cloned().map(CertificateDer::into_owned).collect(), address };
        let known = self.front_proxy.borrow().clone();
        let trusted = known.is_some_and(|known| known.admit(&peer.chain, self.clock.now()).is_ok());
        let (places, timeout) =
            if trusted { (&self.connections, HEAD_TIMEOUT) } else { (&self.strangers, STRANGERS_HEAD_TIMEOUT) };
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            return self.door.drop_one(Dropped::Full, address);
        };
        let seat = Seat(Arc::new(Mutex::new(Some(place))));
        let answering = seat.clone();
        let router = self
            .router
            .clone()
            .layer(Extension(peer))
            .layer(Extension(seat))
            .layer(MapResponseLayer::new(move |response| answering.answer(response)));
        let head = Head { timeout, bytes: LARGEST_HEAD };
        listener::serve_http(stream, router, head, &stop, cut.cancelled()).await;
    }
}

/// Asks for a client certificate, and takes any whose key the client proves to hold.
#[derive(Debug)]
struct AskForOne(Arc<CryptoProvider>);

impl ClientCertVerifier for AskForOne {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// Empty: the API server then sends the certificate that it has.
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
