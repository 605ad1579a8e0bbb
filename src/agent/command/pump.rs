//! Pump: drain the command's output at full speed into spool, tails and digests.
//!
//! Nothing here waits for a viewer. Whoever does not keep up with the engine's stream makes the
//! engine block the command, and lose what is not read within 2 s of its end. What
//! readers get, and the log, is the hub's.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    FutureExt as _,
    future::{BoxFuture, Fuse, FusedFuture as _},
};
use k8s_openapi::jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{cut::Ended, witness::Seen};
use crate::{
    agent::{
        handover::message::{OutputState, StreamState},
        node::World,
        request::start::Attended,
        streams::{
            digest::OutputDigest,
            feed::{self, Feeder},
            hub::Hub,
            input::InputState,
            log_writer::LogWriter,
            recall::recall,
            ring::{Kept, Piece, Written},
        },
    },
    api::OutputStatus,
    core::{outcome::StreamEnd, output::LogState},
    engine::{Chunk, ExecInput, ExecStream, READ_BYTES, StreamError},
    infra::kernel::Kernel,
};

/// The stream broke, or the engine went away at its end.
pub(crate) const STREAM_BROKEN: &str = "StreamBroken";
/// Bytes read at once where many commands write.
const CROWDED_BYTES: usize = 16 * 1024;
/// For how long after the process's end the log may hold up what the engine still has of its output.
const LOG_MAY_HOLD: Duration = Duration::from_secs(1);
/// A stream that is still open so long after its process has ended will not end. The engine handles
/// the ends of one container one after another, so that the last of many takes minutes.
const GIVE_UP_AFTER: Duration = Duration::from_secs(600);
/// Where a stream comes from, and so what it is worth.
#[derive(Debug)]
pub(crate) enum Origin {
    /// Of a start that nobody can have made before.
    Sole,
    /// From the agent before this one.
    HandedOver(Box<StreamState>),
    /// Of a start that somebody may have made before.
    Shared,
}

impl Origin {
    /// Whether nobody else has read of it, what was received before and put in, and for how long nobody had read until
    /// `now`.
    fn begin(
        self,
        now: Duration,
        fresh: impl Fn() -> OutputState,
    ) -> (bool, OutputState, Option<InputState>, Duration) {
        match self {
            Self::Sole => (true, fresh(), None, Duration::ZERO),
            Self::Shared => (false, fresh(), None, Duration::ZERO),
            Self::HandedOver(stream_state) => {
                let StreamState { received, fed, given } = *stream_state;
                (received.is_some(), received.unwrap_or_else(fresh), Some(fed), now.saturating_sub(given))
            }
        }
    }
}

/// Everything that was received, and how it ended.
pub(crate) struct Received {
    pub(crate) end: StreamEnd,
    pub(crate) output: OutputStatus,
    /// The beginning of standard output.
    pub(crate) head: String,
    pub(crate) input: InputEnd,
}

/// What became of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InputEnd {
    /// All of it was delivered, or there was none.
    Whole,
    /// The command ended before it had all.
    Open,
    /// It was cut short.
    Lost,
}

impl InputEnd {
    fn of(delivered: bool, connected_to_the_end: bool) -> Self {
        match (delivered, connected_to_the_end) {
            (true, _) => Self::Whole,
            (false, true) => Self::Open,
            (false, false) => Self::Lost,
        }
    }
}

/// Where the output goes.
struct Sink {
    hub: Arc<Hub>,
    streams: OutputDigest,
    /// When output came last.
    last: Option<Instant>,
    /// How much has come since the process was last seen to live, and when that was.
    since_alive: (Option<Instant>, u64),
}

impl Sink {
    fn take(&mut self, Chunk { stream, bytes }: Chunk, at: Timestamp, alive: Option<Instant>) {
        self.streams.push(stream, &bytes);
        self.last = Some(Instant::now());
        if self.since_alive.0 != alive {
            self.since_alive = (alive, 0);
        }
        self.since_alive.1 += bytes.len() as u64;
        self.hub.push(Piece { stream, at, bytes });
    }
}

/// Reads on when there is room for it: what waits in the engine costs nothing here.
async fn next(
    stream: &mut ExecStream,
    hub: &Hub,
    mut seen: watch::Receiver<Seen>,
) -> Result<Option<Chunk>, StreamError> {
    // What is not there yet takes no room, nor does the end.
    if !stream.ready().await? {
        return stream.next().await;
    }
    let crowded = hub.is_crowded();
    let most = if crowded { CROWDED_BYTES } else { READ_BYTES };
    tokio::select! {
        biased;
        () = hub.room(most) => {}
        // What the engine still has it gives within 2 s or not at all.
        () = after_end(&mut seen, LOG_MAY_HOLD) => hub.give_up_log(),
    }
    let mut next = stream.next_of(most).await?;
    if let Some(Chunk { bytes, .. }) = &mut next
        && (crowded || bytes.len() < most / 2)
    {
        // It may be part of a larger buffer, all of which it would keep.
        *bytes = Bytes::copy_from_slice(bytes);
        if crowded {
            stream.let_go();
        }
    }
    Ok(next)
}

