//! Attach: a command's streams over WebSocket, in both directions.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    extract::{Path, Query, Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use tokio::{
    io::AsyncWriteExt as _,
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as SocketError, Message,
        error::CapacityError,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared, Subject, find,
    limits::{self, Pace},
    refuse::Refused,
};
use crate::{
    agent::{
        hub::{Hub, Piece},
        input::{Fed, Hold, Input},
        view::{Sight, View},
    },
    api::{ExecRequestSpec, ExecResult},
    core::audit::event::Client,
    infra::{metrics::Metrics, requests::Requests},
    wire::{
        OutputStream,
        remotecommand::{FromClient, PROTOCOL_HEADER, Protocol, Server, Streams, close},
        words::{InputError, Missing},
    },
};

/// How long a client whose message is too large may take to hear that, and any the end of TLS.
const LINGER: Duration = Duration::from_secs(1);

/// What a client answers that has taken everything.
const LAST_PING: Bytes = Bytes::from_static(b"all");

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// `PodAttachOptions`. The API server's clients write `true`, `1` or nothing at all.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Options {
    stdin: Option<String>,
    stdout: Option<String>,
    stderr: Option<String>,
    tty: Option<String>,
}

impl Options {
    fn streams(&self) -> Streams {
        let is = |option: &Option<String>| option.as_deref().is_some_and(|text| matches!(text, "true" | "1" | "True"));
        Streams { stdin: is(&self.stdin), stdout: is(&self.stdout), stderr: is(&self.stderr), tty: is(&self.tty) }
    }
}

/// Lets a viewer in, or says why not.
pub(super) async fn attach<R: Requests>(
    State(shared): State<Arc<Shared<R>>>,
    path: Path<(String, String, String)>,
    Query(options): Query<Options>,
    mut request: Request,
) -> Response {
    let upgrade = match handshake(request.headers()) {
        Ok(upgrade) => upgrade,
        Err(refused) => return refused.into_response(),
    };
    let Some(upgraded) = request.extensions_mut().remove::<OnUpgrade>() else {
        return Refused::new(StatusCode::BAD_REQUEST, "this connection cannot be upgraded").into_response();
    };
    let connection = request.extensions().get::<Arc<OwnedSemaphorePermit>>().cloned();
    let subject = match find(&shared, path, request.headers()).await {
        Ok(subject) => subject,
        Err(refused) => return refused.into_response(),
    };
    let streams = match allowed(options.streams(), &subject.request.spec) {
        Ok(streams) => streams,
        Err(refused) => return refused.into_response(),
    };
    // Whoever asks in vain leaves no record.
    if streams.stdin
        && let Err(error) = subject.hub.input.is_free()
    {
        return in_use(&error).into_response();
    }
    let protocol = upgrade.protocol;
    let (tell, told) = oneshot::channel();
    // A task of its own from the first record on, because nobody may be left to wait for this answer.
    let tasks = shared.tasks.clone();
    tasks.spawn(async move {
        // Counted until the last byte.
        let _connection = connection;
        let audit = &shared.streams.audit;
        let client = Client { address: subject.address.clone(), stdin: streams.stdin };
        let known = audit.subject(&subject.request).unwrap_or_else(|_| audit.unread(&subject.key));
        let session = match audit.attached(known, &subject.by, client).await {
            Ok(session) => session,
            Err(error) => {
                return drop(tell.send(Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))));
            }
        };
        connected(&shared, &subject, protocol, streams, upgraded, tell).await;
        audit.detached(session).await;
    });
    match told.await {
        Ok(Ok(())) => upgrade.accept(),
        Ok(Err(refused)) => refused.into_response(),
        Err(_) => Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "the viewer's task has ended").into_response(),
    }
}

fn in_use(error: &InputError) -> Refused {
    Refused::new(StatusCode::CONFLICT, error.to_string())
}

