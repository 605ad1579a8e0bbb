//! The server as a manager meets it, and as somebody else does: over real TLS and `WebSocket`.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use k8s_openapi::jiff::Timestamp;
use kube::{Client, core::ObjectMeta};
use prometheus_client::metrics::gauge::Gauge;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Message,
        client::IntoClientRequest as _,
        protocol::{
            CloseFrame, WebSocketConfig,
            frame::{
                Frame,
                coding::{Data, OpCode},
            },
        },
    },
};

use super::{limits::Pace, *};
use crate::{
    agent::streams::{
        input::{Fed, MESSAGE_BYTES},
        log_writer::LogWriter,
        ring::{Kept, Piece},
        turns::Writers,
    },
    api::{ExecRequestStatus, OutputLimits},
    core::{
        audit::event::{Event, Verb, key},
        output::LogState,
    },
    infra::{
        audit::{
            Audit, Policy,
            file::Retention,
            writer::{Log, Sink},
        },
        clock::SystemClock,
        requests::{ApiError, Written},
    },
    wire::{
        OutputStream,
        remotecommand::{self, FromServer, Protocol, TerminalSize, close},
    },
};

const UID: &str = "0b5c";
const TOKEN: &str = "Bearer good";
const PATH: &str = "/v1/namespaces/shop/execrequests/dump/0b5c";
/// Whatever happens at all happens by then.
const DEADLINE: Duration = Duration::from_secs(30);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// An API server that has one request.
struct One(Arc<Mutex<ExecRequest>>);

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

use parking_lot::Mutex;

