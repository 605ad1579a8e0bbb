//! The agent's durable memory: one small file for each unfinished request, and a
//! tombstone for each finished one.
//!
//! A digest at the end of a file tells a damaged one, which is put aside and
//! never used. A tombstone holds the outcome for as long as it can matter: it keeps
//! a request from running again when the API server is set back to an older state.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::PathBuf,
    sync::Arc,
};

use k8s_openapi::jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::disk::{Disk, SLOT, Taken};
use crate::core::{
    decide::{Entry, Stage},
    ids::{RequestKey, RequestUid},
    transition::without_tails,
};

/// Version of the file's format.
const FORMAT: u32 = 1;
const SUFFIX: &str = ".json";
const NOTE_SUFFIX: &str = ".output";
const DAMAGED: &str = ".damaged";
const TOMBSTONES: &str = "tombstones";
const OLD_TOMBSTONES: &str = "tombstones.old";
/// Tombstones in one file. Two files are kept: at least so many are remembered, at most twice as many.
const TOMBSTONE_LIMIT: usize = 20_000;
/// Most tombstones that are put up with one write.
const TOMBSTONE_BATCH: usize = 256;
/// Characters of a digest.
const DIGEST: usize = 64;

/// One file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    format: u32,
    /// Of which request.
    pub request: RequestKey,
    /// When the request was created.
    pub created: Timestamp,
    /// What is remembered.
    pub entry: Entry,
}

impl Record {
    /// What is remembered of a request.
    pub fn new(request: RequestKey, created: Timestamp, entry: Entry) -> Self {
        Self { format: FORMAT, request, created, entry }
    }

    fn without_tails(mut self) -> Self {
        if let Stage::Ended { outcome } = self.entry.stage {
            self.entry.stage = Stage::Ended { outcome: without_tails(outcome) };
        }
        self
    }
}

/// The records and tombstones of this node.
#[derive(Clone)]
pub struct Journal<D> {
    disk: Arc<D>,
    tombs: Arc<Mutex<Tombs>>,
    /// Held by whoever puts up tombstones: places are of one file, which grows by one write at a time.
    digging: Arc<tokio::sync::Mutex<()>>,
}

/// Where each tombstone is.
#[derive(Debug, Default)]
struct Tombs {
    new: HashMap<TombKey, Span>,
    old: HashMap<TombKey, Span>,
    /// Those that could not be put up yet. Their records are still on the disk.
    unburied: BTreeMap<RequestUid, Record>,
}

/// The beginning of the digest of a request's UID.
type TombKey = [u8; 16];
type Span = (u64, u32);

