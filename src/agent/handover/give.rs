//! Handover: an agent that stops gives the engine's open connections to its successor, so that an
//! update loses no output.
//!
//! The successor waits beside it for the journal's lock, connected to a socket in
//! the state folder. Told to stop, the old one sends each connection as a file descriptor, with what
//! it has read and not yet decoded, and what it has received so far in words: counts, tails and the
//! states of the digests. From then on until the successor has the lock nobody
//! reads, which is short; the successor knows how long it was.

use std::{
    collections::HashMap,
    io::{self, IoSlice, IoSliceMut, Read as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::{Mutex, MutexGuard};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{net::UnixListener, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{
        serve::limits::MESSAGE_BYTES,
        streams::{
            digest::{HEAD_BYTES, TAIL_BYTES},
            feed::{InputState, PENDING_BYTES},
            state::{OutputState, SavedInput, SavedOutput, StreamState},
        },
    },
    api::OutputLimits,
    core::ids::{ExecId, RequestUid},
    engine::{Engine, ExecStream, Parts, REST_BYTES},
};

/// Version of the messages. Counts up when they change, or the form in which `sha2` writes its state.
const FORMAT: u32 = 1;
const SOCKET: &str = "handover.sock";
/// How long one message may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// Most that is read at once, in bytes.
const READ: usize = 64 * 1024;
/// Longest message, in bytes: two tails, the head and what was not yet decoded or delivered, in base64; and the rest.
const LONGEST: usize =
    2 * in_base64(TAIL_BYTES) + in_base64(HEAD_BYTES) + in_base64(REST_BYTES) + in_base64(PENDING_BYTES) + WORDS;
/// Names, numbers and the states of the digests, in bytes.
const WORDS: usize = 8 * 1024;
const _: () = assert!(LONGEST > 3 * in_base64(MESSAGE_BYTES), "three messages of a client fit");
const _: () = assert!(LONGEST < 4 << 20, "the successor has one of them in memory");

const fn in_base64(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// How long the successor waits for the last message, once it has the lock.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// One connection, as it goes over the socket beside its descriptor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    format: u32,
    uid: RequestUid,
    exec: ExecId,
    tty: bool,
    /// What was read and not decoded, in base64.
    rest: String,
    /// When nobody read any more, as time since boot.
    given: Duration,
    /// [`SavedOutput`]; nothing, if somebody else may have read a part of the output.
    received: Option<Value>,
    /// How much of the input was delivered.
    #[serde(default)]
    fed: Option<SavedInput>,
}

/// One connection that a predecessor has left.
#[derive(Debug)]
pub struct HandedOverStream {
    exec: ExecId,
    parts: Parts,
    given: Duration,
    received: Option<SavedOutput>,
    fed: InputState,
}

/// What a predecessor has left, by request.
pub type HandedOver = HashMap<RequestUid, HandedOverStream>;

impl HandedOverStream {
    /// The stream, if it is of this exec, and what came before.
    pub(crate) fn open<E: Engine>(
        self,
        engine: &E,
        exec: &ExecId,
        limits: &OutputLimits,
    ) -> Option<(ExecStream, StreamState)> {
        if self.exec != *exec {
            return None;
        }
        let received = self.received.and_then(|words| OutputState::restore(&words, limits));
        let stream = engine.take_over(self.parts).ok()?;
        Some((stream, StreamState { received, fed: self.fed, given: self.given }))
    }
}

/// The side of the agent that has the journal.
#[derive(Debug, Default)]
pub struct Sender {
    /// The successor, once there is one.
    successor: Mutex<Option<UnixStream>>,
    begun: CancellationToken,
    pumping: AtomicUsize,
}

/// A stream is being read.
#[derive(Debug)]
pub(crate) struct Pumping<'a>(&'a AtomicUsize);

impl Drop for Pumping<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sender {
    /// Lets successors connect, for ever. The last one counts.
    ///
    /// # Errors
    /// When the socket cannot be used.
    pub async fn expect(&self, state: &Path) -> io::Result<()> {
        let path = socket(state);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path)?;
        loop {
            let successor = listener.accept().await?.0.into_std()?;
            tracing::info!("a successor waits for the journal");
            *self.successor() = Some(successor);
        }
    }

    /// Whether a successor is there, and lives.
    pub fn has_successor(&self) -> bool {
        let mut successor = self.successor();
        // It never writes: only one that has gone can be read, to its end.
        let lives = |successor: &mut UnixStream| matches!(successor.read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        successor.as_mut().is_some_and(lives)
    }

    /// From now on whoever reads a stream gives it away.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// Waits until it is time to hand over.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Counts a stream that is being read.
    pub(crate) fn pumping(&self) -> Pumping<'_> {
        self.pumping.fetch_add(1, Ordering::Relaxed);
        Pumping(&self.pumping)
    }

    /// How many streams are being read.
    pub fn open_streams(&self) -> usize {
        self.pumping.load(Ordering::Relaxed)
    }

    /// Gives a stream to the successor. `Some`: it cannot be given, and comes back.
    pub(crate) fn give<E: Engine>(
        &self,
        engine: &E,
        uid: &RequestUid,
        exec: &ExecId,
        stream: ExecStream,
        mut stream_state: StreamState,
    ) -> Option<(ExecStream, StreamState)> {
        let parts = match stream.into_parts() {
            Ok(parts) => parts,
            Err(stream) => return Some((stream, stream_state)),
        };
        let message = Message {
            format: FORMAT,
            uid: uid.clone(),
            exec: exec.clone(),
            tty: parts.tty,
            rest: STANDARD.encode(&parts.rest),
            given: stream_state.given,
            fed: Some((&stream_state.fed).into()),
            received: stream_state.received.as_mut().and_then(|output| serde_json::to_value(output.save()).ok()),
        };
        match self.send(&message, &parts) {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(%uid, %error, "a connection could not be handed over, it is drained here");
                let back = engine.take_over(parts).unwrap_or_else(|error| {
                    tracing::error!(%uid, %error, "a connection to the engine was lost");
                    ExecStream::broken()
                });
                Some((back, stream_state))
            }
        }
    }

    fn send(&self, message: &Message, parts: &Parts) -> io::Result<()> {
        let mut successor = self.successor();
        let socket = successor.as_mut().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        // One successor at a time, one message after another: it reads at once, all it does until it has the lock.
        socket.set_nonblocking(false)?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        let mut text = serde_json::to_vec(message)?;
        text.push(b'\n');
        let descriptors = [parts.connection.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let sent = sendmsg(&*socket, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL);
        // The descriptor has gone with the first bytes; the others follow.
        let written = sent.map_err(io::Error::from).and_then(|sent| io::Write::write_all(socket, &text[sent..]));
        let again = socket.set_nonblocking(true);
        if written.is_err() {
            // Half a message would spoil the next one.
            *successor = None;
        }
        written.and(again)
    }

    fn successor(&self) -> MutexGuard<'_, Option<UnixStream>> {
        self.successor.lock()
    }
}

