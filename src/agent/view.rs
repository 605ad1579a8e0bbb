//! View: a command's output from its beginning to its end, each byte once: first from the
//! log, then as it comes, and from the log again for whoever falls behind.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use tokio::{sync::watch, task::spawn_blocking};

use super::hub::{Follows, Hub, Kept, Piece, Place, Viewing, Written};
use crate::wire::{OutputStream, cri};

/// Bytes read from a log at once: more than the longest record.
pub const READ_BYTES: usize = 32 * 1024;
const _: () = assert!(READ_BYTES > cri::MAX_CONTENT + 128, "a record must fit");

/// What a viewer sees next.
#[derive(Debug, PartialEq, Eq)]
pub enum Sight {
    /// Output.
    Pieces(Vec<Piece>),
    /// Output is missing here: so many bytes are kept nowhere, or nobody knows how many.
    Gap(Option<u64>),
    /// There will be no more.
    End,
}

/// One viewer's way through the output. Costs no memory while it waits.
#[derive(Debug)]
pub struct View {
    hub: Arc<Hub>,
    _viewing: Viewing,
    changes: watch::Receiver<()>,
    path: PathBuf,
    place: Place,
    /// The file, and how far in it the place is.
    file: Option<(Arc<File>, u64)>,
    live: bool,
    /// It has heard what the log of a command lacks that nobody hears.
    told: bool,
    /// Ends here, if it does not wait for more.
    stop: Option<u64>,
}

impl View {
    /// From the beginning.
    #[must_use]
    pub fn new(hub: &Arc<Hub>, log: &Path) -> Self {
        Self {
            _viewing: hub.view(),
            changes: hub.changes(),
            hub: Arc::clone(hub),
            path: log.to_owned(),
            place: Place::START,
            file: None,
            live: false,
            told: false,
            stop: None,
        }
    }

    /// Ends with what is there now.
    #[must_use]
    pub fn until_now(mut self) -> Self {
        self.stop = Some(self.hub.now());
        self
    }

    /// From the last `lines` lines on, of one stream or of both.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn tail(mut self, lines: u64, only: Option<OutputStream>) -> io::Result<Self> {
        let kept = self.hub.kept();
        let Some(file) = open(&self.path).await? else { return Ok(self) };
        let (at, output) =
            spawn_blocking(move || last_lines(&file, kept.file, lines, only)).await.map_err(io::Error::other)??;
        // Of one that nobody hears the end of the file is taken for the end of what is known to be written: how much
        // came before is not counted.
        let end = if kept.output == u64::MAX { self.hub.written().bytes } else { kept.output };
        let output = end.saturating_sub(output);
        self.place = Place { output, known: (output, at) };
        Ok(self)
    }

    /// Whether it has seen output as it came: what it misses from now on it misses by being slow.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Waits for what comes next. May be left at any time.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn next(&mut self) -> io::Result<Sight> {
        loop {
            self.changes.borrow_and_update();
            if self.stop.is_some_and(|stop| self.place.output >= stop) {
                return Ok(Sight::End);
            }
            match self.hub.after(self.place, READ_BYTES) {
                Follows::Pieces(pieces, place) => {
                    self.place = place;
                    self.file = None;
                    self.live = true;
                    return Ok(Sight::Pieces(pieces));
                }
                Follows::InFile(kept) => match self.read(kept).await? {
                    Some(pieces) if pieces.is_empty() => {}
                    Some(pieces) => return Ok(Sight::Pieces(pieces)),
                    None if kept.output == u64::MAX => return Ok(self.behind()),
                    None => return Ok(self.skip(Place { output: kept.output, known: (kept.output, kept.file) })),
                },
                Follows::Gone(place) => return Ok(self.skip(place)),
                Follows::NotYet => {
                    if self.stop.is_some() || self.changes.changed().await.is_err() {
                        return Ok(Sight::End);
                    }
                }
                Follows::End => return Ok(Sight::End),
            }
        }
    }

    fn skip(&mut self, to: Place) -> Sight {
        let missing = to.output.saturating_sub(self.place.output);
        self.place = to;
        self.file = None;
        Sight::Gap(Some(missing))
    }

    /// At the end of a log that nobody adds to: what it lacks, once.
    fn behind(&mut self) -> Sight {
        let Written { bytes, whole } = self.hub.written();
        match bytes.saturating_sub(self.place.output) {
            _ if std::mem::replace(&mut self.told, true) => Sight::End,
            0 if whole => Sight::End,
            0 => Sight::Gap(None),
            missing => Sight::Gap(Some(missing)),
        }
    }

    /// Reads on in the file; `None` at its end.
    async fn read(&mut self, kept: Kept) -> io::Result<Option<Vec<Piece>>> {
        let (file, mut at, mut output) = match &self.file {
            Some((file, at)) => (Arc::clone(file), *at, self.place.output),
            None => match open(&self.path).await? {
                Some(file) => (file, self.place.known.1, self.place.known.0),
                None => return Ok(None),
            },
        };
        // Beyond it a write may be under way.
        let length = READ_BYTES.min(usize::try_from(kept.file.saturating_sub(at)).unwrap_or(READ_BYTES));
        if length == 0 {
            return Ok(None);
        }
        let reader = Arc::clone(&file);
        let read = spawn_blocking(move || read_at(&reader, at, length)).await.map_err(io::Error::other)??;
        let (records, length) = parse(&read);
        if length == 0 {
            return Ok(None);
        }
        at += length as u64;
        let mut pieces = Vec::with_capacity(records.len());
        for mut piece in records {
            let end = output + piece.bytes.len() as u64;
            // What comes before the place was read already.
            let known = usize::try_from(self.place.output.saturating_sub(output)).unwrap_or(usize::MAX);
            output = end;
            if known < piece.bytes.len() {
                piece.bytes = piece.bytes.split_off(known);
                pieces.push(piece);
            }
        }
        if output >= self.place.output {
            self.place = Place { output, known: (output, at) };
            self.file = Some((file, at));
        } else {
            self.place.known = (output, at);
        }
        Ok(Some(pieces))
    }
}

