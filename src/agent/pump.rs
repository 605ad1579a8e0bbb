//! Pump: drain the command's output at full speed into spool, tails and digests.
//!
//! Nothing here waits for a viewer. Whoever does not keep up with the engine's stream makes the
//! engine block the command, and lose what is not read within 2 s of its end. What
//! readers get, and the log, is the hub's.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    FutureExt as _,
    future::{BoxFuture, Fuse, FusedFuture as _},
};
use k8s_openapi::jiff::Timestamp;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::{
    feed::{self, Feeder},
    handover::{Heard, Inheritance},
    hub::{Hub, Kept, Piece, Written},
    keep::Keeper,
    node::{Node, World},
    received::Streams,
    spool::LogState,
    start::Attended,
    witness::Seen,
};
use crate::{
    api::{OutputLimits, OutputStatus},
    core::{ids::RequestKey, outcome::StreamEnd},
    engine::{Chunk, ExecInput, ExecStream, READ_BYTES, StreamError},
    infra::kernel::Kernel,
    wire::cri,
};

/// Why output may not be complete: an agent before this one had the stream, or somebody else.
pub(super) const STREAM_LOST: &str = "StreamLost";
/// The stream broke, or the engine went away at its end.
pub(super) const STREAM_BROKEN: &str = "StreamBroken";
/// The engine cuts a stream 2 s after the process ended if a child still holds it, or we do not read it. One that ends
/// sooner after a moment at which its process lived was not cut.
const CUT_AFTER: Duration = Duration::from_millis(1900);
/// One that ends so late after the end was noticed may have been cut, unless nobody held it and all had come before.
const FORCED_AFTER: Duration = Duration::from_millis(1500);
/// How long the kernel's witness may take to tell of a process whose stream has ended.
const WITNESS_PATIENCE: Duration = Duration::from_secs(3);
/// A reader that was away while a command wrote has lost nothing of it, if that was less: the engine keeps 1 MB for it.
const ENGINE_KEEPS: u64 = 512 * 1024;
/// Bytes read at once where many commands write.
const CROWDED_BYTES: usize = 16 * 1024;
/// When something still comes so long after the process ended, the engine may have cut off what would have come next.
const DRAINED_WITHIN: Duration = Duration::from_secs(1);
/// For how long after the process's end the log may hold up what the engine still has of its output.
const LOG_MAY_HOLD: Duration = Duration::from_secs(1);
/// A stream that is still open so long after its process has ended will not end. The engine handles
/// the ends of one container one after another, so that the last of many takes minutes.
const GIVE_UP_AFTER: Duration = Duration::from_secs(600);
/// Longest line read back from a log, in bytes: a record and its header.
const RECORD_BYTES: u64 = cri::MAX_CONTENT as u64 + 128;

/// Where a stream comes from, and so what it is worth.
#[derive(Debug)]
pub(super) enum Origin {
    /// Of a start that nobody can have made before.
    Sole,
    /// From the agent before this one.
    Inherited(Box<Inheritance>),
    /// Of a start that somebody may have made before.
    Shared,
}

impl Origin {
    /// Whether nobody else has read of it, what was received before and put in, and for how long nobody had read until
    /// `now`.
    fn begin(self, now: Duration, fresh: impl Fn() -> Heard) -> (bool, Heard, Option<feed::Progress>, Duration) {
        match self {
            Self::Sole => (true, fresh(), None, Duration::ZERO),
            Self::Shared => (false, fresh(), None, Duration::ZERO),
            Self::Inherited(inheritance) => {
                let Inheritance { received, fed, given } = *inheritance;
                (received.is_some(), received.unwrap_or_else(fresh), Some(fed), now.saturating_sub(given))
            }
        }
    }
}

/// Everything that was received, and how it ended.
pub(super) struct Received {
    pub(super) end: StreamEnd,
    pub(super) output: OutputStatus,
    /// The beginning of standard output.
    pub(super) head: String,
    /// Its input was cut short.
    pub(super) input_lost: bool,
}

