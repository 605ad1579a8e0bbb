//! An agent that only echoes, on the host: it shows what the manager makes of an attached client,
//! without what an agent does. And the client, which speaks to any HTTPS server of the cluster.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use execlet::api::ExecRequest;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use rcgen::generate_simple_self_signed;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use crate::lab::{Lab, NAMESPACE, PATIENCE, kubectl, kubectl_raw, kubectl_with, text, unique};

/// The client's side of the handshake of RFC 6455's example, and the answer to it.
pub const ATTACH: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n";
const MANAGER: &str = "system:serviceaccount:execlet:execlet-manager";

/// One attached client, as the stand-in sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub head: String,
    pub from: IpAddr,
}

/// The stand-in. Its Lease goes away with it.
pub struct StandIn {
    pub node: String,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

impl StandIn {
    pub async fn start() -> Self {
        let address = host_address();
        let (acceptor, certificate) = identity("agent");
        let listener = TcpListener::bind((address, 0)).await.expect("a port");
        let it = Self { node: unique("stand-in"), seen: Arc::default() };
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": format!("execlet-agent.{}", it.node), "namespace": NAMESPACE,
                "labels": {"app.kubernetes.io/component": "agent"},
                "annotations": {
                    "execlet.dev/stream-endpoint": listener.local_addr().expect("an address").to_string(),
                    "execlet.dev/stream-certificate": certificate,
                }},
            "spec": {"renewTime": format!("{:.6}", Timestamp::now())},
        });
        let created = kubectl_with(&["create", "-f", "-"], &lease.to_string());
        assert!(created.status.success(), "{}", text(&created.stderr));
        let seen = Arc::clone(&it.seen);
        tokio::spawn(async move {
            loop {
                let (socket, from) = listener.accept().await.expect("a connection");
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(socket).await else { return };
                    let head = head_of(&mut stream).await;
                    seen.lock().expect("no panic").push(Seen { head: head.clone(), from: from.ip() });
                    if head.contains("/log?") || head.contains("/log ") {
                        let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n";
                        stream.write_all(answer.as_bytes()).await.ok();
                        stream.shutdown().await.ok();
                    } else {
                        stream.write_all(SWITCHED.as_bytes()).await.ok();
                        let mut buffer = [0; 8192];
                        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                            if stream.write_all(&buffer[..read]).await.is_err() {
                                break;
                            }
                        }
                    }
                });
            }
        });
        it
    }

    /// A request that seems to run on the stand-in's node. Its pod is on none.
    pub async fn request(&self, lab: &Lab) -> String {
        self.request_with(lab, json!({})).await
    }

    /// The same, with more in its spec.
    pub async fn request_with(&self, lab: &Lab, more: Value) -> String {
        let pod = unique("pending");
        let spec = json!({"nodeSelector": {"nowhere": "true"}, "containers": [crate::lab::container("main")]});
        lab.create_pod(&pod, spec, json!({})).await;
        let mut spec = json!({"target": {"podName": pod}, "command": ["true"], "startingDeadlineSeconds": 600});
        spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let name = lab.create(spec);
        self.bind(lab, &name).await;
        name
    }

    /// As the manager does it, and nobody else may.
    pub async fn bind(&self, lab: &Lab, name: &str) {
        let mut config = kube::Config::infer().await.expect("a readable KUBECONFIG");
        config.auth_info.impersonate = Some(MANAGER.to_owned());
        let manager: Api<ExecRequest> = Api::namespaced(Client::try_from(config).expect("a client"), &lab.namespace);
        let status = json!({"status": {"nodeName": self.node, "podUID": "none", "container": "main"}});
        manager.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("bound");
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        kubectl_raw(&["delete", "lease", &format!("execlet-agent.{}", self.node), "-n", NAMESPACE]);
    }
}

/// What serves TLS under a name or an address, and its certificate in PEM, which signs itself.
pub fn identity(name: &str) -> (TlsAcceptor, String) {
    let made = generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key))
        .expect("TLS");
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem())
}