/// Drains the stream to its end. `seen` tells of its process. The bytes are kept
/// only if nobody else can have read a part of them. `None`: the stream was handed over to the next agent.
/// Whoever leaves this before its end finds in `log_writer` what still has to go into the log.
pub(crate) async fn pump<W: World>(
    attended: &Attended<'_, W>,
    mut stream: ExecStream,
    mut seen: watch::Receiver<Seen>,
    origin: Origin,
    log_writer: &mut Option<LogWriter>,
) -> Option<Received> {
    let Attended { node, request, exec, memory, hub } = *attended;
    let limits = &request.spec.output;
    let opened = Instant::now();
    let fresh = || OutputState { streams: OutputDigest::new(limits), log: LogState::Whole, kept: 0 };
    let (sole, before, fed, unread) = origin.begin(node.kernel.uptime(), fresh);
    let log = node.spool.create(&request.key, limits, before.log);
    let received = before.streams.total();
    let kept = Kept { output: before.kept, file: log.extent().1, state: log.state() };
    let mut feeder = if sole {
        hub.open(received, kept);
        Feeder::new(&hub.input, &request.spec, stream.input(), fed)
    } else {
        // Whether this connection is the one that the command reads from is not known.
        hub.log_only(kept.file, Written::UNKNOWN);
        stream.input().inspect(ExecInput::close);
        Feeder::new(&hub.input, &request.spec, None, None)
    };
    let mut sink = Sink { hub: Arc::clone(hub), streams: before.streams, last: None, since_alive: (None, 0) };
    let log_writer = log_writer.insert(LogWriter::new(hub, &node.writers, log, received));
    let pumping = node.handover.pumping();
    let ending = seen.clone();
    let mut given = false;
    // That the input has gone is put down while the output is read: the disk may be slow.
    let mut noting = Fuse::terminated();
    let end = loop {
        // A command that writes without end must not keep its input out, nor its log.
        tokio::select! {
            biased;
            // First, or a command that writes all the time would hold up the handover of all.
            () = node.handover.begun(), if !given => {
                given = true;
                // From here on nobody reads. For a command that has ended it counts from there.
                let ended = ending.borrow().ended.map_or(Duration::ZERO, |ended| ended.elapsed());
                let since = node.kernel.uptime().saturating_sub(ended);
                let ((), log) = tokio::join!(noted(&mut noting), log_writer.finish());
                let received = sole.then(|| OutputState { streams: sink.streams, log, kept: hub.kept().output });
                let fed = feeder.stop();
                let stream_state = StreamState { received, fed, given: since };
                match node.handover.give(&request.key.uid, &exec.id, stream, stream_state) {
                    None => {
                        hub.moved();
                        return None;
                    }
                    Some((back, stream_state)) => {
                        stream = back;
                        feeder.resume();
                        sink.streams = stream_state.received.unwrap_or_else(fresh).streams;
                    }
                }
            }
            news = feeder.feed() => match news {
                feed::FeedEvent::Ended => noting = memory.note_fed(exec).boxed().fuse(),
                feed::FeedEvent::Gone => tracing::info!(request = %request.key, uid = %request.key.uid, "the client that held the input has gone"),
            },
            () = &mut noting, if !noting.is_terminated() => {}
            () = keep(log_writer) => {}
            chunk = next(&mut stream, hub, ending.clone()) => match chunk {
                Ok(Some(chunk)) if sole => {
                    node.metrics.output(chunk.stream, chunk.bytes.len());
                    sink.take(chunk, node.clock.now(), ending.borrow().alive);
                }
                Ok(Some(_)) => {}
                Ok(None) => break StreamEnd::Clean,
                Err(error) => {
                    tracing::warn!(request = %request.key, uid = %request.key.uid, %error, "the output broke off");
                    break StreamEnd::Broken;
                }
            },
            () = after_end(&mut seen, GIVE_UP_AFTER) => {
                tracing::warn!(request = %request.key, uid = %request.key.uid, "the process has ended, but its output stays open; given up");
                break StreamEnd::Broken;
            }
        }
    };
    drop(pumping);
    hub.close();
    let alive = seen.borrow().alive;
    let stream = Ended {
        opened,
        unread,
        last: sink.last,
        burst: if sink.since_alive.0 == alive { sink.since_alive.1 } else { 0 },
        behind: node.pulse.delay(),
        at: Instant::now(),
    };
    let ((), log) = tokio::join!(noted(&mut noting), log_writer.finish());
    let log = match log {
        // Of nothing it has all.
        LogState::Limited if sink.streams.total() == 0 => LogState::Whole,
        state => state,
    };
    let delivered = request.spec.stdin.is_none() || feeder.progress().ended;
    let input = InputEnd::of(delivered, sole && end == StreamEnd::Clean);
    if !sole {
        // A stream that somebody may have read a part of tells nothing.
        let output = recall(&node.spool, &request.key, limits).await;
        return Some(Received { end: StreamEnd::Broken, output, head: String::new(), input });
    }
    let incomplete = match end {
        StreamEnd::Broken => Some(STREAM_BROKEN),
        StreamEnd::Clean if stream.is_forced(&mut seen).await => Some("ForcedEnd"),
        StreamEnd::Clean => log.incomplete(),
    };
    let head = sink.streams.head();
    Some(Received { end, output: sink.streams.status(incomplete), head, input })
}

/// Waits until it is put down, if anything is to be.
async fn noted(noting: &mut Fuse<BoxFuture<'_, ()>>) {
    if !noting.is_terminated() {
        noting.await;
    }
}

/// Keeps what there is to keep, for ever: when the log takes no more there is nothing to do.
async fn keep(log_writer: &mut LogWriter) {
    log_writer.work().await;
    std::future::pending::<()>().await;
}

/// Waits until the process has ended, and for so much longer.
async fn after_end(seen: &mut watch::Receiver<Seen>, time: Duration) {
    let at = match seen.wait_for(|seen| seen.noticed.is_some()).await {
        Ok(seen) => seen.noticed,
        Err(_) => None,
    };
    match at {
        Some(at) => sleep_until(at + time).await,
        None => std::future::pending().await,
    }
}
