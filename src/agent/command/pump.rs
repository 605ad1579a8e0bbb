//! Pump: drain the command's output at full speed into spool, tails and digests.
//!
//! Nothing here waits for a viewer. Whoever does not keep up with the engine's stream makes the
//! engine hold the command up, and some engines lose what is not read soon after its end. What
//! readers get, and the log, is the hub's.

use std::{mem::replace, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    FutureExt as _,
    future::{BoxFuture, Fuse, FusedFuture as _},
};
use k8s_openapi::jiff::Timestamp;
use tokio::{sync::watch, time::Instant};

use super::{
    closing::{after_end, at, stays_open},
    cut::Ended,
    received::{Beginning, FORCED_END, InputEnd, Origin, Received, STREAM_BROKEN},
    running::RunningCommand,
    seen::Seen,
};
use crate::{
    agent::{
        node::World,
        streams::{
            digest::OutputDigest,
            feed::{FeedEvent, Feeder},
            hub::Hub,
            log_writer::LogWriter,
            recall::recall,
            ring::{Kept, Piece, Written},
            state::{OutputState, SavedOutput, StreamState},
        },
    },
    core::{outcome::StreamEnd, output::LogState, request::BoundRequest},
    engine::{Chunk, Engine, ExecInput, ExecStream, Habits, READ_BYTES, StreamError},
    infra::kernel::Kernel,
};

/// Bytes read at once where many commands write.
const CROWDED_BYTES: usize = 16 * 1024;
/// How far an agent has come is noted after so many bytes, or so long after the first of them. An engine has room for more:
/// the command writes on meanwhile.
const NOTE_BYTES: usize = 512 * 1024;
const NOTE_AFTER: Duration = Duration::from_millis(200);
/// Pause before that is tried again: a command that waits for room in the engine writes nothing more until then.
const NOTE_AGAIN: Duration = Duration::from_secs(1);

struct Sink {
    hub: Arc<Hub>,
    streams: OutputDigest,
    last: Option<Instant>,
    /// How much has come since the process was last seen to live, and when that was.
    since_alive: (Option<Instant>, u64),
    /// How much has come since it was last noted how far this is.
    unnoted: usize,
}

impl Sink {
    fn take(&mut self, Chunk { stream, bytes }: Chunk, at: Timestamp, alive: Option<Instant>) {
        self.streams.push(stream, &bytes);
        self.last = Some(Instant::now());
        if self.since_alive.0 != alive {
            self.since_alive = (alive, 0);
        }
        self.since_alive.1 += bytes.len() as u64;
        self.unnoted += bytes.len();
        self.hub.push(Piece { stream, at, bytes });
    }
}

/// Reads on when there is room for it: what waits in the engine costs nothing here.
async fn next(
    stream: &mut ExecStream,
    hub: &Hub,
    mut seen: watch::Receiver<Seen>,
    log_may_hold: Option<Duration>,
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
        // What the engine still has it gives soon or not at all.
        () = after_end(&mut seen, log_may_hold) => hub.give_up_log(),
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

struct Pump<'a, W: World> {
    attended: RunningCommand<'a, W>,
    request: &'a BoundRequest,
    habits: Habits,
    stream: ExecStream,
    /// Nobody else can have read a part of it.
    sole: bool,
    sink: Sink,
    feeder: Feeder,
    input_lost: bool,
    /// That the input has gone is put down while the output is read: the disk may be slow.
    noting: Fuse<BoxFuture<'a, ()>>,
    seen: watch::Receiver<Seen>,
    opened: Instant,
    unread: Duration,
    /// It stayed open for too long after the process's end.
    given_up: bool,
}

/// Drains the stream to its end. `seen` tells of its process. The bytes are kept
/// only if nobody else can have read a part of them. `None`: the stream was handed over to the next agent.
/// Whoever leaves this before its end finds in `log_writer` what still has to go into the log.
pub(crate) async fn pump<W: World>(
    attended: &RunningCommand<'_, W>,
    request: &BoundRequest,
    stream: ExecStream,
    seen: watch::Receiver<Seen>,
    origin: Origin,
    log_writer: &mut Option<LogWriter>,
) -> Option<Received> {
    let (mut pump, writer) = Pump::begin(*attended, request, stream, seen, origin).await;
    let log_writer = log_writer.insert(writer);
    let end = {
        let _pumping = attended.node.handover.pumping();
        pump.run(log_writer).await?
    };
    Some(pump.finish(end, log_writer).await)
}

