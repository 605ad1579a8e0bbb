//! One connection of an attach: the client side of remotecommand v5 or v4.
//!
//! Reading and writing never wait for each other, so a command that echoes its
//! input can be given any amount of it. The connection counts as dead after
//! [`SILENCE`]; how much input has arrived is known from the pongs, which come
//! from whoever reads the frames.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::pending,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{Sink, SinkExt as _, Stream as FutureStream, StreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::client::Connection;
use tokio::{
    sync::{Notify, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::{
    input::Input,
    output::{Heard, Output},
    shown::{Place, Shown},
};
use crate::{
    cli::{
        cluster::connection::{Cluster, SILENCE, open_in_time},
        say::terminal::Size,
    },
    wire::remotecommand::{Client, FromServer, Protocol, TerminalSize, close},
};

/// As client-go.
const PING: Duration = Duration::from_secs(5);
const GOODBYE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub stdin: bool,
    pub tty: bool,
}

#[derive(Debug)]
pub struct LocalIo {
    pub output: Output,
    pub input: Option<Input>,
    /// The size of our terminal; `None` if the command has no terminal.
    pub sizes: watch::Receiver<Option<Size>>,
    pub shown: Shown,
    /// Whether the command has a terminal: the end of our input is then not the end of the command's.
    pub tty: bool,
}

#[derive(Debug)]
pub enum Ended {
    Status(Box<Status>),
    /// Without it: why.
    Broken(String),
    /// By the server, because output is missing: why. Attaching again would not bring it back.
    Cut(String),
    Detached,
    /// The reader of our output has closed it.
    OutputClosed,
}

pub async fn open(cluster: &Cluster, name: &str, wanted: Wanted) -> Result<Connection, kube::Error> {
    let Wanted { stdin, tty } = wanted;
    // A terminal has one stream for both: asking for stderr too is refused.
    let call = format!("attach?stdin={stdin}&stdout=true&stderr={}&tty={tty}", !tty);
    open_in_time(cluster.client.connect(cluster.subresource(name, &call))).await
}

pub fn protocol(connection: &Connection) -> Protocol {
    if connection.supports_stream_close() { Protocol::V5 } else { Protocol::V4 }
}

/// Serves one connection to its end. It begins with all output from the first byte; what an earlier connection
/// has shown is passed over.
pub async fn serve<S>(socket: S, protocol: Protocol, local: &mut LocalIo) -> Ended
where
    S: FutureStream<Item = Result<Message, SocketError>> + Sink<Message, Error = SocketError> + Unpin,
{
    let (mut to, from) = socket.split();
    let shared = Shared { client: RefCell::new(Client::new(protocol)), arrived: Cell::new(0), pong: Notify::new() };
    let LocalIo { output, input, sizes, shown, tty } = local;
    let answers = input.as_ref().is_some_and(|input| input.typed && !input.refused);
    let detached = input.as_ref().map(|input| input.detached.clone()).unwrap_or_default();
    let writer = Writer { to: &mut to, output, sizes, shared: &shared, tty: *tty };
    let closed = tokio::select! {
        closed = read(from, output, shown, &shared, *tty, answers) => closed,
        () = detached.cancelled() => Err(Ended::Detached),
        never = writer.run(input.as_mut()) => match never {},
    };
    if let Some(input) = input {
        input.arrived = input.arrived.max(shared.arrived.get());
    }
    // The server waits for the close, but does not need it.
    drop(timeout(GOODBYE, to.close()).await);
    let Closed { code, why } = match closed {
        Ok(closed) => closed,
        Err(ended) => return ended,
    };
    let status = match shared.client.into_inner().closed(code) {
        Ok(status) => status,
        Err(none) => return Ended::Broken(if why.is_empty() { none.to_string() } else { why }),
    };
    match serde_json::from_slice::<Status>(&status) {
        // This Status is not the outcome: the server had to send the viewer away.
        Ok(status) if code.is_some_and(|code| code != close::NORMAL) => Ended::Cut(status.message.unwrap_or(why)),
        Ok(status) => Ended::Status(Box::new(status)),
        Err(error) => Ended::Broken(format!("the last frame is not a Status: {error}")),
    }
}

struct Shared {
    /// Never borrowed over an await.
    client: RefCell<Client>,
    /// Bytes of input that the other end had read when it answered a ping.
    arrived: Cell<u64>,
    pong: Notify,
}

/// How reading ended: the code of the close frame if there was one, and why.
struct Closed {
    code: Option<u16>,
    why: String,
}

impl Closed {
    fn abruptly(why: impl Into<String>) -> Self {
        Self { code: None, why: why.into() }
    }
}

/// `answers`: what our terminal types reaches the command.
async fn read<S>(
    mut from: S,
    output: &Output,
    shown: &mut Shown,
    shared: &Shared,
    tty: bool,
    answers: bool,
) -> Result<Closed, Ended>
where
    S: FutureStream<Item = Result<Message, SocketError>> + Unpin,
{
    let mut place = Place::default();
    let mut heard = Heard::ByNobody;
    let mut patience = SILENCE;
    loop {
        let Ok(frame) = timeout(patience, from.next()).await else {
            return Ok(Closed::abruptly(format!("nothing received for {} s", SILENCE.as_secs())));
        };
        let message = match frame.transpose() {
            Ok(Some(Message::Binary(message))) => message,
            Ok(Some(Message::Pong(payload))) => {
                if let Ok(sent) = <[u8; 8]>::try_from(&payload[..]) {
                    shared.arrived.set(shared.arrived.get().max(u64::from_be_bytes(sent)));
                }
                shared.pong.notify_one();
                continue;
            }
            Ok(Some(Message::Close(Some(close)))) => {
                return Ok(Closed { code: Some(close.code.into()), why: close.reason.to_string() });
            }
            Ok(None | Some(Message::Close(None))) => return Ok(Closed::abruptly("")),
            Ok(Some(Message::Ping(_) | Message::Text(_) | Message::Frame(_))) => continue,
            Err(error) => return Ok(Closed::abruptly(error.to_string())),
        };
        let received = shared.client.borrow_mut().receive(message);
        match received {
            Ok(Some(FromServer::Output(stream, bytes))) => {
                let fresh = shown.fresh(&mut place, stream, bytes, tty);
                if !fresh.is_empty() && !output.write(stream, fresh, heard).await {
                    return Err(Ended::OutputClosed);
                }
            }
            Ok(Some(FromServer::Now)) => heard = if answers { Heard::ByCommand } else { Heard::ByNobody },
            // The close comes next; the Status stands without it.
            Ok(Some(FromServer::Status)) => patience = GOODBYE,
            Ok(None) => {}
            Err(error) => return Ok(Closed::abruptly(error.to_string())),
        }
    }
}

struct Writer<'a, S> {
    to: &'a mut S,
    output: &'a Output,
    sizes: &'a mut watch::Receiver<Option<Size>>,
    shared: &'a Shared,
    tty: bool,
}

