//! How much of a command's output was shown, over as many connections as it takes.
//!
//! Both streams are counted as one, in the order in which the agent received them.
//! Each connection goes through all of it from the beginning.

use bytes::Bytes;

use crate::{
    api::ExecRequest,
    wire::{OutputStream, words::Missing},
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The output before this offset was shown, or is missing.
    pub up_to: u64,
    /// Bytes of it that are missing: they are kept nowhere.
    pub missing: u64,
}

impl Shown {
    pub const fn is_nothing(self) -> bool {
        self.up_to == self.missing
    }

    /// The part of a message that was not shown yet, on a connection that has come to the offset `at`.
    ///
    /// A connection may have several notices of missing output: one where the log ends, and others where the log
    /// has moved on meanwhile.
    pub fn fresh(&mut self, at: &mut u64, stream: OutputStream, bytes: Bytes, tty: bool) -> Bytes {
        let Some(skipped) = notice(stream, &bytes, tty) else {
            let passed_over = usize::try_from(self.up_to.saturating_sub(*at)).unwrap_or(usize::MAX).min(bytes.len());
            *at += bytes.len() as u64;
            self.up_to = self.up_to.max(*at);
            return bytes.slice(passed_over..);
        };
        // What was shown before is not missing here. Of an unknown number of bytes all may have been shown.
        *at = match skipped {
            Missing::Bytes(skipped) => *at + skipped,
            Missing::Unknown => self.up_to.max(*at),
        };
        let missing = at.saturating_sub(self.up_to);
        self.missing += missing;
        self.up_to = self.up_to.max(*at);
        match skipped {
            Missing::Unknown => bytes,
            Missing::Bytes(_) if missing == 0 => Bytes::new(),
            Missing::Bytes(_) => format!("{}\r\n", Missing::Bytes(missing).notice()).into(),
        }
    }

    /// Bytes of a finished request's output after the last that was shown, if any was.
    pub fn unseen(self, request: &ExecRequest) -> Option<u64> {
        let output = request.status.as_ref()?.output.as_ref()?;
        let all = [&output.stdout, &output.stderr].iter().map(|of| u64::try_from(of.bytes).unwrap_or(0)).sum::<u64>();
        // What is missing before that was told in its place.
        let missing = all.saturating_sub(self.up_to);
        (missing > 0 && !self.is_nothing()).then_some(missing)
    }
}

/// A message of the agent's own, among the errors: that output is missing.
fn notice(stream: OutputStream, bytes: &[u8], tty: bool) -> Option<Missing> {
    // A terminal has one stream for both.
    if stream != OutputStream::Stderr && !tty {
        return None;
    }
    Missing::read(std::str::from_utf8(bytes).ok()?.strip_suffix("\r\n")?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::follow::scripted;

    #[test]
    fn a_commands_own_words_are_no_notice() {
        let text = format!("{}\r\n", Missing::Bytes(7).notice());
        assert_eq!(notice(OutputStream::Stderr, text.as_bytes(), false), Some(Missing::Bytes(7)));
        assert_eq!(notice(OutputStream::Stdout, text.as_bytes(), false), None);
        for other in [&text[1..], &text[..text.len() - 1], &text.replace('7', "-7"), &text.replace('7', "many")] {
            assert_eq!(notice(OutputStream::Stderr, other.as_bytes(), false), None, "{other:?}");
        }
    }

    #[test]
    fn output_that_was_not_shown_is_counted_at_the_end() {
        let request = scripted::request(json!({"phase": "Succeeded", "output": {
            "stdout": {"bytes": 90, "truncated": false}, "stderr": {"bytes": 10, "truncated": false}, "complete": true,
        }}));
        for (up_to, missing, expected) in [(100, 0, None), (70, 0, Some(30)), (70, 5, Some(30)), (0, 0, None)] {
            assert_eq!(Shown { up_to, missing }.unseen(&request), expected, "{up_to} {missing}");
        }
    }
}
