//! A served API between stand-ins of an API server and an agent.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::{api::core::v1::ConfigMap, jiff::Timestamp};
use kube::{Client, Config};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::api_server::{ACCOUNT, api_server};
use crate::{
    core::admission::ServiceAccount,
    infra::clock::{Clock, SystemClock},
    manager::subresources::{
        agent::{connect::Agents, locate::Locator, tokens::Tokens},
        call::{limits::StreamLimits, serve::Api},
        certificate::{self, serving::Serving},
        listen::{
            front_proxy::FrontProxy,
            server::{self, Server},
        },
        metrics::Metrics,
    },
};

/// Long enough for a loaded machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
pub(super) const NAME: &str = "execlet-subresources.execlet.svc";
pub(super) const PATH: &str = "/apis/subresources.execlet.dev/v1alpha1/namespaces/shop/execrequests";
pub(super) const ATTACH: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n";
pub(super) const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n";
pub(super) const UNAUTHORIZED: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";

/// The end of an answer after which there is more to come, which does not.
pub(super) const GOES_ON: &str = "5\r\nmore\n\r\n";
/// The end of an answer after which there is no end to what comes.
pub(super) const FLOODS: &str = "\r\n\r\nwater";

pub(super) type Issuer = CertifiedIssuer<'static, KeyPair>;

pub(super) fn authority(name: &str) -> Issuer {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

pub(super) type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

pub(super) fn sign(issuer: &Issuer, name: &str) -> Identity {
    let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, issuer).expect("a certificate").der().clone();
    (certificate, PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("a key"))
}

/// What the stand-in of an agent does with each connection: it reads the head of a call, gives this
/// answer, and echoes from then on.
pub(super) struct StandIn {
    pub(super) address: SocketAddr,
    pub(super) certificate: String,
    pub(super) heads: Arc<Mutex<Vec<String>>>,
    pub(super) answer: Arc<Mutex<String>>,
    /// A token that is refused whatever the answer.
    pub(super) revoked: Arc<Mutex<Option<String>>>,
    /// Bytes of a flood that were taken from it.
    pub(super) taken: Arc<AtomicUsize>,
}

impl StandIn {
    pub(super) async fn start() -> Self {
        let issuer = authority("agent");
        let (certificate, key) = sign(&issuer, "agent");
        let pem =
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(&certificate));
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(vec![certificate], key))
            .expect("TLS");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let it = Self {
            address: listener.local_addr().expect("an address"),
            certificate: pem,
            heads: Arc::default(),
            answer: Arc::new(Mutex::new(SWITCHED.to_owned())),
            revoked: Arc::default(),
            taken: Arc::default(),
        };
        let flood = Arc::clone(&it.taken);
        let (heads, answer, revoked) = (Arc::clone(&it.heads), Arc::clone(&it.answer), Arc::clone(&it.revoked));
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("a connection");
                let (acceptor, heads, answer) = (acceptor.clone(), Arc::clone(&heads), Arc::clone(&answer));
                let (revoked, flood) = (revoked.lock().clone(), Arc::clone(&flood));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(socket).await else { return };
                    let head = head_of(&mut stream).await;
                    let answer = match revoked {
                        Some(token) if head.contains(&token) => UNAUTHORIZED.to_owned(),
                        Some(_) | None => answer.lock().clone(),
                    };
                    heads.lock().push(head);
                    stream.write_all(answer.as_bytes()).await.expect("written");
                    if answer.ends_with(GOES_ON) {
                        stream.read_u8().await.ok();
                        return;
                    }
                    while answer.ends_with(FLOODS) {
                        let Ok(more) = stream.write(&[b'x'; 8192]).await else { return };
                        flood.fetch_add(more, Ordering::Relaxed);
                    }
                    if !answer.starts_with("HTTP/1.1 101") {
                        stream.shutdown().await.expect("ended");
                        return;
                    }
                    let mut buffer = [0; 8192];
                    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                        // The word that lets this end fall.
                        if buffer[..read].ends_with(b"FALL") {
                            return;
                        }
                        stream.write_all(&buffer[..read]).await.expect("written");
                    }
                    stream.shutdown().await.ok();
                });
            }
        });
        it
    }

    pub(super) fn answers(&self, answer: &str) {
        answer.clone_into(&mut self.answer.lock());
    }

    pub(super) fn heads(&self) -> Vec<String> {
        self.heads.lock().clone()
    }
}

pub(super) async fn head_of(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).expect("text")
}

/// A served API.
pub(super) struct Lab {
    pub(super) address: SocketAddr,
    pub(super) authority: String,
    pub(super) proxy: Issuer,
    pub(super) agent: StandIn,
    pub(super) joined: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) cut: CancellationToken,
    pub(super) client: Client,
    pub(super) metrics: Metrics,
}

pub(super) fn tokens(client: &Client, account: &str) -> Tokens {
    let account = ServiceAccount { namespace: "execlet".to_owned(), name: account.to_owned() };
    Tokens::new(client.clone(), &account, "execlet-manager-1")
}

impl Lab {
    pub(super) async fn new() -> Self {
        Self::with(10, Duration::from_millis(200)).await
    }

    pub(super) async fn with(most_streams: usize, wait: Duration) -> Self {
        Self::of(most_streams, wait, server::MOST_CONNECTIONS).await
    }