/// The side of the agent that waits for the journal.
pub struct Receiver {
    path: PathBuf,
    receiving: Option<JoinHandle<HandedOver>>,
    handed_over: HandedOver,
}

impl Receiver {
    /// Of the agent that has this state folder.
    pub fn new(state: &Path) -> Self {
        Self { path: socket(state), receiving: None, handed_over: HandedOver::new() }
    }

    /// Connects to the one that has the journal, if it is not yet. Whether it is.
    pub fn connect(&mut self) -> bool {
        if self.receiving.is_some() {
            return true;
        }
        let Ok(socket) = UnixStream::connect(&self.path) else { return false };
        self.receiving = Some(tokio::task::spawn_blocking(move || receive(&socket)));
        true
    }

    /// Waits until the one that has the journal has said its last word. What it has left is kept.
    pub async fn predecessor_gone(&mut self) {
        match &mut self.receiving {
            Some(receiving) => {
                if let Ok(left) = receiving.await {
                    self.handed_over.extend(left);
                }
                self.receiving = None;
            }
            None => std::future::pending().await,
        }
    }

    /// Waits for the last words of the one that had the journal: it has ended. Gives what it has left.
    pub async fn handed_over(mut self) -> HandedOver {
        if self.receiving.is_some() && timeout(LAST_WORDS, self.predecessor_gone()).await.is_err() {
            tracing::warn!("the handover did not come to its end: what was not handed over is adopted");
        }
        self.handed_over
    }
}

fn socket(state: &Path) -> PathBuf {
    state.join(SOCKET)
}