/// Lets a viewer in that is on record, and serves it to the end.
async fn connected<R: Requests>(
    shared: &Shared<R>,
    subject: &Subject,
    protocol: Protocol,
    streams: Streams,
    upgraded: OnUpgrade,
    tell: oneshot::Sender<Result<(), Refused>>,
) {
    let Subject { key, hub, .. } = subject;
    let viewer = subject.viewer();
    let hold = match streams.stdin.then(|| Input::hold(hub, &viewer)).transpose() {
        Ok(hold) => hold,
        // Another one was faster.
        Err(error) => return drop(tell.send(Err(in_use(&error)))),
    };
    let view = View::new(hub, &shared.streams.spool.log_path(key), &shared.readers);
    if tell.send(Ok(())).is_err() {
        return;
    }
    let Ok(Ok(upgraded)) = timeout(limits::HANDSHAKE_TIMEOUT, upgraded).await else { return };
    let config = WebSocketConfig::default()
        .read_buffer_size(limits::LISTEN_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(8 * limits::OUTPUT_BYTES)
        .max_message_size(Some(limits::MESSAGE_BYTES))
        .max_frame_size(Some(limits::MESSAGE_BYTES));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let metrics = &shared.streams.metrics;
    metrics.viewers.inc();
    tracing::info!(request = %key, uid = %key.uid, viewer, stdin = streams.stdin, "attached");
    let (pace, shutdown) = (shared.streams.pace, &shared.streams.shutdown);
    let end = Viewer::new(hub, (protocol, streams), pace, metrics, shutdown).serve(socket, view, hold).await;
    metrics.viewers.dec();
    if let End::Cut { .. } | End::Lost { .. } = end {
        metrics.viewer_cut();
    }
    tracing::info!(request = %key, uid = %key.uid, viewer, ?end, "detached");
}

/// A handshake that is one.
struct Upgrade {
    accept: String,
    protocol: Protocol,
}

impl Upgrade {
    fn accept(self) -> Response {
        let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(PROTOCOL_HEADER, HeaderValue::from_static(self.protocol.name()));
        if let Ok(accept) = HeaderValue::from_str(&self.accept) {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        response
    }
}

/// RFC 6455, section 4.2.1.
fn handshake(headers: &HeaderMap) -> Result<Upgrade, Refused> {
    let bad = |message: &str| Err(Refused::new(StatusCode::BAD_REQUEST, message));
    let has = |name: header::HeaderName, word: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case(word))
    };
    // The manager is no web page, and has nothing to do with one.
    if headers.contains_key(header::ORIGIN) {
        return Err(Refused::new(StatusCode::FORBIDDEN, "no web page may attach"));
    }
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return bad("attach is a WebSocket: send Connection: Upgrade and Upgrade: websocket");
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        return bad("the WebSocket version must be 13");
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else { return bad("Sec-WebSocket-Key is missing") };
    let offered = headers.get_all(PROTOCOL_HEADER).into_iter().filter_map(|value| value.to_str().ok());
    let Some(protocol) = Protocol::negotiate(offered) else {
        return bad("none of the offered protocols is spoken here: offer v5.channel.k8s.io or v4.channel.k8s.io");
    };
    Ok(Upgrade { accept: derive_accept_key(key.as_bytes()), protocol })
}

/// Whether the command has what is asked for.
fn allowed(streams: Streams, spec: &ExecRequestSpec) -> Result<Streams, Refused> {
    let bad = |message: String| Err(Refused::new(StatusCode::BAD_REQUEST, message));
    if let Err(error) = streams.validate() {
        return bad(error.to_string());
    }
    if streams.tty && !spec.tty {
        return bad("the command has no terminal: attach with tty=false".to_owned());
    }
    let takes_input = spec.stdin.as_ref().is_some_and(|stdin| stdin.attach.is_some());
    if streams.stdin && !takes_input {
        return bad(
            "the command takes no input from a client, because spec.stdin.attach is not set: attach with stdin=false"
                .to_owned(),
        );
    }
    Ok(streams)
}

