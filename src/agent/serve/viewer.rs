//! A viewer: a command's streams over WebSocket, in both directions.

use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncWriteExt as _, copy, sink},
    time::{Instant, Interval, MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as SocketError, Message,
        error::{CapacityError, ProtocolError},
        protocol::CloseFrame,
    },
};
use tokio_util::sync::CancellationToken;

use super::limits::Pace;
use crate::{
    agent::streams::{
        hub::Hub,
        input::{Fed, Hold},
        ring::Piece,
        view::{Sight, View},
    },
    api::ExecResult,
    infra::metrics::Metrics,
    wire::{
        OutputStream,
        remotecommand::{FromClient, Protocol, Server, Streams, close},
        words::Missing,
    },
};

/// How long the end of TLS may take, and a client that broke the protocol may take to read why.
const LINGER: Duration = Duration::from_secs(1);

/// Payload of the last ping, which a client answers when it has taken everything.
const LAST_PING: Bytes = Bytes::from_static(b"all");

const ONLY_BINARY: &str = "a text message: only binary messages are accepted";

type Socket = WebSocketStream<TokioIo<Upgraded>>;

#[derive(Debug)]
pub(super) enum End {
    /// It has all output, and the status.
    Told,
    /// It closed the connection.
    Left,
    /// Its connection broke, or it does not answer.
    Vanished,
    /// It was too slow for output that is not kept, and has a status that says so.
    Lost { why: String },
    /// Its connection was closed, with this close code.
    Cut { code: u16, why: String },
}

impl End {
    fn cut(code: u16, why: impl Into<String>) -> Self {
        Self::Cut { code, why: why.into() }
    }
}

#[derive(Clone, Copy, Debug)]
struct Times {
    /// Anything from the client.
    heard: Instant,
    /// Data, in either direction.
    data: Instant,
}

pub(super) struct Viewer<'a> {
    hub: &'a Arc<Hub>,
    server: Mutex<Server>,
    /// With a terminal, all output is one stream.
    tty: bool,
    pace: Pace,
    metrics: &'a Metrics,
    times: Mutex<Times>,
    /// Input waits for the command, and nothing is read from the client.
    feeding: AtomicBool,
    shutdown: &'a CancellationToken,
}

type ToClient = SplitSink<Socket, Message>;
type FromClientStream = SplitStream<Socket>;

