//! What the agent remembers of one request, in hand and on disk.

use std::sync::{Arc, OnceLock};

use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;

use super::{
    noted::{self, Noted},
    record::{JournalError, Record},
};
use crate::{
    agent::{
        node::{Node, World},
        streams::{input::InputState, state::SavedOutput},
    },
    api::{ExecRequest, OutputLimits},
    core::{
        audit::subject::Subject,
        entry::{Entry, Stage, Terms},
        family::since_boot,
        ids::{ExecRef, ProcessRef, RequestKey, TargetKey},
        kill::Kill,
        outcome::Outcome,
    },
    engine::Engine,
    infra::kernel::Kernel,
};

pub(crate) struct Memory<W: World> {
    node: Arc<Node<W>>,
    key: RequestKey,
    created: Timestamp,
    entry: Mutex<Option<Entry>>,
    /// What its audit records tell of it, once the request was read.
    subject: OnceLock<Subject>,
    /// What it asks for, once it was read.
    terms: OnceLock<Terms>,
    /// Which target of which batch it is for, once it was read.
    target: OnceLock<TargetKey>,
}

impl<W: World> Memory<W> {
    /// What the journal knew at first, if anything.
    pub(crate) fn new(node: Arc<Node<W>>, key: RequestKey, created: Timestamp, entry: Option<Entry>) -> Self {
        let (subject, terms, target) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { node, key, created, entry: Mutex::new(entry), subject, terms, target }
    }

    pub(crate) fn key(&self) -> &RequestKey {
        &self.key
    }

    /// What the request asks for, by the request itself or by the journal, if either has told.
    pub(crate) fn terms(&self) -> Option<Terms> {
        self.terms.get().copied().or_else(|| self.entry().and_then(|entry| entry.terms))
    }

    /// The request was read: from now on audit records can tell more of it.
    pub(crate) fn saw(&self, request: &ExecRequest) {
        self.terms.get_or_init(|| Terms::from(&request.spec));
        if self.subject.get().is_none()
            && let Ok(subject) = self.node.audit.subject(request)
        {
            self.subject.get_or_init(|| subject);
        }
    }

    /// It is for this target of a batch, as its binding says.
    pub(crate) fn is_for(&self, target: TargetKey) {
        self.target.get_or_init(|| target);
    }

    pub(crate) fn subject(&self) -> Subject {
        self.subject.get().cloned().unwrap_or_else(|| self.node.audit.unread(&self.key))
    }

    pub(crate) fn entry(&self) -> Option<Entry> {
        self.entry.lock().clone()
    }

    pub(crate) fn outcome(&self) -> Option<Outcome> {
        match &*self.entry.lock() {
            Some(Entry { stage: Stage::Ended { outcome }, .. }) => Some(outcome.clone()),
            Some(_) | None => None,
        }
    }

    /// Puts it down before the act that it speaks of: only when this is `Ok` may that be done.
    pub(crate) async fn put_down(&self, exec: ExecRef, stage: Stage) -> Result<(), JournalError> {
        let started = match stage {
            Stage::Starting => Some(self.node.kernel.uptime()),
            Stage::Fencing => self.entry().and_then(|entry| entry.started),
            Stage::Prepared | Stage::Running { .. } | Stage::Ended { .. } => None,
        };
        let held = self.entry().and_then(|entry| entry.target);
        let target = held.clone().or_else(|| self.target.get().cloned());
        if let Some(target) = &target
            && !self.node.journal.take(target, &self.key.uid)?
        {
            return Err(JournalError::Taken { request: self.key.to_string() });
        }
        let new = Entry::new(Some(exec), self.node.boot.clone(), stage);
        let entry = Entry { started, terms: self.terms(), target: target.clone(), ..new };
        if let Err(error) = self.node.journal.write(self.record(entry.clone())).await {
            if let (None, Some(target)) = (&held, &target) {
                self.node.journal.release(target, &self.key.uid);
            }
            return Err(error);
        }
        *self.entry.lock() = Some(entry);
        Ok(())
    }

    /// The target that what is true already is noted with: not that of another request.
    fn target(&self) -> Option<TargetKey> {
        let target = self.target.get()?;
        self.node.journal.take(target, &self.key.uid).is_ok_and(|mine| mine).then(|| target.clone())
    }

    /// The process was found. `starting` stays true if this cannot be written, only less exact.
    pub(crate) async fn note_process(&self, exec: &ExecRef, process: ProcessRef, pipes: Vec<u64>, executed: bool) {
        let stage = Stage::Running { process, pipes, executed };
        self.change(Some(exec), |entry| entry.stage = stage).await;
    }

    /// It was seen to have executed the command.
    pub(crate) async fn note_executed(&self, exec: &ExecRef) {
        self.change(Some(exec), |entry| {
            if let Stage::Running { executed, .. } = &mut entry.stage {
                *executed = true;
            }
        })
        .await;
    }

