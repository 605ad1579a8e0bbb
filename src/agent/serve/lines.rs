//! What `log` writes: the lines of a command's output, chosen and marked as `kubectl logs` does.

use k8s_openapi::jiff::Timestamp;

use crate::{
    agent::streams::ring::Piece,
    wire::{OutputStream, words::Missing},
};

#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    /// None: both streams.
    pub(super) only: Option<OutputStream>,
    pub(super) since: Option<Timestamp>,
    pub(super) timestamps: bool,
    /// In bytes.
    pub(super) limit: Option<u64>,
}

/// Whether a stream is inside a line, and whether that line was chosen.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    inside: bool,
    chosen: bool,
}

#[derive(Debug)]
pub(super) struct Lines {
    choice: Choice,
    stdout: Line,
    stderr: Line,
    written: u64,
}

impl Lines {
    pub(super) fn new(choice: Choice) -> Self {
        Self { choice, stdout: Line::default(), stderr: Line::default(), written: 0 }
    }

    pub(super) fn is_full(&self) -> bool {
        self.choice.limit.is_some_and(|limit| self.written >= limit)
    }

    /// Adds a line in place of missing output.
    pub(super) fn gap(&mut self, missing: Option<u64>, out: &mut Vec<u8>) {
        let begin = out.len();
        if [self.stdout, self.stderr].iter().any(|line| line.inside && line.chosen) {
            out.push(b'\n');
        }
        out.extend_from_slice(Missing::from(missing).notice().as_bytes());
        out.push(b'\n');
        // What comes next may be the end of a line whose beginning is missing.
        (self.stdout, self.stderr) = (Line::default(), Line::default());
        self.count(begin, out);
    }

    pub(super) fn write(&mut self, piece: &Piece, out: &mut Vec<u8>) {
        let Choice { only, since, timestamps, limit: _ } = self.choice;
        if only.is_some_and(|only| only != piece.stream) {
            return;
        }
        let begin = out.len();
        let line = match piece.stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        };
        for part in piece.bytes.split_inclusive(|byte| *byte == b'\n') {
            if !line.inside {
                line.chosen = since.is_none_or(|since| piece.at >= since);
                if line.chosen && timestamps {
                    out.extend_from_slice(format!("{:.9} ", piece.at).as_bytes());
                }
            }
            if line.chosen {
                out.extend_from_slice(part);
            }
            line.inside = !part.ends_with(b"\n");
        }
        self.count(begin, out);
    }

    /// Cuts what was added at the limit.
    fn count(&mut self, begin: usize, out: &mut Vec<u8>) {
        if let Some(limit) = self.choice.limit {
            let left = usize::try_from(limit.saturating_sub(self.written)).unwrap_or(usize::MAX);
            out.truncate(begin.saturating_add(left).min(out.len()));
        }
        self.written += (out.len() - begin) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(choice: Choice, pieces: &[(OutputStream, i64, &'static str)]) -> String {
        let mut lines = Lines::new(choice);
        let mut out = Vec::new();
        for (stream, second, text) in pieces {
            let at = Timestamp::from_second(*second).expect("a time");
            lines.write(&Piece { stream: *stream, at, bytes: text.as_bytes().into() }, &mut out);
        }
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn lines_are_chosen_and_marked_as_kubectl_logs_does() {
        use OutputStream::{Stderr, Stdout};
        let output = [(Stdout, 1, "one\ntw"), (Stderr, 2, "no\n"), (Stdout, 3, "o\nthree\n"), (Stdout, 4, "rest")];
        let rows = [
            (Choice::default(), "one\ntwno\no\nthree\nrest"),
            (Choice { only: Some(Stdout), ..Choice::default() }, "one\ntwo\nthree\nrest"),
            (Choice { only: Some(Stderr), ..Choice::default() }, "no\n"),
            // A line is as old as its beginning.
            (Choice { only: Some(Stdout), since: Timestamp::from_second(3).ok(), ..Choice::default() }, "three\nrest"),
            (
                Choice { only: Some(Stdout), timestamps: true, ..Choice::default() },
                "1970-01-01T00:00:01.000000000Z one\n1970-01-01T00:00:01.000000000Z two\n\
                 1970-01-01T00:00:03.000000000Z three\n1970-01-01T00:00:04.000000000Z rest",
            ),
            (Choice { limit: Some(6), ..Choice::default() }, "one\ntw"),
            (Choice { limit: Some(7), ..Choice::default() }, "one\ntwn"),
        ];
        for (choice, expected) in rows {
            assert_eq!(written(choice.clone(), &output), expected, "{choice:?}");
        }
    }

    #[test]
    fn what_is_missing_has_a_line_of_its_own() {
        let at = Timestamp::from_second(1).expect("a time");
        let piece = |text: &'static str| Piece { stream: OutputStream::Stdout, at, bytes: text.into() };
        let mut lines = Lines::new(Choice { timestamps: true, ..Choice::default() });
        let mut out = Vec::new();
        lines.write(&piece("half"), &mut out);
        lines.gap(Some(3), &mut out);
        lines.gap(None, &mut out);
        lines.write(&piece("way\n"), &mut out);
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "1970-01-01T00:00:01.000000000Z half\n\
             [execlet: 3 bytes of output are not kept, and are missing here]\n\
             [execlet: an unknown number of bytes of output are not kept, and are missing here]\n\
             1970-01-01T00:00:01.000000000Z way\n"
        );
    }
}