impl<'a> Viewer<'a> {
    pub(super) fn new(
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

    /// Serves to the end, and closes the connection.
    pub(super) async fn serve(&self, socket: Socket, mut view: View, hold: Option<Hold>) -> End {
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
        let closing = async {
            let mut answered = false;
            if to.send(Message::Close(Some(frame))).await.is_ok() {
                // An immediate end would take from a slow reader what it has not read.
                while let Some(Ok(message)) = from.next().await {
                    answered |= message.is_close();
                }
            }
            answered
        };
        let closed = timeout(self.pace.close, closing).await;
        if closed.is_err() {
            tracing::debug!("a viewer did not close in time");
        }
        if let Ok(mut socket) = to.reunite(from) {
            let socket = socket.get_mut();
            let hanging_up = async {
                // Without the end of TLS a client cannot tell an end from a cut.
                socket.shutdown().await?;
                if closed == Ok(false) {
                    // After a protocol error no message is read, and the client still sends: its answer, or the rest of
                    // what was too large. A reset because of that would take the close from it.
                    copy(socket, &mut sink()).await?;
                }
                Ok::<_, io::Error>(())
            };
            drop(timeout(LINGER, hanging_up).await);
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
        if let Some(Err(_)) = self.shutdown.run_until_cancelled(timeout(self.pace.stall, taken)).await {
            tracing::debug!("a viewer did not take everything in time");
        }
    }

    async fn show(&self, to: &mut ToClient, view: &mut View) -> End {
        let empty = self.server.lock().greeting();
        if let Err(end) = self.send(to, Message::Binary(empty.clone())).await {
            return end;
        }
        let mut beat = Beat::new(self.pace);
        // A gap before the viewer came is only reported to it; one after that ends it.
        let mut joining = true;
        loop {
            let sight = {
                // Reading the disk may take longer than a beat.
                let mut next = pin!(view.next());
                loop {
                    tokio::select! {
                        biased;
                        () = self.shutdown.cancelled() => return going_away(),
                        // First, or endless output would starve it.
                        due = beat.next() => if let Err(end) = self.beat(to, due).await { return end },
                        sight = &mut next => break sight,
                    }
                }
            };
            let shown = match sight {
                Ok(Sight::Pieces(pieces)) => self.output(to, pieces).await,
                Ok(Sight::Now) => self.send(to, Message::Binary(empty.clone())).await,
                Ok(Sight::Gap(missing)) if joining => {
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
        // Given back before a viewer that takes nothing is waited for.
        drop(pieces);
        for (message, length) in messages {
            self.send(to, Message::Binary(message)).await?;
            self.metrics.viewer_bytes.inc_by(length);
            let now = Instant::now();
            // A client that takes output is alive.
            *self.times.lock() = Times { heard: now, data: now };
        }
        Ok(())
    }

    /// One message for consecutive pieces of one stream, with its bytes of output.
    fn messages(&self, pieces: &[Piece]) -> Vec<(Bytes, u64)> {
        let server = self.server.lock();
        let message = |same: &[Piece]| {
            let parts: Vec<&Bytes> = same.iter().map(|piece| &piece.bytes).collect();
            let length: usize = parts.iter().map(|part| part.len()).sum();
            Some((server.output(same.first()?.stream, &parts)?, length as u64))
        };
        pieces.chunk_by(|one, other| one.stream == other.stream).filter_map(message).collect()
    }

    /// Keeps the connection alive, and checks that the client is there.
    async fn beat(&self, to: &mut ToClient, due: Due) -> Result<(), End> {
        let feeding = self.feeding.load(Ordering::Relaxed);
        if feeding {
            // It is silent because it is not read from.
            self.times.lock().heard = Instant::now();
        }
        let Times { heard, data } = *self.times.lock();
        match due {
            Due::Pong if feeding => return self.send(to, Message::Pong(Bytes::new())).await,
            Due::Pong => return Ok(()),
            Due::Ping => {}
        }
        if heard.elapsed() >= self.pace.answer {
            return Err(End::Vanished);
        }
        if data.elapsed() >= self.pace.idle {
            let why = "idle for too long; the command goes on: attach again";
            return Err(End::cut(close::POLICY, why));
        }
        self.send(to, Message::Ping(Bytes::new())).await
    }

    /// Sends one message, unless the client does not take it in time.
    async fn send(&self, to: &mut ToClient, message: Message) -> Result<(), End> {
        match timeout(self.pace.stall, to.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Vanished),
            Err(_) => Err(End::cut(close::POLICY, "too slow: no output was taken; the command goes on: attach again")),
        }
    }

    /// What comes next is not kept anywhere: the viewer is told that output is missing.
    async fn lost(&self, to: &mut ToClient, missing: Option<u64>) -> End {
        let missing = Missing::from(missing);
        let why = format!("too slow: {missing} of output are not kept; the command goes on: attach again");
        let status = serde_json::to_vec(&ExecResult::of_viewer(&why)).unwrap_or_default();
        let last = self.server.lock().finish(&status);
        match self.send(to, Message::Binary(last.unwrap_or_default())).await {
            Ok(()) => End::Lost { why },
            Err(end) => end,
        }
    }

    /// Waits for the command's result, and sends it.
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
        let last = self.server.lock().finish(&status);
        match self.send(to, Message::Binary(last.unwrap_or_default())).await {
            Ok(()) => End::Told,
            Err(end) => end,
        }
    }

    async fn listen(&self, from: &mut FromClientStream, hold: Option<Hold>) -> End {
        loop {
            let message = match from.next().await {
                Some(Ok(message)) => message,
                Some(Err(SocketError::Capacity(CapacityError::MessageTooLong { size, max_size }))) => {
                    return End::cut(close::TOO_BIG, format!("a message has {size} bytes, the limit is {max_size}"));
                }
                Some(Err(SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => return End::Vanished,
                Some(Err(SocketError::Utf8(_))) => return End::cut(close::UNSUPPORTED, ONLY_BINARY),
                Some(Err(SocketError::Protocol(error))) => {
                    return End::cut(close::PROTOCOL_ERROR, error.to_string());
                }
                Some(Err(_)) | None => return End::Vanished,
            };
            self.times.lock().heard = Instant::now();
            let payload = match message {
                Message::Binary(payload) => payload,
                Message::Text(_) => return End::cut(close::UNSUPPORTED, ONLY_BINARY),
                Message::Close(_) => return End::Left,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            self.times.lock().data = Instant::now();
            let received = self.server.lock().receive(payload);
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

    /// Waits until the command has room for the input; and where it can outlive this agent, until it does, as an answer to
    /// the client's next ping says that it has arrived. Meanwhile nothing is read from the client, and [`Self::beat`] keeps
    /// its connection alive.
    async fn feed(&self, hold: &Hold, fed: Fed) {
        self.feeding.store(true, Ordering::Relaxed);
        // A command that takes no more input may still have output.
        let _taken = hold.send(fed).await;
        hold.arrived().await;
        self.times.lock().heard = Instant::now();
        self.feeding.store(false, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Ping,
    Pong,
}

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

    /// Cancel safe.
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

fn notice(missing: Option<u64>, stream: OutputStream) -> Piece {
    Piece { stream, at: Timestamp::UNIX_EPOCH, bytes: format!("{}\r\n", Missing::from(missing).notice()).into() }
}