/// The journal cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// Another agent uses it.
    #[error("{path} is locked: another execlet agent runs on this node with the same state folder")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The file system refuses.
    #[error("journal: cannot {act} {what}: {source}")]
    Io {
        /// What was tried.
        act: &'static str,
        /// With which file, or of which request.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The record cannot be written as JSON.
    #[error("journal: cannot encode the record of {request}: {source}")]
    Encode {
        /// Of which request.
        request: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
}

impl From<Taken> for JournalError {
    fn from(taken: Taken) -> Self {
        match taken {
            Taken::ByAnother(path) => Self::Locked { path },
            Taken::Failed(act, path, source) => Self::Io { act, what: path.display().to_string(), source },
        }
    }
}

impl JournalError {
    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}

impl<D: Disk> Journal<D> {
    /// Reads everything that is on the disk.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn open(disk: D) -> Result<(Self, Vec<Record>), JournalError> {
        let records = read_all(&disk)?;
        let new = read_tombs(&disk, TOMBSTONES)?;
        let old = read_tombs(&disk, OLD_TOMBSTONES)?;
        let tombs = Arc::new(Mutex::new(Tombs { new, old, unburied: BTreeMap::new() }));
        Ok((Self { disk: Arc::new(disk), tombs, digging: Arc::default() }, records))
    }

    /// Writes what is remembered of a request. When this returns `Ok` it survives a crash.
    ///
    /// # Errors
    /// When the file system refuses; the former record, if any, then still stands.
    pub async fn write(&self, record: Record) -> Result<(), JournalError> {
        let name = file_name(&record.request.uid);
        let text = encode(&record)?;
        let large = text.len() > SLOT;
        match self.disk.replace(&name, text).await {
            // Room is kept for everything but the end of the output.
            Err(_) if large => self.disk.replace(&name, encode(&record.without_tails())?).await,
            written => written,
        }
        .map_err(|source| JournalError::Io { act: "write", what: name, source })
    }

    /// Forgets a request. If it has ended, a tombstone is put up first; where that fails, the record
    /// stays, does the tombstone's service, and is tried again with the next one.
    ///
    /// # Errors
    /// When the file system refuses.
    pub async fn remove(&self, record: Record) -> Result<(), JournalError> {
        if !matches!(record.entry.stage, Stage::Ended { .. }) {
            return self.unlink(&record.request.uid).await;
        }
        self.tombs().unburied.insert(record.request.uid.clone(), record);
        let _digging = self.digging.lock().await;
        loop {
            let batch: Vec<Record> = self.tombs().unburied.values().take(TOMBSTONE_BATCH).cloned().collect();
            if batch.is_empty() {
                return Ok(());
            }
            self.entomb(&batch).await?;
            for Record { request, .. } in batch {
                self.tombs().unburied.remove(&request.uid);
                self.unlink(&request.uid).await?;
            }
        }
    }

    /// Notes how far the output of a request was received. That survives the end of this process, not of the node.
    ///
    /// # Errors
    /// When the file system refuses.
    pub async fn note(&self, uid: &RequestUid, text: Vec<u8>) -> io::Result<()> {
        self.disk.note(&note_name(uid), text).await
    }

    /// What was noted.
    pub fn noted(&self, uid: &RequestUid) -> Option<Vec<u8>> {
        self.disk.read(&note_name(uid)).ok().flatten()
    }

    async fn unlink(&self, uid: &RequestUid) -> Result<(), JournalError> {
        for name in [file_name(uid), note_name(uid)] {
            let removed = self.disk.remove(&name).await;
            removed.map_err(|source| JournalError::Io { act: "remove", what: name, source })?;
        }
        Ok(())
    }

    async fn entomb(&self, batch: &[Record]) -> Result<(), JournalError> {
        let failed = |act| move |source| JournalError::Io { act, what: TOMBSTONES.to_owned(), source };
        if self.tombs().new.len() >= TOMBSTONE_LIMIT {
            self.disk.rename(TOMBSTONES, OLD_TOMBSTONES).map_err(failed("rename"))?;
            let mut tombs = self.tombs();
            tombs.old = std::mem::take(&mut tombs.new);
        }
        let mut text = Vec::new();
        let mut places = Vec::new();
        for record in batch {
            let key = tomb_key(&record.request.uid);
            if self.tombs().place(&key).is_some() {
                continue;
            }
            // Whatever was cut off before it, and whoever cut it off, this begins a line.
            text.push(b'\n');
            let line = encode_line(&record.clone().without_tails())?;
            places.push((key, text.len() as u64, u32::try_from(line.len()).unwrap_or(u32::MAX)));
            text.extend(line);
            text.push(b'\n');
        }
        if places.is_empty() {
            return Ok(());
        }
        let offset = self.disk.append(TOMBSTONES, text).await.map_err(failed("add to"))?;
        self.tombs().new.extend(places.into_iter().map(|(key, start, length)| (key, (offset + start, length))));
        Ok(())
    }

    /// What is remembered of a request that has ended.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn tombstone(&self, uid: &RequestUid) -> Result<Option<Entry>, JournalError> {
        if let Some(record) = self.tombs().unburied.get(uid) {
            return Ok(Some(record.entry.clone()));
        }
        let Some((file, (offset, length))) = self.tombs().place(&tomb_key(uid)) else { return Ok(None) };
        let line = self.disk.read_at(file, offset, length as usize);
        let line = line.map_err(|source| JournalError::Io { act: "read", what: file.to_owned(), source })?;
        Ok(decode_line(&line).filter(|record| record.request.uid == *uid).map(|record| record.entry))
    }

    fn tombs(&self) -> MutexGuard<'_, Tombs> {
        self.tombs.lock()
    }
}

