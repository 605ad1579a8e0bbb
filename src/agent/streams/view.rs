//! View: a command's output from its beginning to its end, each byte once: from the log first, then from the hub as it
//! comes, and from the log again for a viewer that falls behind.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use memchr::memchr;
use rustix::io::{ReadWriteFlags, preadv2};
use tokio::{sync::watch, task::coop::consume_budget, time::timeout};

use super::{
    hub::{Hub, Viewing},
    ring::{Follows, Kept, Piece, ViewPosition, Written},
    tail::{Search, read_at},
    turns::Readers,
};
use crate::{
    core::output::LogState,
    wire::{OutputStream, cri},
};

/// Bytes read from a log at once: more than the longest record.
const READ_BYTES: usize = 32 * 1024;
/// The same where there are many viewers.
pub const LEAST_READ_BYTES: usize = cri::MAX_CONTENT + 1024;
const _: () = assert!(LEAST_READ_BYTES > cri::MAX_CONTENT + 128, "a record must fit");
const _: () = assert!(READ_BYTES >= LEAST_READ_BYTES);

/// How long the log may take to catch up when its last lines are asked for: many times as long as it waits for more.
const KEPT_WITHIN: Duration = Duration::from_secs(1);
/// Blocks that a search reads before others have their turn.
const BLOCKS: usize = 32;

#[derive(Debug, PartialEq, Eq)]
pub enum Sight {
    Pieces(Vec<Piece>),
    /// Output is missing here: so many bytes are kept nowhere; `None`: an unknown number.
    Gap(Option<u64>),
    /// All output from before the viewer came was seen: told once, to those who [ask](View::telling_now).
    Now,
    End,
}

/// Where the output ends that was there before a viewer came.
#[derive(Clone, Copy, Debug)]
enum Past {
    Until(u64),
    /// Where it begins to be received, which it has not yet.
    Begun,
}

/// One viewer's way through the output. Takes no memory while it waits.
#[derive(Debug)]
pub struct View {
    hub: Arc<Hub>,
    _viewing: Viewing,
    changes: watch::Receiver<()>,
    readers: Readers,
    path: PathBuf,
    position: ViewPosition,
    /// The file, and where in it the position is.
    file: Option<(Arc<File>, u64)>,
    live: bool,
    /// It was told what is missing at the end of a log that is all there is.
    told: bool,
    /// Where it ends, if it does not wait for more.
    stop: Option<u64>,
    /// Where the output from before it came ends, as long as that is to be told.
    past: Option<Past>,
    /// It waits until what it shows keeps its order, whatever happens to the agent.
    settled: bool,
    /// About how many bytes are read at a time.
    most: usize,
}

impl View {
    pub fn new(hub: &Arc<Hub>, log: &Path, readers: &Readers) -> Self {
        Self {
            _viewing: hub.view(),
            changes: hub.changes(),
            hub: Arc::clone(hub),
            readers: readers.clone(),
            path: log.to_owned(),
            position: ViewPosition::START,
            file: None,
            live: false,
            told: false,
            stop: None,
            past: None,
            settled: false,
            most: READ_BYTES,
        }
    }

    /// Reads about so many bytes at a time, [`LEAST_READ_BYTES`] at least.
    pub fn by(self, bytes: usize) -> Self {
        Self { most: bytes.max(LEAST_READ_BYTES), ..self }
    }

    /// Tells where the output that is there now ends.
    pub fn telling_now(mut self) -> Self {
        self.past = Some(if self.hub.is_waiting() { Past::Begun } else { Past::Until(self.hub.now()) });
        self
    }

    fn has_seen_past(&self) -> bool {
        self.past.is_some_and(|past| match past {
            Past::Until(end) => self.position.output >= end,
            Past::Begun => self.position.output >= self.hub.begun(),
        })
    }

    /// Ends with what is there now.
    pub fn until_now(mut self) -> Self {
        self.stop = Some(self.hub.now());
        self
    }

    /// Shows output once an agent that goes on after a crash would show it in the same order: for those who count both
    /// streams as one when they come again.
    pub fn settled(self) -> Self {
        Self { settled: true, ..self }
    }