/// Where the output goes.
struct Sink {
    hub: Arc<Hub>,
    streams: Streams,
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
/// Whoever leaves this before its end finds in `keeper` what still has to go into the log.
pub(super) async fn pump<W: World>(
    attended: &Attended<'_, W>,
    mut stream: ExecStream,
    mut seen: watch::Receiver<Seen>,
    origin: Origin,
    keeper: &mut Option<Keeper>,
) -> Option<Received> {
    let Attended { node, request, exec, memory, hub } = *attended;
    let limits = &request.spec.output;
    let opened = Instant::now();
    let fresh = || Heard { streams: Streams::new(limits), log: LogState::Whole, kept: 0 };
    let (sole, before, fed, unread) = origin.begin(node.kernel.uptime(), fresh);
    let log = node.spool.create(&request.key, limits, before.log);
    let received = before.streams.total();
    let kept = Kept { output: before.kept, file: log.extent().1, state: log.state() };
    let mut feeder = if sole {
        hub.open(received, kept);
        Feeder::new(hub, &request.spec, stream.input(), fed)
    } else {
        // Whether this connection is the one that the command reads from is not known.
        hub.unheard(kept.file, Written::UNKNOWN);
        stream.input().inspect(ExecInput::close);
        Feeder::new(hub, &request.spec, None, None)
    };
    let mut sink = Sink { hub: Arc::clone(hub), streams: before.streams, last: None, since_alive: (None, 0) };
    let keeper = keeper.insert(Keeper::new(hub, &node.writers, log, received));
    let pumping = node.heirs.pumping();
    let ending = seen.clone();
    let mut given = false;
    // That the input has gone is put down while the output is read: the disk may be slow.
    let mut noting = Fuse::terminated();
    let end = loop {
        // A command that writes without end must not keep its input out, nor its log.
        tokio::select! {
            biased;
            // First, or a command that writes all the time would hold up the handover of all.
            () = node.heirs.begun(), if !given => {
                given = true;
                // From here on nobody reads. For a command that has ended it counts from there.
                let ended = ending.borrow().ended.map_or(Duration::ZERO, |ended| ended.elapsed());
                let since = node.kernel.uptime().saturating_sub(ended);
                let ((), log) = tokio::join!(noted(&mut noting), keeper.finish());
                let received = sole.then(|| Heard { streams: sink.streams, log, kept: hub.kept().output });
                let fed = feeder.stop();
                let inheritance = Inheritance { received, fed, given: since };
                match node.heirs.give(&request.key.uid, &exec.id, stream, inheritance) {
                    None => {
                        hub.moved();
                        return None;
                    }
                    Some((back, inheritance)) => {
                        stream = back;
                        feeder.resume();
                        sink.streams = inheritance.received.unwrap_or_else(fresh).streams;
                    }
                }
            }
            news = feeder.feed() => match news {
                feed::News::Ended => noting = memory.note_fed(exec).boxed().fuse(),
                feed::News::Gone => tracing::info!(request = %request.key, uid = %request.key.uid, "the client that held the input has gone"),
            },
            () = &mut noting, if !noting.is_terminated() => {}
            () = keep(keeper) => {}
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
    let ((), log) = tokio::join!(noted(&mut noting), keeper.finish());
    let log = match log {
        // Of nothing it has all.
        LogState::Limited if sink.streams.total() == 0 => LogState::Whole,
        state => state,
    };
    let input_lost = request.spec.stdin.is_some() && !feeder.progress().ended && (!sole || end == StreamEnd::Broken);
    if !sole {
        // A stream that somebody may have read a part of tells nothing.
        let output = recall(node, &request.key, limits).await;
        return Some(Received { end: StreamEnd::Broken, output, head: String::new(), input_lost });
    }
    let incomplete = match end {
        StreamEnd::Broken => Some(STREAM_BROKEN),
        StreamEnd::Clean if is_forced(&mut seen, stream).await => Some("ForcedEnd"),
        StreamEnd::Clean => log.incomplete(),
    };
    let head = sink.streams.head();
    Some(Received { end, output: sink.streams.status(incomplete), head, input_lost })
}

/// A stream that has ended as streams do.
#[derive(Clone, Copy, Debug)]
struct Ended {
    /// Since when it was read here.
    opened: Instant,
    /// For how long before that nobody had read it.
    unread: Duration,
    /// When something came last.
    last: Option<Instant>,
    /// How many bytes came after its process had last been seen to live.
    burst: u64,
    /// By how much the end of that process may have been noticed late.
    behind: Duration,
    /// When it ended.
    at: Instant,
}

impl Ended {
    /// Whether the process may have ended so long before it that the engine no longer waited.
    fn may_be_late(&self, seen: &Seen) -> bool {
        let Some(alive) = seen.alive else {
            // One that had ended before it could be seen may have done so while nobody read.
            let before = seen.ended.unwrap_or(self.opened);
            return self.at.saturating_duration_since(before) + self.unread >= CUT_AFTER;
        };
        // It ended after it was last seen to live, and not much earlier than that was noticed.
        let noticed = self.at.saturating_duration_since(seen.ended.unwrap_or(self.at));
        self.at.saturating_duration_since(alive) >= CUT_AFTER && noticed + self.behind >= FORCED_AFTER
    }

    /// Whether the engine may have cut it, by all that was seen of the process.
    fn is_cut(&self, seen: &Seen) -> bool {
        if !self.may_be_late(seen) {
            return false;
        }
        let ended = match (seen.ended, seen.process) {
            (Some(ended), Some(_)) => ended,
            // It lives on, and has closed its output itself.
            (None, Some(_)) => return false,
            (_, None) => return true,
        };
        if self.at.saturating_duration_since(ended) >= FORCED_AFTER {
            // A late end may also be the engine's being busy with the ends of others. Then all had come long before.
            let draining = self.last.is_some_and(|last| last >= ended + DRAINED_WITHIN);
            return seen.held != Some(false) || draining;
        }
        // Its end was noticed late: when it was is not known. Who has a terminal cannot be seen.
        self.burst >= ENGINE_KEEPS || seen.held.map_or(!seen.pipes.is_empty(), |held| held)
    }
}

/// Whether the engine may have cut a stream.
async fn is_forced(seen: &mut watch::Receiver<Seen>, stream: Ended) -> bool {
    if !stream.may_be_late(&seen.borrow()) {
        return false;
    }
    // The witness may be behind.
    drop(timeout(WITNESS_PATIENCE, seen.wait_for(|seen| seen.whole)).await);
    stream.is_cut(&seen.borrow())
}

/// Waits until it is put down, if anything is to be.
async fn noted(noting: &mut Fuse<BoxFuture<'_, ()>>) {
    if !noting.is_terminated() {
        noting.await;
    }
}

/// Keeps what there is to keep, for ever: when the log takes no more there is nothing to do.
async fn keep(keeper: &mut Keeper) {
    keeper.work().await;
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

/// What an earlier agent received and spooled, before its stream was lost.
pub(super) async fn recall<W: World>(node: &Node<W>, key: &RequestKey, limits: &OutputLimits) -> OutputStatus {
    let mut streams = Streams::new(limits);
    if limits.spool_bytes > 0 {
        let path = node.spool.log_path(key);
        if let Err(error) = read_log(&path, &mut streams).await {
            tracing::info!(request = %key, uid = %key.uid, %error, path = %path.display(), "no earlier output could be read");
        }
    }
    streams.status(Some(STREAM_LOST))
}

async fn read_log(path: &Path, streams: &mut Streams) -> std::io::Result<()> {
    let mut log = BufReader::new(tokio::fs::File::open(path).await?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = tokio::io::AsyncReadExt::take(&mut log, RECORD_BYTES);
        if bounded.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        // A record that was cut off by the end of the writer is not counted.
        if let Some(record) = line.strip_suffix(b"\n").and_then(cri::decode) {
            streams.push(record.stream, record.content);
            if record.ends_line {
                streams.push(record.stream, b"\n");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::ProcessRef;

    const BEGUN_BEFORE: Duration = Duration::from_secs(100);

    /// What was seen of a process that ended at `ended`, and a stream of it. Times in ms after that.
    fn ended(ended: Instant) -> (Seen, impl Fn(i64) -> Instant) {
        let process = ProcessRef { pid: 7, start_ticks: 7 };
        let seen = Seen { process: Some(process), alive: Some(ended), ended: Some(ended), ..Seen::default() };
        let after = move |ms: i64| {
            let time = Duration::from_millis(ms.unsigned_abs());
            if ms < 0 { ended - time } else { ended + time }
        };
        (seen, after)
    }

    fn stream(at: Instant, last: Option<Instant>) -> Ended {
        Ended { opened: at - BEGUN_BEFORE, unread: Duration::ZERO, last, burst: 0, behind: BEGUN_BEFORE, at }
    }

    #[test]
    fn an_end_that_may_be_a_cut_is_taken_for_one() {
        let (seen, after) = ended(Instant::now() + 2 * BEGUN_BEFORE);
        let rows = [
            // Who held it, when the stream ended and when output came last, in ms after the process.
            (Some(false), 1000, Some(900), false),
            (Some(true), 1000, Some(900), false),
            (Some(true), 2100, None, true),
            (None, 2100, None, true),
            // The engine was busy.
            (Some(false), 5000, None, false),
            (Some(false), 5000, Some(900), false),
            // We were: some of it may not have come in time.
            (Some(false), 2100, Some(2000), true),
            (Some(false), 2100, Some(1000), true),
        ];
        for (held, at, last, cut) in rows {
            let seen = Seen { held, ..seen.clone() };
            assert_eq!(stream(after(at), last.map(&after)).is_cut(&seen), cut, "{held:?} {at} {last:?}");
        }
    }

    #[test]
    fn the_end_of_a_process_that_is_noticed_late_does_not_make_a_cut_look_like_an_end() {
        let (seen, after) = ended(Instant::now() + 2 * BEGUN_BEFORE);
        let pipe = || vec![7];
        let rows = [
            // When it was last seen to live, when its end was noticed, what came in between, which pipes it wrote to
            // and who held them; the stream ends at 0.
            (-1000, Some(0), 0, pipe(), Some(true), false),
            (-2500, Some(0), 0, pipe(), Some(false), false),
            (-2500, Some(0), 0, pipe(), Some(true), true),
            (-2500, Some(0), 0, pipe(), None, true),
            // Not even when the stream had ended.
            (-2500, Some(40), 0, pipe(), Some(true), true),
            (-2500, Some(-100), ENGINE_KEEPS - 1, pipe(), Some(false), false),
            (-2500, Some(0), ENGINE_KEEPS, pipe(), Some(false), true),
            // A terminal.
            (-2500, Some(0), 0, Vec::new(), None, false),
            // It has closed its output, and goes on.
            (-2500, None, 0, pipe(), None, false),
        ];
        let prompt = Duration::from_secs(1);
        for (alive, noticed, burst, pipes, held, cut) in rows {
            let said = format!("{alive} {noticed:?} {burst} {pipes:?} {held:?}");
            let seen = Seen { alive: Some(after(alive)), ended: noticed.map(&after), pipes, held, ..seen.clone() };
            let stream = Ended { burst, ..stream(after(0), None) };
            assert_eq!(stream.is_cut(&seen), cut, "{said}");
            // Where everybody has had a turn in time, silence is no sign.
            assert!(!Ended { behind: prompt, ..stream }.is_cut(&seen), "{said}");
        }
    }

    #[test]
    fn a_process_that_was_never_seen_may_have_ended_while_nobody_read() {
        let (seen, after) = ended(Instant::now() + 2 * BEGUN_BEFORE);
        let rows = [
            // Since when it was read, for how long nobody had before, and a moment before the process's end.
            (-100, 0, Some(-90), false),
            (-100, 1000, Some(-90), false),
            (-100, 1900, Some(-90), true),
            (-2000, 0, Some(-1800), false),
            (-2000, 0, Some(-1900), true),
            // Nothing at all was seen.
            (-2000, 0, None, true),
            (-100, 1800, None, true),
            (-100, 0, None, false),
        ];
        for (opened, unread, before, cut) in rows {
            let seen = Seen { process: None, alive: None, ended: before.map(&after), ..seen.clone() };
            let unread = Duration::from_millis(unread);
            let stream = Ended { opened: after(opened), unread, ..stream(after(0), None) };
            assert_eq!(stream.is_cut(&seen), cut, "{opened} {unread:?} {before:?}");
        }
    }
}