/// The host's address on the link to the nodes.
pub fn host_address() -> IpAddr {
    let node = kubectl(&["get", "node", "n1", "-o", "jsonpath={.status.addresses[?(@.type==\"InternalIP\")].address}"]);
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect((node.as_str(), 9)).expect("a route");
    socket.local_addr().expect("an address").ip()
}

/// Somebody who speaks HTTPS.
#[derive(Clone)]
pub struct Caller {
    address: SocketAddr,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl Caller {
    /// `authority` in PEM; `identity` is a certificate and its key.
    pub fn new(address: SocketAddr, name: &str, authority: &[u8], identity: Option<(&[u8], &[u8])>) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority) {
            roots.add(certificate.expect("PEM")).expect("an authority");
        }
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_root_certificates(roots);
        let config = match identity {
            Some((certificate, key)) => {
                let certificate = CertificateDer::from_pem_slice(certificate).expect("PEM");
                let key = PrivateKeyDer::from_pem_slice(key).expect("PEM");
                config.with_client_auth_cert(vec![certificate], key).expect("an identity")
            }
            None => config.with_no_client_auth(),
        };
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        Self { address, name, config: Arc::new(config) }
    }

    /// Who is called.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The administrator, at the API server.
    pub fn admin() -> Self {
        let view = kubectl(&["config", "view", "--raw", "--minify", "-o", "json"]);
        let view: Value = serde_json::from_str(&view).expect("JSON");
        let pem = |pointer: &str| {
            let data = view.pointer(pointer).and_then(Value::as_str).expect("in the kubeconfig");
            STANDARD.decode(data).expect("base64")
        };
        let server = view.pointer("/clusters/0/cluster/server").and_then(Value::as_str).expect("a server");
        let address: SocketAddr = server.trim_start_matches("https://").parse().expect("an address");
        let authority = pem("/clusters/0/cluster/certificate-authority-data");
        let certificate = pem("/users/0/user/client-certificate-data");
        let key = pem("/users/0/user/client-key-data");
        Self::new(address, &address.ip().to_string(), &authority, Some((&certificate, &key)))
    }

    /// Asks, and gives the answer's code and the connection after its head.
    pub async fn call(&self, target: &str, headers: &str) -> std::io::Result<(u16, TlsStream<TcpStream>)> {
        let calling = async {
            let socket = TcpStream::connect(self.address).await?;
            let mut stream = TlsConnector::from(Arc::clone(&self.config)).connect(self.name.clone(), socket).await?;
            let call = format!("GET {target} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.address);
            stream.write_all(call.as_bytes()).await?;
            let head = head_of(&mut stream).await;
            let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
            Ok((code.ok_or_else(|| std::io::Error::other(format!("no answer: {head:?}")))?, stream))
        };
        timeout(PATIENCE, calling).await.unwrap_or_else(|error| Err(error.into()))
    }

    /// The certificate of who is called, if it is trusted.
    pub async fn certificate(&self) -> std::io::Result<CertificateDer<'static>> {
        let calling = async {
            let socket = TcpStream::connect(self.address).await?;
            TlsConnector::from(Arc::clone(&self.config)).connect(self.name.clone(), socket).await
        };
        let stream = timeout(PATIENCE, calling).await??;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        Ok(shown.expect("one that was trusted").clone().into_owned())
    }

    /// Asks for something that is answered at once, and gives code and body.
    pub async fn ask(&self, target: &str, headers: &str) -> (u16, String) {
        let closing = if headers.contains("Connection:") { "" } else { "Connection: close\r\n" };
        let (code, mut stream) = self.call(target, &format!("{headers}{closing}")).await.expect("an answer");
        let mut body = Vec::new();
        // Where the connection is kept open, the body has come when nothing more does.
        while let Ok(Ok(1..)) = timeout(std::time::Duration::from_secs(1), stream.read_buf(&mut body)).await {}
        (code, text(&body))
    }
}

pub async fn head_of(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    text(&head)
}
