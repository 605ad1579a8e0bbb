//! The connection to an agent: over TLS to exactly the certificate in its Lease, with a token for this agent alone. One
//! connection for each call.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::coordination::v1::Lease;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;

use super::tokens::Tokens;
use crate::{
    api::{Requester, names},
    infra::socket,
    manager::subresources::target::Target,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) node: String,
    pub(crate) address: SocketAddr,
    pub(crate) certificate: CertificateDer<'static>,
}

impl Endpoint {
    pub(crate) fn of(node: &str, lease: Option<&Lease>) -> Result<Self, String> {
        let lease = lease.ok_or_else(|| format!("no execlet agent runs on node {node}"))?;
        let annotation = |name: &str| lease.metadata.annotations.as_ref().and_then(|all| all.get(name));
        let silent = || format!("the execlet agent on node {node} serves no streams: its Lease names no endpoint");
        let address = annotation(names::STREAM_ENDPOINT_ANNOTATION).ok_or_else(silent)?;
        let certificate = annotation(names::STREAM_CERTIFICATE_ANNOTATION).ok_or_else(silent)?;
        let wrong =
            |what: &str| format!("the Lease of the execlet agent on node {node} has {what} that cannot be read");
        Ok(Self {
            node: node.to_owned(),
            address: address.parse().map_err(|_| wrong("an endpoint"))?,
            certificate: CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| wrong("a certificate"))?,
        })
    }
}

#[derive(Debug, Error)]
pub(crate) enum CallError {
    /// Nothing was sent yet.
    #[error("{address} cannot be connected to: {why}")]
    Connect { address: SocketAddr, why: String },
    #[error("the API server gives the manager no token for the agent on node {node}: {why}")]
    Token { node: String, why: String },
    #[error("{address} does not answer: {why}")]
    Answer { address: SocketAddr, why: String },
}

pub(crate) struct Call<'a> {
    pub(crate) target: &'a Target,
    pub(crate) uid: String,
    /// `attach` or `log`.
    pub(crate) subresource: &'static str,
    pub(crate) query: String,
    pub(crate) who: &'a Requester,
    pub(crate) client: Option<&'a str>,
    pub(crate) upgrade: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Clone)]
pub(crate) struct Agents {
    provider: Arc<CryptoProvider>,
    tokens: Arc<Tokens>,
    connections: TaskTracker,
}

impl Agents {
    pub(crate) fn new(provider: Arc<CryptoProvider>, tokens: Tokens, connections: TaskTracker) -> Self {
        Self { provider, tokens: Arc::new(tokens), connections }
    }

    /// Gives the answer as soon as its head is here. A token that the agent refuses is replaced once.
    pub(crate) async fn call(&self, endpoint: &Endpoint, call: &Call<'_>) -> Result<Response<Incoming>, CallError> {
        let token = self.token(endpoint).await?;
        let answer = self.ask(endpoint, call, token.clone()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        self.tokens.forget(&endpoint.node, &token);
        self.ask(endpoint, call, self.token(endpoint).await?).await
    }

    async fn token(&self, endpoint: &Endpoint) -> Result<HeaderValue, CallError> {
        let node = &endpoint.node;
        self.tokens.of(node).await.map_err(|why| CallError::Token { node: node.clone(), why })
    }

    async fn ask(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
        token: HeaderValue,
    ) -> Result<Response<Incoming>, CallError> {
        let address = endpoint.address;
        let connect = |why: String| CallError::Connect { address, why };
        let connecting = async {
            let socket = TcpStream::connect(address).await?;
            let socket = socket::prepare(socket, socket::LARGE)?;
            let config = self.config(endpoint).map_err(io::Error::other)?;
            // With an address no server name is sent.
            TlsConnector::from(Arc::new(config)).connect(ServerName::IpAddress(address.ip().into()), socket).await
        };
        let stream = match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(connect(error.to_string())),
            Err(_) => return Err(connect(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()))),
        };
        let answer = |why: String| CallError::Answer { address, why };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| answer(error.to_string()))?;
        self.connections.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, %address, "the connection to an agent broke");
            }
        });
        let request = request(address, token, call).map_err(|error| answer(error.to_string()))?;
        match timeout(ANSWER_TIMEOUT, sender.send_request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(answer(error.to_string())),
            Err(_) => Err(answer(format!("not within {} s", ANSWER_TIMEOUT.as_secs()))),
        }
    }

    fn config(&self, endpoint: &Endpoint) -> Result<ClientConfig, rustls::Error> {
        let pinned = Pinned { certificate: endpoint.certificate.clone(), provider: Arc::clone(&self.provider) };
        Ok(ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(pinned))
            .with_no_client_auth())
    }
}

fn request(
    address: SocketAddr,
    token: HeaderValue,
    call: &Call<'_>,
) -> Result<Request<Empty<Bytes>>, axum::http::Error> {
    let Target { namespace, name } = call.target;
    let mut path = format!("/v1/namespaces/{namespace}/execrequests/{name}/{}/{}", call.uid, call.subresource);
    if !call.query.is_empty() {
        path.push('?');
        path.push_str(&call.query);
    }
    let who = STANDARD.encode(serde_json::to_vec(call.who).unwrap_or_default());
    let mut request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::AUTHORIZATION, token)
        .header(names::USER_HEADER, who);
    if let Some(client) = call.client {
        request = request.header(names::CLIENT_HEADER, client);
    }
    for (name, value) in &call.upgrade {
        request = request.header(name, value);
    }
    request.body(Empty::new())
}

/// Trusts one certificate, whatever its issuer, names and times: an agent makes a new one at each start, and publishes it
/// in its Lease, which only it may write.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General("its certificate is not the one in the agent's Lease".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
