//! A server with a command, an API server that is a stand-in, and clients.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use k8s_openapi::jiff::Timestamp;
use kube::{Client, core::ObjectMeta};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Message,
        client::IntoClientRequest as _,
        protocol::{CloseFrame, WebSocketConfig},
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{
        serve::{StreamServer, admission::Admission, identity, limits::Pace, serve},
        streams::{
            hub::{Hub, Hubs},
            log_writer::LogWriter,
            ring::{Kept, Piece},
            spool::Spool,
            turns::Writers,
        },
    },
    api::{ExecRequest, ExecRequestStatus, ExecResult, OutputLimits, names},
    core::{
        audit::{event::Event, key},
        ids::RequestKey,
        output::LogState,
    },
    infra::{
        audit::{
            Audit, Policy,
            file::Retention,
            writer::{Log, Sink},
        },
        call::ApiError,
        clock::SystemClock,
        metrics::Metrics,
        requests::{Requests, Written},
    },
    wire::{
        OutputStream,
        remotecommand::{self, FromServer, Protocol},
    },
};

pub(super) const UID: &str = "0b5c";
pub(super) const TOKEN: &str = "Bearer good";
pub(super) const PATH: &str = "/v1/namespaces/shop/execrequests/dump/0b5c";

/// Whatever happens at all happens by then.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// An API server that has one request.
pub(super) struct One(pub(super) Arc<Mutex<ExecRequest>>);

impl Requests for One {
    async fn get(&self, key: &RequestKey) -> Result<Option<ExecRequest>, ApiError> {
        let request = self.0.lock().clone();
        let same = request.metadata.name.as_deref() == Some(&key.name)
            && request.metadata.uid.as_deref() == Some(key.uid.as_str());
        Ok(Some(request).filter(|_| same))
    }

    async fn write_status(&self, _: &ExecRequest, _: ExecRequestStatus) -> Result<Written, ApiError> {
        unreachable!("viewers change nothing")
    }

    async fn write_status_of_unreadable(&self, _: &ObjectMeta, _: &ExecRequestStatus) -> Result<(), ApiError> {
        unreachable!("viewers change nothing")
    }
}

/// An API server that knows the manager's tokens for this node and for another, and one of a pod.
pub(super) fn reviews(asked: Arc<AtomicUsize>) -> Client {
    let answer = move |request: hyper::Request<kube::client::Body>| {
        asked.fetch_add(1, Ordering::Relaxed);
        async move {
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            let review: Value = serde_json::from_slice(&body).expect("a review");
            let manager = "system:serviceaccount:execlet:execlet-manager";
            let (user, node) = match review["spec"]["token"].as_str() {
                Some("good") => (manager, "n1"),
                Some("replayed") => (manager, "n2"),
                Some("pod") => ("system:serviceaccount:shop:web", "n1"),
                _ => ("", ""),
            };
            let asked = review["spec"]["audiences"].as_array().expect("audiences");
            let meant: Vec<_> = asked.iter().filter(|asked| **asked == names::stream_audience(node)).collect();
            let status = json!({"authenticated": !meant.is_empty(), "audiences": meant, "user": {"username": user}});
            let answer =
                json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {}, "status": status});
            Ok::<_, std::convert::Infallible>(hyper::Response::new(Full::new(Bytes::from(answer.to_string()))))
        }
    };
    Client::new(tower::service_fn(answer), "default")
}

pub(super) fn audit(folder: &std::path::Path, metrics: &Metrics) -> Audit<Log> {
    let sink = Sink::Folder(folder.join("audit"), Retention { file_bytes: 1 << 20, files: 2 });
    let log = Log::begin(sink, "agent/n1", Arc::new(SystemClock), None).expect("a log");
    Audit::new(log, Policy::default(), Arc::new(SystemClock), metrics.clone())
}

/// A server, and what is behind it.
pub(super) struct Lab {
    pub(super) address: SocketAddr,
    pub(super) tls: TlsConnector,
    pub(super) hubs: Arc<Hubs>,
    pub(super) spool: Spool,
    pub(super) metrics: Metrics,
    pub(super) request: Arc<Mutex<ExecRequest>>,
    pub(super) shutdown: CancellationToken,
    pub(super) asked: Arc<AtomicUsize>,
    pub(super) folder: tempfile::TempDir,
}