/// `None` if there is none: nothing was written.
async fn open(path: &Path) -> io::Result<Option<Arc<File>>> {
    let path = path.to_owned();
    match spawn_blocking(move || File::open(path)).await.map_err(io::Error::other)? {
        Ok(file) => Ok(Some(Arc::new(file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_at(file: &File, at: u64, length: usize) -> io::Result<Bytes> {
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

/// The records that are whole, and how many bytes they take.
fn parse(read: &Bytes) -> (Vec<Piece>, usize) {
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(length) = read[at..].iter().position(|byte| *byte == b'\n') {
        let end = at + length;
        if let Some(record) = cri::decode(&read[at..end]) {
            // The newline of the line is that of its last record.
            let begin = end - record.content.len();
            let bytes = read.slice(begin..end + usize::from(record.ends_line));
            let at = record.timestamp.parse().unwrap_or(Timestamp::UNIX_EPOCH);
            pieces.push(Piece { stream: record.stream, at, bytes });
        }
        at = end + 1;
    }
    (pieces, at)
}

/// Where in the first `size` bytes of a log its last lines begin, and how much output there is from there on.
fn last_lines(file: &File, size: u64, lines: u64, only: Option<OutputStream>) -> io::Result<(u64, u64)> {
    let (mut start, mut output, mut found) = (size, 0, 0);
    let mut rest: Vec<u8> = Vec::new();
    let mut last = true;
    while start > 0 {
        let length = start.min(READ_BYTES as u64);
        let block = read_at(file, start - length, usize::try_from(length).unwrap_or(READ_BYTES))?;
        rest.splice(0..0, block.iter().copied());
        start -= length;
        // What is before the first line end may be the end of a record that begins further up.
        while let Some(record_start) = last_record(&rest, start == 0) {
            let line = rest[record_start..].strip_suffix(b"\n").unwrap_or(&rest[record_start..]);
            if let Some(record) = cri::decode(line) {
                let counts = only.is_none_or(|only| only == record.stream);
                // A last line without an end is a line too.
                if counts && (record.ends_line || last) {
                    if found == lines {
                        return Ok((start + rest.len() as u64, output));
                    }
                    found += 1;
                }
                last &= !counts;
                output += record.content.len() as u64 + u64::from(record.ends_line);
            }
            rest.truncate(record_start);
        }
    }
    Ok((0, output))
}

/// Where the last whole record of `bytes` begins; `whole`: they begin with a record.
fn last_record(bytes: &[u8], whole: bool) -> Option<usize> {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if body.is_empty() && bytes.is_empty() {
        return None;
    }
    body.iter().rposition(|byte| *byte == b'\n').map(|end| end + 1).or(whole.then_some(0))
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
            let (at, output) = last_lines(&file, size, lines, only).expect("read");
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
