//! What has been received of a command's output: counts, SHA-256, tails, and beginnings. It can be saved for the next agent.

use serde::{Deserialize, Serialize};
use sha2::{
    Digest, Sha256,
    digest::common::hazmat::{SerializableState, SerializedState},
};

use crate::{
    api::{OutputLimits, OutputStatus, StreamStatus},
    core::{digest::hex, execution::Heard, offsets::StreamOffsets, output::Tail},
    wire::{OutputStream, base64_text},
};

/// Bytes of the beginning of each stream that are kept: where a start fails, the runtime may write its error there.
pub(crate) const HEAD_BYTES: usize = 1024;
/// Most bytes of the end of one stream that are kept: the definition allows no more.
pub(crate) const TAIL_BYTES: usize = 65_536;

#[derive(Debug)]
pub(crate) struct OutputDigest {
    stdout: StreamDigest,
    stderr: StreamDigest,
    head: Vec<u8>,
    head_of_stderr: Vec<u8>,
}

#[derive(Debug)]
struct StreamDigest {
    tail: Tail,
    sha256: Sha256,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SavedDigest {
    stdout: SavedStream,
    stderr: SavedStream,
    #[serde(with = "base64_text")]
    head: Vec<u8>,
    /// An older agent does not save it.
    #[serde(default, with = "base64_text")]
    head_of_stderr: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SavedStream {
    bytes: u64,
    #[serde(with = "base64_text")]
    tail: Vec<u8>,
    /// The state of the hash in the form of `sha2`: see the test of it.
    #[serde(with = "base64_text")]
    digest: Vec<u8>,
}

impl StreamDigest {
    fn new(limit: usize) -> Self {
        Self { tail: Tail::new(limit), sha256: Sha256::new() }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.tail.push(bytes);
        self.sha256.update(bytes);
    }

    fn status(mut self) -> StreamStatus {
        self.tail.status(hex(&self.sha256.finalize()))
    }

    fn save(&mut self) -> SavedStream {
        let (tail, digest) = (self.tail.bytes().to_vec(), self.sha256.serialize().to_vec());
        SavedStream { bytes: self.tail.total(), tail, digest }
    }

    fn restore(saved: SavedStream, limit: usize) -> Option<Self> {
        let state = SerializedState::<Sha256>::try_from(saved.digest.as_slice()).ok()?;
        let sha256 = SerializableState::deserialize(&state).ok()?;
        Some(Self { tail: Tail::resume(limit, saved.bytes, saved.tail), sha256 })
    }
}

impl OutputDigest {
    pub(crate) fn new(limits: &OutputLimits) -> Self {
        let limit = tail_limit(limits);
        let stream = || StreamDigest::new(limit);
        Self { stdout: stream(), stderr: stream(), head: Vec::new(), head_of_stderr: Vec::new() }
    }

    /// `None` if another version has saved it in another form.
    pub(crate) fn restore(saved: SavedDigest, limits: &OutputLimits) -> Option<Self> {
        let limit = tail_limit(limits);
        let stdout = StreamDigest::restore(saved.stdout, limit)?;
        let stderr = StreamDigest::restore(saved.stderr, limit)?;
        Some(Self { stdout, stderr, head: saved.head, head_of_stderr: saved.head_of_stderr })
    }

    pub(crate) fn save(&mut self) -> SavedDigest {
        let (head, head_of_stderr) = (self.head.clone(), self.head_of_stderr.clone());
        SavedDigest { stdout: self.stdout.save(), stderr: self.stderr.save(), head, head_of_stderr }
    }

    pub(crate) fn push(&mut self, stream: OutputStream, bytes: &[u8]) {
        let (head, digest) = match stream {
            OutputStream::Stdout => (&mut self.head, &mut self.stdout),
            OutputStream::Stderr => (&mut self.head_of_stderr, &mut self.stderr),
        };
        head.extend(bytes.iter().take(HEAD_BYTES.saturating_sub(head.len())));
        digest.push(bytes);
    }

    pub(crate) fn position(&self) -> StreamOffsets {
        StreamOffsets { stdout: self.stdout.tail.total(), stderr: self.stderr.tail.total() }
    }

    pub(crate) fn total(&self) -> u64 {
        self.position().total()
    }

    pub(crate) fn head(&self) -> String {
        String::from_utf8_lossy(&self.head).trim().to_owned()
    }

    /// All of it, as far as its beginning was kept.
    pub(crate) fn heard(&self, terminal: bool, echoes: bool) -> Option<Heard> {
        let (stdout, stderr) = (self.head.clone(), self.head_of_stderr.clone());
        let kept = stdout.len() + stderr.len();
        let lacks = stderr.is_empty() && self.stderr.tail.total() > 0;
        (!lacks).then(|| Heard { stdout, stderr, longer: self.total() > kept as u64, terminal, echoes })
    }

    pub(crate) fn status(self, incomplete: Option<&str>) -> OutputStatus {
        OutputStatus {
            complete: incomplete.is_none(),
            incomplete_reason: incomplete.map(str::to_owned),
            stdout: self.stdout.status(),
            stderr: self.stderr.status(),
        }
    }
}

fn tail_limit(limits: &OutputLimits) -> usize {
    usize::try_from(limits.tail_bytes).unwrap_or(0).min(TAIL_BYTES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits() -> OutputLimits {
        OutputLimits { tail_bytes: 16, ..OutputLimits::default() }
    }

    proptest! {
        #[test]
        fn what_was_saved_goes_on_as_if_nothing_had_happened(
            chunks in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..20),
            cut in 0..20usize,
        ) {
            let stream = |stderr| if stderr { OutputStream::Stderr } else { OutputStream::Stdout };
            let (mut whole, mut parted) = (OutputDigest::new(&limits()), OutputDigest::new(&limits()));
            for (n, (stderr, bytes)) in chunks.iter().enumerate() {
                if n == cut {
                    let saved = serde_json::to_string(&parted.save()).expect("JSON");
                    parted = OutputDigest::restore(serde_json::from_str(&saved).expect("JSON"), &limits()).expect("streams");
                }
                whole.push(stream(*stderr), bytes);
                parted.push(stream(*stderr), bytes);
            }
            prop_assert_eq!(whole.head(), parted.head());
            prop_assert_eq!(whole.heard(false, false), parted.heard(false, false));
            prop_assert_eq!(whole.status(None), parted.status(None));
        }
    }

    #[test]
    fn the_state_of_a_digest_has_the_form_that_other_versions_write() {
        // Should this fail, `sha2` has changed the form: count up FORMAT in the handover.
        let state = hex(&Sha256::new_with_prefix(b"abc").serialize());
        let words = "67e6096a85ae67bb72f36e3c3af54fa57f520e518c68059babd9831f19cde05b";
        assert_eq!(state, format!("{words}000000000000000003616263{}", "0".repeat(2 * (64 - 4))));
    }
}
