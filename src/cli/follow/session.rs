//! One connection of an attach: remotecommand v5 or v4 in the client's place.
//!
//! Reading and writing never wait for each other, so a command that echoes its
//! input can be given any amount of it. The connection is taken for dead after
//! [`SILENCE`]; how much input surely arrived is known by the pongs, which come
//! from whoever reads the frames.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{Sink, SinkExt as _, Stream as FutureStream, StreamExt as _};
use hyper::Request;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use tokio::{
    sync::{Notify, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_util::sync::CancellationToken;

use super::{input::Input, output::Output};
use crate::{
    cli::{cluster::connection::Cluster, cluster::discovery, say::terminal::Size},
    wire::{
        OutputStream,
        remotecommand::{Client, FromServer, Protocol, TerminalSize, close},
        words::Missing,
    },
};

/// As client-go: a ping every 5 s, dead 16 s after the last sign of life.
const PING: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(16);
/// How long the goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long the server may take until a stream is open. It waits 30 s for the request to be bound, by
/// default.
const OPENING: Duration = Duration::from_secs(60);

/// What is wanted of an attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Standard input.
    pub stdin: bool,
    /// A terminal.
    pub tty: bool,
}

/// The request that opens an attach to the request `name`.
pub fn attach_request(cluster: &Cluster, name: &str, wanted: Wanted) -> Request<Vec<u8>> {
    let (group, version) = (discovery::SUBRESOURCES, discovery::SUBRESOURCES_VERSION);
    let Wanted { stdin, tty } = wanted;
    // With a terminal there is one stream: to ask for both is refused.
    let query = format!("stdin={stdin}&stdout=true&stderr={}&tty={tty}", !tty);
    let mut request = Request::new(Vec::new());
    let uri = format!("/apis/{group}/{version}/namespaces/{}/execrequests/{name}/attach?{query}", cluster.namespace);
    // Names of Kubernetes need no escaping; what is no name is refused by the API server.
    *request.uri_mut() = uri.parse().unwrap_or_default();
    request
}

/// What a stream of output and input goes through, over as many connections as it takes.
#[derive(Debug)]
pub struct Ends {
    /// Where output goes.
    pub output: Output,
    /// Where input comes from.
    pub input: Option<Input>,
    /// The size of our terminal, if the command has one.
    pub sizes: Option<watch::Receiver<Option<Size>>>,
    /// How far the output has come.
    pub shown: Shown,
    /// Whether the command has a terminal: the end of our input is then not the end of its.
    pub tty: bool,
}

/// How far a request's output has come here: all of it in one row, both streams in the order in which the
/// agent received them. Each connection goes through it from the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// What is before this was shown, or is missing.
    pub up_to: u64,
    /// So many bytes of that are missing: they are kept nowhere.
    pub missing: u64,
}

impl Shown {
    /// Whether there was nothing to show yet.
    pub const fn is_nothing(self) -> bool {
        self.up_to == self.missing
    }
}

/// How a connection ended.
#[derive(Debug)]
pub enum Ended {
    /// With the outcome.
    Status(Box<Status>),
    /// Before it: why.
    Broken(String),
    /// By the server, because output is missing: why. To attach again would not bring it back.
    Cut(String),
    /// The detach keys were pressed.
    Detached,
    /// Nobody reads our output any longer.
    NobodyReads,
}

/// The protocol of a connection that was opened.
pub fn protocol(connection: &kube::client::Connection) -> Protocol {
    if connection.supports_stream_close() { Protocol::V5 } else { Protocol::V4 }
}

/// Opens a connection.
pub async fn open(cluster: &Cluster, request: Request<Vec<u8>>) -> Result<kube::client::Connection, kube::Error> {
    in_time(cluster.client.connect(request)).await
}

/// Opens a stream, if that is done in time.
pub async fn in_time<T>(opening: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    timeout(OPENING, opening).await.unwrap_or_else(|_| {
        let why = format!("there was no answer within {} s", OPENING.as_secs());
        Err(kube::Error::Service(why.into()))
    })
}

/// Serves one connection to its end. It begins with all output from the first byte; what was shown
/// over an earlier connection is passed over.
pub async fn serve<S>(socket: S, protocol: Protocol, ends: &mut Ends) -> Ended
where
    S: FutureStream<Item = Result<Message, SocketError>> + Sink<Message, Error = SocketError> + Unpin,
{
    let (mut to, from) = socket.split();
    let shared = Shared { client: RefCell::new(Client::new(protocol)), arrived: Cell::new(0), pong: Notify::new() };
    let Ends { output, input, sizes, shown, tty } = ends;
    let writer = Writer { to: &mut to, output, sizes, shared: &shared, tty: *tty };
    let read = tokio::select! {
        read = read(from, output, shown, &shared, *tty) => read,
        () = writer.run(input.as_mut()) => Read::Detached,
    };
    if let Some(input) = input {
        input.arrived = input.arrived.max(shared.arrived.get());
    }
    // The server waits for it, but does not need it.
    drop(timeout(GOODBYE, to.close()).await);
    let (code, why) = match read {
        Read::Detached => return Ended::Detached,
        Read::NobodyReads => return Ended::NobodyReads,
        Read::Closed(code, why) => (code, why),
    };
    let status = match shared.client.into_inner().closed(code) {
        Ok(status) => status,
        Err(none) => return Ended::Broken(if why.is_empty() { none.to_string() } else { why }),
    };
    match serde_json::from_slice::<Status>(&status) {
        // A status that is not the outcome: the server had to send the viewer away.
        Ok(status) if code.is_some_and(|code| code != close::NORMAL) => Ended::Cut(status.message.unwrap_or(why)),
        Ok(status) => Ended::Status(Box::new(status)),
        Err(error) => Ended::Broken(format!("its last frame is no Status: {error}")),
    }
}