/// How a viewer's time ended.
#[derive(Debug)]
enum End {
    /// It has everything, with the status.
    Told,
    /// It went away.
    Left,
    /// Its connection broke, or it does not answer.
    Vanished,
    /// It was too slow for what is not kept, and has the status that says so.
    Lost {
        /// In words.
        why: String,
    },
    /// It was sent away.
    Cut {
        /// Code of the close.
        code: u16,
        /// Why.
        why: String,
    },
}

impl End {
    fn cut(code: u16, why: impl Into<String>) -> Self {
        Self::Cut { code, why: why.into() }
    }
}

/// When something was last heard.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// Anything from the client.
    heard: Instant,
    /// Data, in either direction.
    data: Instant,
}

/// One viewer.
struct Viewer<'a> {
    hub: &'a Arc<Hub>,
    server: Mutex<Server>,
    /// With a terminal, all that it sees.
    tty: bool,
    pace: Pace,
    metrics: &'a Metrics,
    times: Mutex<Times>,
    /// Something of the client waits for the command: meanwhile nothing is read from it.
    feeding: AtomicBool,
    shutdown: &'a CancellationToken,
}

type ToClient = SplitSink<Socket, Message>;
type FromClientStream = SplitStream<Socket>;

impl<'a> Viewer<'a> {
    fn new(
        hub: &'a Arc<Hub>,
        (protocol, streams): (Protocol, Streams),
        pace: Pace,
        metrics: &'a Metrics,
        shutdown: &'a CancellationToken,
    ) -> Self {
        let now = Instant::now();
        let times = Mutex::new(Times { heard: now, data: now });
        let (server, feeding) = (Mutex::new(Server::new(protocol, streams)), AtomicBool::new(false));
        Self { hub, server, tty: streams.tty, pace, metrics, times, feeding, shutdown }
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves to the end, and says goodbye.
    async fn serve(&self, socket: Socket, mut view: View, hold: Option<Hold>) -> End {
        let (mut to, mut from) = socket.split();
        let end = tokio::select! {
            biased;
            end = self.listen(&mut from, hold) => end,
            end = self.show(&mut to, &mut view) => end,
        };
        let (code, why) = match &end {
            End::Told => (close::NORMAL, ""),
            End::Lost { why } => (close::POLICY, why.as_str()),
            End::Cut { code, why } => (*code, why.as_str()),
            End::Left | End::Vanished => return end,
        };
        if let End::Told | End::Lost { .. } = &end {
            self.taken(&mut to, &mut from).await;
        }
        let frame = CloseFrame { code: code.into(), reason: close::reason(why).into() };
        let goodbye = async {
            if to.send(Message::Close(Some(frame))).await.is_ok() {
                // An immediate end would take from a slow reader what it has not read.
                while let Some(Ok(_)) = from.next().await {}
            }
        };
        let said = timeout(self.pace.close, goodbye).await;
        if code == close::TOO_BIG {
            // The client is still sending: to hang up now would take the close from it.
            sleep(LINGER).await;
        }
        if said.is_err() {
            tracing::debug!("a viewer did not say goodbye in time");
        }
        // TLS has a goodbye of its own: without it a client cannot tell an end from a cut.
        if let Ok(mut socket) = to.reunite(from) {
            drop(timeout(LINGER, socket.get_mut().shutdown()).await);
        }
        end
    }

    /// Waits until the client has taken everything: its answer to a last ping comes after that.
    async fn taken(&self, to: &mut ToClient, from: &mut FromClientStream) {
        let taken = async {
            if to.send(Message::Ping(LAST_PING)).await.is_err() {
                return;
            }
            while let Some(Ok(message)) = from.next().await {
                if matches!(message, Message::Pong(payload) if payload == LAST_PING) {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {}
            taken = timeout(self.pace.stall, taken) => if taken.is_err() {
                tracing::debug!("a viewer did not take everything in time");
            }
        }
    }

    /// Sends what there is to see.
    async fn show(&self, to: &mut ToClient, view: &mut View) -> End {
        let greeting = self.server().greeting();
        if let Err(end) = self.send(to, Message::Binary(greeting)).await {
            return end;
        }
        let mut beat = Beat::new(self.pace);
        // Of what is over before it came a viewer is told; what it loses on its way ends it.
        let mut joining = true;
        loop {
            let sight = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return going_away(),
                // First, or output without end would keep it from a client that waits for it.
                due = beat.next() => {
                    if let Err(end) = self.beat(to, due).await {
                        return end;
                    }
                    continue;
                }
                sight = view.next() => sight,
            };
            let shown = match sight {
                Ok(Sight::Pieces(pieces)) => self.output(to, pieces).await,
                Ok(Sight::Gap(missing)) if joining => {
                    joining = false;
                    let stream = if self.tty { OutputStream::Stdout } else { OutputStream::Stderr };
                    self.output(to, vec![notice(missing, stream)]).await
                }
                Ok(Sight::Gap(missing)) => return self.lost(to, missing).await,
                Ok(Sight::End) => return self.conclude(to).await,
                Err(error) => return End::cut(close::INTERNAL, format!("the log cannot be read: {error}")),
            };
            if let Err(end) = shown {
                return end;
            }
            joining &= !view.is_live();
        }
    }

    async fn output(&self, to: &mut ToClient, pieces: Vec<Piece>) -> Result<(), End> {
        let messages = self.messages(&pieces);
        // A viewer that takes nothing costs no more than it must.
        drop(pieces);
        for (message, length) in messages {
            self.send(to, Message::Binary(message)).await?;
            self.metrics.viewer_bytes.inc_by(length);
            let now = Instant::now();
            // A client that takes output lives.
            *self.times() = Times { heard: now, data: now };
        }
        Ok(())
    }

    /// Those of one stream that follow each other go together. With each message how much output it has.
    fn messages(&self, pieces: &[Piece]) -> Vec<(Bytes, u64)> {
        let server = self.server();
        let message = |same: &[Piece]| {
            let parts: Vec<&Bytes> = same.iter().map(|piece| &piece.bytes).collect();
            let length: usize = parts.iter().map(|part| part.len()).sum();
            Some((server.output(same.first()?.stream, &parts)?, length as u64))
        };
        pieces.chunk_by(|one, other| one.stream == other.stream).filter_map(message).collect()
    }

    /// Shows the client that it is served, and looks whether it is there.
    async fn beat(&self, to: &mut ToClient, due: Due) -> Result<(), End> {
        let feeding = self.feeding.load(Ordering::Relaxed);
        if feeding {
            // Its silence is ours.
            self.times().heard = Instant::now();
        }
        let Times { heard, data } = *self.times();
        match due {
            Due::Pong if feeding => return self.send(to, Message::Pong(Bytes::new())).await,
            Due::Pong => return Ok(()),
            Due::Ping => {}
        }
        if heard.elapsed() >= self.pace.answer {
            return Err(End::Vanished);
        }
        if data.elapsed() >= self.pace.idle {
            let why = "nothing was said for too long; the command goes on: attach again";
            return Err(End::cut(close::POLICY, why));
        }
        self.send(to, Message::Ping(Bytes::new())).await
    }

    /// Sends one message, to whoever takes it in time.
    async fn send(&self, to: &mut ToClient, message: Message) -> Result<(), End> {
        match timeout(self.pace.stall, to.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Vanished),
            Err(_) => Err(End::cut(close::POLICY, "too slow: no output was taken; the command goes on: attach again")),
        }
    }

    /// What comes next is kept nowhere: to go on as if nothing were missing would be a lie.
    async fn lost(&self, to: &mut ToClient, missing: Option<u64>) -> End {
        let missing = Missing::from(missing);
        let why = format!("too slow: {missing} of output are not kept; the command goes on: attach again");
        let status = serde_json::to_vec(&ExecResult::of_viewer(&why)).unwrap_or_default();
        let last = self.server().finish(&status);
        match self.send(to, Message::Binary(last.unwrap_or_default())).await {
            Ok(()) => End::Lost { why },
            Err(end) => end,
        }
    }

    /// Waits until it is known how the command has ended, and tells it.
    async fn conclude(&self, to: &mut ToClient) -> End {
        let mut changes = self.hub.changes();
        let mut beat = Beat::new(self.pace);
        let result = loop {
            changes.borrow_and_update();
            if let Some(result) = self.hub.result() {
                break result;
            }
            if self.hub.has_moved() {
                return going_away();
            }
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return going_away(),
                gone = changes.changed() => if gone.is_err() { return going_away() },
                due = beat.next() => if let Err(end) = self.beat(to, due).await { return end },
            }
        };
        let status = match serde_json::to_vec(&*result) {
            Ok(status) => status,
            Err(error) => return End::cut(close::INTERNAL, error.to_string()),
        };
        let last = self.server().finish(&status);
        match self.send(to, Message::Binary(last.unwrap_or_default())).await {
            Ok(()) => End::Told,
            Err(end) => end,
        }
    }

