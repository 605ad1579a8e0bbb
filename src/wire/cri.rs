//! The CRI log format, as the kubelet and every log collector read it:
//! `TIMESTAMP STREAM TAG CONTENT\n`.
//!
//! Tag `F` ends a line; tag `P` is part of one, to be continued. Written as here,
//! the format is lossless: the contents of a stream's records, with a newline
//! after each `F`, are the stream.

use memchr::memchr;

use super::OutputStream;

/// Longest content of one record, in bytes; longer lines are split, as container runtimes do.
pub const MAX_CONTENT: usize = 16 * 1024;

/// Appends the records of one chunk to `out`. `timestamp` is RFC 3339 with nanoseconds.
pub fn encode(out: &mut Vec<u8>, stream: OutputStream, timestamp: &str, chunk: &[u8]) {
    let mut left = chunk;
    while !left.is_empty() {
        let (content, ends) = match memchr(b'\n', left) {
            Some(end) => (&left[..end], true),
            None => (left, false),
        };
        left = &left[content.len() + usize::from(ends)..];
        let mut rest = content;
        while rest.len() > MAX_CONTENT {
            let (part, after) = rest.split_at(MAX_CONTENT);
            record(out, stream, timestamp, b'P', part);
            rest = after;
        }
        record(out, stream, timestamp, if ends { b'F' } else { b'P' }, rest);
    }
}

fn record(out: &mut Vec<u8>, stream: OutputStream, timestamp: &str, tag: u8, content: &[u8]) {
    out.extend_from_slice(timestamp.as_bytes());
    out.push(b' ');
    out.extend_from_slice(stream.as_str().as_bytes());
    out.extend_from_slice(&[b' ', tag, b' ']);
    out.extend_from_slice(content);
    out.push(b'\n');
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub timestamp: &'a str,
    pub stream: OutputStream,
    pub ends_line: bool,
    /// Without the newline.
    pub content: &'a [u8],
}

/// Reads one line of a log, without its newline. `None` if it is not a record.
pub fn decode(line: &[u8]) -> Option<Record<'_>> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let timestamp = std::str::from_utf8(fields.next()?).ok()?;
    let stream = match fields.next()? {
        b"stdout" => OutputStream::Stdout,
        b"stderr" => OutputStream::Stderr,
        _ => return None,
    };
    let ends_line = match fields.next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Record { timestamp, stream, ends_line, content: fields.next()? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIME: &str = "2026-01-02T03:04:05.000000006Z";

    fn encoded(chunk: &[u8]) -> String {
        let mut out = Vec::new();
        encode(&mut out, OutputStream::Stdout, TIME, chunk);
        String::from_utf8_lossy(&out).replace(TIME, "T")
    }

    #[test]
    fn lines_are_full_and_a_rest_is_partial() {
        assert_eq!(encoded(b"one\ntwo"), "T stdout F one\nT stdout P two\n");
        assert_eq!(encoded(b"\n"), "T stdout F \n");
        assert_eq!(encoded(b""), "");
    }

    #[test]
    fn a_long_line_is_split() {
        let out = encoded(&[b'x'; MAX_CONTENT + 1]);
        let lengths: Vec<usize> = out.lines().map(str::len).collect();
        assert_eq!(lengths, [MAX_CONTENT + "T stdout P ".len(), 1 + "T stdout P ".len()]);
    }

    #[test]
    fn what_is_no_record_is_not_read_as_one() {
        for line in [&b""[..], b"T", b"T stdin F x", b"T stdout X x", b"T stdout F"] {
            assert_eq!(decode(line), None, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn no_byte_is_lost(chunks in prop::collection::vec((any::<bool>(), prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200)), 0..20)) {
            let mut log = Vec::new();
            let mut sent = [Vec::new(), Vec::new()];
            for (to_stderr, chunk) in &chunks {
                let stream = if *to_stderr { OutputStream::Stderr } else { OutputStream::Stdout };
                sent[usize::from(*to_stderr)].extend_from_slice(chunk);
                encode(&mut log, stream, TIME, chunk);
            }
            let mut received = [Vec::new(), Vec::new()];
            for line in log.split_inclusive(|byte| *byte == b'\n') {
                let record = decode(&line[..line.len() - 1]);
                prop_assert!(record.is_some());
                if let Some(record) = record {
                    let into = &mut received[usize::from(record.stream == OutputStream::Stderr)];
                    into.extend_from_slice(record.content);
                    if record.ends_line {
                        into.push(b'\n');
                    }
                }
            }
            prop_assert_eq!(sent, received);
        }
    }
}