/// What both halves of a connection use.
struct Shared {
    /// Never borrowed over an await.
    client: RefCell<Client>,
    /// Bytes of input that the other end had read when it answered a ping.
    arrived: Cell<u64>,
    pong: Notify,
}

/// How reading ended.
enum Read {
    /// With a close of this code, or without any; and why.
    Closed(Option<u16>, String),
    Detached,
    NobodyReads,
}

async fn read<S>(mut from: S, output: &Output, shown: &mut Shown, shared: &Shared, tty: bool) -> Read
where
    S: FutureStream<Item = Result<Message, SocketError>> + Unpin,
{
    // Where in all of the output this connection is.
    let mut at = 0;
    let mut patience = SILENCE;
    loop {
        let frame = match timeout(patience, from.next()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Read::Closed(None, error.to_string()),
            Ok(None) => return Read::Closed(None, String::new()),
            Err(_) => return Read::Closed(None, format!("nothing was heard for {} s", SILENCE.as_secs())),
        };
        let message = match frame {
            Message::Binary(message) => message,
            Message::Pong(payload) => {
                if let Ok(sent) = <[u8; 8]>::try_from(&payload[..]) {
                    shared.arrived.set(shared.arrived.get().max(u64::from_be_bytes(sent)));
                }
                shared.pong.notify_one();
                continue;
            }
            Message::Close(Some(close)) => return Read::Closed(Some(close.code.into()), close.reason.to_string()),
            Message::Close(None) => return Read::Closed(None, String::new()),
            Message::Ping(_) | Message::Text(_) | Message::Frame(_) => continue,
        };
        let received = shared.client.borrow_mut().receive(message);
        let (stream, bytes) = match received {
            Ok(Some(FromServer::Output(stream, bytes))) => (stream, bytes),
            Ok(Some(FromServer::Status)) => {
                // The close comes next; what was said stands without it.
                patience = GOODBYE;
                continue;
            }
            Ok(None) => continue,
            Err(error) => return Read::Closed(None, error.to_string()),
        };
        // There is one where what is kept ends, and another where that has moved on meanwhile.
        let fresh = if let Some(skipped) = notice(stream, &bytes, tty) {
            // What was shown before is not missing here. If it is not known how much there is, it is all of that.
            at = match skipped {
                Missing::Bytes(skipped) => at + skipped,
                Missing::Unknown => at.max(shown.up_to),
            };
            let missing = at.saturating_sub(shown.up_to);
            shown.missing += missing;
            match skipped {
                Missing::Unknown => bytes,
                Missing::Bytes(_) if missing == 0 => Bytes::new(),
                Missing::Bytes(_) => told(missing),
            }
        } else {
            let passed_over = usize::try_from(shown.up_to.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
            at += bytes.len() as u64;
            bytes.slice(passed_over..)
        };
        if !fresh.is_empty() && output.write(stream, fresh).await.is_err() {
            return Read::NobodyReads;
        }
        shown.up_to = shown.up_to.max(at);
    }
}

/// How many bytes the agent says to be missing, if it does: a message of its own, among the errors.
fn notice(stream: OutputStream, bytes: &[u8], tty: bool) -> Option<Missing> {
    // On a terminal there are no errors apart.
    if stream != OutputStream::Stderr && !tty {
        return None;
    }
    Missing::read(std::str::from_utf8(bytes).ok()?.strip_suffix("\r\n")?)
}

fn told(missing: u64) -> Bytes {
    format!("{}\r\n", Missing::Bytes(missing).notice()).into()
}

struct Writer<'a, S> {
    to: &'a mut S,
    output: &'a Output,
    sizes: &'a mut Option<watch::Receiver<Option<Size>>>,
    shared: &'a Shared,
    tty: bool,
}

impl<S: Sink<Message, Error = SocketError> + Unpin> Writer<'_, S> {
    /// Runs until the keys are pressed: a connection that breaks is for the reading half to tell,
    /// which may still have a Status to read.
    async fn run(mut self, mut input: Option<&mut Input>) {
        if self.write(&mut input).await.is_err() {
            left(input.map(|input| &input.detached)).await;
        }
    }

    async fn write(&mut self, input: &mut Option<&mut Input>) -> Result<(), SocketError> {
        let mut pings = interval(PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked = None;
        let detached = input.as_deref().map(|input| input.detached.clone());
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
                () = left(detached.as_ref()) => return Ok(()),
                piece = next(input.as_deref_mut()) => {
                    if refused {
                        continue;
                    }
                    let Some(bytes) = piece else {
                        self.end_input().await?;
                        continue;
                    };
                    if let Some(input) = input {
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
        let Some(size) = self.sizes.as_mut().and_then(|sizes| *sizes.borrow_and_update()) else { return Ok(()) };
        self.output.resized(size).await;
        let message = self.shared.client.borrow().resize(TerminalSize { width: size.columns, height: size.rows });
        self.send(Some(message)).await
    }

    async fn end_input(&mut self) -> Result<(), SocketError> {
        // A terminal's input has no end but the one that is typed.
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
        Some(input) if !input.ended => input.next().await,
        Some(_) | None => std::future::pending().await,
    }
}

async fn left(detached: Option<&CancellationToken>) {
    match detached {
        Some(detached) => detached.cancelled().await,
        None => std::future::pending().await,
    }
}

async fn changed(sizes: &mut Option<watch::Receiver<Option<Size>>>) {
    if let Some(sizes) = sizes
        && sizes.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
