//! Pump: drain the command's output at full speed into spool, tails and digests.
//!
//! Nothing here waits for a reader. A reader that does not keep up makes the
//! engine block the command, lose its output and falsify its exit code.

use std::{path::Path, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    handover::Inheritance,
    node::{Node, World},
    received::Streams,
    spool::LogState,
    witness::Seen,
};
use crate::{
    api::{OutputLimits, OutputStatus},
    core::{
        ids::{ExecId, RequestKey},
        outcome::StreamEnd,
        request::BoundRequest,
    },
    engine::ExecStream,
    infra::kernel::Kernel,
    wire::cri,
};

/// Why output may not be complete: an agent before this one had the stream, or somebody else.
pub(super) const STREAM_LOST: &str = "StreamLost";
/// The stream broke, or the engine went away at its end.
pub(super) const STREAM_BROKEN: &str = "StreamBroken";
/// How long output waits in memory for more before it goes to the log.
const FLUSH_AFTER: Duration = Duration::from_millis(100);
/// The engine cuts a stream about 2 s after the process ended if a child still holds it; a
/// stream that ends so late after its process may have been cut, unless nobody held it.
const FORCED_AFTER: Duration = Duration::from_millis(1500);
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
}

/// Drains the stream to its end. `seen` tells of its process. The bytes are kept
/// only if nobody else can have read a part of them. `None`: the stream was handed over to the next agent.
pub(super) async fn pump<W: World>(
    node: &Node<W>,
    request: &BoundRequest,
    mut stream: ExecStream,
    mut seen: watch::Receiver<Seen>,
    exec: &ExecId,
    origin: Origin,
) -> Option<Received> {
    let limits = &request.spec.output;
    let fresh = || (Streams::new(limits), LogState::Whole);
    let (sole, (mut streams, state), unread) = match origin {
        Origin::Sole => (true, fresh(), Duration::ZERO),
        Origin::Shared => (false, fresh(), Duration::ZERO),
        Origin::Inherited(inheritance) => {
            let Inheritance { received, given } = *inheritance;
            (received.is_some(), received.unwrap_or_else(fresh), node.kernel.uptime().saturating_sub(given))
        }
    };
    let mut log = node.spool.create(&request.key, limits, state);
    let pumping = node.heirs.pumping();
    let mut given = false;
    let end = loop {
        tokio::select! {
            biased;
            // First, or a command that writes all the time would hold up the handover of all.
            () = node.heirs.begun(), if !given => {
                given = true;
                log.flush().await;
                let received = sole.then_some((streams, log.state()));
                let inheritance = Inheritance { received, given: node.kernel.uptime() };
                match node.heirs.give(&request.key.uid, exec, stream, inheritance) {
                    None => return None,
                    Some((back, inheritance)) => {
                        stream = back;
                        streams = inheritance.received.unwrap_or_else(fresh).0;
                    }
                }
            }
            chunk = stream.next() => match chunk {
                Ok(Some(chunk)) if sole => {
                    node.metrics.output(chunk.stream, chunk.bytes.len());
                    streams.push(chunk.stream, &chunk.bytes);
                    let timestamp = format!("{:.9}", node.clock.now());
                    log.write(chunk.stream, &timestamp, &chunk.bytes).await;
                }
                Ok(Some(_)) => {}
                Ok(None) => break StreamEnd::Clean,
                Err(error) => {
                    tracing::warn!(request = %request.key, uid = %request.key.uid, %error, "the output broke off");
                    break StreamEnd::Broken;
                }
            },
            () = sleep(FLUSH_AFTER), if log.is_dirty() => log.flush().await,
            () = never_ending(&mut seen) => {
                tracing::warn!(request = %request.key, uid = %request.key.uid, "the process has ended, but its output stays open; given up");
                break StreamEnd::Broken;
            }
        }
    };
    drop(pumping);
    let ended = Instant::now();
    let forced = {
        let seen = seen.borrow();
        // One that had ended before it could be seen may have done so while nobody read.
        let unread = if seen.process.is_some() { Duration::ZERO } else { unread };
        let late = seen.ended.is_some_and(|exited| ended.duration_since(exited) + unread >= FORCED_AFTER);
        // A late end may also be the engine's being busy with the ends of others.
        late && seen.held != Some(false)
    };
    let log = log.close().await;
    if !sole {
        // A stream that somebody may have read a part of tells nothing.
        let output = recall(node, &request.key, limits).await;
        return Some(Received { end: StreamEnd::Broken, output, head: String::new() });
    }
    let incomplete = match (end, forced, log) {
        (StreamEnd::Broken, ..) => Some(STREAM_BROKEN),
        (StreamEnd::Clean, true, _) => Some("ForcedEnd"),
        (StreamEnd::Clean, false, LogState::Limited) => Some("SpoolLimit"),
        (StreamEnd::Clean, false, LogState::Failed) => Some("SpoolFailed"),
        (StreamEnd::Clean, false, LogState::Whole) => None,
    };
    let head = streams.head();
    Some(Received { end, output: streams.status(incomplete), head })
}

async fn never_ending(seen: &mut watch::Receiver<Seen>) {
    let at = match seen.wait_for(|seen| seen.ended.is_some()).await {
        Ok(seen) => seen.ended,
        Err(_) => None,
    };
    match at {
        Some(at) => sleep_until(at + GIVE_UP_AFTER).await,
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
