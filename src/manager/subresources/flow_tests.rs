//! Calls on their whole way: over TLS, with certificates as a cluster has them, to an agent and back.
//! The API server and the agent are stand-ins that answer as they are told, over real connections.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use axum::{
    Extension, Json, Router,
    extract::Path,
    http::Uri,
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::{api::core::v1::ConfigMap, jiff::Timestamp};
use kube::Config as KubeConfig;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use super::*;
use crate::infra::clock::SystemClock;

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);
const NAME: &str = "execlet-subresources.execlet.svc";
const ACCOUNT: &str = "execlet-manager";
const PATH: &str = "/apis/subresources.execlet.dev/v1alpha1/namespaces/shop/execrequests";
const ATTACH: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n";

const UNAUTHORIZED: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";

/// The end of an answer after which there is more to come, which does not.
const GOES_ON: &str = "5\r\nmore\n\r\n";

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Issuer {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

fn sign(issuer: &Issuer, name: &str) -> Identity {
    let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, issuer).expect("a certificate").der().clone();
    (certificate, PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("a key"))
}

/// What the stand-in of an agent does with each connection: it reads the head of a call, gives this
/// answer, and echoes from then on.
struct StandIn {
    address: std::net::SocketAddr,
    certificate: String,
    heads: Arc<Mutex<Vec<String>>>,
    answer: Arc<Mutex<String>>,
    /// A token that is refused whatever the answer.
    revoked: Arc<Mutex<Option<String>>>,
}

impl StandIn {
    async fn start() -> Self {
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
        };
        let (heads, answer, revoked) = (Arc::clone(&it.heads), Arc::clone(&it.answer), Arc::clone(&it.revoked));
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("a connection");
                let (acceptor, heads, answer) = (acceptor.clone(), Arc::clone(&heads), Arc::clone(&answer));
                let revoked = revoked.lock().clone();
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

    fn answers(&self, answer: &str) {
        answer.clone_into(&mut self.answer.lock());
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().clone()
    }
}

async fn head_of(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).expect("text")
}

/// The API server, as far as it is asked: jane may do everything, joe may attach without input, and
/// anybody else nothing. Tokens are numbered, and begin with their audience.
async fn api_server(agent: &StandIn) -> std::net::SocketAddr {
    let lease = json!({"metadata": {"name": "execlet-agent.n1", "annotations": {
        "execlet.dev/stream-endpoint": agent.address.to_string(),
        "execlet.dev/stream-certificate": agent.certificate,
    }}});
    let review = |Json(review): Json<Value>| async move {
        let spec = &review["spec"];
        let allowed = match spec["user"].as_str() {
            Some("jane") => true,
            Some("joe") => spec["resourceAttributes"]["resource"] == "execrequests",
            Some(_) | None => false,
        };
        Json(json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec,
            "status": {"allowed": allowed, "reason": "as RBAC says"}}))
    };
    let request = |Path(name): Path<String>| async move {
        let status = match name.as_str() {
            "bound" => json!({"phase": "Running", "nodeName": "n1"}),
            "elsewhere" => json!({"phase": "Running", "nodeName": "n2"}),
            "unbound" => json!({"phase": "Pending", "conditions": [condition("Unknown")]}),
            "refused" => json!({"phase": "Failed", "completionTime": "2026-01-02T03:04:05.000000Z",
                "conditions": [condition("True")]}),
            _ => {
                return Err((
                    axum::http::StatusCode::NOT_FOUND,
                    Json(json!({"kind": "Status", "apiVersion": "v1",
                "metadata": {}, "status": "Failure", "reason": "NotFound", "code": 404})),
                ));
            }
        };
        Ok(Json(json!({"apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
            "metadata": {"name": name, "namespace": "shop", "uid": "u-1", "resourceVersion": "1"},
            "spec": {"target": {"podName": "db-0"}, "command": ["true"]}, "status": status})))
    };
    let given = Arc::new(AtomicUsize::new(0));
    let token = move |Json(request): Json<Value>| async move {
        let number = given.fetch_add(1, Ordering::Relaxed) + 1;
        let token = format!("{}#{number}", request["spec"]["audiences"][0].as_str().unwrap_or_default());
        Json(json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
            "spec": request["spec"], "status": {"token": token, "expirationTimestamp": "2026-01-02T03:04:05Z"}}))
    };
    let not_found = (
        axum::http::StatusCode::NOT_FOUND,
        Json(json!({"kind": "Status", "apiVersion": "v1",
        "metadata": {}, "status": "Failure", "reason": "NotFound", "code": 404})),
    );
    let router = Router::new()
        .route("/apis/authorization.k8s.io/v1/subjectaccessreviews", post(review))
        .route("/apis/execlet.dev/v1alpha1/namespaces/shop/execrequests/{name}", get(request))
        .route(
            "/apis/coordination.k8s.io/v1/namespaces/execlet/leases/execlet-agent.n1",
            get(|Extension(lease): Extension<Value>| async move { Json(lease) }),
        )
        .route(&format!("/api/v1/namespaces/execlet/serviceaccounts/{ACCOUNT}/token"), post(token))
        // A watch that brings no news.
        .route(
            "/apis/execlet.dev/v1alpha1/namespaces/shop/execrequests",
            get(|uri: Uri| async move {
                assert!(uri.query().is_some_and(|query| query.contains("metadata.name")), "only the one is watched");
                futures::future::pending::<()>().await;
            }),
        )
        .fallback(move || async move { not_found })
        .layer(Extension(lease));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn condition(status: &str) -> Value {
    json!({"type": "Finished", "status": status, "reason": "PodNotRunning", "message": "pod db-0 is Pending",
        "lastTransitionTime": "2026-01-02T03:04:05Z"})
}

