//! The agent's durable memory: a small file for each unfinished request, and a tombstone for each finished one.
//!
//! A damaged file, which its digest tells, is put aside and never used. A tombstone holds the outcome for as long as it
//! can matter: it keeps a request from running again when the API server is set back to an older state.

use std::{io, sync::Arc};

use super::{
    disk::{Disk, SLOT, Taken},
    record::{JournalError, Record, SUFFIX, file_name},
    targets::Targets,
    tombstones::Tombstones,
};
use crate::core::{
    entry::{Entry, Stage},
    ids::{RequestUid, TargetKey},
    outcome::Outcome,
    second::First,
};

const NOTE_SUFFIX: &str = ".output";
const DAMAGED: &str = ".damaged";

pub struct Journal<D> {
    disk: Arc<D>,
    targets: Targets,
    tombstones: Tombstones<D>,
}

impl<D: Disk> Journal<D> {
    pub fn open(disk: D) -> Result<(Self, Vec<Record>), JournalError> {
        let disk = Arc::new(disk);
        let records = read_all(&*disk)?;
        let tombstones = Tombstones::open(Arc::clone(&disk))?;
        Ok((Self { disk, targets: Targets::of(&records), tombstones }, records))
    }

    /// Whether this request has the target of a batch, from now on or since before, and no other may. It must be in the next
    /// record that is written of it, or be released.
    pub fn take(&self, target: &TargetKey, uid: &RequestUid) -> Result<bool, JournalError> {
        let newly = self.targets.holder(target).is_none();
        let mine = self.targets.take(target, uid);
        // One that has released it has its tombstone by now.
        let found = self.tombstones.of_target(target);
        match found {
            Ok(None) => Ok(mine),
            Ok(Some(first)) if first.request.uid == *uid => Ok(mine),
            Ok(Some(_)) => {
                self.targets.release(target, uid);
                Ok(false)
            }
            Err(error) => {
                if newly {
                    self.targets.release(target, uid);
                }
                Err(error)
            }
        }
    }

    /// It could not be written that it has it, and it has done nothing there.
    pub fn release(&self, target: &TargetKey, uid: &RequestUid) {
        self.targets.release(target, uid);
    }