impl<'a, W: World> Pump<'a, W> {
    async fn begin(
        attended: RunningCommand<'a, W>,
        request: &'a BoundRequest,
        stream: ExecStream,
        seen: watch::Receiver<Seen>,
        origin: Origin,
    ) -> (Self, LogWriter) {
        let RunningCommand { node, hub, .. } = attended;
        let limits = &request.spec.output;
        let Beginning { sole, before, fed, unread, input_lost } =
            origin.begin(node.kernel.uptime(), || OutputState::new(limits));
        let log = node.spool.create(&request.key, limits, before.log);
        let received = before.streams.total();
        let kept = Kept { output: before.kept, file: log.extent().1, state: log.state() };
        let to = stream.input();
        if sole {
            hub.open(received, kept);
            if node.engine.habits().keeps_output {
                hub.note(received);
            }
        } else {
            // Whether this connection is the one that the command reads from is not known.
            hub.log_only(kept.file, Written::UNKNOWN);
        }
        if input_lost && let Some(to) = &to {
            close(to).await;
        }
        let feeder = Feeder::new(&hub.input, &request.spec, to.filter(|_| !input_lost), fed);
        // An agent that has noted how far it was may have ended before it made room in the engine.
        let unnoted = usize::from(received > 0);
        let sink = Sink { hub: Arc::clone(hub), streams: before.streams, last: None, since_alive: (None, 0), unnoted };
        let writer = LogWriter::new(hub, &node.writers, log, received);
        let (habits, opened, noting) = (*node.engine.habits(), Instant::now(), Fuse::terminated());
        let pump = Self {
            attended,
            request,
            habits,
            stream,
            sole,
            sink,
            feeder,
            input_lost,
            noting,
            seen,
            opened,
            unread,
            given_up: false,
        };
        (pump, writer)
    }

