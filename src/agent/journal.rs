//! The agent's durable memory: one small file for each unfinished request.
//!
//! A file is written whole under another name, synced, renamed and its folder
//! synced, so after a crash at any moment it is the old one or the new one. A
//! digest at its end tells a damaged file, which is put aside and never used.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::core::{
    decide::Entry,
    ids::{RequestKey, RequestUid},
};

/// Version of the file's format.
const FORMAT: u32 = 1;
/// An outcome holds the end of the output: it is for root alone.
const FILE_MODE: u32 = 0o600;
const SUFFIX: &str = "json";
const DAMAGED: &str = "damaged";

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

/// The folder of files, and the lock that makes this process its only writer.
#[derive(Clone)]
pub struct Journal {
    folder: Arc<PathBuf>,
    turns: Turns,
    _lock: Arc<File>,
}

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
    #[error("journal: cannot {act} {path}: {source}")]
    Io {
        /// What was tried.
        act: &'static str,
        /// On which file.
        path: PathBuf,
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
    /// The writing task was ended.
    #[error("journal: the writer was stopped")]
    Stopped,
}

impl Journal {
    /// Opens the journal below `state`, takes the lock, and reads all records.
    ///
    /// # Errors
    /// When another process holds the lock, or the folder cannot be read or made.
    pub fn open(state: &Path) -> Result<(Self, Vec<Record>), JournalError> {
        let folder = state.join("journal");
        fs::create_dir_all(&folder).map_err(|e| failed("make folder", &folder, e))?;
        let lock_path = state.join("lock");
        let lock = File::create(&lock_path).map_err(|e| failed("open", &lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::Locked { path: lock_path }),
            Err(TryLockError::Error(e)) => return Err(failed("lock", &lock_path, e)),
        }
        let records = read_all(&folder)?;
        Ok((Self { folder: Arc::new(folder), turns: Turns::default(), _lock: Arc::new(lock) }, records))
    }

    /// Writes what is remembered of a request. When this returns `Ok` it survives a crash.
    ///
    /// # Errors
    /// When the file system refuses; the former record, if any, then still stands.
    pub async fn write(&self, request: &RequestKey, created: Timestamp, entry: &Entry) -> Result<(), JournalError> {
        let record = Record { format: FORMAT, request: request.clone(), created, entry: entry.clone() };
        let text = encode(&record).map_err(|source| JournalError::Encode { request: request.to_string(), source })?;
        let (folder, name) = (Arc::clone(&self.folder), file_name(&request.uid));
        let turn = self.turns.next(&request.uid);
        blocking(move || turn.take(|| replace(&folder, &name, &text))).await
    }

    /// Forgets a request.
    ///
    /// # Errors
    /// When the file system refuses.
    pub async fn remove(&self, uid: &RequestUid) -> Result<(), JournalError> {
        let path = self.folder.join(file_name(uid));
        let turn = self.turns.next(uid);
        let removed = blocking(move || {
            turn.take(|| match fs::remove_file(&path) {
                Ok(()) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(failed("remove", &path, error)),
            })
        })
        .await;
        self.turns.forget(uid);
        removed
    }
}

/// Keeps the writes of one request in the order in which they were asked for. Whoever asked may be
/// gone (its future dropped) while its write still waits for a thread: it must not undo a later one.
#[derive(Clone, Default)]
struct Turns(Arc<Mutex<HashMap<RequestUid, Arc<Mutex<u64>>>>>);

/// The right to write, unless a later one was given out meanwhile and used.
struct Turn {
    number: u64,
    last: Arc<Mutex<u64>>,
}

impl Turns {
    fn next(&self, uid: &RequestUid) -> Turn {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = Arc::clone(all.entry(uid.clone()).or_default());
        Turn { number: NUMBER.fetch_add(1, Ordering::Relaxed), last }
    }

    fn forget(&self, uid: &RequestUid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

impl Turn {
    fn take(self, act: impl FnOnce() -> Result<(), JournalError>) -> Result<(), JournalError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if self.number < *last {
            return Ok(());
        }
        *last = self.number;
        act()
    }
}

async fn blocking(work: impl FnOnce() -> Result<(), JournalError> + Send + 'static) -> Result<(), JournalError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(JournalError::Stopped))
}

fn failed(act: &'static str, path: &Path, source: io::Error) -> JournalError {
    JournalError::Io { act, path: path.to_owned(), source }
}

fn file_name(uid: &RequestUid) -> String {
    format!("{uid}.{SUFFIX}")
}

fn encode(record: &Record) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = serde_json::to_vec(record)?;
    let digest = hex(&Sha256::digest(&text));
    text.push(b'\n');
    text.extend_from_slice(digest.as_bytes());
    text.push(b'\n');
    Ok(text)
}

