//! Attached at the agent itself, as the manager is: over TLS to the certificate in its Lease, with a token
//! of the manager's account.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use execlet::{
    api::{ExecRequest, names},
    infra::socket::{self, Buffered},
    wire::remotecommand::{PROTOCOL_HEADER, Protocol},
};
use http::{HeaderValue, StatusCode, header};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error as SocketError, client::IntoClientRequest as _},
};

use crate::lab::{Lab, NAMESPACE, Node, run};

/// Of the kernel, for a viewer that takes nothing: else it takes megabytes in our place.
const SMALL_BUFFER: u32 = 16 << 10;
/// How long one agent may take to go on where another stops.
const TAKES_OVER: Duration = Duration::from_secs(30);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

pub type Socket = WebSocketStream<TlsStream<Buffered>>;

/// The agent of a node.
pub struct Agent {
    address: SocketAddr,
    tls: TlsConnector,
    token: HeaderValue,
}

impl Agent {
    /// Where its Lease says that it is: after an update that may be the agent before it for a moment.
    pub async fn find(lab: &Lab, node: &Node) -> anyhow::Result<Self> {
        let begun = Instant::now();
        loop {
            let agent = Self::of_lease(lab, &node.name).await?;
            match TcpStream::connect(agent.address).await {
                Ok(_) => return Ok(agent),
                Err(error) if begun.elapsed() > TAKES_OVER => return Err(error).context(agent.address),
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn of_lease(lab: &Lab, node: &str) -> anyhow::Result<Self> {
        let leases: Api<Lease> = Api::namespaced(lab.client.clone(), NAMESPACE);
        let lease = leases.get(&names::agent_lease(node)).await?;
        let annotations = lease.metadata.annotations.unwrap_or_default();
        let annotation = |name: &str| annotations.get(name).with_context(|| format!("the Lease has no {name}"));
        let address = annotation(names::STREAM_ENDPOINT_ANNOTATION)?.parse()?;
        let certificate = annotation(names::STREAM_CERTIFICATE_ANNOTATION)?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate.as_bytes())?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let account = ["create", "token", "execlet-manager", "--namespace", NAMESPACE];
        let token = run("kubectl", &[&account[..], &["--audience", &names::stream_audience(node)]].concat(), "")?;
        let token = HeaderValue::try_from(format!("Bearer {}", token.trim()))?;
        Ok(Self { address, tls: TlsConnector::from(Arc::new(config)), token })
    }

    /// Attaches to a request as soon as the agent has it.
    pub async fn attach(&self, request: &ExecRequest, query: &str, small: bool) -> anyhow::Result<Socket> {
        let meta = &request.metadata;
        let part = |part: &Option<String>| part.clone().context("a request without a name");
        let (namespace, name, uid) = (part(&meta.namespace)?, part(&meta.name)?, part(&meta.uid)?);
        let server = names::STREAM_SERVER;
        let uri = format!("wss://{server}/v1/namespaces/{namespace}/execrequests/{name}/{uid}/attach?{query}");
        loop {
            let mut call = uri.as_str().into_client_request()?;
            let headers = call.headers_mut();
            headers.insert(header::AUTHORIZATION, self.token.clone());
            headers.insert(PROTOCOL_HEADER, HeaderValue::from_static(Protocol::V5.name()));
            headers.insert(names::USER_HEADER, STANDARD.encode(r#"{"username":"bench"}"#).parse()?);
            match client_async(call, self.connect(small).await?).await {
                Ok((socket, _)) => return Ok(socket),
                // Not bound yet, or the agent has not heard of it.
                Err(SocketError::Http(answer)) if answer.status() == StatusCode::NOT_FOUND => sleep(PAUSE).await,
                Err(SocketError::Http(answer)) => {
                    let body = answer.into_body().unwrap_or_default();
                    bail!("the agent refuses: {}", String::from_utf8_lossy(&body));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn connect(&self, small: bool) -> anyhow::Result<TlsStream<Buffered>> {
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if small {
            socket.set_recv_buffer_size(SMALL_BUFFER)?;
        }
        let connection = socket.connect(self.address).await?;
        let connection = socket::prepare(connection, if small { socket::SMALL } else { socket::LARGE })?;
        Ok(self.tls.connect(ServerName::try_from(names::STREAM_SERVER)?, connection).await?)
    }
}