    /// Hears what the client says.
    async fn listen(&self, from: &mut FromClientStream, hold: Option<Hold>) -> End {
        loop {
            let message = match from.next().await {
                Some(Ok(message)) => message,
                Some(Err(SocketError::Capacity(CapacityError::MessageTooLong { size, max_size }))) => {
                    return End::cut(close::TOO_BIG, format!("a message has {size} bytes, at most are {max_size}"));
                }
                Some(Err(SocketError::Protocol(error))) => {
                    return End::cut(close::PROTOCOL_ERROR, error.to_string());
                }
                Some(Err(_)) | None => return End::Vanished,
            };
            self.times().heard = Instant::now();
            let payload = match message {
                Message::Binary(payload) => payload,
                Message::Text(_) => {
                    return End::cut(close::UNSUPPORTED, "a text message: only binary ones are understood");
                }
                Message::Close(_) => return End::Left,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            self.times().data = Instant::now();
            let received = self.server().receive(payload);
            match (received, &hold) {
                (Ok(Some(FromClient::Input(bytes))), Some(hold)) => self.feed(hold, Fed::Bytes(bytes)).await,
                (Ok(Some(FromClient::InputEnded)), Some(hold)) => self.feed(hold, Fed::End).await,
                // Who holds the input has the terminal.
                (Ok(Some(FromClient::Resized(size))), hold) => {
                    if hold.is_some() || !self.hub.input.is_held() {
                        self.hub.resize(size);
                    }
                }
                (Ok(Some(FromClient::Input(_) | FromClient::InputEnded)), None) | (Ok(None), _) => {}
                (Err(error), _) => return End::cut(close::PROTOCOL_ERROR, error.to_string()),
            }
        }
    }
}

impl Viewer<'_> {
    /// Waits until the command has room for it. Meanwhile nothing is read from the client, and [`Self::beat`] tells it
    /// that all is well.
    async fn feed(&self, hold: &Hold, fed: Fed) {
        self.feeding.store(true, Ordering::Relaxed);
        // A command that takes no more does not end those who watch it.
        let _taken = hold.send(fed).await;
        self.times().heard = Instant::now();
        self.feeding.store(false, Ordering::Relaxed);
    }
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Ping,
    Pong,
}

/// When the client has to hear of us, if there is nothing else to tell.
struct Beat {
    ping: Interval,
    pong: Interval,
}

impl Beat {
    fn new(pace: Pace) -> Self {
        let every = |pause| {
            let mut interval = interval(pause);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        };
        Self { ping: every(pace.ping), pong: every(pace.pong) }
    }

    /// Waits until something is due. May be left at any time.
    async fn next(&mut self) -> Due {
        tokio::select! {
            biased;
            _ = self.pong.tick() => Due::Pong,
            _ = self.ping.tick() => Due::Ping,
        }
    }
}

fn going_away() -> End {
    End::cut(close::GOING_AWAY, "the agent is being restarted; the command goes on: attach again")
}

/// A word to the viewer, where what it sees is not all there was.
fn notice(missing: Option<u64>, stream: OutputStream) -> Piece {
    Piece { stream, at: Timestamp::UNIX_EPOCH, bytes: format!("{}\r\n", Missing::from(missing).notice()).into() }
}