    /// It was to be taken away, and had been started before.
    pub(crate) async fn note_started(&self, exec: &ExecRef) {
        self.change(Some(exec), |entry| entry.stage = Stage::Starting).await;
    }

    /// It runs, and its record is lost: without another nobody would know of it once its request is deleted.
    pub(crate) async fn note_adopted(&self, exec: &ExecRef, process: Option<ProcessRef>, pipes: Vec<u64>) {
        self.change(Some(exec), |entry| {
            if let Some(process) = process {
                entry.stage = Stage::Running { process, pipes, executed: false };
                entry.started = entry.started.or(Some(since_boot(process.start_ticks)));
            }
        })
        .await;
    }

    /// The whole input was delivered: from now on nothing of it can be lost.
    pub(crate) async fn note_fed(&self, exec: &ExecRef) {
        self.change(Some(exec), |entry| entry.fed = true).await;
    }

    /// The killing has begun, or has gone on in vain.
    pub(crate) async fn note_kill(&self, exec: &ExecRef, kill: Kill) {
        self.change(Some(exec), |entry| entry.kill = Some(kill)).await;
    }

    /// The outcome is known, in memory at least: a journal that cannot be written never holds back a report.
    /// `exec`: of which exec, if there is one.
    pub(crate) async fn end(&self, exec: Option<&ExecRef>, outcome: Outcome) {
        self.change(exec, |entry| entry.stage = Stage::Ended { outcome }).await;
    }

    /// Notes what is true already, whether or not the disk takes it.
    async fn change(&self, exec: Option<&ExecRef>, change: impl FnOnce(&mut Entry)) {
        let write = {
            let mut entry = self.entry.lock();
            let same = |entry: &Entry| entry.exec.as_ref().map(|own| &own.id) == exec.map(|exec| &exec.id);
            let before = entry.take();
            let held = before.as_ref().and_then(|entry| entry.target.clone());
            let mut next = before
                .filter(same)
                .unwrap_or_else(|| Entry::new(exec.cloned(), self.node.boot.clone(), Stage::Starting));
            change(&mut next);
            next.terms = next.terms.or(self.terms.get().copied());
            // What never had an exec holds nothing.
            next.target = held.or_else(|| exec.and_then(|_| self.target()));
            *entry = Some(next.clone());
            // Whoever shares this memory is of one task: nothing else runs before the write is asked for.
            self.node.journal.write(self.record(next))
        };
        if let Err(error) = write.await {
            tracing::error!(request = %self.key, uid = %self.key.uid, %error, "this could not be written to the journal, it goes on all the same");
        }
    }

    /// Nothing is left to do: the record goes, and if there is an outcome a tombstone stays. One that
    /// cannot be put up leaves the record in its place, which does as well until the next start. Whether it is done.
    pub(crate) async fn forget(&self, reported: Option<Outcome>) -> bool {
        let entry = self.entry.lock().take();
        let entry = match (entry, reported) {
            (Some(entry), None) => entry,
            (Some(entry), Some(outcome)) => Entry { stage: Stage::Ended { outcome }, ..entry },
            // Reported once more, after an older state came back: the tombstone that tells so stays.
            (None, Some(_)) if self.node.journal.tombstone(&self.key.uid).is_ok_and(|found| found.is_some()) => {
                return true;
            }
            // Nothing was prepared. It must not run either, should an older state come back.
            (None, Some(outcome)) => Entry::new(None, self.node.boot.clone(), Stage::Ended { outcome }),
            (None, None) => return true,
        };
        if self.node.engine.habits().keeps_output
            && let Err(error) = self.node.journal.forget_note(&self.key.uid).await
        {
            tracing::warn!(request = %self.key, uid = %self.key.uid, %error, "a note of output that is complete stays behind");
        }
        let removed = self.node.journal.remove(self.record(entry)).await;
        if let Err(error) = &removed {
            tracing::error!(request = %self.key, uid = %self.key.uid, %error, "a finished request stays in the journal until the next start");
        }
        removed.is_ok()
    }

    /// Notes how far the command's output was received and kept. Whether that is on the disk.
    pub(crate) async fn note_output(&self, exec: &ExecRef, output: SavedOutput, file: u64, input: &InputState) -> bool {
        let Some(text) = noted::encode(exec, output, file, input) else { return false };
        match self.node.journal.note(&self.key.uid, text).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(request = %self.key, uid = %self.key.uid, %error, "how far the output was received cannot be noted");
                false
            }
        }
    }

    /// How far an earlier agent had come with the output of this exec.
    pub(crate) fn noted_output(&self, exec: &ExecRef, limits: &OutputLimits) -> Option<Noted> {
        noted::decode(&self.node.journal.noted(&self.key.uid)?, exec, limits)
    }

    fn record(&self, entry: Entry) -> Record {
        Record::new(self.key.clone(), self.created, entry)
    }
}
