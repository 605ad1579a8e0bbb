//! Reading a log again from its beginning: what was printed before is passed over.

use crate::wire::words::Missing;

/// No notice is longer.
const LONGEST_NOTICE: usize = 160;

/// How far a log was printed, over as many connections as it takes.
#[derive(Debug, Default)]
pub struct Passed {
    /// The log before this offset was printed.
    up_to: u64,
    at: u64,
    /// The beginning of a line that may become a notice.
    held: Vec<u8>,
    /// This connection is within a line that is not a notice.
    inside: bool,
}

impl Passed {
    pub fn again(&mut self) {
        *self = Self { up_to: self.up_to, ..Self::default() };
    }

    /// The part of the next piece that was not printed yet. After a notice that output is missing which was printed
    /// before, it is not known where the two meet: everything that follows is printed.
    pub fn fresh(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut fresh = Vec::new();
        let mut rest = piece;
        while self.at < self.up_to || !self.held.is_empty() {
            let Some((byte, more)) = rest.split_first() else { break };
            rest = more;
            self.take(*byte, &mut fresh);
        }
        if !rest.is_empty() {
            self.at += rest.len() as u64;
            fresh.extend_from_slice(rest);
        }
        self.up_to = self.up_to.max(self.at - self.held.len() as u64);
        fresh
    }

    /// What is left at the end of the log.
    pub fn end(&mut self) -> Vec<u8> {
        let mut fresh = Vec::new();
        self.release(&mut fresh);
        fresh
    }

    fn take(&mut self, byte: u8, fresh: &mut Vec<u8>) {
        self.at += 1;
        self.held.push(byte);
        let ends = byte == b'\n';
        if ends && !self.inside && is_notice(&self.held) {
            self.up_to = self.at - self.held.len() as u64;
        }
        let may_be_notice = !self.inside && self.held[0] == b'[' && self.held.len() < LONGEST_NOTICE;
        if ends || !may_be_notice {
            self.inside = !ends;
            self.release(fresh);
        }
    }

    /// Adds the part of the held line that was not printed.
    fn release(&mut self, fresh: &mut Vec<u8>) {
        let begin = self.at - self.held.len() as u64;
        let printed = usize::try_from(self.up_to.saturating_sub(begin)).unwrap_or(usize::MAX).min(self.held.len());
        fresh.extend_from_slice(&self.held[printed..]);
        self.held.clear();
        self.up_to = self.up_to.max(self.at);
    }
}

fn is_notice(line: &[u8]) -> bool {
    std::str::from_utf8(line).ok().and_then(|line| Missing::read(line.strip_suffix('\n')?)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is printed from these connections, each in pieces of so many bytes.
    fn printed(connections: &[&str], piece: usize) -> String {
        let (mut passed, mut all) = (Passed::default(), Vec::new());
        for connection in connections {
            passed.again();
            for piece in connection.as_bytes().chunks(piece) {
                all.extend(passed.fresh(piece));
            }
        }
        all.extend(passed.end());
        String::from_utf8(all).expect("text")
    }

    #[test]
    fn a_log_that_is_read_again_is_printed_once() {
        let notice = Missing::Bytes(7).notice();
        let later = format!("kept\n{notice}\nnew\n");
        let rows: &[(&[&str], String)] = &[
            (&["one\ntw", "", "one", "one\ntwo\n[3]\n[fo", "one\ntwo\n[3]\n[four"], "one\ntwo\n[3]\n[four".to_owned()),
            // More was printed than is kept: nothing that is new is taken for it.
            (
                &["kept\nlive and long enough to hide the notice that comes in its place, and more\n", &later],
                format!(
                    "kept\nlive and long enough to hide the notice that comes in its place, and more\n{notice}\nnew\n"
                ),
            ),
            // Also where it ends within the notice.
            (&["kept\nli", &later], format!("kept\nli{notice}\nnew\n")),
            // One that was there before comes again only with what is after it.
            (&[&later, &format!("{later}er\n")], format!("{later}{notice}\nnew\ner\n")),
        ];
        for (connections, expected) in rows {
            for piece in [1, 2, 7, 1000] {
                assert_eq!(printed(connections, piece), *expected, "{connections:?} by {piece}");
            }
        }
    }
}