    /// What is remembered of another request than this one that holds the target.
    pub fn first(&self, target: &TargetKey, uid: &RequestUid) -> Result<Option<First>, JournalError> {
        // In this order: one that has got its tombstone meanwhile is found there.
        let holder = self.targets.holder(target);
        if let Some(Record { request, entry, .. }) = self.tombstones.of_target(target)?
            && request.uid != *uid
        {
            return Ok(Some(First { uid: request.uid, outcome: outcome_of(entry) }));
        }
        let Some(holder) = holder.filter(|holder| holder != uid) else { return Ok(None) };
        let name = file_name(&holder);
        // Its first record may not be written yet.
        let text = self.disk.read(&name).map_err(JournalError::io("read", &name))?;
        let record = text.and_then(|text| Record::from_file(&text));
        Ok(Some(First { uid: holder, outcome: record.and_then(|record| outcome_of(record.entry)) }))
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
        let (uid, target) = (record.request.uid.clone(), record.entry.target.clone());
        if matches!(record.entry.stage, Stage::Ended { .. }) {
            self.tombstones.replace(record).await?;
        } else {
            let name = file_name(&uid);
            self.disk.remove(&name).await.map_err(JournalError::io("remove", &name))?;
        }
        if let Some(target) = target {
            self.targets.release(&target, &uid);
        }
        Ok(())
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

fn outcome_of(entry: Entry) -> Option<Outcome> {
    match entry.stage {
        Stage::Ended { outcome } => Some(outcome),
        Stage::Prepared | Stage::Fencing | Stage::Starting | Stage::Running { .. } => None,
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
        agent::memory::{disk::Folder, tombstones::LIMIT},
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

    fn target() -> TargetKey {
        TargetKey { batch: "b-1".into(), pod: "p-1".into() }
    }

    fn of_target(uid: &str, stage: Stage) -> Record {
        let mut record = record(uid, stage);
        record.entry.target = Some(target());
        record
    }

    /// Nobody but `u` has it, and that is told to whoever asks.
    #[track_caller]
    fn is_held_by_u(journal: &Journal<Folder>, has_ended: bool) {
        assert!(
            journal.take(&target(), &"u".into()).expect("read") && !journal.take(&target(), &"v".into()).expect("read")
        );
        assert_eq!(journal.first(&target(), &"u".into()).expect("read"), None);
        let first = journal.first(&target(), &"v".into()).expect("read").expect("a first");
        assert_eq!((first.uid.as_str(), first.outcome.is_some()), ("u", has_ended));
        let other = TargetKey { pod: "p-2".into(), ..target() };
        assert_eq!(journal.first(&other, &"v".into()).expect("read"), None);
    }

    #[tokio::test]
    async fn a_target_has_one_request_as_it_is_prepared_runs_has_ended_and_is_gone_and_after_each_restart() {
        let state = tempfile::tempdir().expect("a folder");
        let (mut journal, _) = open(state.path());
        assert_eq!(journal.first(&target(), &"v".into()).expect("read"), None);
        is_held_by_u_once_taken(&journal);
        for (stage, has_ended) in [(Stage::Prepared, false), (Stage::Starting, false), (ended(""), true)] {
            journal.write(of_target("u", stage)).await.expect("written");
            is_held_by_u(&journal, has_ended);
            drop(journal);
            journal = open(state.path()).0;
            is_held_by_u(&journal, has_ended);
        }
        journal.remove(of_target("u", ended(""))).await.expect("entombed");
        is_held_by_u(&journal, true);
        drop(journal);
        is_held_by_u(&open(state.path()).0, true);
    }

    /// Before the first record of it is written.
    fn is_held_by_u_once_taken(journal: &Journal<Folder>) {
        assert!(journal.take(&target(), &"u".into()).expect("read"));
        is_held_by_u(journal, false);
    }

    #[tokio::test]
    async fn a_target_is_free_again_if_nothing_was_put_down_or_nothing_has_run() {
        let state = tempfile::tempdir().expect("a folder");
        let (journal, _) = open(state.path());
        for uid in ["u", "v"] {
            assert!(journal.take(&target(), &uid.into()).expect("read"));
            // Nobody gives back what another one has.
            journal.release(&target(), &"w".into());
            assert!(!journal.take(&target(), &"w".into()).expect("read"));
            journal.release(&target(), &uid.into());
        }
        assert!(journal.take(&target(), &"u".into()).expect("read"));
        journal.write(of_target("u", Stage::Prepared)).await.expect("written");
        journal.remove(of_target("u", Stage::Prepared)).await.expect("removed");
        assert!(journal.take(&target(), &"v".into()).expect("read"));
    }

    #[tokio::test]
    async fn of_two_records_of_a_target_the_one_that_may_have_run_has_it() {
        let state = tempfile::tempdir().expect("a folder");
        let (journal, _) = open(state.path());
        journal.write(of_target("a", Stage::Prepared)).await.expect("written");
        journal.write(of_target("u", Stage::Starting)).await.expect("written");
        drop(journal);
        let (journal, records) = open(state.path());
        assert_eq!(records.len(), 2);
        is_held_by_u(&journal, false);
        assert!(journal.first(&target(), &"a".into()).expect("read").is_some(), "it starts nothing");
    }

    #[tokio::test]
    async fn a_target_is_remembered_for_as_long_as_its_tombstone() {
        let state = tempfile::tempdir().expect("a folder");
        let (journal, _) = open(state.path());
        journal.remove(of_target("u", ended(""))).await.expect("entombed");
        let uids: Vec<String> = (0..LIMIT).map(|number| format!("u{number}")).collect();
        let all = uids.iter().map(|uid| journal.remove(record(uid, ended(""))));
        futures::future::try_join_all(all).await.expect("entombed");
        journal.remove(record("last", ended(""))).await.expect("entombed");
        assert!(state.path().join("journal/tombstones.old").exists());
        is_held_by_u(&journal, true);
        drop(journal);
        is_held_by_u(&open(state.path()).0, true);
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
