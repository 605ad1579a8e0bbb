//! What the agent remembers of one request, in hand and on disk.

use std::sync::{Arc, OnceLock};

use k8s_openapi::jiff::Timestamp;

use super::journal::{JournalError, Record};
use crate::{
    agent::node::{Node, World},
    api::ExecRequest,
    core::{
        audit::subject::Subject,
        decide::{Entry, Stage},
        ids::{ExecRef, ProcessRef, RequestKey},
        kill::Kill,
        outcome::Outcome,
    },
    infra::kernel::Kernel,
};
use parking_lot::{Mutex, MutexGuard};

/// The memory of one request.
pub(crate) struct Memory<W: World> {
    node: Arc<Node<W>>,
    key: RequestKey,
    created: Timestamp,
    entry: Mutex<Option<Entry>>,
    /// What its audit records tell of it, once the request was read.
    subject: OnceLock<Subject>,
}

impl<W: World> Memory<W> {
    /// What the journal knew at first, if anything.
    pub(crate) fn new(node: Arc<Node<W>>, key: RequestKey, created: Timestamp, entry: Option<Entry>) -> Self {
        Self { node, key, created, entry: Mutex::new(entry), subject: OnceLock::new() }
    }

    /// Which request.
    pub(crate) fn key(&self) -> &RequestKey {
        &self.key
    }

    /// The request was read: from now on audit records can tell more of it.
    pub(crate) fn saw(&self, request: &ExecRequest) {
        if self.subject.get().is_none()
            && let Ok(subject) = self.node.audit.subject(request)
        {
            self.subject.get_or_init(|| subject);
        }
    }

    /// What audit records tell of it.
    pub(crate) fn subject(&self) -> Subject {
        self.subject.get().cloned().unwrap_or_else(|| self.node.audit.unread(&self.key))
    }

    /// What is remembered now.
    pub(crate) fn entry(&self) -> Option<Entry> {
        self.lock().clone()
    }

    /// The outcome, if it is known.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        match &*self.lock() {
            Some(Entry { stage: Stage::Ended { outcome }, .. }) => Some(outcome.clone()),
            Some(_) | None => None,
        }
    }

    /// Puts it down before the act that it speaks of: only when this is `Ok` may that be done.
    pub(crate) async fn put_down(&self, exec: ExecRef, stage: Stage) -> Result<(), JournalError> {
        let started = matches!(stage, Stage::Starting).then(|| self.node.kernel.uptime());
        let entry = Entry { exec, boot: self.node.boot.clone(), stage, started, fed: false, kill: None };
        self.node.journal.write(self.record(entry.clone())).await?;
        *self.lock() = Some(entry);
        Ok(())
    }

    /// The process was found. `starting` stays true if this cannot be written, only less exact.
    pub(crate) async fn note_process(&self, exec: &ExecRef, process: ProcessRef, pipes: Vec<u64>) {
        let stage = Stage::Running { process, pipes };
        self.change(exec, |entry| entry.stage = stage).await;
    }

    /// It runs, and its record is lost: without another nobody would know of it once its request is deleted.
    pub(crate) async fn note_adopted(&self, exec: &ExecRef, process: Option<ProcessRef>, pipes: Vec<u64>) {
        self.change(exec, |entry| {
            if let Some(process) = process {
                entry.stage = Stage::Running { process, pipes };
            }
        })
        .await;
    }

    /// The whole input was delivered: from now on nothing of it can be lost.
    pub(crate) async fn note_fed(&self, exec: &ExecRef) {
        self.change(exec, |entry| entry.fed = true).await;
    }

    /// The killing has begun, or has gone on in vain.
    pub(crate) async fn note_kill(&self, exec: &ExecRef, kill: Kill) {
        self.change(exec, |entry| entry.kill = Some(kill)).await;
    }

    /// The outcome is known, in memory at least: a journal that cannot be written never holds back a report.
    pub(crate) async fn end(&self, exec: &ExecRef, outcome: Outcome) {
        self.change(exec, |entry| entry.stage = Stage::Ended { outcome }).await;
    }

    /// Notes what is true already, whether or not the disk takes it.
    async fn change(&self, exec: &ExecRef, change: impl FnOnce(&mut Entry)) {
        let write = {
            let mut entry = self.lock();
            let mut next = entry.take().filter(|entry| entry.exec.id == exec.id).unwrap_or_else(|| Entry {
                exec: exec.clone(),
                boot: self.node.boot.clone(),
                stage: Stage::Starting,
                started: None,
                fed: false,
                kill: None,
            });
            change(&mut next);
            *entry = Some(next.clone());
            // Called under the lock, so that the last change is the last write.
            self.node.journal.write(self.record(next))
        };
        if let Err(error) = write.await {
            tracing::error!(request = %self.key, uid = %self.key.uid, %error, "this could not be written to the journal, it goes on all the same");
        }
    }

    /// Nothing is left to do: the record goes, and if there is an outcome a tombstone stays. One that
    /// cannot be put up leaves the record in its place, which does as well until the next start.
    pub(crate) async fn forget(&self, reported: Option<Outcome>) {
        let entry = self.lock().take();
        let entry = match (entry, reported) {
            (Some(entry), None) => entry,
            (Some(entry), Some(outcome)) => Entry { stage: Stage::Ended { outcome }, ..entry },
            // Reported once more, after an older state came back: the tombstone that tells so stays.
            (None, Some(_)) if self.has_tombstone() => return,
            // Nothing was prepared. It must not run either, should an older state come back.
            (None, Some(outcome)) => Entry {
                exec: ExecRef::none(),
                boot: self.node.boot.clone(),
                stage: Stage::Ended { outcome },
                started: None,
                fed: false,
                kill: None,
            },
            (None, None) => return,
        };
        if let Err(error) = self.node.journal.remove(self.record(entry)).await {
            tracing::error!(request = %self.key, uid = %self.key.uid, %error, "a finished request stays in the journal until the next start");
        }
    }

    fn has_tombstone(&self) -> bool {
        self.node.journal.tombstone(&self.key.uid).is_ok_and(|tombstone| tombstone.is_some())
    }

    fn record(&self, entry: Entry) -> Record {
        Record::new(self.key.clone(), self.created, entry)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Entry>> {
        self.entry.lock()
    }
}
