//! The full output of each request on the node, in the CRI log format:
//! `<log folder>/<namespace>_<name>_<uid>/output.log`.
//!
//! Bounded twice: by each request's own limit, and by a limit for all of them,
//! under which the folders that finished first go first.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;

use crate::{
    api::OutputLimits,
    core::{
        ids::{RequestKey, RequestUid},
        output::LogState,
    },
    wire::{OutputStream, cri},
};

pub const LOG_FILE: &str = "output.log";
/// Most characters of a request's name in its folder's name: a file name has at most 255 bytes.
const NAME_LIMIT: usize = 128;
/// Output is for root and its group, as the logs of containers are.
const FOLDER_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;
/// Most folders of finished requests that are kept: small ones take more inodes than bytes.
const MAX_FOLDERS: usize = 20_000;

#[derive(Clone)]
pub struct Spool {
    root: Arc<PathBuf>,
    books: Arc<Mutex<Books>>,
    gauge: Gauge,
}

/// How much of the limit each folder takes.
#[derive(Debug)]
struct Books {
    limit: u64,
    used: u64,
    open: HashMap<PathBuf, u64>,
    /// Oldest first; the number tells equal times apart.
    finished: BTreeMap<(SystemTime, u64), (PathBuf, u64)>,
    count: u64,
}

impl Spool {
    /// Opens the folder of logs. `unfinished` are the requests whose folders must stay.
    pub fn open(root: &Path, limit: u64, unfinished: &HashSet<RequestUid>, gauge: Gauge) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let mut books = Books { limit, used: 0, open: HashMap::new(), finished: BTreeMap::new(), count: 0 };
        for folder in fs::read_dir(root)? {
            let folder = folder?.path();
            let Ok(log) = fs::metadata(folder.join(LOG_FILE)) else { continue };
            books.used += log.len();
            books.open.insert(folder.clone(), log.len());
            let uid = folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.rsplit('_').next());
            if uid.is_none_or(|uid| !unfinished.contains(&uid.into())) {
                books.finish(&folder, log.modified().unwrap_or(SystemTime::UNIX_EPOCH));
            }
        }
        gauge.set(i64::try_from(books.used).unwrap_or(i64::MAX));
        Ok(Self { root: Arc::new(root.to_owned()), books: Arc::new(Mutex::new(books)), gauge })
    }

    pub fn log_path(&self, request: &RequestKey) -> PathBuf {
        self.folder(request).join(LOG_FILE)
    }

    fn folder(&self, request: &RequestKey) -> PathBuf {
        let name: String = request.name.chars().take(NAME_LIMIT).collect();
        self.root.join(format!("{}_{name}_{}", request.namespace, request.uid))
    }

    /// A log of at most `limits.spool_bytes` bytes. Another agent may have begun it: `state` is what became of it there.
    pub fn create(&self, request: &RequestKey, limits: &OutputLimits, state: LogState) -> Log {
        let folder = self.folder(request);
        let used = *self.books.lock().open.entry(folder.clone()).or_insert(0);
        let room = u64::try_from(limits.spool_bytes).unwrap_or(0).saturating_sub(used);
        let state = if room == 0 && state == LogState::Whole { LogState::Limited } else { state };
        Log { spool: self.clone(), folder, file: None, buffer: Vec::new(), room, state, size: used, output: 0 }
    }

    /// Cuts the log of a request back to so many bytes: what came after them comes again. Whether it has no more.
    pub fn cut_back(&self, request: &RequestKey, bytes: u64) -> bool {
        let folder = self.folder(request);
        let size = self.size(request);
        if size <= bytes {
            return true;
        }
        let log = OpenOptions::new().write(true).open(folder.join(LOG_FILE));
        match log.and_then(|log| log.set_len(bytes)) {
            Ok(()) => {
                let mut books = self.books.lock();
                books.used = books.used.saturating_sub(size - bytes);
                books.open.insert(folder, bytes);
                self.gauge.set(i64::try_from(books.used).unwrap_or(i64::MAX));
                true
            }
            Err(error) => {
                tracing::error!(folder = %folder.display(), %error, "the log could not be cut back, and is not continued");
                false
            }
        }
    }

    /// Bytes of the log of a request; 0 if there is none.
    pub fn size(&self, request: &RequestKey) -> u64 {
        fs::metadata(self.log_path(request)).map_or(0, |log| log.len())
    }

    /// The request has ended: its folder may go when room is needed.
    pub fn finish(&self, request: &RequestKey, at: SystemTime) {
        let folder = self.folder(request);
        self.books.lock().finish(&folder, at);
    }

    /// Reserves so many bytes, removing old folders if need be.
    fn take(&self, folder: &Path, bytes: u64) -> bool {
        let mut old_folders = Vec::new();
        let taken = {
            let mut books = self.books.lock();
            let taken = books.take(folder, bytes, &mut old_folders);
            self.gauge.set(i64::try_from(books.used).unwrap_or(i64::MAX));
            taken
        };
        for old in old_folders {
            tracing::info!(folder = %old.display(), "removed an old log to make room");
            if let Err(error) = fs::remove_dir_all(&old) {
                tracing::warn!(folder = %old.display(), %error, "an old log could not be removed");
            }
        }
        taken
    }
}

