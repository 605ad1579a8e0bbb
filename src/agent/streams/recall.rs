//! Recall: what the log tells of output that no agent has in memory.

use std::path::Path;

use tokio::io::{AsyncBufReadExt, BufReader};

use super::{digest::OutputDigest, spool::Spool};
use crate::{
    api::{OutputLimits, OutputStatus},
    core::ids::RequestKey,
    wire::cri,
};

/// Why output may be incomplete: an agent before this one had the stream, or somebody else.
pub(crate) const STREAM_LOST: &str = "StreamLost";
/// Longest line read back from a log, in bytes: a record and its header.
const RECORD_BYTES: u64 = cri::MAX_CONTENT as u64 + 128;

/// What an earlier agent received and logged before its stream was lost.
pub(crate) async fn recall(spool: &Spool, key: &RequestKey, limits: &OutputLimits) -> OutputStatus {
    let mut digest = OutputDigest::new(limits);
    if limits.spool_bytes > 0 {
        let path = spool.log_path(key);
        if let Err(error) = read_log(&path, &mut digest).await {
            tracing::info!(request = %key, uid = %key.uid, %error, path = %path.display(), "no earlier output could be read");
        }
    }
    digest.status(Some(STREAM_LOST))
}

async fn read_log(path: &Path, digest: &mut OutputDigest) -> std::io::Result<()> {
    let mut log = BufReader::new(tokio::fs::File::open(path).await?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = tokio::io::AsyncReadExt::take(&mut log, RECORD_BYTES);
        if bounded.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        // A record that was cut off when its writer ended is not counted.
        if let Some(record) = line.strip_suffix(b"\n").and_then(cri::decode) {
            digest.push(record.stream, record.content);
            if record.ends_line {
                digest.push(record.stream, b"\n");
            }
        }
    }
}