/// Receives until the other side closes.
fn receive(socket: &UnixStream) -> HandedOver {
    let mut handed_over = HandedOver::new();
    let (mut lines, mut descriptors) = (Lines::default(), Vec::new());
    loop {
        match receive_some(socket, &mut lines, &mut descriptors) {
            Ok(0) => return handed_over,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the handover broke off");
                return handed_over;
            }
        }
        while let Some(line) = lines.next() {
            if descriptors.is_empty() {
                continue;
            }
            let connection = descriptors.remove(0);
            let understood = match line {
                Line::Whole(line) => understand(&line, connection),
                Line::TooLong => None,
            };
            if let Some((uid, legacy)) = understood {
                tracing::info!(%uid, exec = %legacy.exec, "a connection was handed over");
                handed_over.insert(uid, legacy);
            } else {
                tracing::warn!("a connection was handed over in words that are not understood: it is closed");
            }
        }
    }
}

enum Line {
    Whole(Vec<u8>),
    TooLong,
}

/// Cuts what comes into lines. Of one that is longer than [`LONGEST`] nothing is kept.
#[derive(Default)]
struct Lines {
    text: Vec<u8>,
    skipping: bool,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
    }

    /// The next line that has come to its end.
    fn next(&mut self) -> Option<Line> {
        if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.text.drain(..=end).collect();
            let too_long = std::mem::take(&mut self.skipping) || line.len() > LONGEST;
            return Some(if too_long { Line::TooLong } else { Line::Whole(line) });
        }
        if self.text.len() > LONGEST {
            self.text.clear();
            self.skipping = true;
        }
        None
    }
}

/// A predecessor that speaks another language leaves its connections all the same: they must be
/// read, though what came before is not known.
fn understand(line: &[u8], connection: OwnedFd) -> Option<(RequestUid, HandedOverStream)> {
    let Message { format, uid, exec, tty, rest, given, received, fed } = serde_json::from_slice(line).ok()?;
    let parts = Parts { connection, rest: STANDARD.decode(rest).ok()?, tty };
    let received = received.filter(|_| format == FORMAT).and_then(|words| serde_json::from_value(words).ok());
    // One that did not know of input has delivered none: it had no way to.
    let fed = fed.map_or(Some(InputState::default()), |words| words.state())?;
    Some((uid, HandedOverStream { exec, parts, given, received, fed }))
}