impl<S: Sink<Message, Error = SocketError> + Unpin> Writer<'_, S> {
    /// Runs for ever: only the reading half tells that the connection is broken, because it may still have a
    /// Status to read.
    async fn run(mut self, input: Option<&mut Input>) -> Infallible {
        match self.write(input).await {
            Ok(never) => never,
            Err(_) => pending().await,
        }
    }

    async fn write(&mut self, mut input: Option<&mut Input>) -> Result<Infallible, SocketError> {
        let mut pings = interval(PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked = None;
        self.resize().await?;
        let refused = input.as_ref().is_some_and(|input| input.refused);
        if input.as_ref().is_some_and(|input| input.ended && !refused) {
            self.end_input().await?;
        }
        loop {
            tokio::select! {
                _ = pings.tick() => asked = Some(self.ping(input.as_deref()).await?),
                () = self.shared.pong.notified() => {
                    asked = None;
                    if input.as_deref().is_some_and(|input| input.sent > self.shared.arrived.get()) {
                        asked = Some(self.ping(input.as_deref()).await?);
                    }
                }
                () = changed(self.sizes) => self.resize().await?,
                piece = next(input.as_deref_mut()) => {
                    if refused {
                        continue;
                    }
                    let Some(bytes) = piece else {
                        self.end_input().await?;
                        continue;
                    };
                    if let Some(input) = &mut input {
                        input.sent += bytes.len() as u64;
                    }
                    let message = self.shared.client.borrow().input(&bytes);
                    self.send(message).await?;
                    // Asks at once whether it has arrived, but one question at a time.
                    if asked.is_none_or(|since: Instant| since.elapsed() > PING) {
                        asked = Some(self.ping(input.as_deref()).await?);
                    }
                }
            }
        }
    }

    async fn ping(&mut self, input: Option<&Input>) -> Result<Instant, SocketError> {
        let sent = input.map_or(0, |input| input.sent);
        self.to.send(Message::Ping(Bytes::copy_from_slice(&sent.to_be_bytes()))).await?;
        Ok(Instant::now())
    }

    async fn resize(&mut self) -> Result<(), SocketError> {
        let Some(size) = *self.sizes.borrow_and_update() else { return Ok(()) };
        self.output.resized(size).await;
        let message = self.shared.client.borrow().resize(TerminalSize { width: size.columns, height: size.rows });
        self.send(Some(message)).await
    }

    async fn end_input(&mut self) -> Result<(), SocketError> {
        // The end of a terminal's input is only ever typed.
        if self.tty {
            return Ok(());
        }
        let message = self.shared.client.borrow_mut().end_input();
        self.send(message).await
    }

    async fn send(&mut self, message: Option<Bytes>) -> Result<(), SocketError> {
        match message {
            Some(message) => self.to.send(Message::Binary(message)).await,
            None => Ok(()),
        }
    }
}

async fn next(input: Option<&mut Input>) -> Option<Bytes> {
    match input {
        Some(input) => input.next().await,
        None => pending().await,
    }
}

async fn changed(sizes: &mut watch::Receiver<Option<Size>>) {
    if sizes.changed().await.is_err() {
        pending::<()>().await;
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