/// An API server that knows the manager's tokens for this node and for another, and one of a pod.
fn reviews(asked: Arc<AtomicUsize>) -> Client {
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

fn audit(folder: &std::path::Path, metrics: &Metrics) -> Audit<Log> {
    let sink = Sink::Folder(folder.join("audit"), Retention { file_bytes: 1 << 20, files: 2 });
    let log = Log::begin(sink, "agent/n1", Arc::new(SystemClock), None).expect("a log");
    Audit::new(log, Policy::default(), Arc::new(SystemClock), metrics.clone())
}

/// A server, and what is behind it.
struct Lab {
    address: SocketAddr,
    tls: TlsConnector,
    hubs: Arc<Hubs>,
    spool: Spool,
    metrics: Metrics,
    request: Arc<Mutex<ExecRequest>>,
    shutdown: CancellationToken,
    asked: Arc<AtomicUsize>,
    folder: tempfile::TempDir,
}

impl Lab {
    async fn open(spec: Value) -> Self {
        Self::paced(spec, Pace::default()).await
    }

    async fn paced(spec: Value, pace: Pace) -> Self {
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

    fn key() -> RequestKey {
        RequestKey { namespace: "shop".into(), name: "dump".into(), uid: UID.into() }
    }

    fn log(&self) -> PathBuf {
        self.spool.log_path(&Self::key())
    }

    /// What the audit log has of clients: who came and went, with which session.
    fn recorded(&self) -> Vec<Event> {
        let text = std::fs::read_to_string(self.folder.path().join("audit/audit-000000000001.jsonl"));
        let events = text.expect("a log").lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
        let events: Vec<Event> = events;
        events.into_iter().filter(|event| event.note(key::SESSION).is_some()).collect()
    }

    async fn connect(&self) -> Box<TlsStream<TcpStream>> {
        let connection = TcpStream::connect(self.address).await.expect("a connection");
        let name = ServerName::try_from(names::STREAM_SERVER).expect("a name");
        Box::new(within("TLS", self.tls.connect(name, connection)).await.expect("the published certificate"))
    }

    /// Sends text as it is, and gives the status code and all that comes.
    async fn say(&self, text: &str) -> (u16, String) {
        let mut connection = self.connect().await;
        connection.write_all(text.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        // Some of what is sent makes the server close without a word of TLS.
        within("an answer", connection.read_to_end(&mut answer)).await.ok();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (code, answer)
    }

    async fn get(&self, path: &str, token: &str) -> (u16, String) {
        let token = if token.is_empty() { String::new() } else { format!("Authorization: {token}\r\n") };
        self.say(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{token}\r\n")).await
    }

    async fn attach(&self, query: &str) -> Attached {
        self.try_attach(query, &[]).await.expect("attached")
    }

    async fn try_attach(&self, query: &str, headers: &[(&'static str, &str)]) -> Result<Attached, u16> {
        let mut request = format!("wss://execlet-agent{PATH}/attach?{query}").into_client_request().expect("a request");
        request.headers_mut().insert("authorization", TOKEN.parse().expect("a header"));
        request.headers_mut().insert(remotecommand::PROTOCOL_HEADER, "v5.channel.k8s.io".parse().expect("a header"));
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        match within("a handshake", client_async_with_config(request, self.connect().await, Some(config))).await {
            Ok((socket, _)) => {
                Ok(Attached { socket, client: remotecommand::Client::new(Protocol::V5), heard: HashMap::new() })
            }
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// A command that writes, with a log of at most so many bytes.
    fn command(&self, spool_bytes: i64) -> Writing {
        let hub = self.hubs.of(&UID.into());
        let limits = OutputLimits { spool_bytes, ..OutputLimits::default() };
        let log = self.spool.create(&Self::key(), &limits, LogState::Whole);
        hub.open(0, Kept { output: 0, file: 0, state: log.state() });
        let mut log_writer = LogWriter::new(&hub, &Writers::default(), log, 0);
        let keeping = tokio::spawn(async move {
            log_writer.work().await;
        });
        Writing { hub, keeping }
    }
}

struct Writing {
    hub: Arc<Hub>,
    keeping: tokio::task::JoinHandle<()>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

/// As the pump does.
async fn write(hub: &Hub, stream: OutputStream, bytes: &[u8]) {
    within("room", hub.room(bytes.len())).await;
    hub.push(Piece { stream, at: Timestamp::now(), bytes: Bytes::copy_from_slice(bytes) });
}

impl Writing {
    async fn write(&mut self, stream: OutputStream, bytes: &[u8]) {
        write(&self.hub, stream, bytes).await;
    }

    fn end(&self, result: ExecResult) {
        self.hub.close();
        self.hub.conclude(result);
    }
}

struct Attached {
    socket: WebSocketStream<Box<TlsStream<TcpStream>>>,
    client: remotecommand::Client,
    heard: HashMap<OutputStream, Vec<u8>>,
}

impl Attached {
    async fn send(&mut self, message: impl Into<Bytes>) {
        self.socket.send(Message::Binary(message.into())).await.expect("sent");
    }

    /// Reads until so much of standard output has come.
    async fn until(&mut self, bytes: usize) {
        while self.heard.get(&OutputStream::Stdout).map_or(0, Vec::len) < bytes {
            assert!(self.step().await.is_none(), "it ended early: {:?}", self.heard);
        }
    }

    /// Reads one message; gives the close.
    async fn step(&mut self) -> Option<Option<CloseFrame>> {
        match within("a message", self.socket.next()).await {
            Some(Ok(Message::Binary(message))) => {
                if let Some(FromServer::Output(stream, bytes)) = self.client.receive(message).expect("the protocol") {
                    self.heard.entry(stream).or_default().extend_from_slice(&bytes);
                }
                None
            }
            Some(Ok(Message::Close(frame))) => Some(frame),
            Some(Ok(_)) => None,
            Some(Err(_)) | None => Some(None),
        }
    }

    /// Reads to the end: code of the close, its reason, and the status, if there was one.
    async fn end(mut self) -> (Option<u16>, String, Option<Value>, HashMap<OutputStream, Vec<u8>>) {
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

fn bytes_of(length: usize) -> Vec<u8> {
    // No period that is a power of two, and some line ends.
    (0..length).map(|n| u8::try_from((n * 31 + n / 251) % 256).expect("a byte")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_managers_token_opens_anything() {
    let lab = Lab::open(json!({})).await;
    for (path, token, expected) in [
        (format!("{PATH}/log"), "", 401),
        (format!("{PATH}/attach?stdout=true"), "", 401),
        (format!("{PATH}/log"), "Bearer bad", 401),
        (format!("{PATH}/log"), "Basic good", 401),
        (format!("{PATH}/log"), "Bearer pod", 403),
        (format!("{PATH}/log"), TOKEN, 200),
        ("/metrics".to_owned(), "", 404),
        ("/v1/namespaces/shop/execrequests/dump/another/log".to_owned(), TOKEN, 404),
        ("/v1/namespaces/shop/execrequests/other/0b5c/log".to_owned(), TOKEN, 404),
        (format!("{PATH}/log?tailLines=many"), TOKEN, 400),
        (format!("{PATH}/log?tailLines=1000001"), TOKEN, 400),
        (format!("{PATH}/log?stream=stdout"), TOKEN, 400),
        (format!("{PATH}/log?sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z"), TOKEN, 400),
        (format!("{PATH}/attach?stdout=true"), TOKEN, 400),
    ] {
        let (code, answer) = lab.get(&path, token).await;
        assert_eq!(code, expected, "{path} {token}: {answer}");
        assert!(code == 200 || answer.contains(r#""kind":"Status""#), "{answer}");
    }
    assert!(lab.asked.load(Ordering::Relaxed) <= 3, "the API server is asked once for each token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_the_agent_of_another_node_opens_nothing() {
    let lab = Lab::open(json!({})).await;
    let replayed = "Bearer replayed";
    let (code, answer) = lab.get(&format!("{PATH}/log"), replayed).await;
    assert_eq!(code, 401, "{answer}");
    assert_eq!(lab.try_attach("stdout=true", &[("authorization", replayed)]).await.err(), Some(401));
    assert_eq!(lab.get(&format!("{PATH}/log"), TOKEN).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_another_node_is_not_served() {
    let lab = Lab::open(json!({})).await;
    lab.request.lock().status.as_mut().expect("a status").node_name = Some("n2".into());
    assert_eq!(lab.get(&format!("{PATH}/log"), TOKEN).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_before_the_upgrade() {
    let lab = Lab::open(json!({})).await;
    for (query, headers, expected) in [
        ("", &[][..], 400),
        ("tty=true", &[], 400),
        ("stdout=true&stderr=true&tty=true", &[], 400),
        ("stdout=true&tty=true", &[], 400),
        ("stdin=true&stdout=true", &[], 400),
        ("stdout=true", &[("sec-websocket-protocol", "v3.channel.k8s.io")], 400),
        ("stdout=true", &[("sec-websocket-version", "8")], 400),
        ("stdout=true", &[("origin", "https://example.org")], 403),
        ("stdout=true", &[("authorization", "Bearer pod")], 403),
    ] {
        assert_eq!(lab.try_attach(query, headers).await.err(), Some(expected), "{query} {headers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_viewer_has_each_byte_once_while_the_command_writes() {
    let lab = Lab::open(json!({})).await;
    let mut command = lab.command(1 << 30);
    let all = bytes_of(3_000_000);
    let mut attached = Vec::new();
    for (number, part) in all.chunks(7919).enumerate() {
        if number % 90 == 0 {
            let mut late = lab.attach("stdout=true&stderr=true").await;
            attached.push(tokio::spawn(async move {
                late.until(10).await;
                late.end().await
            }));
        }
        command.write(OutputStream::Stdout, part).await;
        command.write(OutputStream::Stderr, &part[..1]).await;
    }
    command.end(ExecResult::of_exit_code(3));
    let stderr: Vec<u8> = all.chunks(7919).map(|part| part[0]).collect();
    assert!(attached.len() > 3);
    for viewer in attached {
        let (code, _, status, heard) = within("the end", viewer).await.expect("a viewer");
        assert_eq!(code, Some(close::NORMAL));
        assert_eq!(status.expect("a status"), serde_json::to_value(ExecResult::of_exit_code(3)).expect("JSON"));
        // Not `assert_eq`, which would print it.
        assert!(heard[&OutputStream::Stdout] == all, "{} of {} bytes", heard[&OutputStream::Stdout].len(), all.len());
        assert!(heard[&OutputStream::Stderr] == stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_stalls_neither_slows_the_command_nor_loses_anything_that_is_kept() {
    let lab = Lab::open(json!({})).await;
    let mut command = lab.command(1 << 30);
    let mut stalled = lab.attach("stdout=true").await;
    command.write(OutputStream::Stdout, b"first").await;
    stalled.until(5).await;
    // More than the sockets and the hub hold.
    let all = bytes_of(24_000_000);
    for part in all.chunks(32_768) {
        command.write(OutputStream::Stdout, part).await;
    }
    command.end(ExecResult::of_exit_code(0));
    let (code, _, status, heard) = stalled.end().await;
    assert_eq!((code, status.expect("a status")["status"].as_str()), (Some(close::NORMAL), Some("Success")));
    assert!(heard[&OutputStream::Stdout][5..] == all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_pauses_at_the_end_loses_neither_the_rest_nor_the_status() {
    let lab = Lab::paced(json!({}), Pace { close: Duration::from_millis(20), ..Pace::default() }).await;
    let mut command = lab.command(1 << 20);
    let mut paused = lab.attach("stdout=true").await;
    command.write(OutputStream::Stdout, b"first").await;
    paused.until(5).await;
    // All of it fits into the sockets: the agent has sent everything long before it was read.
    let rest = bytes_of(100_000);
    command.write(OutputStream::Stdout, &rest).await;
    command.end(ExecResult::of_exit_code(0));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(lab.metrics.viewers.get(), 1, "it is still waited for");
    let (code, _, status, heard) = paused.end().await;
    assert_eq!((code, status.expect("a status")["status"].as_str()), (Some(close::NORMAL), Some("Success")));
    assert!(heard[&OutputStream::Stdout][5..] == rest);
    within("the place", async {
        while lab.metrics.viewers.get() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_loses_what_is_not_kept_is_told_so_and_never_that_all_went_well() {
    let lab = Lab::open(json!({})).await;
    let mut command = lab.command(0);
    let mut stalled = lab.attach("stdout=true").await;
    command.write(OutputStream::Stdout, b"first").await;
    stalled.until(5).await;
    for part in bytes_of(24_000_000).chunks(32_768) {
        command.write(OutputStream::Stdout, part).await;
    }
    command.end(ExecResult::of_exit_code(0));
    let (code, reason, status, _) = stalled.end().await;
    assert_eq!(code, Some(close::POLICY));
    assert!(reason.starts_with("too slow: "), "{reason}");
    assert_eq!(status.expect("a status")["reason"], "Expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_late_to_what_is_not_kept_is_told_how_much_is_missing() {
    let lab = Lab::open(json!({})).await;
    let mut command = lab.command(0);
    for part in bytes_of(1_000_000).chunks(32_768) {
        command.write(OutputStream::Stdout, part).await;
    }
    let late = lab.attach("stdout=true&stderr=true").await;
    command.end(ExecResult::of_exit_code(0));
    let (code, _, _, heard) = late.end().await;
    assert_eq!(code, Some(close::NORMAL));
    let notice = String::from_utf8_lossy(&heard[&OutputStream::Stderr]).into_owned();
    let seen = heard[&OutputStream::Stdout].len();
    assert!(
        seen > 0
            && notice.contains(&format!("{} bytes of output are not kept, and are missing here", 1_000_000 - seen)),
        "{notice}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_after_an_update_to_what_is_not_kept_is_told_how_much_is_missing() {
    const BEFORE: u64 = 100_000;
    let lab = Lab::open(json!({})).await;
    let kept = {
        let mut command = lab.command(5_000);
        for part in bytes_of(100_000).chunks(32_768) {
            command.write(OutputStream::Stdout, part).await;
        }
        within("the limit", async {
            while command.hub.kept().state == LogState::Whole {
                tokio::task::yield_now().await;
            }
        })
        .await;
        command.hub.kept()
    };
    assert!((1..5_000).contains(&kept.output), "{kept:?}");
    // An older agent does not say how much is in the log: then it is said in two parts.
    for (said, notices) in [(kept.output, 1), (BEFORE, 2)] {
        let hub = lab.hubs.of(&UID.into());
        hub.open(BEFORE, Kept { output: said, ..kept });
        for part in bytes_of(100_000).chunks(10_000) {
            write(&hub, OutputStream::Stdout, part).await;
        }
        let late = lab.attach("stdout=true&stderr=true").await;
        hub.close();
        hub.conclude(ExecResult::of_exit_code(0));
        let (code, why, _, heard) = late.end().await;
        assert_eq!(code, Some(close::NORMAL), "{why}");
        let notice = String::from_utf8_lossy(&heard[&OutputStream::Stderr]).into_owned();
        let missing: Vec<u64> =
            notice.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
        assert_eq!(missing.len(), notices, "{notice}");
        let seen = heard[&OutputStream::Stdout].len() as u64;
        assert!(seen > kept.output, "the log, and what is in memory");
        assert_eq!(seen + missing.iter().sum::<u64>(), 2 * BEFORE, "{notice}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_end_the_log_is_replayed_and_the_status_is_that_of_the_object() {
    let lab = Lab::open(json!({})).await;
    {
        let mut command = lab.command(1 << 30);
        command.write(OutputStream::Stdout, b"one\ntwo\n").await;
        command.write(OutputStream::Stderr, b"no\n").await;
        command.end(ExecResult::of_exit_code(3));
        kept(&lab, 100).await;
    }
    {
        let mut request = lab.request.lock();
        let status = request.status.as_mut().expect("a status");
        status.completion_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(Timestamp::now()));
        status.result = Some(ExecResult::of_exit_code(3));
        status.output = serde_json::from_value(json!({"complete": true, "stdout": {"bytes": 8}})).expect("output");
    }
    let (code, _, status, heard) = lab.attach("stdout=true&stderr=true").await.end().await;
    assert_eq!((code, status.expect("a status")["reason"].as_str()), (Some(close::NORMAL), Some("NonZeroExitCode")));
    assert_eq!(
        (heard[&OutputStream::Stdout].as_slice(), heard[&OutputStream::Stderr].as_slice()),
        (&b"one\ntwo\n"[..], &b"no\n"[..])
    );
    for (query, expected) in [
        ("", "one\ntwo\nno\n"),
        ("?tailLines=1", "no\n"),
        ("?tailLines=1&stream=Stdout", "two\n"),
        ("?tailLines=0", ""),
        ("?tailLines=9&follow=true", "one\ntwo\nno\n"),
        ("?limitBytes=5", "one\nt"),
    ] {
        let (code, answer) = lab.get(&format!("{PATH}/log{query}"), TOKEN).await;
        assert_eq!(code, 200);
        assert!(answer.contains("text/plain"), "{answer}");
        let body: String = dechunked(answer.split_once("\r\n\r\n").expect("a head").1);
        assert_eq!(body, expected, "{query}");
    }
    std::fs::remove_dir_all(lab.log().parent().expect("a folder")).expect("removed");
    assert_eq!(lab.get(&format!("{PATH}/log"), TOKEN).await.0, 410, "no silence where there was output");
}

/// The request has finished, with this output.
fn finish(lab: &Lab, output: &Value) {
    let mut request = lab.request.lock();
    let status = request.status.as_mut().expect("a status");
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(Timestamp::now());
    (status.start_time, status.completion_time) = (Some(now.clone()), Some(now));
    status.result = Some(ExecResult::of_exit_code(0));
    status.output = serde_json::from_value(output.clone()).expect("output");
}

/// What the log says at once, and whether it says that this is all.
async fn whole_log(lab: &Lab, query: &str) -> (String, bool) {
    let (code, answer) = lab.get(&format!("{PATH}/log{query}"), TOKEN).await;
    assert_eq!(code, 200, "{answer}");
    let body = answer.split_once("\r\n\r\n").expect("a head").1;
    (dechunked(body), body.ends_with("0\r\n\r\n"))
}

async fn kept(lab: &Lab, bytes: u64) {
    let log = lab.log();
    within("the log", async {
        while std::fs::metadata(&log).map_or(0, |log| log.len()) < bytes {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lacks_something_says_so_also_after_the_end() {
    let lab = Lab::open(json!({})).await;
    let mut command = lab.command(1 << 20);
    command.write(OutputStream::Stdout, b"one\n").await;
    kept(&lab, 40).await;
    drop(command);
    let rows = [
        (json!({"complete": true, "stdout": {"bytes": 4}}), ""),
        (
            json!({"complete": false, "incompleteReason": "SpoolLimit", "stdout": {"bytes": 90}, "stderr": {"bytes": 10}}),
            "[execlet: 96 bytes of output are not kept, and are missing here]\n",
        ),
        (
            json!({"complete": false, "incompleteReason": "StreamLost", "stdout": {"bytes": 4}}),
            "[execlet: an unknown number of bytes of output are not kept, and are missing here]\n",
        ),
    ];
    for (output, said) in rows {
        finish(&lab, &output);
        assert_eq!(whole_log(&lab, "").await, (format!("one\n{said}"), true), "{output}");
        let (code, _, status, heard) = lab.attach("stdout=true&stderr=true").await.end().await;
        assert_eq!((code, status.expect("a status")["status"].as_str()), (Some(close::NORMAL), Some("Success")));
        assert_eq!(heard[&OutputStream::Stdout], b"one\n");
        let told = heard.get(&OutputStream::Stderr).map(|told| String::from_utf8_lossy(told).replace('\r', ""));
        assert_eq!(told.unwrap_or_default(), said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_read_from_the_middle_on_says_what_came_before() {
    let lab = Lab::open(json!({})).await;
    let mut command = lab.command(0);
    for _ in 0..20 {
        command.write(OutputStream::Stdout, &[b'x'; 32 * 1024]).await;
    }
    command.write(OutputStream::Stdout, b"\nlast\n").await;
    let (text, whole) = whole_log(&lab, "").await;
    assert!(whole && text.starts_with("[execlet: ") && text.ends_with("\nlast\n"), "{}", text.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_followed_ends_when_the_command_does_also_if_nobody_hears_it() {
    let lab = Lab::open(json!({})).await;
    let hub = lab.hubs.of(&UID.into());
    hub.log_only(0, crate::agent::streams::ring::Written::UNKNOWN);
    let path = format!("{PATH}/log?follow=true");
    let reading = lab.get(&path, TOKEN);
    tokio::pin!(reading);
    assert!(timeout(Duration::from_millis(300), &mut reading).await.is_err(), "the command goes on");
    hub.conclude(ExecResult::of_exit_code(0));
    assert_eq!(within("the end", reading).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_before_has_logged_is_there_before_the_next_one_has_taken_the_command_up() {
    let lab = Lab::open(json!({})).await;
    lab.request.lock().status.as_mut().expect("a status").exec_id = Some("e".to_owned());
    std::fs::create_dir_all(lab.log().parent().expect("a folder")).expect("a folder");
    std::fs::write(lab.log(), "2026-01-02T03:04:05.000000006Z stdout F before\n").expect("a log");
    assert_eq!(whole_log(&lab, "").await, ("before\n".to_owned(), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_cut_never_ends_as_a_whole_one() {
    // By an agent that ends, and for a reader that takes nothing.
    for stalls in [false, true] {
        let stall = if stalls { Duration::from_millis(300) } else { Pace::default().stall };
        let lab = Lab::paced(json!({}), Pace { stall, ..Pace::default() }).await;
        let mut command = lab.command(1 << 30);
        command.write(OutputStream::Stdout, b"line\n").await;
        let mut reader = lab.connect().await;
        let head = format!("GET {PATH}/log?follow=true HTTP/1.1\r\nHost: a\r\nAuthorization: {TOKEN}\r\n\r\n");
        reader.write_all(head.as_bytes()).await.expect("sent");
        let mut got = Vec::new();
        while !got.windows(5).any(|window| window == b"line\n") {
            within("the beginning", reader.read_buf(&mut got)).await.expect("read");
        }
        if stalls {
            for part in bytes_of(24_000_000).chunks(32_768) {
                command.write(OutputStream::Stdout, part).await;
            }
            within("the cut", async {
                while lab.metrics.viewers.get() > 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
            .await;
        } else {
            lab.shutdown.cancel();
        }
        within("the end", reader.read_to_end(&mut got)).await.ok();
        assert!(!got.ends_with(b"0\r\n\r\n"), "stalls: {stalls}");
    }
}

fn dechunked(mut body: &str) -> String {
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

#[tokio::test(flavor = "multi_thread")]
async fn one_client_holds_the_input_and_what_it_says_arrives_in_order() {
    let lab = Lab::open(json!({"stdin": {"attach": {}}, "tty": true})).await;
    let command = lab.command(1 << 20);
    let mut first = lab.attach("stdin=true&stdout=true&tty=true").await;
    assert_eq!(lab.try_attach("stdin=true&stdout=true", &[]).await.err(), Some(409), "a second one is told");
    let mut watching = lab.attach("stdout=true&tty=true").await;
    command.hub.input.open();
    for part in [&b"\x00he"[..], b"\x00llo", b"\x05noise", b"", b"\xff\x00", b"\x00late"] {
        first.send(part).await;
    }
    let mut heard = Vec::new();
    while let Fed::Bytes(bytes) = within("input", command.hub.input.next()).await {
        heard.extend_from_slice(&bytes);
    }
    assert_eq!(heard, b"hello");
    // Who holds the input has the terminal; who watches has none.
    let mut sizes = command.hub.sizes();
    watching.send(remotecommand::Client::new(Protocol::V5).resize(TerminalSize { width: 1, height: 1 })).await;
    first.send(&b"\x04{\"Width\":80,\"Height\":24}"[..]).await;
    let size = *within("a size", sizes.wait_for(Option::is_some)).await.expect("a size");
    assert_eq!(size, Some(TerminalSize { width: 80, height: 24 }));
    drop(first);
    assert_eq!(within("the end", command.hub.input.next()).await, Fed::Gone);
    within("the input to be free", async {
        while lab.try_attach("stdin=true&stdout=true", &[]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_attaches_is_on_record_with_all_that_is_known_and_goes_on_record_too() {
    let lab = Lab::open(json!({"stdin": {"attach": {}}, "reason": "INC-1"})).await;
    let command = lab.command(0);
    let first = lab.attach("stdin=true&stdout=true").await;
    assert!(command.hub.input.is_held());
    for _ in 0..3 {
        assert_eq!(lab.try_attach("stdin=true&stdout=true", &[]).await.err(), Some(409));
    }
    let attached = lab.recorded();
    assert_eq!(attached.len(), 1, "whoever asks in vain leaves no record");
    for (key, value) in [
        (key::POD, "db"),
        (key::NODE, "n1"),
        (key::COMMAND, r#"["cat"]"#),
        (key::REQUEST_REASON, "INC-1"),
        (key::STDIN, "true"),
    ] {
        assert_eq!(attached[0].note(key), Some(value), "{key}");
    }
    drop(first);
    within("the record of its going", async {
        while lab.recorded().len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let [attached, detached] = &lab.recorded()[..] else { panic!("two records") };
    assert_eq!((attached.verb, detached.verb), (Verb::Attached, Verb::Detached));
    assert_eq!(attached.note(key::SESSION), detached.note(key::SESSION));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_at_any_moment_is_recorded_to_have_gone() {
    let lab = Lab::open(json!({"stdin": {"attach": {}}})).await;
    let command = lab.command(0);
    let request = format!(
        "GET {PATH}/attach?stdin=true HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: {TOKEN}\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
    );
    for pause in 0..20 {
        let mut connection = lab.connect().await;
        connection.write_all(request.as_bytes()).await.expect("sent");
        tokio::time::sleep(Duration::from_micros(pause * 100)).await;
    }
    within("all to be gone", async {
        loop {
            let recorded = lab.recorded();
            let of = |verb| recorded.iter().filter(|event| event.verb == verb).count();
            if of(Verb::Attached) > 0 && of(Verb::Attached) == of(Verb::Detached) && !command.hub.input.is_held() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_input_waits_for_the_command_hears_that_all_is_well() {
    let pace = Pace { pong: Duration::from_millis(20), ping: Duration::from_millis(60), ..Pace::default() };
    let pace = Pace { answer: Duration::from_millis(200), ..pace };
    let lab = Lab::paced(json!({"stdin": {"attach": {}}}), pace).await;
    let command = lab.command(0);
    let (mut to, mut from) = lab.attach("stdin=true&stdout=true").await.socket.split();
    let all = bytes_of(2 << 20);
    let sending = tokio::spawn({
        let all = all.clone();
        async move {
            for part in all.chunks(32 * 1024) {
                to.send(Message::Binary([&b"\0"[..], part].concat().into())).await.expect("sent");
            }
            to.send(Message::Ping(Bytes::from_static(b"all"))).await.expect("sent");
            to
        }
    });
    // The command takes nothing for longer than a client that answers no pings is borne.
    let mut unasked = 0;
    while unasked < 30 {
        match within("a pong", from.next()).await.expect("a message").expect("a connection") {
            Message::Pong(payload) => {
                assert!(payload.is_empty(), "what has not arrived is not said to have");
                unasked += 1;
            }
            Message::Binary(_) | Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
    command.hub.input.open();
    let mut got = Vec::new();
    while got.len() < all.len() {
        match within("input", command.hub.input.next()).await {
            Fed::Bytes(bytes) => got.extend_from_slice(&bytes),
            other => panic!("{other:?}"),
        }
    }
    assert!(got == all);
    let _to = within("the last message", sending).await.expect("sent");
    within("the answer to the ping", async {
        while !matches!(from.next().await.expect("a message").expect("a connection"), Message::Pong(payload) if &payload[..] == b"all") {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_messages_end_a_connection_with_the_right_code_and_harm_no_other() {
    let lab = Lab::open(json!({"tty": true})).await;
    let mut command = lab.command(1 << 20);
    let watching = lab.attach("stdout=true").await;
    let large = vec![0_u8; MESSAGE_BYTES + 1];
    for (message, expected) in [
        (Message::Binary(Bytes::from_static(b"\xff")), close::PROTOCOL_ERROR),
        (Message::Binary(Bytes::from_static(b"\xff\x00\x00")), close::PROTOCOL_ERROR),
        (Message::Binary(Bytes::from_static(b"\xff\x05")), close::PROTOCOL_ERROR),
        (Message::Binary(Bytes::from_static(b"\x04{\"Width\":99999}")), close::PROTOCOL_ERROR),
        (Message::Text("hello".into()), close::UNSUPPORTED),
        (Message::Frame(Frame::message(&b"\xff"[..], OpCode::Data(Data::Text), true)), close::UNSUPPORTED),
        (Message::Binary(large.into()), close::TOO_BIG),
    ] {
        let mut bad = lab.attach("stdout=true&tty=true").await;
        bad.socket.send(message).await.expect("sent");
        let (code, _, status, _) = bad.end().await;
        assert_eq!((code, status), (Some(expected), None));
    }
    command.write(OutputStream::Stdout, b"unharmed").await;
    command.end(ExecResult::of_exit_code(0));
    let (code, _, _, heard) = watching.end().await;
    assert_eq!((code, heard[&OutputStream::Stdout].as_slice()), (Some(close::NORMAL), &b"unharmed"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_is_not_counted_among_those_sent_away() {
    let lab = Lab::open(json!({})).await;
    let _command = lab.command(0);
    let gone = async |records| {
        within("the record of its going", async {
            while lab.recorded().len() < records {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    };
    // With the end of TLS and without a close, and without either.
    let mut polite = lab.attach("stdout=true").await;
    polite.socket.get_mut().shutdown().await.expect("the end of TLS");
    gone(2).await;
    drop(lab.attach("stdout=true").await);
    gone(4).await;
    assert_eq!(lab.metrics.viewers_cut.get(), 0);
    let mut bad = lab.attach("stdout=true").await;
    bad.socket.send(Message::Text("hello".into())).await.expect("sent");
    bad.end().await;
    gone(6).await;
    assert_eq!(lab.metrics.viewers_cut.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_are_never_finished_keep_nobody_out() {
    let lab = Lab::open(json!({})).await;
    let mut open = Vec::new();
    for _ in 0..300 {
        open.push(TcpStream::connect(lab.address).await.expect("a connection"));
    }
    let mut half = lab.connect().await;
    half.write_all(b"GET /v1/names").await.expect("sent");
    assert_eq!(lab.get(&format!("{PATH}/log"), TOKEN).await.0, 200);
    let mut rest = Vec::new();
    within("the server to lose patience", half.read_to_end(&mut rest)).await.ok();
    let mut all = open.pop().expect("one");
    assert_eq!(within("the server to lose patience", all.read(&mut [0])).await.unwrap_or(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_handshakes_from_several_addresses_keep_nobody_out() {
    let lab = Lab::open(json!({})).await;
    let mut command = lab.command(0);
    let mut viewer = lab.attach("stdout=true").await;
    let mut half_open = Vec::new();
    for number in 0..limits::CONNECTIONS {
        let socket = TcpSocket::new_v4().expect("a socket");
        let last = if number % 2 == 0 { 2 } else { 3 };
        socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).expect("an address");
        let mut socket = socket.connect(lab.address).await.expect("a connection");
        // The begin of a TLS record, and no more. The oldest are closed meanwhile.
        socket.write_all(&[22, 3, 1]).await.ok();
        half_open.push(socket);
    }
    assert_eq!(lab.get(&format!("{PATH}/log"), TOKEN).await.0, 200);
    command.write(OutputStream::Stdout, b"x").await;
    viewer.until(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_among_many_has_everything_too() {
    let lab = Lab::open(json!({})).await;
    let mut many = Vec::new();
    for _ in 0..=limits::FEW {
        many.push(lab.connect().await);
    }
    let mut command = lab.command(1 << 30);
    let early = lab.attach("stdout=true").await;
    let all = bytes_of(3_000_000);
    for part in all.chunks(32_768) {
        command.write(OutputStream::Stdout, part).await;
    }
    command.end(ExecResult::of_exit_code(0));
    let late = lab.attach("stdout=true").await;
    for viewer in [early, late] {
        let (code, _, status, heard) = viewer.end().await;
        assert_eq!((code, status.expect("a status")["status"].as_str()), (Some(close::NORMAL), Some("Success")));
        assert!(heard[&OutputStream::Stdout] == all, "{} bytes", heard[&OutputStream::Stdout].len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_a_head_is_refused() {
    let lab = Lab::open(json!({})).await;
    let head = format!("GET {PATH}/log HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(2 * limits::HEAD_BYTES));
    assert!(matches!(lab.say(&head).await.0, 431 | 0));
    assert_eq!(lab.get(&format!("{PATH}/log"), TOKEN).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_so_many_viewers_and_no_more() {
    let lab = Lab::open(json!({})).await;
    let _command = lab.command(0);
    let mut viewers = Vec::new();
    for _ in 0..limits::VIEWERS {
        viewers.push(lab.attach("stdout=true").await);
    }
    assert_eq!(lab.try_attach("stdout=true", &[]).await.err(), Some(429));
    viewers.pop();
    within("a place", async {
        while lab.try_attach("stdout=true", &[]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_ends_tells_its_viewers_that_the_command_goes_on() {
    let lab = Lab::open(json!({})).await;
    let mut command = lab.command(0);
    let mut viewer = lab.attach("stdout=true").await;
    command.write(OutputStream::Stdout, b"x").await;
    viewer.until(1).await;
    lab.shutdown.cancel();
    let (code, reason, status, _) = viewer.end().await;
    assert_eq!((code, status), (Some(close::GOING_AWAY), None));
    assert!(reason.contains("attach again"), "{reason}");
    assert_eq!(lab.metrics.viewer_bytes.get(), 1);
}