fn decode(text: &[u8]) -> Option<Record> {
    let (json, digest) = text.strip_suffix(b"\n")?.split_at_checked(text.len().checked_sub(66)?)?;
    let digest = digest.strip_prefix(b"\n")?;
    if hex(&Sha256::digest(json)).as_bytes() != digest {
        return None;
    }
    serde_json::from_slice::<Record>(json).ok().filter(|record| record.format == FORMAT)
}

/// Bytes as lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

fn replace(folder: &Path, name: &str, text: &[u8]) -> Result<(), JournalError> {
    let path = folder.join(name);
    let next = folder.join(format!("{name}.next"));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(FILE_MODE).open(&next)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&next, &path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|e| failed("write", &path, e))
}

fn read_all(folder: &Path) -> Result<Vec<Record>, JournalError> {
    let mut records = Vec::new();
    for file in fs::read_dir(folder).map_err(|e| failed("list", folder, e))? {
        let path = file.map_err(|e| failed("list", folder, e))?.path();
        match path.extension().and_then(|suffix| suffix.to_str()) {
            Some(SUFFIX) => {}
            Some(DAMAGED) | None => continue,
            // A write that was cut off: the record before it still stands.
            Some(_) => {
                fs::remove_file(&path).map_err(|e| failed("remove", &path, e))?;
                continue;
            }
        }
        let text = fs::read(&path).map_err(|e| failed("read", &path, e))?;
        if let Some(record) = decode(&text) {
            records.push(record);
        } else {
            let aside = path.with_extension(DAMAGED);
            tracing::error!(path = %path.display(), aside = %aside.display(), "a journal file is damaged: put aside, what became of its exec is asked of the engine");
            fs::rename(&path, &aside).map_err(|e| failed("put aside", &path, e))?;
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        decide::Stage,
        ids::{ContainerRef, ExecRef},
    };

    fn key() -> RequestKey {
        RequestKey { namespace: "shop".into(), name: "r".into(), uid: "u-1".into() }
    }

    fn entry(stage: Stage) -> Entry {
        let container = ContainerRef { id: "c".into(), started_at: "t".into() };
        Entry { exec: ExecRef { id: "e".into(), container }, boot: "b".into(), stage }
    }

    #[tokio::test]
    async fn what_was_written_is_read_after_a_restart() {
        let state = tempfile::tempdir().expect("a folder");
        let (journal, records) = Journal::open(state.path()).expect("opened");
        assert!(records.is_empty());
        journal.write(&key(), Timestamp::UNIX_EPOCH, &entry(Stage::Prepared)).await.expect("written");
        journal.write(&key(), Timestamp::UNIX_EPOCH, &entry(Stage::Starting)).await.expect("written");
        drop(journal);
        let (journal, records) = Journal::open(state.path()).expect("opened");
        assert_eq!(
            records.iter().map(|r| (&r.request, &r.entry)).collect::<Vec<_>>(),
            [(&key(), &entry(Stage::Starting))]
        );
        journal.remove(&key().uid).await.expect("removed");
        journal.remove(&key().uid).await.expect("removing twice is no error");
        drop(journal);
        assert!(Journal::open(state.path()).expect("opened").1.is_empty());
    }

    #[test]
    fn a_write_that_comes_late_does_not_undo_a_later_one() {
        let turns = Turns::default();
        let (first, second) = (turns.next(&"u".into()), turns.next(&"u".into()));
        let mut done = Vec::new();
        second
            .take(|| {
                done.push(2);
                Ok(())
            })
            .expect("taken");
        first
            .take(|| {
                done.push(1);
                Ok(())
            })
            .expect("passed over");
        assert_eq!(done, [2]);
    }

    #[test]
    fn a_second_agent_is_refused() {
        let state = tempfile::tempdir().expect("a folder");
        let _first = Journal::open(state.path()).expect("opened");
        assert!(matches!(Journal::open(state.path()), Err(JournalError::Locked { .. })));
    }

    #[test]
    fn a_file_that_was_cut_or_changed_at_any_byte_is_put_aside() {
        let record =
            Record { format: FORMAT, request: key(), created: Timestamp::UNIX_EPOCH, entry: entry(Stage::Starting) };
        let whole = encode(&record).expect("encoded");
        assert_eq!(decode(&whole), Some(record));
        for end in 0..whole.len() {
            assert_eq!(decode(&whole[..end]), None, "cut at {end}");
            let mut changed = whole.clone();
            changed[end] ^= 1;
            assert_eq!(decode(&changed), None, "changed at {end}");
        }
        let state = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(state.path().join("journal")).expect("made");
        let path = state.path().join("journal/u-1.json");
        fs::write(&path, &whole[..20]).expect("written");
        fs::write(path.with_extension("json.next"), b"half").expect("written");
        let (_journal, records) = Journal::open(state.path()).expect("opened");
        assert!(records.is_empty());
        assert!(path.with_extension(DAMAGED).exists());
        assert!(!path.with_extension("json.next").exists());
    }
}
