//! View: a command's output from its beginning to its end, each byte once: first from the
//! log, then as it comes, and from the log again for whoever falls behind.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use memchr::{memchr, memrchr};
use rustix::io::{ReadWriteFlags, preadv2};
use tokio::{
    sync::{Semaphore, watch},
    task::{coop::consume_budget, spawn_blocking},
    time::timeout,
};

use super::{
    hub::{Follows, Hub, Kept, Piece, Position, Viewing, Written},
    spool::LogState,
};
use crate::wire::{OutputStream, cri};

/// Bytes read from a log at once: more than the longest record.
pub const READ_BYTES: usize = 32 * 1024;
/// And where many watch.
pub const LEAST_READ_BYTES: usize = cri::MAX_CONTENT + 1024;
const _: () = assert!(LEAST_READ_BYTES > cri::MAX_CONTENT + 128, "a record must fit");
const _: () = assert!(READ_BYTES >= LEAST_READ_BYTES);

/// How long the log may take for what is there when its last lines are asked for: many times as long as it waits for more.
const KEPT_WITHIN: Duration = Duration::from_secs(1);
/// How many of those who watch read logs at the same time: what must not wait for them, the journal above all, has the
/// other threads for its blocking calls (Tokio has 512).
const READERS: usize = 64;
/// Blocks that one who looks for the end of a log reads before others have their turn.
const BLOCKS: usize = 32;

/// Who reads logs on this node.
#[derive(Clone, Debug)]
pub struct Readers(Arc<Semaphore>);

impl Default for Readers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(READERS)))
    }
}

impl Readers {
    /// Does it on a thread that may block, when it is its turn. One that is left still counts until it is done.
    async fn read<T: Send + 'static>(&self, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        let permit = Arc::clone(&self.0).acquire_owned().await.map_err(io::Error::other)?;
        let done = spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        done.await.map_err(io::Error::other)?
    }
}

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
    readers: Readers,
    path: PathBuf,
    place: Position,
    /// The file, and how far in it the place is.
    file: Option<(Arc<File>, u64)>,
    live: bool,
    /// It has heard what the log of a command lacks that nobody hears.
    told: bool,
    /// Ends here, if it does not wait for more.
    stop: Option<u64>,
    /// About so many bytes are read at a time.
    most: usize,
}

impl View {
    /// From the beginning.
    pub fn new(hub: &Arc<Hub>, log: &Path, readers: &Readers) -> Self {
        Self {
            _viewing: hub.view(),
            changes: hub.changes(),
            hub: Arc::clone(hub),
            readers: readers.clone(),
            path: log.to_owned(),
            place: Position::START,
            file: None,
            live: false,
            told: false,
            stop: None,
            most: READ_BYTES,
        }
    }

    /// About so many bytes at a time, [`LEAST_READ_BYTES`] at least.
    pub fn by(self, bytes: usize) -> Self {
        Self { most: bytes.max(LEAST_READ_BYTES), ..self }
    }

    /// Ends with what is there now.
    pub fn until_now(mut self) -> Self {
        self.stop = Some(self.hub.now());
        self
    }

