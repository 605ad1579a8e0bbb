//! Tombstones: what is remembered of finished requests, one line each in a file that only grows.
//!
//! There are two files: when the newer one is full, it takes the place of the older one.
//!
//! The target of a batch is remembered for as long as the tombstone that names it, so by number, too: at least the last
//! 20,000 requests of the node. A batch has at most half as many, on all nodes together, and a second request for a target
//! comes only of an older state of the API server: what is remembered of requests reaches as far back as what is remembered of
//! targets.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::{
    disk::Disk,
    record::{JournalError, Record, file_name},
};
use crate::core::{
    entry::Entry,
    ids::{RequestUid, TargetKey},
};

const FILE: &str = "tombstones";
const OLD_FILE: &str = "tombstones.old";
/// Tombstones in one file: at least so many are remembered, at most twice as many.
pub(super) const LIMIT: usize = 20_000;
/// Most tombstones that one write adds.
const BATCH: usize = 256;

/// The beginning of the SHA-256 of a request's UID, or of a target.
type Key = [u8; 16];
/// Offset and length in a file.
type Span = (u64, u32);

pub(super) struct Tombstones<D> {
    disk: Arc<D>,
    spans: Mutex<Spans>,
    /// Held while a batch is written: a span is found from the end of the file.
    writing: tokio::sync::Mutex<()>,
}

/// Where the tombstones of one file are.
#[derive(Default)]
struct Index {
    requests: HashMap<Key, Span>,
    /// Of those that held a target.
    targets: HashMap<Key, Span>,
}

impl Index {
    fn add(&mut self, request: Key, target: Option<Key>, span: Span) {
        self.requests.insert(request, span);
        if let Some(target) = target {
            // Who was first stays so.
            self.targets.entry(target).or_insert(span);
        }
    }
}

#[derive(Default)]
struct Spans {
    new: Index,
    old: Index,
    /// Records whose tombstones could not be written yet. Their files are still on the disk.
    pending: BTreeMap<RequestUid, Record>,
}

impl Spans {
    fn find(&self, key: &Key) -> Option<(&'static str, Span)> {
        let new = self.new.requests.get(key).map(|span| (FILE, *span));
        new.or_else(|| self.old.requests.get(key).map(|span| (OLD_FILE, *span)))
    }

    fn find_target(&self, key: &Key) -> Option<(&'static str, Span)> {
        let old = self.old.targets.get(key).map(|span| (OLD_FILE, *span));
        old.or_else(|| self.new.targets.get(key).map(|span| (FILE, *span)))
    }
}

impl<D: Disk> Tombstones<D> {
    pub(super) fn open(disk: Arc<D>) -> Result<Self, JournalError> {
        let (new, old) = (read_file(&*disk, FILE)?, read_file(&*disk, OLD_FILE)?);
        let spans = Mutex::new(Spans { new, old, pending: BTreeMap::new() });
        Ok(Self { disk, spans, writing: tokio::sync::Mutex::default() })
    }

    /// Writes the tombstone of a request in place of its record, and with it those that could not be written before.
    pub(super) async fn replace(&self, record: Record) -> Result<(), JournalError> {
        self.spans.lock().pending.insert(record.request.uid.clone(), record);
        let _writing = self.writing.lock().await;
        loop {
            let batch: Vec<Record> = self.spans.lock().pending.values().take(BATCH).cloned().collect();
            if batch.is_empty() {
                return Ok(());
            }
            self.write(&batch).await?;
            for Record { request, .. } in batch {
                self.spans.lock().pending.remove(&request.uid);
                let name = file_name(&request.uid);
                self.disk.remove(&name).await.map_err(JournalError::io("remove", &name))?;
            }
        }
    }

    async fn write(&self, batch: &[Record]) -> Result<(), JournalError> {
        if self.spans.lock().new.requests.len() >= LIMIT {
            self.disk.rename(FILE, OLD_FILE).map_err(JournalError::io("rename", FILE))?;
            let mut spans = self.spans.lock();
            spans.old = std::mem::take(&mut spans.new);
        }
        let (mut text, mut added) = (Vec::new(), Vec::new());
        for record in batch {
            let key = key_of(&record.request.uid);
            if self.spans.lock().find(&key).is_some() {
                continue;
            }
            // Begins a line, even after a write that was cut off.
            text.push(b'\n');
            let line = record.clone().without_tails().to_line()?;
            let target = record.entry.target.as_ref().map(key_of_target);
            added.push((key, target, text.len() as u64, u32::try_from(line.len()).unwrap_or(u32::MAX)));
            text.extend(line);
            text.push(b'\n');
        }
        if added.is_empty() {
            return Ok(());
        }
        let offset = self.disk.append(FILE, text).await.map_err(JournalError::io("add to", FILE))?;
        let mut spans = self.spans.lock();
        for (key, target, start, length) in added {
            spans.new.add(key, target, (offset + start, length));
        }
        Ok(())
    }

    pub(super) fn get(&self, uid: &RequestUid) -> Result<Option<Entry>, JournalError> {
        let found = {
            let spans = self.spans.lock();
            if let Some(record) = spans.pending.get(uid) {
                return Ok(Some(record.entry.clone()));
            }
            spans.find(&key_of(uid))
        };
        let record = self.read(found)?;
        Ok(record.filter(|record| record.request.uid == *uid).map(|record| record.entry))
    }

    /// The record of the request that held a target, if it has finished.
    pub(super) fn of_target(&self, target: &TargetKey) -> Result<Option<Record>, JournalError> {
        let holds = |record: &&Record| record.entry.target.as_ref() == Some(target);
        let found = {
            let spans = self.spans.lock();
            if let Some(record) = spans.pending.values().find(holds) {
                return Ok(Some(record.clone()));
            }
            spans.find_target(&key_of_target(target))
        };
        Ok(self.read(found)?.filter(|record| holds(&record)))
    }

    fn read(&self, found: Option<(&'static str, Span)>) -> Result<Option<Record>, JournalError> {
        let Some((file, (offset, length))) = found else { return Ok(None) };
        let line = self.disk.read_at(file, offset, length as usize).map_err(JournalError::io("read", file))?;
        Ok(Record::from_line(&line))
    }
}

fn key_of(uid: &RequestUid) -> Key {
    beginning_of_digest(uid.as_str())
}

fn key_of_target(target: &TargetKey) -> Key {
    beginning_of_digest(&format!("{}\n{}", target.batch, target.pod))
}

fn beginning_of_digest(text: &str) -> Key {
    let digest = Sha256::digest(text.as_bytes());
    let mut key = Key::default();
    key.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    key
}

/// Where each tombstone of a file is.
fn read_file<D: Disk>(disk: &D, name: &str) -> Result<Index, JournalError> {
    let mut index = Index::default();
    let mut offset = 0;
    let text = disk.read(name).map_err(JournalError::io("read", name))?.unwrap_or_default();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        match Record::from_line(text) {
            Some(record) => {
                let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                let target = record.entry.target.as_ref().map(key_of_target);
                index.add(key_of(&record.request.uid), target, (offset, length));
            }
            None if text.is_empty() => {}
            None => tracing::warn!(name, offset, "a tombstone is damaged: a crash cut it off, or the disk is bad"),
        }
        offset += line.len() as u64;
    }
    Ok(index)
}