/// A served API.
struct Lab {
    address: std::net::SocketAddr,
    authority: String,
    proxy: Issuer,
    agent: StandIn,
    joined: TaskTracker,
    stop: CancellationToken,
    cut: CancellationToken,
    client: Client,
    metrics: Metrics,
}

fn tokens(client: &Client, account: &str) -> Tokens {
    let account = ServiceAccount { namespace: "execlet".to_owned(), name: account.to_owned() };
    Tokens::new(client.clone(), &account, "execlet-manager-1")
}

impl Lab {
    async fn new() -> Self {
        Self::with(10, Duration::from_millis(200)).await
    }

    async fn with(most_streams: usize, wait: Duration) -> Self {
        Self::of(most_streams, wait, listen::server::MOST_CONNECTIONS).await
    }

    async fn of(most_streams: usize, wait: Duration, most_connections: usize) -> Self {
        let agent = StandIn::start().await;
        let provider = Arc::new(default_provider());
        let mut config = KubeConfig::new(format!("http://{}", api_server(&agent).await).parse().expect("a URL"));
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
        let known = listen::front_proxy::FrontProxy::parse(&config, &provider).expect("usable");
        let (keep, front_proxy) = watch::channel(Some(Arc::new(known)));

        let serving = Serving::default();
        let authority = certificate::serve_new(&serving, NAME, Timestamp::now(), &provider);
        let metrics = Metrics::default();
        let (stop, cut, joined) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let api = Api {
            locator: Locator { client: client.clone(), namespace: "execlet".to_owned() },
            agents: Agents::new(Arc::clone(&provider), tokens(&client, ACCOUNT), joined.clone()),
            streams: Streams::new(most_streams, 2, metrics.streams.clone()),
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
        let tls = listen::server::tls(serving, provider).expect("TLS");
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
    async fn connect(&self) -> TlsStream<TcpStream> {
        self.connect_as(Some(sign(&self.proxy, "front-proxy-client"))).await
    }

    async fn connect_as(&self, identity: Option<Identity>) -> TlsStream<TcpStream> {
        self.try_connect(identity).await.expect("TLS")
    }

    async fn try_connect(&self, identity: Option<Identity>) -> std::io::Result<TlsStream<TcpStream>> {
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
    async fn ask(&self, target: &str, headers: &str) -> (u16, String) {
        let headers = format!("X-Remote-User: jane\r\n{headers}");
        answer(self.connect().await, &format!("GET {target}"), &headers).await
    }

    async fn attach(&self, request: &str, query: &str, headers: &str) -> (u16, String) {
        self.ask(&format!("{PATH}/{request}/attach?{query}"), &format!("{ATTACH}{headers}")).await
    }

    /// An attached client.
    async fn attached(&self, user: &str) -> TlsStream<TcpStream> {
        let mut stream = self.connect().await;
        let call =
            format!("GET {PATH}/bound/attach?stdout=true HTTP/1.1\r\nHost: a\r\nX-Remote-User: {user}\r\n{ATTACH}\r\n");
        stream.write_all(call.as_bytes()).await.expect("written");
        let head = head_of(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        stream
    }
}

async fn answer(mut stream: TlsStream<TcpStream>, line: &str, headers: &str) -> (u16, String) {
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
fn refused((code, body): &(u16, String), expected: u16, words: &str) {
    assert_eq!(*code, expected, "{body}");
    let status: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("no Status: {body}"));
    assert_eq!((&status["kind"], &status["code"]), (&json!("Status"), &json!(expected)), "{body}");
    assert!(status["message"].as_str().is_some_and(|message| message.contains(words)), "{words}: {body}");
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_attached_client_speaks_to_the_agent_which_knows_who_it_is() {
    let lab = Lab::new().await;
    let mut stream = lab.connect().await;
    let call = format!(
        "GET {PATH}/bound/attach?stdin=true&stdout=true&token=secret HTTP/1.1\r\nHost: a\r\n{ATTACH}\
         X-Remote-User: jane\r\nX-Remote-Group: devs\r\nX-Forwarded-For: déguisé, 10.0.0.7\r\n\
         Authorization: Bearer of-the-user\r\nX-Execlet-User: forged\r\nX-Execlet-Client: forged\r\n\r\n"
    );
    // Bytes that come with the call are not lost.
    stream.write_all(format!("{call}first,").as_bytes()).await.expect("written");
    assert_eq!(
        head_of(&mut stream).await.to_ascii_lowercase().lines().next(),
        Some("http/1.1 101 switching protocols")
    );
    stream.write_all(b"second").await.expect("written");
    let mut echo = [0; 12];
    stream.read_exact(&mut echo).await.expect("an echo");
    assert_eq!(&echo, b"first,second");

    let head = lab.agent.heads().remove(0);
    let user = STANDARD.encode(r#"{"username":"jane","uid":"","groups":["devs"],"extra":{}}"#);
    for line in [
        "GET /v1/namespaces/shop/execrequests/bound/u-1/attach?stdin=true&stdout=true&stderr=false&tty=false HTTP/1.1",
        "authorization: Bearer streams.execlet.dev/n1#1",
        &format!("x-execlet-user: {user}"),
        "x-execlet-client: 10.0.0.7",
        "sec-websocket-protocol: v5.channel.k8s.io",
    ] {
        assert!(head.lines().any(|found| found.eq_ignore_ascii_case(line)), "{line}\n{head}");
    }
    assert!(!head.contains("of-the-user") && !head.contains("forged") && !head.contains("secret"), "{head}");

    // Both ends come through, and nothing is left.
    stream.shutdown().await.expect("ended");
    assert_eq!(stream.read(&mut echo).await.expect("an end"), 0);
    until("the stream to be forgotten", || lab.joined.is_empty() && lab.metrics.streams.get() == 0).await;
}

#[tokio::test]
async fn an_agent_that_falls_ends_the_clients_connection_and_no_other() {
    let lab = Lab::new().await;
    let (mut first, mut second) = (lab.attached("jane").await, lab.attached("jane").await);
    first.write_all(b"FALL").await.expect("written");
    let mut rest = Vec::new();
    // Ended or broken, but at once.
    timeout(PATIENCE, first.read_to_end(&mut rest)).await.expect("in time").ok();
    second.write_all(b"still").await.expect("written");
    let mut echo = [0; 5];
    second.read_exact(&mut echo).await.expect("an echo");
    drop(second);
    until("both streams to be forgotten", || lab.metrics.streams.get() == 0).await;
}

#[tokio::test]
async fn without_the_front_proxys_certificate_nobody_is_anybody() {
    let lab = Lab::new().await;
    let stranger = authority("front-proxy-ca");
    for (identity, words) in [
        (None, "no client certificate"),
        (Some(sign(&stranger, "front-proxy-client")), "not the front proxy's"),
        (Some(sign(&lab.proxy, "mallory")), "no allowed name"),
    ] {
        for target in ["/apis", &format!("{PATH}/bound/log"), &format!("{PATH}/bound/attach?stdout=true"), "/nothing"] {
            let identity = identity.as_ref().map(|(certificate, key)| (certificate.clone(), key.clone_key()));
            let stream = lab.connect_as(identity).await;
            let headers = "X-Remote-User: admin\r\nX-Remote-Group: system:masters\r\n";
            refused(&answer(stream, &format!("GET {target}"), headers).await, 401, words);
        }
    }
    let stream = lab.connect_as(None).await;
    assert_eq!(answer(stream, "GET /readyz", "").await.0, 200, "health is for everybody");
    assert!(lab.agent.heads().is_empty());
}

#[tokio::test]
async fn discovery_asks_nobody() {
    let lab = Lab::new().await;
    for target in ["/apis", "/apis/subresources.execlet.dev", "/apis/subresources.execlet.dev/v1alpha1", "/openapi/v2"]
    {
        let stream = lab.connect().await;
        let (code, body) = answer(stream, &format!("GET {target}"), "X-Remote-User: nobody\r\n").await;
        assert_eq!(code, 200, "{target}: {body}");
    }
    refused(&lab.ask("/apis/other", "").await, 404, "could not find");
}

#[tokio::test]
async fn who_lacks_a_right_is_told_which() {
    let lab = Lab::new().await;
    let ask = async |user: &str, target: String, more: &str| {
        answer(lab.connect().await, &format!("GET {PATH}/{target}"), &format!("X-Remote-User: {user}\r\n{more}")).await
    };
    let answer = ask("nobody", "bound/attach?stdout=true".into(), ATTACH).await;
    refused(&answer, 403, r#"User "nobody" cannot create resource "execrequests/attach""#);
    // Whether there is such a request is not for everybody to know.
    refused(&ask("nobody", "missing/attach?stdout=true".into(), ATTACH).await, 403, "cannot create");
    refused(&ask("nobody", "bound/log".into(), "").await, 403, r#"cannot get resource "execrequests/log""#);
    let answer = ask("joe", "bound/attach?stdin=true".into(), ATTACH).await;
    refused(
        &answer,
        403,
        r#"User "joe" cannot create resource "pods/exec" in API group "" in the namespace "shop" for "db-0""#,
    );
    assert_eq!(ask("joe", "bound/attach?stdout=true".into(), ATTACH).await.0, 101);
    assert_eq!(lab.agent.heads().len(), 1);
}

#[tokio::test]
async fn nonsense_is_refused_before_anybody_is_asked() {
    let lab = Lab::new().await;
    let origin = "Origin: https://evil.example\r\n";
    refused(&lab.attach("bound", "stdout=true", origin).await, 403, "a web page of another host");
    refused(&lab.ask(&format!("{PATH}/bound/log"), origin).await, 403, "a web page of another host");
    refused(&lab.ask(&format!("{PATH}/bound/attach?stdout=true"), "").await, 400, "WebSocket");
    let spdy = ATTACH.replace("websocket\r\n", "SPDY/3.1\r\n");
    refused(&lab.ask(&format!("{PATH}/bound/attach?stdout=true"), &spdy).await, 400, "SPDY");
    refused(&lab.attach("bound", "", "").await, 400, "at least one of");
    refused(&lab.attach("a%2fb", "stdout=true", "").await, 400, "no name");
    refused(&lab.attach("..%2f..", "stdout=true", "").await, 400, "no name");
    refused(&lab.ask(&format!("{PATH}/bound/log?tailLines=x"), "").await, 400, "tailLines=x");
    let stream = lab.connect().await;
    refused(&answer(stream, &format!("POST {PATH}/bound/log"), "X-Remote-User: jane\r\n").await, 405, "POST");
    let long = format!("X-Long: {}\r\n", "x".repeat(300_000));
    assert_eq!(lab.ask("/apis", &long).await.0, 431);
    assert!(lab.agent.heads().is_empty());
}

#[tokio::test]
async fn a_request_that_has_no_agent_says_why() {
    let lab = Lab::new().await;
    refused(&lab.attach("missing", "stdout=true", "").await, 404, r#""missing" not found"#);
    let words = "not bound to a node yet: PodNotRunning: pod db-0 is Pending";
    refused(&lab.attach("unbound", "stdout=true", "").await, 504, words);
    refused(&lab.ask(&format!("{PATH}/unbound/log"), "").await, 504, words);
    refused(&lab.attach("refused", "stdout=true", "").await, 400, "never ran: PodNotRunning");
    refused(&lab.attach("elsewhere", "stdout=true", "").await, 503, "no execlet agent runs on node n2");
}

#[tokio::test]
async fn no_answer_but_the_right_one_joins_client_and_agent() {
    let lab = Lab::new().await;
    let status = r#"{"kind":"Status","message":"the log is gone","reason":"NotFound","code":404}"#;
    let long = "x".repeat(1 << 20);
    let with_body = |line: &str, body: &str| format!("HTTP/1.1 {line}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for (agent, code, words) in [
        (with_body("200 OK", "hello"), 500, "the agent answers 200"),
        (with_body("302 Found\r\nLocation: https://169.254.169.254/", ""), 500, "the agent answers 302"),
        (UNAUTHORIZED.to_owned(), 500, "the agent answers 401"),
        (with_body("403 Forbidden", ""), 500, "the agent answers 403"),
        (with_body("410 Gone", &status.replace("404", "410")), 410, "the log is gone"),
        (with_body("409 Conflict", "<html>"), 409, "the agent answers 409"),
        (with_body("500 Internal Server Error", &long), 500, "the agent answers 500"),
        (SWITCHED.replace("s3pP", "xxxx"), 500, "Sec-WebSocket-Accept"),
        (SWITCHED.replace("v5.channel", "v9.channel"), 500, "was not offered"),
        ("nonsense\r\n\r\n".to_owned(), 503, "cannot be reached"),
    ] {
        lab.agent.answers(&agent);
        refused(&lab.attach("bound", "stdout=true", "").await, code, words);
    }
    until("every connection to be forgotten", || lab.joined.is_empty()).await;
    assert_eq!(lab.metrics.streams.get(), 0);
}

#[tokio::test]
async fn an_agent_that_has_not_heard_of_the_request_yet_is_asked_again() {
    let lab = Lab::with(10, PATIENCE).await;
    lab.agent.answers("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    let heads = Arc::clone(&lab.agent.heads);
    let (answer, ()) = tokio::join!(lab.attach("bound", "stdout=true", ""), async {
        until("the first try", || !heads.lock().is_empty()).await;
        lab.agent.answers(SWITCHED);
    });
    assert_eq!(answer.0, 101);
}

#[tokio::test]
async fn a_log_is_passed_on_as_it_comes() {
    let lab = Lab::new().await;
    lab.agent.answers("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n");
    let (code, body) = lab.ask(&format!("{PATH}/bound/log?tailLines=5&stream=All"), "").await;
    assert_eq!((code, body.contains("one\n"), body.contains("two\n")), (200, true, true), "{body}");
    let head = lab.agent.heads().remove(0);
    assert!(head.starts_with("GET /v1/namespaces/shop/execrequests/bound/u-1/log?tailLines=5&stream=All "), "{head}");
    until("the place to be given back", || lab.metrics.streams.get() == 0).await;
}

/// A call of the log, at the agent itself.
async fn call(agents: &Agents, endpoint: &agent::connect::Endpoint) -> Result<(), agent::connect::CallError> {
    let target = crate::infra::query::Target::new("shop".into(), "bound".into()).expect("a target");
    let who = crate::api::Requester::default();
    let call = agent::connect::Call {
        target: &target,
        uid: "u-1".into(),
        subresource: "log",
        query: String::new(),
        who: &who,
        client: None,
        upgrade: vec![],
    };
    agents.call(endpoint, &call).await.map(drop)
}

#[tokio::test]
async fn each_agent_hears_a_token_for_its_own_node_and_nobody_else_hears_any() {
    let lab = Lab::new().await;
    for _ in 0..2 {
        drop(lab.attached("jane").await);
    }
    let certificate = CertificateDer::from_pem_slice(lab.agent.certificate.as_bytes()).expect("PEM");
    let agents = |account| Agents::new(Arc::new(default_provider()), tokens(&lab.client, account), TaskTracker::new());
    let endpoint = agent::connect::Endpoint { node: "n2".into(), address: lab.agent.address, certificate };
    call(&agents(ACCOUNT), &endpoint).await.expect("an answer");
    let heads = lab.agent.heads();
    for (head, token) in heads.iter().zip(["n1#1", "n1#1", "n2#2"]) {
        assert!(head.contains(&format!("Bearer streams.execlet.dev/{token}\r\n")), "{token}: {head}");
    }
    assert_eq!(heads.len(), 3);

    // Another agent at that address, with a certificate of its own.
    let other = StandIn::start().await;
    let endpoint = agent::connect::Endpoint { address: other.address, ..endpoint };
    let error = call(&agents(ACCOUNT), &endpoint).await.expect_err("a stranger");
    assert!(error.to_string().contains("not the one in the agent's Lease"), "{error}");
    let error = call(&agents("another"), &endpoint).await.expect_err("an account that has no tokens");
    assert!(error.to_string().contains("no token for the agent on node n2"), "{error}");
    assert!(other.heads().is_empty());
}

#[tokio::test]
async fn a_token_that_an_agent_does_not_take_any_more_is_replaced_once() {
    let lab = Lab::new().await;
    drop(lab.attached("jane").await);
    *lab.agent.revoked.lock() = Some("n1#1\r\n".to_owned());
    drop(lab.attached("jane").await);
    drop(lab.attached("jane").await);
    lab.agent.answers(UNAUTHORIZED);
    refused(&lab.attach("bound", "stdout=true", "").await, 500, "the agent answers 401");
    let heads = lab.agent.heads();
    let numbers: Vec<&str> = heads.iter().filter_map(|head| head.split("n1#").nth(1)?.lines().next()).collect();
    assert_eq!(numbers, ["1", "1", "2", "2", "2", "3"]);
}

#[tokio::test]
async fn as_many_streams_as_may_be_and_no_more() {
    let lab = Lab::with(3, Duration::from_millis(200)).await;
    let first = lab.attached("jane").await;
    let _second = lab.attached("jane").await;
    refused(&lab.attach("bound", "stdout=true", "").await, 429, "as many as one may");
    let _third = lab.attached("joe").await;
    let stream = lab.connect().await;
    let headers = format!("X-Remote-User: joe\r\n{ATTACH}");
    let answer = answer(stream, &format!("GET {PATH}/bound/attach?stdout=true"), &headers).await;
    refused(&answer, 429, "this manager already carries 3 streams");
    drop(first);
    until("a free place", || lab.metrics.streams.get() == 2).await;
    drop(lab.attached("jane").await);
}

#[tokio::test]
async fn neither_logs_nor_attached_clients_take_the_places_of_discovery() {
    let lab = Lab::of(10, Duration::from_millis(200), 1).await;
    let _attached = (lab.attached("jane").await, lab.attached("joe").await);
    lab.agent.answers(&format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{GOES_ON}"));
    let mut logs = Vec::new();
    for user in ["jane", "joe"] {
        let mut stream = lab.connect().await;
        let call = format!("GET {PATH}/bound/log?follow=true HTTP/1.1\r\nHost: a\r\nX-Remote-User: {user}\r\n\r\n");
        stream.write_all(call.as_bytes()).await.expect("written");
        let head = head_of(&mut stream).await.to_ascii_lowercase();
        // It has no place any more for another call.
        assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
        logs.push(stream);
    }
    assert_eq!(lab.metrics.streams.get(), 4);
    assert_eq!(lab.ask("/apis", "").await.0, 200);
}

#[tokio::test]
async fn half_open_handshakes_by_the_thousand_keep_out_nobody() {
    let lab = Lab::new().await;
    let mut half_open = Vec::new();
    for _ in 0..1500 {
        let mut socket = TcpStream::connect(lab.address).await.expect("connected");
        // The begin of a TLS record, and no more. The oldest are closed meanwhile.
        socket.write_all(&[22, 3, 1]).await.ok();
        half_open.push(socket);
    }
    assert_eq!(lab.ask("/apis", "").await.0, 200);
    // And strangers who do shake hands, and say nothing.
    let mut silent = Vec::new();
    for _ in 0..80 {
        silent.extend(lab.try_connect(None).await.ok());
    }
    assert_eq!(lab.ask("/apis", "").await.0, 200);
}

#[tokio::test]
async fn told_to_stop_it_keeps_who_is_attached_and_takes_nobody_new() {
    let lab = Lab::new().await;
    let mut attached = lab.attached("jane").await;
    let mut waiting = lab.connect().await;
    lab.stop.cancel();
    let refused = async || lab.try_connect(None).await.is_err();
    let end = Instant::now() + PATIENCE;
    while !refused().await {
        assert!(Instant::now() < end, "still listening");
    }
    let mut rest = Vec::new();
    timeout(PATIENCE, waiting.read_to_end(&mut rest)).await.expect("a connection without a call is closed").ok();
    attached.write_all(b"still").await.expect("written");
    let mut echo = [0; 5];
    attached.read_exact(&mut echo).await.expect("an echo");
    lab.cut.cancel();
    timeout(PATIENCE, attached.read_to_end(&mut rest)).await.expect("cut").ok();
    until("nothing to be left", || lab.joined.is_empty()).await;
}

/// Headers that only look like the front proxy's are of no use to a client of the API server: it takes
/// them away. This holds that we read no others.
#[tokio::test]
async fn only_the_headers_that_the_cluster_names_are_read() {
    let lab = Lab::new().await;
    let stream = lab.connect().await;
    let answer = answer(stream, "GET /apis", "X-User: jane\r\nImpersonate-User: jane\r\n").await;
    refused(&answer, 401, "names no user");
}