impl Tombs {
    fn place(&self, key: &TombKey) -> Option<(&'static str, Span)> {
        let new = self.new.get(key).map(|place| (TOMBSTONES, *place));
        new.or_else(|| self.old.get(key).map(|place| (OLD_TOMBSTONES, *place)))
    }
}

fn tomb_key(uid: &RequestUid) -> TombKey {
    let digest = Sha256::digest(uid.as_str().as_bytes());
    let mut key = TombKey::default();
    key.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    key
}

fn note_name(uid: &RequestUid) -> String {
    format!("{uid}{NOTE_SUFFIX}")
}

fn file_name(uid: &RequestUid) -> String {
    format!("{uid}{SUFFIX}")
}

fn json(record: &Record) -> Result<Vec<u8>, JournalError> {
    serde_json::to_vec(record).map_err(|source| JournalError::Encode { request: record.request.to_string(), source })
}

fn encode(record: &Record) -> Result<Vec<u8>, JournalError> {
    let mut text = json(record)?;
    let digest = hex(&Sha256::digest(&text));
    text.push(b'\n');
    text.extend_from_slice(digest.as_bytes());
    text.push(b'\n');
    Ok(text)
}

fn decode(text: &[u8]) -> Option<Record> {
    // The file is filled up with line ends.
    let end = text.iter().rposition(|byte| *byte != b'\n')? + 1;
    let (json, digest) = text.get(..end)?.split_at_checked(end.checked_sub(DIGEST + 1)?)?;
    checked(json, digest.strip_prefix(b"\n")?).filter(|_| text.len() > end)
}

fn encode_line(record: &Record) -> Result<Vec<u8>, JournalError> {
    let json = json(record)?;
    let mut line = hex(&Sha256::digest(&json)).into_bytes();
    line.push(b' ');
    line.extend(json);
    Ok(line)
}

fn decode_line(line: &[u8]) -> Option<Record> {
    let (digest, json) = line.split_at_checked(DIGEST)?;
    checked(json.strip_prefix(b" ")?, digest)
}

fn checked(json: &[u8], digest: &[u8]) -> Option<Record> {
    if hex(&Sha256::digest(json)).as_bytes() != digest {
        return None;
    }
    serde_json::from_slice::<Record>(json).ok().filter(|record| record.format == FORMAT)
}

/// Bytes as lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

fn read_all<D: Disk>(disk: &D) -> Result<Vec<Record>, JournalError> {
    let failed = |act, what: &str| {
        let what = what.to_owned();
        move |source| JournalError::Io { act, what, source }
    };
    let mut records = Vec::new();
    for name in disk.list().map_err(failed("list", "the folder"))? {
        let Some(uid) = name.strip_suffix(SUFFIX) else { continue };
        let Some(text) = disk.read(&name).map_err(failed("read", &name))? else { continue };
        if let Some(record) = decode(&text).filter(|record| record.request.uid.as_str() == uid) {
            records.push(record);
        } else {
            let aside = format!("{uid}{DAMAGED}");
            tracing::error!(
                name,
                aside,
                "a journal file is damaged: put aside, what became of its exec is asked of the engine"
            );
            disk.rename(&name, &aside).map_err(failed("put aside", &name))?;
        }
    }
    Ok(records)
}

