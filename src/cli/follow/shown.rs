//! How much of a command's output was shown, over as many connections as it takes.
//!
//! Each connection goes through all of it from the beginning. An agent that goes on after a crash may receive the two
//! streams in another order than the one before it did, and some had seen: each is counted for itself. What is missing is
//! told of both together: from there on they are counted as one.

use bytes::Bytes;

use crate::{
    api::ExecRequest,
    wire::{OutputStream, words::Missing},
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The output before this offset, of both streams together, was shown, or is missing.
    pub up_to: u64,
    /// Bytes of it that are missing: they are kept nowhere.
    pub missing: u64,
    /// The same as `up_to`, of each stream, if nothing was ever missing.
    of: [u64; 2],
    as_one: bool,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    all: u64,
    of: [u64; 2],
    as_one: bool,
}

impl Shown {
    pub const fn is_nothing(self) -> bool {
        self.up_to == self.missing
    }

    /// The part of a message that was not shown yet, on a connection that has come to this place.
    ///
    /// A connection may have several notices of missing output: one where the log ends, and others where the log
    /// has moved on meanwhile.
    pub fn fresh(&mut self, place: &mut Place, stream: OutputStream, bytes: Bytes, tty: bool) -> Bytes {
        let Some(skipped) = notice(stream, &bytes, tty) else {
            let of = usize::from(stream == OutputStream::Stderr);
            let as_one = self.as_one || place.as_one;
            let (shown, at) = if as_one { (self.up_to, place.all) } else { (self.of[of], place.of[of]) };
            let fresh = bytes.slice(usize::try_from(shown.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len())..);
            place.all += bytes.len() as u64;
            place.of[of] += bytes.len() as u64;
            self.of[of] = self.of[of].max(place.of[of]);
            self.up_to += fresh.len() as u64;
            return fresh;
        };
        (self.as_one, place.as_one) = (true, true);
        // What was shown before is not missing here. Of an unknown number of bytes all may have been shown.
        place.all = match skipped {
            Missing::Bytes(skipped) => place.all + skipped,
            Missing::Unknown => self.up_to.max(place.all),
        };
        let missing = place.all.saturating_sub(self.up_to);
        self.missing += missing;
        self.up_to += missing;
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
            assert_eq!(Shown { up_to, missing, ..Shown::default() }.unseen(&request), expected, "{up_to} {missing}");
        }
    }

    #[test]
    fn streams_that_come_in_another_order_the_next_time_are_shown_once() {
        let (out, err) = (OutputStream::Stdout, OutputStream::Stderr);
        let mut shown = Shown::default();
        let mut seen = [String::new(), String::new()];
        let connections: [&[(OutputStream, &str)]; 3] = [
            &[(out, "one "), (err, "1 "), (out, "two "), (out, "thr")],
            &[(out, "one "), (out, "two "), (err, "1 2 "), (err, "3")],
            &[(err, "1 2 3 4"), (out, "one two three"), (err, " 5")],
        ];
        for connection in connections {
            let mut place = Place::default();
            for (stream, text) in connection {
                let fresh = shown.fresh(&mut place, *stream, Bytes::from_static(text.as_bytes()), false);
                seen[usize::from(*stream == err)].push_str(std::str::from_utf8(&fresh).expect("text"));
            }
        }
        assert_eq!(seen, ["one two three", "1 2 3 4 5"]);
        assert_eq!((shown.up_to, shown.missing), (22, 0));
    }
}
