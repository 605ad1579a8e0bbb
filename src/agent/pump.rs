//! Pump: drain the command's output at full speed into spool, tails and digests.
//!
//! Nothing here waits for a viewer. Whoever does not keep up with the engine's stream makes the
//! engine block the command, and lose what is not read within 2 s of its end. What
//! readers get, and the log, is the hub's.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    feed::{self, Feeder},
    handover::Inheritance,
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
/// The engine cuts a stream about 2 s after the process ended if a child still holds it; a
/// stream that ends so late after its process may have been cut, unless nobody held it and all had come before.
const FORCED_AFTER: Duration = Duration::from_millis(1500);
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
}

impl Sink {
    fn take(&mut self, Chunk { stream, bytes }: Chunk, at: Timestamp) {
        self.streams.push(stream, &bytes);
        self.last = Some(Instant::now());
        self.hub.push(Piece { stream, at, bytes });
    }
}

/// Reads on when there is room for it: what waits in the engine costs nothing here.
async fn next(
    stream: &mut ExecStream,
    hub: &Hub,
    mut seen: watch::Receiver<Seen>,
) -> Result<Option<Chunk>, StreamError> {
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
    let fresh = || (Streams::new(limits), LogState::Whole);
    let (sole, (streams, state), fed, unread) = match origin {
        Origin::Sole => (true, fresh(), None, Duration::ZERO),
        Origin::Shared => (false, fresh(), None, Duration::ZERO),
        Origin::Inherited(inheritance) => {
            let Inheritance { received, fed, given } = *inheritance;
            let unread = node.kernel.uptime().saturating_sub(given);
            (received.is_some(), received.unwrap_or_else(fresh), Some(fed), unread)
        }
    };
    let log = node.spool.create(&request.key, limits, state);
    let received = streams.total();
    let kept = Kept { output: received, file: log.extent().1, state: log.state() };
    let mut feeder = if sole {
        hub.open(received, kept);
        Feeder::new(hub, &request.spec, stream.input(), fed)
    } else {
        // Whether this connection is the one that the command reads from is not known.
        hub.unheard(kept.file, Written::UNKNOWN);
        stream.input().inspect(ExecInput::close);
        Feeder::new(hub, &request.spec, None, None)
    };
    let mut sink = Sink { hub: Arc::clone(hub), streams, last: None };
    let keeper = keeper.insert(Keeper::new(hub, &node.writers, log, received));
    let pumping = node.heirs.pumping();
    let ending = seen.clone();
    let mut given = false;
    let end = loop {
        // A command that writes without end must not keep its input out, nor its log.
        tokio::select! {
            biased;
            // First, or a command that writes all the time would hold up the handover of all.
            () = node.heirs.begun(), if !given => {
                given = true;
                let state = keeper.finish().await;
                let received = sole.then_some((sink.streams, state));
                let fed = feeder.stop();
                let inheritance = Inheritance { received, fed, given: node.kernel.uptime() };
                match node.heirs.give(&request.key.uid, &exec.id, stream, inheritance) {
                    None => {
                        hub.moved();
                        return None;
                    }
                    Some((back, inheritance)) => {
                        stream = back;
                        feeder.resume();
                        sink.streams = inheritance.received.unwrap_or_else(fresh).0;
                    }
                }
            }
            news = feeder.feed() => match news {
                feed::News::Ended => memory.note_fed(exec).await,
                feed::News::Gone => tracing::info!(request = %request.key, uid = %request.key.uid, "the client that held the input has gone"),
            },
            () = keep(keeper) => {}
            chunk = next(&mut stream, hub, ending.clone()) => match chunk {
                Ok(Some(chunk)) if sole => {
                    node.metrics.output(chunk.stream, chunk.bytes.len());
                    sink.take(chunk, node.clock.now());
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
    let forced = is_forced(&seen.borrow(), unread, sink.last, Instant::now());
    let log = match keeper.finish().await {
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
    let incomplete = match (end, forced) {
        (StreamEnd::Broken, _) => Some(STREAM_BROKEN),
        (StreamEnd::Clean, true) => Some("ForcedEnd"),
        (StreamEnd::Clean, false) => log.incomplete(),
    };
    let head = sink.streams.head();
    Some(Received { end, output: sink.streams.status(incomplete), head, input_lost })
}

/// Whether the engine may have cut a stream that ends `now`, that nobody read for a time, and of which something came
/// `last`.
fn is_forced(seen: &Seen, unread: Duration, last: Option<Instant>, now: Instant) -> bool {
    // One that had ended before it could be seen may have done so while nobody read.
    let unread = if seen.process.is_some() { Duration::ZERO } else { unread };
    let late = seen.ended.is_some_and(|exited| now.duration_since(exited) + unread >= FORCED_AFTER);
    // A late end may also be the engine's being busy with the ends of others. Then all had come long before.
    let draining = seen.ended.zip(last).is_some_and(|(exited, last)| last >= exited + DRAINED_WITHIN);
    late && (seen.held != Some(false) || draining)
}

/// Keeps what there is to keep, for ever: when the log takes no more there is nothing to do.
async fn keep(keeper: &mut Keeper) {
    keeper.work().await;
    std::future::pending::<()>().await;
}

/// Waits until the process has ended, and for so much longer.
async fn after_end(seen: &mut watch::Receiver<Seen>, time: Duration) {
    let at = match seen.wait_for(|seen| seen.ended.is_some()).await {
        Ok(seen) => seen.ended,
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

    #[test]
    fn an_end_that_may_be_a_cut_is_taken_for_one() {
        let ended = Instant::now();
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
        for (held, at, last, forced) in rows {
            let after = |ms| ended + Duration::from_millis(ms);
            let seen = Seen { ended: Some(ended), held, ..Seen::default() };
            let said = is_forced(&seen, Duration::ZERO, last.map(after), after(at));
            assert_eq!(said, forced, "{held:?} {at} {last:?}");
        }
    }
}