/// Where each tombstone of a file is.
fn read_tombs<D: Disk>(disk: &D, name: &str) -> Result<HashMap<TombKey, Span>, JournalError> {
    let failed = |source| JournalError::Io { act: "read", what: name.to_owned(), source };
    let mut tombs = HashMap::new();
    let mut offset = 0;
    let text = disk.read(name).map_err(failed)?.unwrap_or_default();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        match decode_line(text) {
            Some(record) => {
                let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                tombs.insert(tomb_key(&record.request.uid), (offset, length));
            }
            None if text.is_empty() => {}
            None => {
                tracing::warn!(name, offset, "a tombstone is damaged: it was cut off by a crash, or the disk is bad");
            }
        }
        offset += line.len() as u64;
    }
    Ok(tombs)
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;
    use crate::{
        agent::memory::disk::Folder,
        api::{ExitCodeSource, OutputStatus, StreamStatus},
        core::{
            ids::{ContainerRef, ExecRef},
            outcome::{Exit, Outcome},
        },
    };

    fn record(uid: &str, stage: Stage) -> Record {
        let request = RequestKey { namespace: "shop".into(), name: "r".into(), uid: uid.into() };
        let container = ContainerRef { id: "c".into(), started_at: Some("t".into()) };
        let exec = ExecRef { id: "e".into(), container };
        let entry = Entry { exec, boot: "b".into(), stage, started: None, fed: false, kill: None };
        Record::new(request, Timestamp::UNIX_EPOCH, entry)
    }

    fn ended(tail: &str) -> Stage {
        let stdout = StreamStatus { tail: Some(tail.to_owned()), bytes: 1, ..StreamStatus::default() };
        let output = OutputStatus { stdout, ..OutputStatus::default() };
        let exit = Exit { code: 3, source: ExitCodeSource::Engine };
        Stage::Ended { outcome: Outcome::exited(exit, output, Timestamp::UNIX_EPOCH) }
    }

    fn open(state: &Path) -> (Journal<Folder>, Vec<Record>) {
        Journal::open(Folder::open(state, "journal", "me").expect("a folder")).expect("opened")
    }

    #[tokio::test]
    async fn what_was_written_is_read_after_a_restart() {
        let state = tempfile::tempdir().expect("a folder");
        let (journal, records) = open(state.path());
        assert!(records.is_empty());
        journal.write(record("u", Stage::Prepared)).await.expect("written");
        journal.write(record("u", Stage::Starting)).await.expect("written");
        drop(journal);
        let (journal, records) = open(state.path());
        assert_eq!(records, [record("u", Stage::Starting)]);
        journal.remove(record("u", Stage::Starting)).await.expect("removed");
        assert_eq!(journal.tombstone(&"u".into()).expect("read"), None, "it has not ended");
        drop(journal);
        assert!(open(state.path()).1.is_empty());
    }

    #[tokio::test]
    async fn what_has_ended_is_remembered_without_its_output() {
        let state = tempfile::tempdir().expect("a folder");
        let (journal, _) = open(state.path());
        for uid in ["u", "v"] {
            journal.write(record(uid, ended("secret"))).await.expect("written");
            journal.remove(record(uid, ended("secret"))).await.expect("removed");
        }
        let check = |journal: &Journal<Folder>| {
            let entry = journal.tombstone(&"v".into()).expect("read").expect("a tombstone");
            let Stage::Ended { outcome } = entry.stage else { panic!("it has ended") };
            assert_eq!(outcome.exit.map(|exit| exit.code), Some(3));
            assert_eq!(outcome.output.and_then(|output| output.stdout.tail), None);
            assert_eq!(journal.tombstone(&"w".into()).expect("read"), None);
        };
        check(&journal);
        drop(journal);
        // A crash in the middle of another tombstone.
        let path = state.path().join("journal/tombstones");
        let mut text = std::fs::read(&path).expect("read");
        text.extend_from_slice(b"0123 half of a to");
        std::fs::write(&path, text).expect("written");
        let (journal, records) = open(state.path());
        assert!(records.is_empty());
        check(&journal);
        journal.remove(record("w", ended(""))).await.expect("entombed");
        drop(journal);
        let (journal, _) = open(state.path());
        assert!(journal.tombstone(&"w".into()).expect("read").is_some(), "a line after a torn one counts");
    }

    #[tokio::test]
    async fn tombstones_that_are_put_up_at_once_are_all_read_after_a_restart() {
        let state = tempfile::tempdir().expect("a folder");
        let (journal, _) = open(state.path());
        let uids: Vec<String> = (0..600).map(|number| format!("u{number}")).collect();
        let all = uids.iter().map(|uid| journal.remove(record(uid, ended(""))));
        futures::future::try_join_all(all).await.expect("entombed");
        let check = |journal: &Journal<Folder>| {
            for uid in &uids {
                let found = journal.tombstone(&RequestUid::from(uid.as_str())).expect("read");
                assert!(found.is_some(), "{uid}");
            }
        };
        check(&journal);
        drop(journal);
        check(&open(state.path()).0);
    }

    #[tokio::test]
    async fn a_tombstone_that_was_cut_off_by_a_full_disk_takes_no_other_along() {
        /// A folder whose disk is full for some.
        struct Full(Folder, AtomicBool);

        impl Disk for Full {
            fn replace(&self, name: &str, text: Vec<u8>) -> impl Future<Output = io::Result<()>> + Send {
                self.0.replace(name, text)
            }
            fn remove(&self, name: &str) -> impl Future<Output = io::Result<()>> + Send {
                self.0.remove(name)
            }
            async fn append(&self, name: &str, line: Vec<u8>) -> io::Result<u64> {
                if !self.1.load(Ordering::Relaxed) {
                    return self.0.append(name, line).await;
                }
                self.0.append(name, line[..line.len() / 3].to_vec()).await?;
                Err(io::ErrorKind::StorageFull.into())
            }
            fn rename(&self, from: &str, to: &str) -> io::Result<()> {
                self.0.rename(from, to)
            }
            fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
                self.0.read(name)
            }
            fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
                self.0.read_at(name, offset, length)
            }
            fn list(&self) -> io::Result<Vec<String>> {
                self.0.list()
            }
        }

        let state = tempfile::tempdir().expect("a folder");
        let disk = Full(Folder::open(state.path(), "journal", "me").expect("a folder"), AtomicBool::new(true));
        let (journal, _) = Journal::open(disk).expect("opened");
        let (first, second) =
            tokio::join!(journal.remove(record("u", ended(""))), journal.remove(record("v", ended(""))));
        assert!(first.expect_err("full").is_full() && second.expect_err("full").is_full());
        journal.disk.1.store(false, Ordering::Relaxed);
        journal.remove(record("w", ended(""))).await.expect("entombed");
        drop(journal);
        let (journal, _) = open(state.path());
        for uid in ["u", "v", "w"] {
            assert!(journal.tombstone(&uid.into()).expect("read").is_some(), "{uid}");
        }
    }

    #[tokio::test]
    async fn an_outcome_with_much_output_is_kept_whole() {
        let state = tempfile::tempdir().expect("a folder");
        let (journal, _) = open(state.path());
        journal.write(record("u", Stage::Starting)).await.expect("written");
        let long = record("u", ended(&"x".repeat(2 * SLOT)));
        journal.write(long.clone()).await.expect("written");
        drop(journal);
        assert_eq!(open(state.path()).1, [long]);
    }

    #[test]
    fn a_file_that_was_cut_or_changed_at_any_byte_is_put_aside() {
        let whole = encode(&record("u", Stage::Starting)).expect("encoded");
        assert_eq!(decode(&whole), Some(record("u", Stage::Starting)));
        let mut padded = whole.clone();
        padded.resize(SLOT, b'\n');
        assert_eq!(decode(&padded), Some(record("u", Stage::Starting)));
        for end in 0..whole.len() {
            assert_eq!(decode(&whole[..end]), None, "cut at {end}");
            let mut changed = padded.clone();
            changed[end] ^= 1;
            assert_eq!(decode(&changed), None, "changed at {end}");
        }
        padded[SLOT - 1] = b'x';
        assert_eq!(decode(&padded), None, "something behind the end");
        let state = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(state.path().join("journal")).expect("made");
        let path = |name: &str| state.path().join("journal").join(name);
        std::fs::write(path("u.json"), &whole[..20]).expect("written");
        std::fs::write(path("v.json"), &whole).expect("written");
        let (_journal, records) = open(state.path());
        assert!(records.is_empty(), "the second one is another request's");
        assert!(path("u.damaged").exists() && path("v.damaged").exists());
    }
}
