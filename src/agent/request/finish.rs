//! Finish: from the end of a command to the moment when nothing is left to do for it.

use std::time::Instant;

use super::{
    look::exec_of,
    report::{self, Reported},
    settle,
    work::{Next, Work},
};
use crate::{
    agent::{
        command::{
            kill,
            running::{Survivors, WatchEnd},
        },
        node::{StepError, World},
        streams::ring::Written,
    },
    api::{ExecRequest, ExecResult, Reason},
    core::{
        entry::{Entry, Stage},
        ids::ExecRef,
        kill::Kill,
        outcome::Outcome,
        request::BoundRequest,
    },
    engine::Engine,
    infra::metrics::Step,
};

impl<W: World> Work<W> {
    /// Notes how a command has ended. The report is the next step.
    pub(super) async fn end(&mut self, exec: &ExecRef, watched: WatchEnd, request: Option<&BoundRequest>) -> Next {
        let mut outcome = match watched {
            WatchEnd::Ended(outcome) => outcome,
            WatchEnd::Left => return Next::Done,
        };
        let entry = self.memory.entry();
        let kill = entry.as_ref().and_then(|entry| entry.kill.clone()).filter(|kill| !kill.survivors);
        if let (Some(entry), Some(kill)) = (entry, kill) {
            let unfinished = Kill { survivors: true, ..traced(&entry, kill.clone()) };
            tokio::select! {
                biased;
                // The outcome is not lost: the next agent goes on with the killing.
                () = self.node.stopping.cancelled() => self.memory.note_kill(exec, unfinished).await,
                living = kill::finish(&self.node, self.key(), exec, &entry, &kill) => if !living.is_empty() {
                    self.memory.note_kill(exec, unfinished).await;
                    outcome = settle::survived(&self.node, request, &Survivors { cause: kill.cause, living }).await;
                }
            }
        }
        if request.is_none() {
            // What was kept of it is looked up when it is reported, by the limits of its request.
            outcome.output = None;
        }
        self.memory.end(Some(exec), outcome).await;
        Next::Again
    }

    pub(super) async fn report(
        &mut self,
        seen: ExecRequest,
        request: &BoundRequest,
        outcome: Outcome,
    ) -> Result<Next, StepError> {
        let begun = Instant::now();
        self.put_down_end(request, &outcome).await?;
        self.node.audit.ended(&self.memory.subject(), &outcome).await;
        let Reported { version, result } = report::report(&self.node, self.key(), seen, &outcome).await?;
        // Those who watch are told what the status says, once it does.
        self.conclude(&outcome, result.unwrap_or_else(|| outcome.result()));
        self.versions.extend(version);
        self.done(Step::Report, begun);
        if self.memory.entry().is_some_and(|entry| entry.has_survivors()) {
            return Ok(Next::Again);
        }
        Ok(self.forget(Some(outcome)).await)
    }

    /// An outcome is put down before anybody can read it: should an agent end in between, and an older state of the API server
    /// come back, it still stands.
    async fn put_down_end(&self, request: &BoundRequest, outcome: &Outcome) -> Result<(), StepError> {
        let entry = self.entry()?;
        if !matches!(&entry, Some(Entry { stage: Stage::Ended { .. }, .. })) {
            let exec = exec_of(Some(request), entry.as_ref());
            self.memory.end(exec.as_ref(), outcome.clone()).await;
        }
        Ok(())
    }

    /// Tells those who watch how it has ended. What was said before stands.
    fn conclude(&self, outcome: &Outcome, result: ExecResult) {
        let written = Written::said(outcome.output.as_ref(), outcome.may_have_run);
        self.hub.end(|| self.node.spool.size(self.key()), written);
        self.hub.conclude(result);
    }

    /// There is nobody to report to: the audit trail alone tells how it ended.
    pub(super) async fn record_end_unreported(&self, outcome: Option<&Outcome>) -> Result<(), StepError> {
        let now = self.node.clock.now();
        let outcome = match (outcome.cloned().or_else(|| self.memory.outcome()), self.memory.entry()) {
            (Some(outcome), _) => outcome,
            (None, Some(_)) => Outcome::lost("the request was deleted while its command ran", None, now),
            // It has ended before, and was recorded then.
            (None, None) if self.node.journal.tombstone(&self.key().uid)?.is_some() => return Ok(()),
            (None, None) => Outcome::refused(Reason::Deleted, "the request was deleted before it was taken up", now),
        };
        self.node.audit.ended(&self.memory.subject(), &outcome).await;
        Ok(())
    }

    /// Kills what is left of it. Whether that was done: the next agent goes on with it otherwise.
    pub(super) async fn kill(&self) -> bool {
        let Some(entry) = self.memory.entry() else { return true };
        tokio::select! {
            biased;
            () = self.node.stopping.cancelled() => false,
            () = kill::to_the_last(&self.node, self.key(), &entry) => true,
        }
    }

    pub(super) async fn forget(&mut self, reported: Option<Outcome>) -> Next {
        let entry = self.memory.entry();
        let ran = entry.as_ref().is_some_and(Entry::may_have_run);
        let exec = entry.and_then(|entry| entry.exec);
        let reported = match (reported, self.memory.outcome()) {
            (None, None) if ran => {
                let message = "the request was finished or deleted while its command ran";
                let outcome = Outcome::lost(message, None, self.node.clock.now());
                // A tombstone may find no room: the engine must not forget it before this is put down.
                self.memory.end(exec.as_ref(), outcome.clone()).await;
                Some(outcome)
            }
            (reported, _) => reported,
        };
        if let Some(outcome) = &reported {
            self.conclude(outcome, outcome.result());
        } else {
            self.hub.end(|| self.node.spool.size(self.key()), Written::NOTHING);
            self.hub.conclude(ExecResult::of_error("the request was deleted"));
        }
        // What was handed over and needed no reading any more.
        drop(self.node.take_handed_over(&self.key().uid));
        self.node.spool.finish(self.key(), self.node.clock.now().into());
        // Whoever finds neither exec nor end would take it for one that never ran.
        if self.memory.forget(reported).await
            && let Some(exec) = exec
            && let Err(error) = self.node.engine.forget(&exec).await
        {
            tracing::warn!(exec = %exec.id, %error, "the engine keeps what is left of an exec that is no longer needed");
        }
        Next::Done
    }
}

fn traced(entry: &Entry, kill: Kill) -> Kill {
    match &entry.stage {
        Stage::Running { process, pipes, .. } => Kill { process: Some(*process), pipes: pipes.clone(), ..kill },
        Stage::Prepared | Stage::Fencing | Stage::Starting | Stage::Ended { .. } => kill,
    }
}
