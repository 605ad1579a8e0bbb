//! Where the last lines of a log begin.

use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc};

use bytes::Bytes;
use memchr::memrchr;

use crate::wire::{OutputStream, cri};

/// Bytes read from a log at once: more than the longest record.
pub(super) const BLOCK_BYTES: usize = 32 * 1024;

pub(super) struct Search {
    file: Arc<File>,
    lines: u64,
    only: Option<OutputStream>,
    /// Everything from here on was looked at, except `rest`.
    start: u64,
    rest: Vec<u8>,
    /// Bytes of output in what was looked at.
    output: u64,
    found: u64,
    /// No line that counts was seen yet.
    last: bool,
}

impl Search {
    /// In the first `size` bytes of a log.
    pub(super) fn new(file: Arc<File>, size: u64, lines: u64, only: Option<OutputStream>) -> Self {
        Self { file, lines, only, start: size, rest: Vec::new(), output: 0, found: 0, last: true }
    }

    /// Reads so many blocks. Returns where the lines begin in the file, and how much output follows, once that is found.
    pub(super) fn go_on(mut self, blocks: usize) -> io::Result<(Self, Option<(u64, u64)>)> {
        for _ in 0..blocks {
            if self.start == 0 {
                let output = self.output;
                return Ok((self, Some((0, output))));
            }
            if let Some(found) = self.block()? {
                return Ok((self, Some(found)));
            }
        }
        Ok((self, None))
    }

    fn block(&mut self) -> io::Result<Option<(u64, u64)>> {
        let length = self.start.min(BLOCK_BYTES as u64);
        let block = read_at(&self.file, self.start - length, usize::try_from(length).unwrap_or(BLOCK_BYTES))?;
        self.rest.splice(0..0, block.iter().copied());
        self.start -= length;
        // What is before the first line end may be the end of a record that begins in another block.
        while let Some(record_start) = last_record(&self.rest, self.start == 0) {
            let record = &self.rest[record_start..];
            if let Some(record) = cri::decode(record.strip_suffix(b"\n").unwrap_or(record)) {
                let counts = self.only.is_none_or(|only| only == record.stream);
                // The last line counts even if it has no end.
                if counts && (record.ends_line || self.last) {
                    if self.found == self.lines {
                        return Ok(Some((self.start + self.rest.len() as u64, self.output)));
                    }
                    self.found += 1;
                }
                self.last &= !counts;
                self.output += record.content.len() as u64 + u64::from(record.ends_line);
            }
            self.rest.truncate(record_start);
        }
        Ok(None)
    }
}

/// Where the last whole record of `bytes` begins; `whole`: the bytes begin with a record.
fn last_record(bytes: &[u8], whole: bool) -> Option<usize> {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if body.is_empty() && bytes.is_empty() {
        return None;
    }
    memrchr(b'\n', body).map(|end| end + 1).or(whole.then_some(0))
}

pub(super) fn read_at(file: &File, at: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; length];
    let mut read = 0;
    while read < length {
        match file.read_at(&mut buffer[read..], at + read as u64)? {
            0 => break,
            some => read += some,
        }
    }
    buffer.truncate(read);
    Ok(buffer.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    const TIME: &str = "2026-01-02T03:04:05.000000006Z";

    /// Lines of both streams; a number is the length of a line, and whether it ends.
    fn log() -> impl Strategy<Value = Vec<(bool, usize, bool)>> {
        prop::collection::vec((any::<bool>(), prop_oneof![0_usize..20, 15_000_usize..20_000], any::<bool>()), 0..30)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn the_last_lines_are_those_that_reading_everything_gives(log in log(), lines in 0_u64..12, only in prop::option::of(any::<bool>())) {
            let stream = |stderr| if stderr { OutputStream::Stderr } else { OutputStream::Stdout };
            let only = only.map(stream);
            let mut text = Vec::new();
            for (stderr, length, ends) in &log {
                let mut chunk = vec![b'x'; *length];
                chunk.extend(ends.then_some(b'\n'));
                cri::encode(&mut text, stream(*stderr), TIME, &chunk);
            }
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(&text).expect("written");
            let size = text.len() as u64;
            let mut search = Search::new(Arc::new(file), size, lines, only);
            let (at, output) = loop {
                let found;
                (search, found) = search.go_on(1).expect("read");
                if let Some(found) = found {
                    break found;
                }
            };
            let records: Vec<(usize, &[u8])> = text
                .split_inclusive(|byte| *byte == b'\n')
                .scan(0, |place, line| Some((std::mem::replace(place, *place + line.len()), &line[..line.len() - 1])))
                .collect();
            let chosen = |record: &cri::Record<'_>| only.is_none_or(|only| only == record.stream);
            // Where the line before the last `lines` ends, counted from the front.
            let ends: Vec<usize> = records
                .iter()
                .filter_map(|(place, line)| cri::decode(line).filter(|r| chosen(r) && r.ends_line).map(|_| place + line.len() + 1))
                .collect();
            let open = records.iter().rev().filter_map(|(_, line)| cri::decode(line)).find(chosen).is_some_and(|r| !r.ends_line);
            let whole = lines.saturating_sub(u64::from(open));
            let expected = if lines == 0 {
                // Nothing of what is there: at the end of the last of its records, or further on.
                records.iter().filter(|(_, line)| cri::decode(line).is_some_and(|r| chosen(&r))).map(|(place, line)| place + line.len() + 1).max().unwrap_or(0)
            } else {
                (ends.len() as u64).checked_sub(whole + 1).and_then(|index| usize::try_from(index).ok()).map_or(0, |index| ends[index])
            };
            prop_assert_eq!(at, expected as u64);
            let rest: u64 = records.iter().filter(|(place, _)| *place as u64 >= at).filter_map(|(_, line)| cri::decode(line)).map(|r| r.content.len() as u64 + u64::from(r.ends_line)).sum();
            prop_assert_eq!(output, rest);
        }
    }
}