    /// From the last `lines` lines on, of one stream or of both; if it ends with what is there now, then with the last of
    /// these. May be left at any time.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn tail(mut self, lines: u64, only: Option<OutputStream>) -> io::Result<Self> {
        let kept = self.all_kept().await;
        if kept.output != u64::MAX && kept.state == LogState::Whole {
            self.stop = self.stop.map(|_| kept.output);
        }
        let Some(file) = self.open().await? else { return Ok(self) };
        let mut search = Search::new(file, kept.file, lines, only);
        let (at, output) = loop {
            let found;
            (search, found) = self.readers.read(move || search.go_on(BLOCKS)).await?;
            if let Some(found) = found {
                break found;
            }
        };
        // Of one that nobody hears the end of the file is taken for the end of what is known to be written: how much
        // came before is not counted.
        let end = if kept.output == u64::MAX { self.hub.written().bytes } else { kept.output };
        let output = end.saturating_sub(output);
        self.place = Position { output, known: (output, at) };
        Ok(self)
    }

    /// Waits until the log has what is there now, and gives what it has: lines are looked for there alone. Of a disk that
    /// is too slow for that the lines are older.
    async fn all_kept(&mut self) -> Kept {
        let now = self.hub.now();
        let waits = |kept: Kept| kept.output < now && kept.state == LogState::Whole;
        let keeping = async { while waits(self.hub.kept()) && self.changes.changed().await.is_ok() {} };
        drop(timeout(KEPT_WITHIN, keeping).await);
        self.hub.kept()
    }

    /// Whether it has seen output as it came: what it misses from now on it misses by being slow.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Waits for what comes next. May be left at any time.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn next(&mut self) -> io::Result<Sight> {
        loop {
            // What is read from the kernel's memory, or passed over, gives others no turn by itself.
            consume_budget().await;
            self.changes.borrow_and_update();
            let left = self.stop.map_or(u64::MAX, |stop| stop.saturating_sub(self.place.output));
            if left == 0 {
                return Ok(Sight::End);
            }
            match self.hub.after(self.place, self.most) {
                Follows::Pieces(pieces, place) => {
                    self.place = place;
                    self.file = None;
                    self.live = true;
                    return Ok(Sight::Pieces(cut(pieces, left)));
                }
                Follows::InFile(kept) => match self.read(kept).await? {
                    Some(pieces) if pieces.is_empty() => {}
                    Some(pieces) => return Ok(Sight::Pieces(cut(pieces, left))),
                    None if kept.output == u64::MAX => return Ok(self.behind()),
                    None => return Ok(self.skip(Position { output: kept.output, known: (kept.output, kept.file) })),
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

    /// `None` if there is none: nothing was written.
    async fn open(&self) -> io::Result<Option<Arc<File>>> {
        let path = self.path.clone();
        let opening = self.readers.read(move || match File::open(path) {
            Ok(file) => Ok(Some(Arc::new(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        });
        opening.await
    }

    fn skip(&mut self, to: Position) -> Sight {
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
            None => match self.open().await? {
                Some(file) => (file, self.place.known.1, self.place.known.0),
                None => return Ok(None),
            },
        };
        // Beyond it a write may be under way.
        let length = self.most.min(usize::try_from(kept.file.saturating_sub(at)).unwrap_or(self.most));
        if length == 0 {
            return Ok(None);
        }
        let read = if let Some(cached) = read_cached(&file, at, length) {
            cached
        } else {
            let reader = Arc::clone(&file);
            self.readers.read(move || read_at(&reader, at, length)).await?
        };
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
            self.place = Position { output, known: (output, at) };
            self.file = Some((file, at));
        } else {
            self.place.known = (output, at);
        }
        Ok(Some(pieces))
    }
}

/// Without what is beyond so many bytes.
fn cut(mut pieces: Vec<Piece>, mut most: u64) -> Vec<Piece> {
    pieces.retain_mut(|piece| {
        piece.bytes.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        most -= piece.bytes.len() as u64;
        !piece.bytes.is_empty()
    });
    pieces
}

/// As [`read_at`], if the kernel has all of it in memory: to ask another thread would take longer.
fn read_cached(file: &File, at: u64, length: usize) -> Option<Bytes> {
    let mut buffer = vec![0; length];
    let read = preadv2(file, &mut [IoSliceMut::new(&mut buffer)], at, ReadWriteFlags::NOWAIT);
    matches!(read, Ok(read) if read == length).then(|| buffer.into())
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
    while let Some(length) = memchr(b'\n', &read[at..]) {
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

/// Looks for where the last lines of a log begin, from its end on.
struct Search {
    file: Arc<File>,
    lines: u64,
    only: Option<OutputStream>,
    /// What comes from here on was looked at, but for `rest`.
    start: u64,
    rest: Vec<u8>,
    /// Output that was passed.
    output: u64,
    found: u64,
    /// No line was seen yet that counts.
    last: bool,
}

impl Search {
    /// In the first `size` bytes of a log.
    fn new(file: Arc<File>, size: u64, lines: u64, only: Option<OutputStream>) -> Self {
        Self { file, lines, only, start: size, rest: Vec::new(), output: 0, found: 0, last: true }
    }

    /// Goes on for so many blocks. Gives the place in the file, and how much output there is from there on.
    fn go_on(mut self, blocks: usize) -> io::Result<(Self, Option<(u64, u64)>)> {
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
        let length = self.start.min(READ_BYTES as u64);
        let block = read_at(&self.file, self.start - length, usize::try_from(length).unwrap_or(READ_BYTES))?;
        self.rest.splice(0..0, block.iter().copied());
        self.start -= length;
        // What is before the first line end may be the end of a record that begins further up.
        while let Some(record_start) = last_record(&self.rest, self.start == 0) {
            let record = &self.rest[record_start..];
            if let Some(record) = cri::decode(record.strip_suffix(b"\n").unwrap_or(record)) {
                let counts = self.only.is_none_or(|only| only == record.stream);
                // A last line without an end is a line too.
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

/// Where the last whole record of `bytes` begins; `whole`: they begin with a record.
fn last_record(bytes: &[u8], whole: bool) -> Option<usize> {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if body.is_empty() && bytes.is_empty() {
        return None;
    }
    memrchr(b'\n', body).map(|end| end + 1).or(whole.then_some(0))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        sync::atomic::{AtomicBool, Ordering},
    };

    use proptest::prelude::*;

    use super::*;
    use crate::agent::streams::hub::Hubs;

    const TIME: &str = "2026-01-02T03:04:05.000000006Z";

    /// Lines of both streams; a number is the length of a line, and whether it ends.
    fn log() -> impl Strategy<Value = Vec<(bool, usize, bool)>> {
        prop::collection::vec((any::<bool>(), prop_oneof![0_usize..20, 15_000_usize..20_000], any::<bool>()), 0..30)
    }

    #[tokio::test]
    async fn whoever_looks_for_the_end_of_a_long_log_leaves_room_for_others_and_may_be_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let mut text = Vec::new();
        while text.len() < 3 * BLOCKS * READ_BYTES {
            cri::encode(&mut text, OutputStream::Stdout, TIME, &[b'x'; 10_000]);
        }
        std::fs::write(&path, &text).expect("written");
        let hub = Hub::logged(text.len() as u64, Written::NOTHING);
        // One thread for all of them.
        let readers = Readers(Arc::new(Semaphore::new(1)));
        let searching = View::new(&hub, &path, &readers).tail(1, Some(OutputStream::Stderr));
        let mut searching = std::pin::pin!(searching);
        tokio::select! {
            biased;
            _ = &mut searching => panic!("it has to wait for the disk"),
            () = std::future::ready(()) => {}
        }
        let mut other = View::new(&hub, &path, &readers);
        let seen = tokio::select! {
            biased;
            seen = other.next() => seen,
            _ = &mut searching => panic!("the other one has its turn before this is at the beginning"),
        };
        assert!(matches!(seen.expect("read"), Sight::Pieces(_)));
    }

    #[tokio::test]
    async fn whoever_reads_a_long_log_from_memory_leaves_others_their_turn() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let mut text = Vec::new();
        while text.len() < 1000 * LEAST_READ_BYTES {
            cri::encode(&mut text, OutputStream::Stdout, TIME, &[b'x'; 10_000]);
        }
        std::fs::write(&path, &text).expect("written");
        let hub = Hub::logged(text.len() as u64, Written::NOTHING);
        let mut view = View::new(&hub, &path, &Readers::default()).by(0);
        // Opened.
        assert!(matches!(view.next().await.expect("read"), Sight::Pieces(_)));
        let all = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&all);
        tokio::spawn(async move {
            while matches!(view.next().await, Ok(Sight::Pieces(_))) {}
            done.store(true, Ordering::Relaxed);
        });
        let other = tokio::spawn(async move { all.load(Ordering::Relaxed) });
        assert!(!other.await.expect("a task"), "all of it was read before another task had its turn");
    }

    #[tokio::test]
    async fn the_last_lines_of_a_command_that_writes_are_as_many_as_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let hub = Hubs::default().of(&"u".into());
        let kept = |output, file| Kept { output, file, state: LogState::Whole };
        let write = |line: &'static str| {
            hub.push(Piece { stream: OutputStream::Stdout, at: Timestamp::UNIX_EPOCH, bytes: line.into() });
        };
        hub.open(0, kept(0, 0));
        ["one\n", "two\n", "three\n"].into_iter().for_each(write);
        let mut tailing = std::pin::pin!(View::new(&hub, &path, &Readers::default()).until_now().tail(1, None));
        assert!(timeout(Duration::ZERO, &mut tailing).await.is_err(), "the log has nothing yet");
        let mut log = Vec::new();
        cri::encode(&mut log, OutputStream::Stdout, TIME, b"one\ntwo\nthree\n");
        std::fs::write(&path, &log).expect("written");
        hub.keep(kept(14, log.len() as u64));
        let mut view = tailing.await.expect("read");
        write("four\n");
        let mut seen = Vec::new();
        while let Sight::Pieces(pieces) = view.next().await.expect("read") {
            seen.extend(pieces.iter().flat_map(|piece| piece.bytes.to_vec()));
        }
        assert_eq!(String::from_utf8_lossy(&seen), "three\n");
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
