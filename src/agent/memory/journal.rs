//! The agent's durable memory: a small file for each unfinished request, and a tombstone for each finished one.
//!
//! A damaged file, which its digest tells, is put aside and never used. A tombstone holds the outcome for as long as it
//! can matter: it keeps a request from running again when the API server is set back to an older state.

use std::{io, sync::Arc};

use super::{
    disk::{Disk, SLOT, Taken},
    record::{JournalError, Record, SUFFIX, file_name},
    tombstones::Tombstones,
};
use crate::core::{
    entry::{Entry, Stage},
    ids::RequestUid,
};

const NOTE_SUFFIX: &str = ".output";
const DAMAGED: &str = ".damaged";

pub struct Journal<D> {
    disk: Arc<D>,
    tombstones: Tombstones<D>,
}

impl<D: Disk> Journal<D> {
    pub fn open(disk: D) -> Result<(Self, Vec<Record>), JournalError> {
        let disk = Arc::new(disk);
        let records = read_all(&*disk)?;
        let tombstones = Tombstones::open(Arc::clone(&disk))?;
        Ok((Self { disk, tombstones }, records))
    }

    /// Writes what is remembered of a request. When this returns `Ok` it survives a crash.
    /// On an error the former record, if any, still stands.
    pub async fn write(&self, record: Record) -> Result<(), JournalError> {
        let name = file_name(&record.request.uid);
        let text = record.to_file()?;
        let large = text.len() > SLOT;
        match self.disk.replace(&name, text).await {
            // Room is kept for everything but the end of the output.
            Err(_) if large => self.disk.replace(&name, record.without_tails().to_file()?).await,
            written => written,
        }
        .map_err(JournalError::io("write", &name))
    }

    /// Forgets a request. If it has ended, its tombstone is written first; while that fails, the record stays and does
    /// as well, and is tried again with the next one.
    pub async fn remove(&self, record: Record) -> Result<(), JournalError> {
        if matches!(record.entry.stage, Stage::Ended { .. }) {
            return self.tombstones.replace(record).await;
        }
        let name = file_name(&record.request.uid);
        self.disk.remove(&name).await.map_err(JournalError::io("remove", &name))
    }

    /// Notes how far the output of a request was received. That survives the end of this process, not of the node.
    pub async fn note(&self, uid: &RequestUid, text: Vec<u8>) -> io::Result<()> {
        self.disk.note(&note_name(uid), text).await
    }

    pub fn noted(&self, uid: &RequestUid) -> Option<Vec<u8>> {
        self.disk.read(&note_name(uid)).ok().flatten()
    }

    /// Nobody goes on with that output any more.
    pub async fn forget_note(&self, uid: &RequestUid) -> io::Result<()> {
        self.disk.remove(&note_name(uid)).await
    }

    pub fn tombstone(&self, uid: &RequestUid) -> Result<Option<Entry>, JournalError> {
        self.tombstones.get(uid)
    }
}

impl From<Taken> for JournalError {
    fn from(taken: Taken) -> Self {
        match taken {
            Taken::ByAnother(path) => Self::Locked { path },
            Taken::Failed(act, path, source) => Self::Io { act, what: path.display().to_string(), source },
        }
    }
}

fn note_name(uid: &RequestUid) -> String {
    format!("{uid}{NOTE_SUFFIX}")
}

fn read_all<D: Disk>(disk: &D) -> Result<Vec<Record>, JournalError> {
    let mut records = Vec::new();
    for name in disk.list().map_err(JournalError::io("list", "the folder"))? {
        let Some(uid) = name.strip_suffix(SUFFIX) else { continue };
        let Some(text) = disk.read(&name).map_err(JournalError::io("read", &name))? else { continue };
        if let Some(record) = Record::from_file(&text).filter(|record| record.request.uid.as_str() == uid) {
            records.push(record);
        } else {
            let aside = format!("{uid}{DAMAGED}");
            tracing::error!(name, aside, "a journal file is damaged and put aside: the engine is asked about its exec");
            disk.rename(&name, &aside).map_err(JournalError::io("put aside", &name))?;
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        path::Path,
        sync::atomic::{AtomicBool, Ordering},
    };

    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::{
        agent::memory::disk::Folder,
        api::{ExitCodeSource, OutputStatus, StreamStatus},
        core::{
            ids::{ContainerRef, ExecRef, RequestKey},
            outcome::{Exit, Outcome},
        },
    };

    fn record(uid: &str, stage: Stage) -> Record {
        let request = RequestKey { namespace: "shop".into(), name: "r".into(), uid: uid.into() };
        let container = ContainerRef { id: "c".into(), started_at: Some("t".into()) };
        let exec = ExecRef { id: "e".into(), container };
        let entry = Entry::new(Some(exec), "b".into(), stage);
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
            fn note(&self, name: &str, text: Vec<u8>) -> impl Future<Output = io::Result<()>> + Send {
                self.0.note(name, text)
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
        let whole = record("u", Stage::Starting).to_file().expect("encoded");
        assert_eq!(Record::from_file(&whole), Some(record("u", Stage::Starting)));
        let mut padded = whole.clone();
        padded.resize(SLOT, b'\n');
        assert_eq!(Record::from_file(&padded), Some(record("u", Stage::Starting)));
        for end in 0..whole.len() {
            assert_eq!(Record::from_file(&whole[..end]), None, "cut at {end}");
            let mut changed = padded.clone();
            changed[end] ^= 1;
            assert_eq!(Record::from_file(&changed), None, "changed at {end}");
        }
        padded[SLOT - 1] = b'x';
        assert_eq!(Record::from_file(&padded), None, "something behind the end");
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
