//! What goes into a status of a command's output: the bounded end of a stream, and whether the log has all of it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::api::StreamStatus;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogState {
    Whole,
    /// A limit cut it.
    Limited,
    /// The disk refused.
    Failed,
    /// The disk was too slow for the command.
    Slow,
}

impl LogState {
    /// `status.output.incompleteReason`.
    pub const fn incomplete(self) -> Option<&'static str> {
        match self {
            Self::Whole => None,
            Self::Limited => Some("SpoolLimit"),
            Self::Failed => Some("SpoolFailed"),
            Self::Slow => Some("SpoolSlow"),
        }
    }
}

/// The last bytes of a stream, at most `limit`.
#[derive(Debug)]
pub struct Tail {
    limit: usize,
    bytes: Vec<u8>,
    total: u64,
}

impl Tail {
    pub fn new(limit: usize) -> Self {
        Self { limit, bytes: Vec::new(), total: 0 }
    }

    /// Continues another tail, after `total` bytes of which these are the last.
    pub fn resume(limit: usize, total: u64, bytes: Vec<u8>) -> Self {
        Self { limit, bytes, total }
    }

    pub fn push(&mut self, chunk: &[u8]) {
        self.total += chunk.len() as u64;
        if chunk.len() >= self.limit {
            self.bytes.clear();
            self.bytes.extend_from_slice(&chunk[chunk.len() - self.limit..]);
            return;
        }
        self.bytes.extend_from_slice(chunk);
        // Cut rarely: moving the rest for each small write would cost more than the copy itself.
        if self.bytes.len() >= self.limit * 2 {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let excess = self.bytes.len().saturating_sub(self.limit);
        self.bytes.drain(..excess);
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn bytes(&mut self) -> &[u8] {
        self.cut();
        &self.bytes
    }

    /// `sha256` is that of the whole stream.
    pub fn status(&mut self, sha256: String) -> StreamStatus {
        self.cut();
        let truncated = self.total > self.bytes.len() as u64;
        let kept = if truncated { from_character_start(&self.bytes) } else { &self.bytes };
        let (tail, tail_base64) = match std::str::from_utf8(kept) {
            Ok("") => (None, None),
            Ok(text) if is_plain(text) => (Some(text.to_owned()), None),
            Ok(_) | Err(_) => (None, Some(STANDARD.encode(&self.bytes))),
        };
        StreamStatus {
            tail,
            tail_base64,
            bytes: i64::try_from(self.total).unwrap_or(i64::MAX),
            sha256: Some(sha256),
            truncated,
        }
    }
}

/// Other control characters take six bytes each in JSON and are unreadable in YAML.
fn is_plain(text: &str) -> bool {
    text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'))
}

/// Skips the rest of a character that was cut in two.
fn from_character_start(bytes: &[u8]) -> &[u8] {
    const LONGEST_REST: usize = 3;
    let rest = bytes.iter().take(LONGEST_REST).take_while(|b| **b & 0xC0 == 0x80).count();
    &bytes[rest..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn status_of(limit: usize, chunks: &[&[u8]]) -> StreamStatus {
        let mut tail = Tail::new(limit);
        for chunk in chunks {
            tail.push(chunk);
        }
        tail.status("digest".into())
    }

    #[test]
    fn a_short_text_is_whole() {
        let status = status_of(10, &[b"hello\n"]);
        assert_eq!(status.tail.as_deref(), Some("hello\n"));
        assert!(!status.truncated);
        assert_eq!(status.bytes, 6);
    }

    #[test]
    fn a_long_text_keeps_its_end() {
        let status = status_of(4, &[b"hello ", b"world"]);
        assert_eq!(status.tail.as_deref(), Some("orld"));
        assert!(status.truncated);
        assert_eq!(status.bytes, 11);
    }

    #[test]
    fn a_cut_character_does_not_make_a_text_binary() {
        let status = status_of(4, &["aéé".as_bytes()]);
        assert_eq!(status.tail.as_deref(), Some("éé"));
        let status = status_of(3, &["aéé".as_bytes()]);
        assert_eq!(status.tail.as_deref(), Some("é"));
        assert_eq!(status.tail_base64, None);
    }

    #[test]
    fn bytes_that_are_no_text_go_as_base64() {
        let status = status_of(10, &[b"\xff\x00\x01"]);
        assert_eq!(status.tail, None);
        assert_eq!(status.tail_base64.as_deref(), Some("/wAB"));
        let status = status_of(10, &[b"\x1b[1m"]);
        assert_eq!(status.tail_base64.as_deref(), Some("G1sxbQ=="));
    }

    #[test]
    fn no_tail_is_kept_when_none_is_wanted() {
        let status = status_of(0, &[b"hello"]);
        assert_eq!((status.tail, status.tail_base64, status.truncated, status.bytes), (None, None, true, 5));
    }

    proptest! {
        #[test]
        fn the_tail_is_the_end_of_all_chunks(limit in 0_usize..40, chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 0..20)) {
            let mut tail = Tail::new(limit);
            let mut all = Vec::new();
            for chunk in &chunks {
                tail.push(chunk);
                all.extend_from_slice(chunk);
            }
            let expected = &all[all.len().saturating_sub(limit)..];
            prop_assert_eq!(tail.bytes(), expected);
            prop_assert_eq!(tail.total(), all.len() as u64);
        }
    }
}