    pub(super) async fn of(most_streams: usize, wait: Duration, most_connections: usize) -> Self {
        let agent = StandIn::start().await;
        let provider = Arc::new(default_provider());
        let mut config = Config::new(
            format!("http://{}", api_server((agent.address, &agent.certificate)).await).parse().expect("a URL"),
        );
        config.default_namespace = "execlet".to_owned();
        let client = Client::try_from(config).expect("a client");

        let proxy = authority("front-proxy-ca");
        let data = BTreeMap::from([
            ("requestheader-client-ca-file".to_owned(), proxy.pem()),
            ("requestheader-allowed-names".to_owned(), r#"["front-proxy-client"]"#.to_owned()),
            ("requestheader-username-headers".to_owned(), r#"["X-Remote-User"]"#.to_owned()),
            ("requestheader-group-headers".to_owned(), r#"["X-Remote-Group"]"#.to_owned()),
        ]);
        let config = ConfigMap { data: Some(data), ..ConfigMap::default() };
        let known = FrontProxy::parse(&config, &provider).expect("usable");
        let (keep, front_proxy) = watch::channel(Some(Arc::new(known)));

        let serving = Serving::default();
        let authority = certificate::serve_new(&serving, NAME, Timestamp::now(), &provider);
        let metrics = Metrics::default();
        let (stop, cut, joined) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let api = Api {
            locator: Locator { client: client.clone(), namespace: "execlet".to_owned() },
            agents: Agents::new(Arc::clone(&provider), tokens(&client, ACCOUNT), joined.clone()),
            streams: StreamLimits::new(most_streams, 2, metrics.streams.clone()),
            front_proxy: front_proxy.clone(),
            clock: Arc::clone(&clock),
            metrics: metrics.clone(),
            wait,
            idle: PATIENCE,
            joined: joined.clone(),
            cut: cut.clone(),
            client: client.clone(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let tls = server::tls(serving, provider).expect("TLS");
        let (router, counted) = (api.router(), metrics.clone());
        let server = Server { listener, tls, router, front_proxy, clock, metrics: counted, most_connections };
        let (stopped, cutting) = (stop.clone(), cut.clone());
        tokio::spawn(async move {
            server.run(stopped, cutting).await;
            drop(keep);
        });
        Self { address, authority, proxy, agent, joined, stop, cut, client, metrics }
    }

    /// A connection as the API server makes it.
    pub(super) async fn connect(&self) -> TlsStream<TcpStream> {
        self.connect_as(Some(sign(&self.proxy, "front-proxy-client"))).await
    }

    pub(super) async fn connect_as(&self, identity: Option<Identity>) -> TlsStream<TcpStream> {
        self.try_connect(identity).await.expect("TLS")
    }

    pub(super) async fn try_connect(&self, identity: Option<Identity>) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).expect("PEM")).expect("an authority");
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_root_certificates(roots);
        let config = match identity {
            Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key).expect("an identity"),
            None => config.with_no_client_auth(),
        };
        let name = ServerName::try_from(NAME).expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(self.address).await?).await
    }

    /// The answer to `jane`: its head and its body, as far as the connection goes on to its end.
    pub(super) async fn ask(&self, target: &str, headers: &str) -> (u16, String) {
        let headers = format!("X-Remote-User: jane\r\n{headers}");
        answer(self.connect().await, &format!("GET {target}"), &headers).await
    }

    pub(super) async fn attach(&self, request: &str, query: &str, headers: &str) -> (u16, String) {
        self.ask(&format!("{PATH}/{request}/attach?{query}"), &format!("{ATTACH}{headers}")).await
    }

    /// An attached client.
    pub(super) async fn attached(&self, user: &str) -> TlsStream<TcpStream> {
        let mut stream = self.connect().await;
        let call =
            format!("GET {PATH}/bound/attach?stdout=true HTTP/1.1\r\nHost: a\r\nX-Remote-User: {user}\r\n{ATTACH}\r\n");
        stream.write_all(call.as_bytes()).await.expect("written");
        let head = head_of(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        stream
    }
}

pub(super) async fn answer(mut stream: TlsStream<TcpStream>, line: &str, headers: &str) -> (u16, String) {
    let closes = if headers.contains("Connection:") { "" } else { "Connection: close\r\n" };
    let call = format!("{line} HTTP/1.1\r\nHost: execlet\r\n{headers}{closes}\r\n");
    stream.write_all(call.as_bytes()).await.expect("written");
    let head = head_of(&mut stream).await;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{head:?}"));
    let length = head.to_ascii_lowercase();
    let length = length.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let mut body = Vec::new();
    match length {
        Some(length) => {
            body.resize(length, 0);
            stream.read_exact(&mut body).await.expect("a body");
        }
        None if code == 101 => {}
        None => drop(stream.read_to_end(&mut body).await),
    }
    (code, String::from_utf8_lossy(&body).into_owned())
}

#[track_caller]
pub(super) fn refused((code, body): &(u16, String), expected: u16, words: &str) {
    assert_eq!(*code, expected, "{body}");
    let status: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("no Status: {body}"));
    assert_eq!((&status["kind"], &status["code"]), (&json!("Status"), &json!(expected)), "{body}");
    assert!(status["message"].as_str().is_some_and(|message| message.contains(words)), "{words}: {body}");
}

pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