    /// Pumps until the stream has ended. `None`: it was handed over.
    async fn run(&mut self, log_writer: &mut LogWriter) -> Option<StreamEnd> {
        let RunningCommand { node, memory, exec, hub, .. } = self.attended;
        let key = &self.request.key;
        let log_may_hold = self.habits.cuts_after.map(|cuts_after| cuts_after / 2);
        let mut stays_open = pin!(stays_open(self.attended, self.seen.clone(), self.habits.closes_within));
        let mut given = false;
        let mut note_at = None;
        // What the log lacks could not be read again: it comes first.
        let mut keeping: Fuse<BoxFuture<'_, ()>> = Fuse::terminated();
        loop {
            let notes = self.habits.keeps_output && self.sole && self.sink.unnoted > 0 && keeping.is_terminated();
            if notes && note_at.is_none() {
                note_at = Some(Instant::now() + NOTE_AFTER);
            }
            // A command that writes without end must not keep its input out, nor its log.
            tokio::select! {
                biased;
                // First, or a command that writes all the time would hold up the handover of all.
                () = node.handover.begun(), if !given => {
                    given = true;
                    self.give(log_writer).await?;
                }
                event = self.feeder.feed() => match event {
                    FeedEvent::Ended => self.noting = memory.note_fed(exec).boxed().fuse(),
                    FeedEvent::Gone => {
                        tracing::info!(request = %key, uid = %key.uid, "the client that held the input has gone");
                    }
                },
                () = &mut self.noting, if !self.noting.is_terminated() => {}
                () = keep(log_writer) => {}
                () = at(note_at) => {
                    note_at = None;
                    keeping = hub.all_kept().boxed().fuse();
                }
                () = &mut keeping, if !keeping.is_terminated() => {
                    note_at = (!self.note().await).then(|| Instant::now() + NOTE_AGAIN);
                }
                chunk = next(&mut self.stream, hub, self.seen.clone(), log_may_hold), if keeping.is_terminated() => match chunk {
                    Ok(Some(chunk)) if self.sole => {
                        node.metrics.output(chunk.stream, chunk.bytes.len());
                        self.sink.take(chunk, node.clock.now(), self.seen.borrow().alive);
                        if note_at.is_some() && self.sink.unnoted >= NOTE_BYTES {
                            note_at = Some(Instant::now());
                        }
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => return Some(StreamEnd::Clean),
                    Err(error) => {
                        tracing::warn!(request = %key, uid = %key.uid, %error, "the output broke off");
                        return Some(StreamEnd::Broken);
                    }
                },
                why = &mut stays_open => {
                    tracing::warn!(request = %key, uid = %key.uid, "{why}, but its output stays open: given up");
                    self.given_up = true;
                    return Some(StreamEnd::Broken);
                }
            }
        }
    }

    /// Gives the stream to the next agent. `None`: it has it.
    async fn give(&mut self, log_writer: &mut LogWriter) -> Option<()> {
        let RunningCommand { node, exec, hub, .. } = self.attended;
        if self.habits.keeps_output && self.sole && self.feeder.may_be_left() {
            // It opens the streams again, as after a crash.
            tokio::join!(noted(&mut self.noting), log_writer.finish());
            self.note().await;
            hub.moved();
            return None;
        }
        // From here on nobody reads. For a command that has ended it counts from there.
        let ended = self.seen.borrow().ended.map_or(Duration::ZERO, |ended| ended.elapsed());
        let given = node.kernel.uptime().saturating_sub(ended);
        let ((), log) = tokio::join!(noted(&mut self.noting), log_writer.finish());
        let fresh = || OutputDigest::new(&self.request.spec.output);
        let streams = replace(&mut self.sink.streams, fresh());
        let received = self.sole.then(|| OutputState { streams, log, kept: hub.kept().output });
        let state = StreamState { received, fed: self.feeder.stop(), given };
        let stream = replace(&mut self.stream, ExecStream::broken());
        let kept_here = node.handover.give(&*node.engine, &self.request.key.uid, &exec.id, stream, state);
        let Some((back, state)) = kept_here else {
            hub.moved();
            return None;
        };
        self.stream = back;
        self.feeder.resume();
        self.sink.streams = state.received.map_or_else(fresh, |received| received.streams);
        Some(())
    }

    /// Notes how far it is, for an agent that has to go on after a crash, and lets the engine forget what comes before.
    /// Whether it was noted, and the engine has room for more.
    async fn note(&mut self) -> bool {
        let RunningCommand { node, exec, memory, hub, .. } = self.attended;
        self.sink.unnoted = 0;
        let kept = hub.kept();
        let position = self.sink.streams.position();
        let output = SavedOutput::of(&mut self.sink.streams, kept.state, kept.output);
        if !memory.note_output(exec, output, kept.file, self.feeder.progress()).await {
            return false;
        }
        hub.note(self.sink.streams.total());
        let released = node.engine.release(exec, position).await;
        if let Err(error) = &released {
            tracing::debug!(exec = %exec.id, %error, "output that is kept here is kept by the engine, too");
        }
        released.is_ok()
    }

    /// The stream has ended: says what came over it, and what that is worth.
    async fn finish(mut self, end: StreamEnd, log_writer: &mut LogWriter) -> Received {
        let RunningCommand { node, hub, .. } = self.attended;
        hub.close();
        let stream = self.ended();
        let ((), log) = tokio::join!(noted(&mut self.noting), log_writer.finish());
        let log = match log {
            // Of nothing it has all.
            LogState::Limited if self.sink.streams.total() == 0 => LogState::Whole,
            state => state,
        };
        let delivered = self.request.spec.stdin.is_none() || self.feeder.progress().ended;
        let input = InputEnd::of(delivered, !self.input_lost && end == StreamEnd::Clean);
        if !self.sole {
            // A stream that somebody may have read a part of tells nothing.
            let output = recall(&node.spool, &self.request.key, &self.request.spec.output).await;
            return Received { end: StreamEnd::Broken, output, head: String::new(), heard: None, input };
        }
        let incomplete = match (end, stream) {
            // Another process holds it, and the engine would let it do so for ever.
            (StreamEnd::Broken, None) if self.given_up => Some(FORCED_END),
            (StreamEnd::Broken, _) => Some(STREAM_BROKEN),
            (StreamEnd::Clean, Some(stream)) if stream.is_forced(&mut self.seen).await => Some(FORCED_END),
            (StreamEnd::Clean, _) => log.incomplete(),
        };
        let head = self.sink.streams.head();
        let (tty, typed) = (self.request.spec.tty, self.request.spec.stdin.is_some());
        let all = self.sink.streams.heard(tty, tty && typed).filter(|_| end == StreamEnd::Clean);
        Received { end, output: self.sink.streams.status(incomplete), head, heard: all, input }
    }

    /// What matters of the end of a stream, where the engine may have cut it.
    fn ended(&self) -> Option<Ended> {
        let alive = self.seen.borrow().alive;
        let Sink { last, since_alive, .. } = self.sink;
        Some(Ended {
            opened: self.opened,
            unread: self.unread,
            last,
            burst: if since_alive.0 == alive { since_alive.1 } else { 0 },
            behind: self.attended.node.pulse.delay(),
            at: Instant::now(),
            cuts_after: self.habits.cuts_after?,
            keeps_unread: self.habits.keeps_unread,
        })
    }
}

async fn close(to: &ExecInput) {
    if let Err(error) = to.close().await {
        tracing::debug!(%error, "the input could not be closed");
    }
}

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