    /// Begins at the last `lines` lines, of one stream or of both. If it ends with what is there now, it ends with these.
    /// Cancel-safe.
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
        // Where the log is all there is, its end is taken for the end of what is known to be written: the output before
        // it is not counted.
        let end = if kept.output == u64::MAX { self.hub.written().bytes } else { kept.output };
        let output = end.saturating_sub(output);
        self.position = ViewPosition { output, known: (output, at) };
        Ok(self)
    }

    /// Waits until the log has what is there now, and returns what it has: lines are looked for in the log alone. If the
    /// disk is too slow, the lines are older.
    async fn all_kept(&mut self) -> Kept {
        let now = self.hub.now();
        let waits = |kept: Kept| kept.output < now && kept.state == LogState::Whole;
        let keeping = async { while waits(self.hub.kept()) && self.changes.changed().await.is_ok() {} };
        drop(timeout(KEPT_WITHIN, keeping).await);
        self.hub.kept()
    }

    /// Whether it has seen output as it came: what it misses from now on, it misses by being slow.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Waits for what comes next. Cancel-safe.
    pub async fn next(&mut self) -> io::Result<Sight> {
        loop {
            // Reads from the page cache never wait: others would get no turn.
            consume_budget().await;
            self.changes.borrow_and_update();
            if self.has_seen_past() {
                self.past = None;
                return Ok(Sight::Now);
            }
            let from = self.position;
            if self.stop.is_some_and(|stop| from.output >= stop) {
                return Ok(Sight::End);
            }
            let settled = if self.settled { self.hub.settled() } else { u64::MAX };
            if from.output >= settled && !self.hub.has_moved() {
                if self.changes.changed().await.is_err() {
                    return Ok(Sight::End);
                }
                continue;
            }
            let end = self.stop.unwrap_or(u64::MAX).min(settled);
            match self.hub.after(self.position, self.most) {
                Follows::Pieces(pieces, position) => {
                    self.position = position;
                    self.file = None;
                    self.live = true;
                    return Ok(self.up_to(end, from, pieces));
                }
                Follows::InFile(kept) => match self.read(kept).await? {
                    Some(pieces) if pieces.is_empty() => {}
                    Some(pieces) => return Ok(self.up_to(end, from, pieces)),
                    None if kept.output == u64::MAX => return Ok(self.behind()),
                    None => return Ok(self.skip(ViewPosition { output: kept.output, known: (kept.output, kept.file) })),
                },
                Follows::Gone(position) => return Ok(self.skip(position)),
                Follows::NotYet => {
                    if self.stop.is_some() || self.changes.changed().await.is_err() {
                        return Ok(Sight::End);
                    }
                }
                Follows::End => return Ok(Sight::End),
            }
        }
    }

    /// `None` if there is no file: nothing was written.
    async fn open(&self) -> io::Result<Option<Arc<File>>> {
        let path = self.path.clone();
        let opening = self.readers.read(move || match File::open(path) {
            Ok(file) => Ok(Some(Arc::new(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        });
        opening.await
    }

    /// Of these pieces, from a position on, those before the end.
    fn up_to(&mut self, end: u64, from: ViewPosition, pieces: Vec<Piece>) -> Sight {
        if self.position.output > end {
            self.position = ViewPosition { output: end, known: from.known };
            self.file = None;
        }
        Sight::Pieces(cut(pieces, end.saturating_sub(from.output)))
    }

    fn skip(&mut self, to: ViewPosition) -> Sight {
        let missing = to.output.saturating_sub(self.position.output);
        self.position = to;
        self.file = None;
        Sight::Gap(Some(missing))
    }

    /// At the end of a log that is all there is: tells once what is missing.
    fn behind(&mut self) -> Sight {
        let Written { bytes, whole } = self.hub.written();
        match bytes.saturating_sub(self.position.output) {
            _ if std::mem::replace(&mut self.told, true) => Sight::End,
            0 if whole => Sight::End,
            0 => Sight::Gap(None),
            missing => Sight::Gap(Some(missing)),
        }
    }

    /// Reads on in the file; `None` at its end.
    async fn read(&mut self, kept: Kept) -> io::Result<Option<Vec<Piece>>> {
        let (file, mut at, mut output) = match &self.file {
            Some((file, at)) => (Arc::clone(file), *at, self.position.output),
            None => match self.open().await? {
                Some(file) => (file, self.position.known.1, self.position.known.0),
                None => return Ok(None),
            },
        };
        // Beyond that, a write may be under way.
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
            // What comes before the position was read already.
            let known = usize::try_from(self.position.output.saturating_sub(output)).unwrap_or(usize::MAX);
            output = end;
            if known < piece.bytes.len() {
                piece.bytes = piece.bytes.split_off(known);
                pieces.push(piece);
            }
        }
        if output >= self.position.output {
            self.position = ViewPosition { output, known: (output, at) };
            self.file = Some((file, at));
        } else {
            self.position.known = (output, at);
        }
        Ok(Some(pieces))
    }
}

/// The first `most` bytes.
fn cut(mut pieces: Vec<Piece>, mut most: u64) -> Vec<Piece> {
    pieces.retain_mut(|piece| {
        piece.bytes.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        most -= piece.bytes.len() as u64;
        !piece.bytes.is_empty()
    });
    pieces
}

/// As [`read_at`], if all of it is in the page cache: another thread would take longer.
fn read_cached(file: &File, at: u64, length: usize) -> Option<Bytes> {
    let mut buffer = vec![0; length];
    let read = preadv2(file, &mut [IoSliceMut::new(&mut buffer)], at, ReadWriteFlags::NOWAIT);
    matches!(read, Ok(read) if read == length).then(|| buffer.into())
}

/// The records that are whole, and how many bytes they take.
fn parse(read: &Bytes) -> (Vec<Piece>, usize) {
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(length) = memchr(b'\n', &read[at..]) {
        let end = at + length;
        if let Some(record) = cri::decode(&read[at..end]) {
            // The newline of a line is that of its last record.
            let begin = end - record.content.len();
            let bytes = read.slice(begin..end + usize::from(record.ends_line));
            let at = record.timestamp.parse().unwrap_or(Timestamp::UNIX_EPOCH);
            pieces.push(Piece { stream: record.stream, at, bytes });
        }
        at = end + 1;
    }
    (pieces, at)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::{agent::streams::hub::Hubs, api::ExecResult};

    const TIME: &str = "2026-01-02T03:04:05.000000006Z";

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
        let readers = Readers::new(1);
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

    /// It shows this, and then nothing for a while, or its end.
    async fn shows(view: &mut View, expected: &str, ends: bool) {
        let mut text = Vec::new();
        while text.len() < expected.len() {
            match timeout(KEPT_WITHIN * 10, view.next()).await.expect("in time").expect("read") {
                Sight::Pieces(pieces) => text.extend(pieces.iter().flat_map(|piece| piece.bytes.to_vec())),
                other => panic!("{other:?} after {text:?}"),
            }
        }
        assert_eq!(String::from_utf8_lossy(&text), expected);
        let next = timeout(Duration::from_millis(50), view.next()).await;
        assert_eq!(next.ok().map(|next| next.expect("read")), ends.then_some(Sight::End), "after {expected:?}");
    }

    #[tokio::test]
    async fn output_that_the_next_agent_could_receive_in_another_order_is_waited_with() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let mut log = Vec::new();
        cri::encode(&mut log, OutputStream::Stdout, TIME, b"one\ntwo\n");
        std::fs::write(&path, &log).expect("written");
        let kept = |output, file| Kept { output, file, state: LogState::Whole };
        let piece =
            |text: &'static str| Piece { stream: OutputStream::Stdout, at: Timestamp::UNIX_EPOCH, bytes: text.into() };
        for in_file in [true, false] {
            let hub = Hubs::default().of(&"u".into());
            if in_file {
                hub.open(8, kept(8, log.len() as u64));
                hub.note(2);
            } else {
                hub.open(0, kept(0, 0));
                hub.note(2);
                hub.push(piece("one\ntwo\n"));
            }
            let readers = Readers::default();
            let mut views = [false, true].map(|settled| {
                let view = View::new(&hub, &path, &readers);
                if settled { view.settled() } else { view }
            });
            shows(&mut views[0], "one\ntwo\n", false).await;
            let settled = &mut views[1];
            shows(settled, "on", false).await;
            hub.note(8);
            hub.push(piece("three\n"));
            shows(settled, "e\ntwo\n", false).await;
            hub.close();
            // An agent that is killed now has not told the end.
            shows(settled, "", false).await;
            hub.conclude(ExecResult::default());
            shows(settled, "three\n", true).await;
        }
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
}
