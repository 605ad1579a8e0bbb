//! What has been received of a command's output: counts, digests, tails, and the
//! beginning of standard output. It can be put into words for the next agent.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use sha2::{
    Digest, Sha256,
    digest::common::hazmat::{SerializableState, SerializedState},
};

use crate::{
    agent::memory::journal::hex,
    api::{OutputLimits, OutputStatus, StreamStatus},
    core::{output::Tail, position::Position},
    wire::OutputStream,
};

/// Bytes of the beginning of standard output that are kept: the runtime's error, if the start failed.
pub(crate) const HEAD_BYTES: usize = 1024;
/// Most bytes of the end of one stream that are kept: the definition allows no more.
pub(crate) const TAIL_BYTES: usize = 65_536;

/// Both streams.
#[derive(Debug)]
pub(crate) struct OutputDigest {
    stdout: StreamDigest,
    stderr: StreamDigest,
    head: Vec<u8>,
}

#[derive(Debug)]
struct StreamDigest {
    tail: Tail,
    digest: Sha256,
}

/// [`OutputDigest`] in words. The digests' states are `sha2`'s own: see the test of their form.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SavedDigest {
    stdout: SavedStream,
    stderr: SavedStream,
    head: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SavedStream {
    bytes: u64,
    tail: String,
    digest: String,
}

impl StreamDigest {
    fn new(limit: usize) -> Self {
        Self { tail: Tail::new(limit), digest: Sha256::new() }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.tail.push(bytes);
        self.digest.update(bytes);
    }

    fn status(mut self) -> StreamStatus {
        self.tail.status(hex(&self.digest.finalize()))
    }

    fn save(&mut self) -> SavedStream {
        SavedStream {
            bytes: self.tail.total(),
            tail: STANDARD.encode(self.tail.bytes()),
            digest: STANDARD.encode(self.digest.serialize()),
        }
    }

    fn restore(words: &SavedStream, limit: usize) -> Option<Self> {
        let digest = STANDARD.decode(&words.digest).ok()?;
        let state = SerializedState::<Sha256>::try_from(digest.as_slice()).ok()?;
        let tail = STANDARD.decode(&words.tail).ok()?;
        Some(Self {
            tail: Tail::resume(limit, words.bytes, tail),
            digest: SerializableState::deserialize(&state).ok()?,
        })
    }
}

impl OutputDigest {
    pub(crate) fn new(limits: &OutputLimits) -> Self {
        let limit = tail_limit(limits);
        Self { stdout: StreamDigest::new(limit), stderr: StreamDigest::new(limit), head: Vec::new() }
    }

    /// What the agent before this one has received. `None`: it speaks another language.
    pub(crate) fn restore(words: &SavedDigest, limits: &OutputLimits) -> Option<Self> {
        let limit = tail_limit(limits);
        Some(Self {
            stdout: StreamDigest::restore(&words.stdout, limit)?,
            stderr: StreamDigest::restore(&words.stderr, limit)?,
            head: STANDARD.decode(&words.head).ok()?,
        })
    }

    pub(crate) fn save(&mut self) -> SavedDigest {
        SavedDigest { stdout: self.stdout.save(), stderr: self.stderr.save(), head: STANDARD.encode(&self.head) }
    }

    pub(crate) fn push(&mut self, stream: OutputStream, bytes: &[u8]) {
        match stream {
            OutputStream::Stdout => {
                self.head.extend(bytes.iter().take(HEAD_BYTES.saturating_sub(self.head.len())));
                self.stdout.push(bytes);
            }
            OutputStream::Stderr => self.stderr.push(bytes),
        }
    }

    /// How much was received.
    pub(crate) fn position(&self) -> Position {
        Position { stdout: self.stdout.tail.total(), stderr: self.stderr.tail.total() }
    }

    /// Bytes received of both.
    pub(crate) fn total(&self) -> u64 {
        self.position().total()
    }

    /// The beginning of standard output.
    pub(crate) fn head(&self) -> String {
        String::from_utf8_lossy(&self.head).trim().to_owned()
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
        fn what_was_put_into_words_goes_on_as_if_nothing_had_happened(
            chunks in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..20),
            cut in 0..20usize,
        ) {
            let stream = |stderr| if stderr { OutputStream::Stderr } else { OutputStream::Stdout };
            let (mut whole, mut parted) = (OutputDigest::new(&limits()), OutputDigest::new(&limits()));
            for (n, (stderr, bytes)) in chunks.iter().enumerate() {
                if n == cut {
                    let words = serde_json::to_string(&parted.save()).expect("JSON");
                    parted = OutputDigest::restore(&serde_json::from_str(&words).expect("JSON"), &limits()).expect("streams");
                }
                whole.push(stream(*stderr), bytes);
                parted.push(stream(*stderr), bytes);
            }
            prop_assert_eq!(whole.head(), parted.head());
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