impl Books {
    fn take(&mut self, folder: &Path, bytes: u64, gone: &mut Vec<PathBuf>) -> bool {
        while self.used + bytes > self.limit || self.finished.len() > MAX_FOLDERS {
            let Some((_, (old, size))) = self.finished.pop_first() else { return false };
            self.used = self.used.saturating_sub(size);
            gone.push(old);
        }
        self.used += bytes;
        *self.open.entry(folder.to_owned()).or_insert(0) += bytes;
        true
    }

    fn finish(&mut self, folder: &Path, at: SystemTime) {
        match self.open.remove(folder) {
            // Nothing was written, so there is no folder.
            None | Some(0) => {}
            Some(size) => {
                self.count += 1;
                self.finished.insert((at, self.count), (folder.to_owned(), size));
            }
        }
    }
}

/// The log of one request. Its calls block on the disk and never fail: a log that takes no more says so.
pub struct Log {
    spool: Spool,
    folder: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
    room: u64,
    state: LogState,
    /// Bytes of the file, and of the output that went into it and into the buffer.
    size: u64,
    output: u64,
}

impl Log {
    /// Adds output, which goes into the file with the next [`Log::flush`].
    pub fn append(&mut self, stream: OutputStream, at: Timestamp, chunk: &[u8]) {
        if self.state != LogState::Whole {
            return;
        }
        let before = self.buffer.len();
        cri::encode(&mut self.buffer, stream, &format!("{at:.9}"), chunk);
        let mut fits = whole_records(&self.buffer[before..], self.room);
        if !self.spool.take(&self.folder, fits as u64) {
            fits = 0;
        }
        self.room -= fits as u64;
        if fits < self.buffer.len() - before {
            self.buffer.truncate(before + fits);
            self.state = LogState::Limited;
            self.output += output_of(&self.buffer[before..]);
        } else {
            self.output += chunk.len() as u64;
        }
    }

    pub fn state(&self) -> LogState {
        self.state
    }

    /// Bytes of output, and the bytes that they take in the file, once it is flushed.
    pub fn extent(&self) -> (u64, u64) {
        (self.output, self.size)
    }

    pub fn waiting(&self) -> usize {
        self.buffer.len()
    }

    pub fn flush(&mut self) {
        let before = self.size;
        if let Err(error) = self.try_flush() {
            tracing::error!(folder = %self.folder.display(), %error, "output cannot be written to its log");
            self.state = LogState::Failed;
            self.size = before;
        }
        self.buffer.clear();
        // Many commands are idle: their buffers would be most of the agent's memory.
        self.buffer.shrink_to(0);
    }

    fn try_flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() || self.state == LogState::Failed {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&self.folder)?;
                let path = self.folder.join(LOG_FILE);
                none.insert(OpenOptions::new().create(true).append(true).mode(FILE_MODE).open(path)?)
            }
        };
        file.write_all(&self.buffer)?;
        self.size += self.buffer.len() as u64;
        Ok(())
    }
}

/// How many bytes of output these records hold.
fn output_of(records: &[u8]) -> u64 {
    let lines = records.split_inclusive(|byte| *byte == b'\n');
    let records = lines.filter_map(|line| line.strip_suffix(b"\n").and_then(cri::decode));
    records.map(|record| record.content.len() as u64 + u64::from(record.ends_line)).sum()
}

