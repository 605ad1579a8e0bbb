//! The side of the agent that has the journal.

use std::{
    io::{self, IoSlice, Read as _, Write as _},
    mem::MaybeUninit,
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::message::{encode, socket};
use crate::{
    agent::streams::state::StreamState,
    core::ids::{ExecId, RequestUid},
    engine::{Engine, ExecStream, Parts},
};

/// How long one message may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Sender {
    successor: Mutex<Option<UnixStream>>,
    begun: CancellationToken,
    open_streams: AtomicUsize,
}

/// Counts a stream as open for as long as it exists.
#[derive(Debug)]
pub(crate) struct Pumping<'a>(&'a AtomicUsize);

impl Drop for Pumping<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sender {
    /// Accepts successors for ever. The last one counts.
    pub async fn listen(&self, state: &Path) -> io::Result<()> {
        let path = socket(state);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path)?;
        loop {
            let successor = listener.accept().await?.0.into_std()?;
            tracing::info!("a successor waits for the journal");
            *self.successor.lock() = Some(successor);
        }
    }

    pub fn has_successor(&self) -> bool {
        // It never writes: there is something to read, the end, only of one that has gone.
        let lives = |socket: &mut UnixStream| matches!(socket.read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.successor.lock().as_mut().is_some_and(lives)
    }

    /// From now on whoever reads a stream hands it over.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    pub(crate) fn pumping(&self) -> Pumping<'_> {
        self.open_streams.fetch_add(1, Ordering::Relaxed);
        Pumping(&self.open_streams)
    }

    pub fn open_streams(&self) -> usize {
        self.open_streams.load(Ordering::Relaxed)
    }

    /// Hands a stream over to the successor. `Some`: that failed, and the stream comes back.
    pub(crate) fn give<E: Engine>(
        &self,
        engine: &E,
        uid: &RequestUid,
        exec: &ExecId,
        stream: ExecStream,
        mut state: StreamState,
    ) -> Option<(ExecStream, StreamState)> {
        let parts = match stream.into_parts() {
            Ok(parts) => parts,
            Err(stream) => return Some((stream, state)),
        };
        let sent = encode(uid, exec, &parts, &mut state).map_err(io::Error::from);
        let Err(error) = sent.and_then(|message| self.send(&message, &parts)) else { return None };
        tracing::warn!(%uid, %error, "a connection could not be handed over: this agent reads on");
        let back = engine.take_over(parts).unwrap_or_else(|error| {
            tracing::error!(%uid, %error, "a connection to the engine was lost");
            ExecStream::broken()
        });
        Some((back, state))
    }

    fn send(&self, message: &[u8], parts: &Parts) -> io::Result<()> {
        let mut successor = self.successor.lock();
        let socket = successor.as_mut().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        // Blocking, one message after another: the successor does nothing but read until it has the lock.
        socket.set_nonblocking(false)?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        let descriptors = [parts.connection.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let sent = sendmsg(&*socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL);
        // The descriptor has gone with the first bytes; the others follow.
        let written = sent.map_err(io::Error::from).and_then(|sent| socket.write_all(&message[sent..]));
        let again = socket.set_nonblocking(true);
        if written.is_err() {
            // Half a message would spoil the next one.
            *successor = None;
        }
        written.and(again)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::BytesMut;
    use tokio::{io::AsyncWriteExt, time::timeout};

    use super::*;
    use crate::{
        agent::{
            handover::{message::LONGEST, receive::Receiver},
            streams::{
                digest::{OutputDigest, TAIL_BYTES},
                input::{InputState, PENDING_BYTES},
                state::OutputState,
            },
        },
        api::OutputLimits,
        core::output::LogState,
        engine::{
            REST_BYTES,
            docker::{DockerEngine, frames::framing},
        },
        wire::OutputStream,
    };

    /// Only the form of its streams matters.
    fn unused_engine() -> DockerEngine {
        DockerEngine::new("/no/such/engine")
    }

    fn limits() -> OutputLimits {
        OutputLimits { tail_bytes: 16, ..OutputLimits::default() }
    }

    /// An agent, and one that waits beside it.
    async fn two(state: &Path) -> (Arc<Sender>, Receiver) {
        let handover = Arc::new(Sender::default());
        tokio::spawn({
            let (handover, path) = (Arc::clone(&handover), state.to_owned());
            async move { handover.listen(&path).await }
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
        let mut stream = ExecStream::over(ours, framing(false), BytesMut::new(), false);
        let chunk = stream.next().await.expect("a stream").expect("a chunk");
        assert_eq!(&chunk.bytes[..], b"abcd");
        let (mut whole, mut first) = (OutputDigest::new(&limits()), OutputDigest::new(&limits()));
        whole.push(chunk.stream, &chunk.bytes);
        first.push(chunk.stream, &chunk.bytes);
        let fed =
            InputState { delivered: 7, pending: bytes::Bytes::from_static(b"\x00in"), ending: true, ended: false };
        let output = OutputState { streams: first, log: LogState::Limited, kept: 3 };
        let stream_state = StreamState { received: Some(output), fed: fed.clone(), given: Duration::from_secs(7) };
        assert!(handover.give(&unused_engine(), &"u".into(), &"e".into(), stream, stream_state).is_none());
        *handover.successor.lock() = None;
        let mut handed_over = successor.handed_over().await;
        let stream = handed_over.remove(&"u".into()).expect("it was handed over");
        let (mut stream, stream_state) = stream.open(&unused_engine(), &"e".into(), &limits()).expect("a stream");
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
            let stream = ExecStream::over(ours, framing(true), rest, true);
            assert!(handover.give(&unused_engine(), &uid, &"e".into(), stream, stream_state).is_none());
        }
        *handover.successor.lock() = None;
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
        let stream = ExecStream::over(ours, framing(true), BytesMut::new(), true);
        let stream_state = StreamState { received: None, fed: InputState::default(), given: Duration::ZERO };
        assert!(handover.give(&unused_engine(), &"u".into(), &"e".into(), stream, stream_state).is_none());
        *handover.successor.lock() = None;
        let mut handed_over = successor.handed_over().await;
        let stream = handed_over.remove(&"u".into()).expect("it was handed over");
        assert!(stream.open(&unused_engine(), &"another".into(), &limits()).is_none());
    }

    #[tokio::test]
    async fn without_a_successor_nothing_is_handed_over_and_nothing_is_lost() {
        let state = tempfile::tempdir().expect("a folder");
        assert!(!Receiver::new(state.path()).connect());
        let handover = Sender::default();
        // A successor that has come and gone.
        *handover.successor.lock() = Some(UnixStream::pair().expect("a pair").0);
        assert!(!handover.has_successor());
        let (mut engine, ours) = tokio::net::UnixStream::pair().expect("a pair");
        let stream = ExecStream::over(ours, framing(true), BytesMut::new(), true);
        let stream_state = StreamState { received: None, fed: InputState::default(), given: Duration::ZERO };
        let given = handover.give(&unused_engine(), &"u".into(), &"e".into(), stream, stream_state);
        let (mut back, _) = given.expect("the stream comes back");
        engine.write_all(b"whole").await.expect("written");
        assert_eq!(&back.next().await.expect("a stream").expect("a chunk").bytes[..], b"whole");
    }
}