fn receive_some(socket: &UnixStream, lines: &mut Lines, descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut buffer = vec![0; READ];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    lines.push(&buffer[..received.bytes]);
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::BytesMut;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::wire::OutputStream;

    fn limits() -> OutputLimits {
        OutputLimits { tail_bytes: 16, ..OutputLimits::default() }
    }

    /// An agent, and one that waits beside it.
    async fn two(state: &Path) -> (Arc<Sender>, Receiver) {
        let handover = Arc::new(Sender::default());
        tokio::spawn({
            let (handover, path) = (Arc::clone(&handover), state.to_owned());
            async move { handover.expect(&path).await }
        });
        let mut successor = Receiver::new(state);
        timeout(Duration::from_secs(10), async {
            while !successor.connect() || !handover.has_successor() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("connected");
        (handover, successor)
    }

    #[tokio::test]
    async fn a_stream_goes_on_in_the_successor_where_it_stopped() {
        let state = tempfile::tempdir().expect("a folder");
        let (handover, successor) = two(state.path()).await;
        let (mut engine, ours) = tokio::net::UnixStream::pair().expect("a pair");
        // A frame of ten bytes, of which the first agent sees four.
        engine.write_all(b"\x01\0\0\0\0\0\0\x0aabcd").await.expect("written");
        let mut stream = ExecStream::over(ours, bytes::BytesMut::new(), false);
        let chunk = stream.next().await.expect("a stream").expect("a chunk");
        assert_eq!(&chunk.bytes[..], b"abcd");
        let (mut whole, mut first) = (OutputDigest::new(&limits()), OutputDigest::new(&limits()));
        whole.push(chunk.stream, &chunk.bytes);
        first.push(chunk.stream, &chunk.bytes);
        let fed =
            InputState { delivered: 7, pending: bytes::Bytes::from_static(b"\x00in"), ending: true, ended: false };
        let output = OutputState { streams: first, log: LogState::Limited, kept: 3 };
        let stream_state = StreamState { received: Some(output), fed: fed.clone(), given: Duration::from_secs(7) };
        assert!(handover.give(&"u".into(), &"e".into(), stream, stream_state).is_none());
        *handover.successor() = None;
        let mut handed_over = successor.handed_over().await;
        let legacy = handed_over.remove(&"u".into()).expect("it was handed over");
        let (mut stream, stream_state) = legacy.open(&"e".into(), &limits()).expect("a stream");
        assert_eq!((stream_state.given, stream_state.fed), (Duration::from_secs(7), fed));
        let OutputState { streams: mut second, log, kept } = stream_state.received.expect("what came before");
        assert_eq!((log, kept), (LogState::Limited, 3));
        engine.write_all(b"efghij\x02\0\0\0\0\0\0\x01!").await.expect("written");
        drop(engine);
        while let Some(chunk) = stream.next().await.expect("a stream") {
            second.push(chunk.stream, &chunk.bytes);
        }
        whole.push(OutputStream::Stdout, b"efghij");
        whole.push(OutputStream::Stderr, b"!");
        assert_eq!(second.status(None), whole.status(None));
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_costs_no_other_and_the_longest_that_may_be_is_not() {
        let state = tempfile::tempdir().expect("a folder");
        let (handover, successor) = two(state.path()).await;
        let full = || {
            let mut streams = OutputDigest::new(&OutputLimits { tail_bytes: i32::MAX, ..OutputLimits::default() });
            for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                streams.push(stream, &vec![b'x'; 2 * TAIL_BYTES]);
            }
            Some(OutputState { streams, log: LogState::Whole, kept: u64::MAX })
        };
        let mut engines = Vec::new();
        for (uid, pending) in [("long", PENDING_BYTES), ("too-long", 2 * LONGEST), ("after", 1)] {
            let (engine, ours) = tokio::net::UnixStream::pair().expect("a pair");
            engines.push(engine);
            let rest = BytesMut::from(&vec![b'r'; REST_BYTES][..]);
            let fed = InputState { pending: vec![b'p'; pending].into(), ..InputState::default() };
            let stream_state = StreamState { received: full(), fed, given: Duration::ZERO };
            let (handover, uid) = (Arc::clone(&handover), uid.into());
            let stream = ExecStream::over(ours, rest, true);
            assert!(handover.give(&uid, &"e".into(), stream, stream_state).is_none());
        }
        *handover.successor() = None;
        let handed_over = successor.handed_over().await;
        let mut got: Vec<&str> = handed_over.keys().map(RequestUid::as_str).collect();
        got.sort_unstable();
        assert_eq!(got, ["after", "long"]);
        assert_eq!(handed_over[&"long".into()].fed.pending.len(), PENDING_BYTES);
    }

    #[tokio::test]
    async fn a_stream_of_another_exec_is_not_taken_for_this_ones() {
        let state = tempfile::tempdir().expect("a folder");
        let (handover, successor) = two(state.path()).await;
        let (_engine, ours) = tokio::net::UnixStream::pair().expect("a pair");
        let stream = ExecStream::over(ours, bytes::BytesMut::new(), true);
        let stream_state = StreamState { received: None, fed: InputState::default(), given: Duration::ZERO };
        assert!(handover.give(&"u".into(), &"e".into(), stream, stream_state).is_none());
        *handover.successor() = None;
        let mut handed_over = successor.handed_over().await;
        let legacy = handed_over.remove(&"u".into()).expect("it was handed over");
        assert!(legacy.open(&"another".into(), &limits()).is_none());
    }

    #[tokio::test]
    async fn without_a_successor_nothing_is_handed_over_and_nothing_is_lost() {
        let state = tempfile::tempdir().expect("a folder");
        assert!(!Receiver::new(state.path()).connect());
        let handover = Sender::default();
        // A successor that has come and gone.
        *handover.successor() = Some(UnixStream::pair().expect("a pair").0);
        assert!(!handover.has_successor());
        let (mut engine, ours) = tokio::net::UnixStream::pair().expect("a pair");
        let stream = ExecStream::over(ours, bytes::BytesMut::new(), true);
        let stream_state = StreamState { received: None, fed: InputState::default(), given: Duration::ZERO };
        let given = handover.give(&"u".into(), &"e".into(), stream, stream_state);
        let (mut back, _) = given.expect("the stream comes back");
        engine.write_all(b"whole").await.expect("written");
        assert_eq!(&back.next().await.expect("a stream").expect("a chunk").bytes[..], b"whole");
    }
}