impl Lab {
    pub(super) async fn open(spec: Value) -> Self {
        Self::paced(spec, Pace::default()).await
    }

    pub(super) async fn paced(spec: Value, pace: Pace) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut whole = json!({"target": {"podName": "db"}, "command": ["cat"]});
        whole.as_object_mut().expect("an object").extend(spec.as_object().expect("an object").clone());
        let request: ExecRequest = serde_json::from_value(json!({
            "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
            "metadata": {"name": "dump", "namespace": "shop", "uid": UID},
            "spec": whole, "status": {"nodeName": "n1", "phase": "Bound"},
        }))
        .expect("a request");
        let request = Arc::new(Mutex::new(request));
        let asked = Arc::new(AtomicUsize::new(0));
        let hubs = Arc::new(Hubs::default());
        let spool =
            Spool::open(folder.path(), 1 << 30, &std::collections::HashSet::new(), Gauge::default()).expect("a spool");
        let (metrics, _) = Metrics::for_agent();
        let shutdown = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (config, published) = identity::make(address).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(published.certificate.as_bytes()).expect("PEM"))
            .expect("a certificate");
        let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let streams = StreamServer {
            node: "n1".into(),
            requests: One(Arc::clone(&request)),
            admission: Admission::new(
                reviews(Arc::clone(&asked)),
                &"execlet:execlet-manager".parse().expect("an account"),
                &"n1".into(),
            ),
            hubs: Arc::clone(&hubs),
            spool: spool.clone(),
            audit: audit(folder.path(), &metrics),
            metrics: metrics.clone(),
            clock: Arc::new(SystemClock),
            pace,
            shutdown: shutdown.clone(),
        };
        tokio::spawn(serve(listener, config, streams));
        Self {
            address,
            tls: TlsConnector::from(Arc::new(client)),
            hubs,
            spool,
            metrics,
            request,
            shutdown,
            asked,
            folder,
        }
    }

    pub(super) fn key() -> RequestKey {
        RequestKey { namespace: "shop".into(), name: "dump".into(), uid: UID.into() }
    }

    pub(super) fn log(&self) -> PathBuf {
        self.spool.log_path(&Self::key())
    }

    /// What the audit log has of clients: who came and went, with which session.
    pub(super) fn recorded(&self) -> Vec<Event> {
        let text = std::fs::read_to_string(self.folder.path().join("audit/audit-000000000001.jsonl"));
        let events = text.expect("a log").lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
        let events: Vec<Event> = events;
        events.into_iter().filter(|event| event.note(key::SESSION).is_some()).collect()
    }

    pub(super) async fn connect(&self) -> Box<TlsStream<TcpStream>> {
        let connection = TcpStream::connect(self.address).await.expect("a connection");
        let name = ServerName::try_from(names::STREAM_SERVER).expect("a name");
        Box::new(within("TLS", self.tls.connect(name, connection)).await.expect("the published certificate"))
    }

    /// Sends text as it is, and gives the status code and all that comes.
    pub(super) async fn say(&self, text: &str) -> (u16, String) {
        let mut connection = self.connect().await;
        connection.write_all(text.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        // Some of what is sent makes the server close without a word of TLS.
        within("an answer", connection.read_to_end(&mut answer)).await.ok();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (code, answer)
    }

    pub(super) async fn get(&self, path: &str, token: &str) -> (u16, String) {
        let token = if token.is_empty() { String::new() } else { format!("Authorization: {token}\r\n") };
        self.say(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{token}\r\n")).await
    }

    pub(super) async fn attach(&self, query: &str) -> Attached {
        self.try_attach(query, &[]).await.expect("attached")
    }

    pub(super) async fn try_attach(&self, query: &str, headers: &[(&'static str, &str)]) -> Result<Attached, u16> {
        let mut request = format!("wss://execlet-agent{PATH}/attach?{query}").into_client_request().expect("a request");
        request.headers_mut().insert("authorization", TOKEN.parse().expect("a header"));
        request.headers_mut().insert(remotecommand::PROTOCOL_HEADER, "v5.channel.k8s.io".parse().expect("a header"));
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        match within("a handshake", client_async_with_config(request, self.connect().await, Some(config))).await {
            Ok((socket, _)) => Ok(Attached {
                socket,
                client: remotecommand::Client::new(Protocol::V5),
                heard: HashMap::new(),
                now: None,
            }),
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// A command that writes, with a log of at most so many bytes.
    pub(super) fn command(&self, spool_bytes: i64) -> Writing {
        let hub = self.hubs.of(&UID.into());
        let limits = OutputLimits { spool_bytes, ..OutputLimits::default() };
        let log = self.spool.create(&Self::key(), &limits, LogState::Whole);
        hub.open(0, Kept { output: 0, file: 0, state: log.state() });
        let mut keeper = LogWriter::new(&hub, &Writers::default(), log, 0);
        let keeping = tokio::spawn(async move {
            keeper.work().await;
        });
        Writing { hub, keeping }
    }
}

pub(super) struct Writing {
    pub(super) hub: Arc<Hub>,
    pub(super) keeping: tokio::task::JoinHandle<()>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

/// As the pump does.
pub(super) async fn write(hub: &Hub, stream: OutputStream, bytes: &[u8]) {
    within("room", hub.room(bytes.len())).await;
    hub.push(Piece { stream, at: Timestamp::now(), bytes: Bytes::copy_from_slice(bytes) });
}

impl Writing {
    pub(super) async fn write(&mut self, stream: OutputStream, bytes: &[u8]) {
        write(&self.hub, stream, bytes).await;
    }

    pub(super) fn end(&self, result: ExecResult) {
        self.hub.close();
        self.hub.conclude(result);
    }
}

pub(super) struct Attached {
    pub(super) socket: WebSocketStream<Box<TlsStream<TcpStream>>>,
    pub(super) client: remotecommand::Client,
    pub(super) heard: HashMap<OutputStream, Vec<u8>>,
    /// Bytes of standard output that had come when it was told that what follows is written now.
    pub(super) now: Option<usize>,
}

impl Attached {
    pub(super) async fn send(&mut self, message: impl Into<Bytes>) {
        self.socket.send(Message::Binary(message.into())).await.expect("sent");
    }

    /// Reads until so much of standard output has come.
    pub(super) async fn until(&mut self, bytes: usize) {
        while self.heard.get(&OutputStream::Stdout).map_or(0, Vec::len) < bytes {
            assert!(self.step().await.is_none(), "it ended early: {:?}", self.heard);
        }
    }

    /// Reads one message; gives the close.
    pub(super) async fn step(&mut self) -> Option<Option<CloseFrame>> {
        match within("a message", self.socket.next()).await {
            Some(Ok(Message::Binary(message))) => {
                match self.client.receive(message).expect("the protocol") {
                    Some(FromServer::Output(stream, bytes)) => {
                        self.heard.entry(stream).or_default().extend_from_slice(&bytes);
                    }
                    Some(FromServer::Now) => {
                        assert_eq!(self.now, None, "it is told once");
                        self.now = Some(self.heard.get(&OutputStream::Stdout).map_or(0, Vec::len));
                    }
                    Some(FromServer::Status) | None => {}
                }
                None
            }
            Some(Ok(Message::Close(frame))) => Some(frame),
            Some(Ok(_)) => None,
            Some(Err(_)) | None => Some(None),
        }
    }

    /// Reads to the end: code of the close, its reason, and the status, if there was one.
    pub(super) async fn end(mut self) -> (Option<u16>, String, Option<Value>, HashMap<OutputStream, Vec<u8>>) {
        let frame = loop {
            if let Some(frame) = self.step().await {
                break frame;
            }
        };
        // To the end of TLS, which is told as well.
        while let Some(message) = within("the end", self.socket.next()).await {
            assert!(message.is_ok() || frame.is_none(), "{message:?}");
        }
        let code = frame.as_ref().map(|frame| frame.code.into());
        let status = self.client.closed(code).ok().and_then(|status| serde_json::from_slice(&status).ok());
        (code, frame.map(|frame| frame.reason.to_string()).unwrap_or_default(), status, self.heard)
    }
}

pub(super) fn bytes_of(length: usize) -> Vec<u8> {
    // No period that is a power of two, and some line ends.
    (0..length).map(|n| u8::try_from((n * 31 + n / 251) % 256).expect("a byte")).collect()
}

pub(super) async fn kept(lab: &Lab, bytes: u64) {
    let log = lab.log();
    within("the log", async {
        while std::fs::metadata(&log).map_or(0, |log| log.len()) < bytes {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(super) fn dechunked(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        text.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    text
}