/// Length of the longest beginning of `records` that is at most `room` bytes and ends with a record.
fn whole_records(records: &[u8], room: u64) -> usize {
    match usize::try_from(room) {
        Ok(room) if room < records.len() => {
            records[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
        }
        Ok(_) | Err(_) => records.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "1970-01-01T00:00:01.000000000Z";
    const AT: Timestamp = Timestamp::constant(1, 0);

    fn key(name: &str) -> RequestKey {
        RequestKey { namespace: "shop".into(), name: name.into(), uid: format!("uid-{name}").into() }
    }

    fn limit(spool_bytes: i64) -> OutputLimits {
        OutputLimits { spool_bytes, ..OutputLimits::default() }
    }

    fn open(root: &Path, limit: u64, unfinished: &[&str]) -> Spool {
        let unfinished = unfinished.iter().map(|name| key(name).uid).collect();
        Spool::open(root, limit, &unfinished, Gauge::default()).expect("a folder")
    }

    fn spool(spool: &Spool, name: &str, text: &[u8], second: u64) -> LogState {
        let mut log = spool.create(&key(name), &limit(1000), LogState::Whole);
        log.append(OutputStream::Stdout, AT, text);
        log.flush();
        let state = log.state();
        spool.finish(&key(name), SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second));
        state
    }

    #[test]
    fn output_is_kept_in_cri_format() {
        let root = tempfile::tempdir().expect("a folder");
        let spooled = open(root.path(), 1000, &[]);
        assert_eq!(spool(&spooled, "a", b"one\ntwo", 1), LogState::Whole);
        let text = fs::read_to_string(root.path().join("shop_a_uid-a/output.log")).expect("a log");
        assert_eq!(text, format!("{TIME} stdout F one\n{TIME} stdout P two\n"));
    }

    #[test]
    fn a_request_cannot_take_more_than_its_limit() {
        let root = tempfile::tempdir().expect("a folder");
        let spool = open(root.path(), 1000, &[]);
        let mut log = spool.create(&key("a"), &limit(100), LogState::Whole);
        log.append(OutputStream::Stdout, AT, b"one\ntwo\nthree\n");
        log.append(OutputStream::Stdout, AT, b"\n");
        log.flush();
        assert_eq!(log.state(), LogState::Limited);
        let size = fs::metadata(spool.log_path(&key("a"))).expect("a log").len();
        assert_eq!(log.extent(), ("one\ntwo\n".len() as u64, size), "it knows how far it has come");
        let text = fs::read_to_string(spool.log_path(&key("a"))).expect("a log");
        assert_eq!(
            text,
            format!("{TIME} stdout F one\n{TIME} stdout F two\n"),
            "whole records, and none after the cut"
        );
    }

    #[test]
    fn the_folder_that_finished_first_makes_room() {
        let root = tempfile::tempdir().expect("a folder");
        // Room for two records of 40 bytes and a bit.
        let spooled = open(root.path(), 100, &[]);
        assert_eq!(spool(&spooled, "second", b"x\n", 2), LogState::Whole);
        assert_eq!(spool(&spooled, "first", b"x\n", 1), LogState::Whole);
        assert_eq!(spool(&spooled, "third", b"x\n", 3), LogState::Whole);
        assert!(!spooled.log_path(&key("first")).exists());
        assert!(spooled.log_path(&key("second")).exists());
        assert!(spooled.log_path(&key("third")).exists());
    }

    #[test]
    fn a_running_request_is_never_removed_to_make_room() {
        let root = tempfile::tempdir().expect("a folder");
        let spooled = open(root.path(), 50, &[]);
        let mut running = spooled.create(&key("running"), &limit(1000), LogState::Whole);
        running.append(OutputStream::Stdout, AT, b"x\n");
        running.flush();
        assert_eq!(spool(&spooled, "late", b"x\n", 1), LogState::Limited);
        assert!(spooled.log_path(&key("running")).exists());
    }

    #[test]
    fn after_a_restart_the_books_are_the_same() {
        let root = tempfile::tempdir().expect("a folder");
        {
            let spooled = open(root.path(), 1000, &[]);
            spool(&spooled, "done", b"x\n", 1);
            spool(&spooled, "running", b"x\n", 1);
        }
        let spooled = open(root.path(), 110, &["running"]);
        assert_eq!(spool(&spooled, "new", b"xxxxxxxxxxxxxxxxxxxxxxx\n", 3), LogState::Whole);
        assert!(!spooled.log_path(&key("done")).exists());
        assert!(spooled.log_path(&key("running")).exists());
    }

    #[test]
    fn the_longest_name_still_is_a_file_name() {
        let root = tempfile::tempdir().expect("a folder");
        let spool = open(root.path(), 1000, &[]);
        let long = RequestKey { namespace: "n".repeat(63), name: "a".repeat(253), uid: "u".repeat(36).into() };
        let folder = spool.folder(&long);
        assert!(folder.file_name().is_some_and(|name| name.len() <= 255));
    }
}
