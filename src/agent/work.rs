//! One request, from the moment the agent sees it to its end: look, decide, act.
//!
//! The undisturbed way and every recovery are the same loop. What is to be done
//! is `core::decide`'s to say; how, the steps' beside this file.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use tokio::time::sleep;

use super::{
    adopt, commit,
    journal::Record,
    node::{Node, StepError},
    prepare, pump, report, settle, start,
};
use crate::{
    api::{ExecRequest, Reason},
    core::{
        decide::{Action, ContainerView, Entry, ExecView, Situation, Stage, Wanted, decide, decide_without_engine},
        ids::{ContainerRef, ExecRef, ProcessRef, RequestKey},
        outcome::Outcome,
        request::{BoundRequest, Progress},
    },
    engine::{Engine, EngineError},
    infra::{metrics::Step, process},
};

/// Pause after the first failed step; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// One request in the agent's hands.
pub(super) struct Work<E> {
    node: Arc<Node<E>>,
    key: RequestKey,
    created: Timestamp,
    /// The object as last read; `None` until it is read, or when it must be read again.
    seen: Option<ExecRequest>,
    entry: Option<Entry>,
}

/// What the loop does after an action.
enum Next {
    Again,
    Done,
}

impl<E: Engine> Work<E> {
    /// A request that the watch has shown.
    pub(super) fn new(
        node: Arc<Node<E>>,
        key: RequestKey,
        created: Timestamp,
        seen: ExecRequest,
        entry: Option<Entry>,
    ) -> Self {
        Self { node, key, created, seen: Some(seen), entry }
    }

    /// A request that only the journal knows of.
    pub(super) fn remembered(node: Arc<Node<E>>, record: Record) -> Self {
        Self { node, key: record.request, created: record.created, seen: None, entry: Some(record.entry) }
    }

    /// Which request.
    pub(super) fn key(&self) -> &RequestKey {
        &self.key
    }

    /// Works until nothing is left to do.
    pub(super) async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.step().await {
                Ok(Next::Done) => return,
                Ok(Next::Again) => pause = FIRST_PAUSE,
                Err(error) => {
                    tracing::warn!(request = %self.key, uid = %self.key.uid, %error, "a step failed, it will be tried again");
                    if self.node.stopping.is_cancelled() && !self.has_ended() {
                        return;
                    }
                    self.seen = None;
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        let seen = match self.seen.take() {
            Some(seen) => Some(seen),
            None => self.node.requests.get(&self.key).await?,
        };
        // A request that is being deleted is as good as gone, whoever still holds it.
        let seen = seen.filter(|seen| seen.metadata.deletion_timestamp.is_none());
        let Some((seen, request)) =
            seen.and_then(|seen| BoundRequest::try_from(&seen).ok().map(|request| (seen, request)))
        else {
            return self.gone().await;
        };
        let action = self.decide(&seen, &request).await?;
        if self.node.stopping.is_cancelled() && !matches!(action, Action::Report(_) | Action::Forget) {
            return Ok(Next::Done);
        }
        tracing::debug!(request = %self.key, uid = %self.key.uid, ?action, "decided");
        self.act(action, seen, &request).await
    }

    async fn decide(&self, seen: &ExecRequest, request: &BoundRequest) -> Result<Action, StepError> {
        if let Some(action) = self.without_engine(request, "").filter(|_| self.has_ended()) {
            // What has ended does not depend on the engine, and must not wait for it.
            return Ok(action);
        }
        let exec = self.exec(seen, request);
        match self.ask_engine(request, exec.as_ref()).await {
            Ok((container, exec)) => Ok(decide(&Situation {
                wanted: Wanted::Request(request),
                entry: self.entry.as_ref(),
                container,
                exec,
                boot: &self.node.boot,
                now: self.node.clock.now(),
            })),
            Err(error) => self.without_engine(request, &error.to_string()).ok_or(error.into()),
        }
    }

    async fn ask_engine(
        &self,
        request: &BoundRequest,
        exec: Option<&ExecRef>,
    ) -> Result<(ContainerView, ExecView), EngineError> {
        Ok((prepare::look(&self.node, request).await?, self.look(exec).await?))
    }

    fn without_engine(&self, request: &BoundRequest, why: &str) -> Option<Action> {
        decide_without_engine(request, self.entry.as_ref(), self.node.clock.now(), why)
    }

    async fn act(&mut self, action: Action, seen: ExecRequest, request: &BoundRequest) -> Result<Next, StepError> {
        let begun = Instant::now();
        let exec = self.exec(&seen, request);
        match action {
            Action::Prepare(container) => {
                match prepare::create(&self.node, request, container).await? {
                    Ok(exec) => self.remember(exec, Stage::Prepared).await?,
                    Err(outcome) => return self.report(seen, outcome).await,
                }
                self.done(Step::Prepare, begun);
                self.seen = Some(seen);
            }
            Action::Commit => {
                if let Some(entry) = &self.entry {
                    self.seen = commit::commit(&self.node, &seen, &entry.exec).await?;
                    self.done(Step::Commit, begun);
                }
            }
            Action::Start { sole } => {
                let Some(exec) = exec else { return Ok(Next::Again) };
                self.remember(exec.clone(), Stage::Starting).await?;
                let outcome = start::start(&self.node, request, &exec, self.created, sole).await?;
                self.end(exec, outcome).await;
                self.seen = Some(seen);
            }
            Action::Adopt => {
                let Some(exec) = exec else { return Ok(Next::Again) };
                match adopt::adopt(&self.node, request, &exec, self.process(&exec).await).await {
                    Some(outcome) => self.end(exec, outcome).await,
                    None => return Ok(Next::Done),
                }
            }
            Action::Settle => {
                let Some(exec) = exec else { return Ok(Next::Again) };
                let outcome = settle::unseen(&self.node, &exec, request).await;
                self.end(exec, outcome).await;
                self.seen = Some(seen);
            }
            Action::Report(mut outcome) => {
                if outcome.may_have_run && outcome.output.is_none() {
                    outcome.output = Some(pump::recall(&self.node, request).await);
                }
                return self.report(seen, outcome).await;
            }
            Action::Forget => {
                self.forget().await?;
                return Ok(Next::Done);
            }
        }
        Ok(Next::Again)
    }

    /// What engine and kernel say of an exec.
    async fn look(&self, exec: Option<&ExecRef>) -> Result<ExecView, EngineError> {
        let Some(exec) = exec else { return Ok(ExecView::None) };
        if self.noted_process(exec).is_some_and(process::alive) {
            return Ok(ExecView::Alive);
        }
        match self.node.engine.inspect_exec(&exec.id).await {
            Ok(state) => Ok(match (state.code, state.pid) {
                // The engine takes some living processes for ended ones: the kernel decides.
                (_, Some(pid)) if process::is_in(pid, &exec.container.id) => ExecView::Alive,
                (Some(_), _) => ExecView::Ended,
                (None, None) if !state.running => ExecView::Created,
                (None, _) => ExecView::Alive,
            }),
            Err(EngineError::NoSuchExec(_)) => Ok(ExecView::Unknown),
            Err(error) => Err(error),
        }
    }

    /// The exec in question: the committed one, as the journal or, where that is lost, the status
    /// knows it; before the commit the one in the journal, if any.
    fn exec(&self, seen: &ExecRequest, request: &BoundRequest) -> Option<ExecRef> {
        let known = self.entry.as_ref().map(|entry| entry.exec.clone());
        let Progress::Committed(id) = &request.progress else { return known };
        known.filter(|exec| exec.id == *id).or_else(|| {
            let container = seen.status.as_ref().and_then(|status| status.container_id.clone()).unwrap_or_default();
            Some(ExecRef {
                id: id.clone(),
                container: ContainerRef { id: container.into(), started_at: String::new() },
            })
        })
    }

    /// The process that the journal has noted in this boot.
    fn noted_process(&self, exec: &ExecRef) -> Option<ProcessRef> {
        match &self.entry {
            Some(Entry { stage: Stage::Running { process }, exec: noted, boot })
                if noted == exec && *boot == self.node.boot =>
            {
                Some(*process)
            }
            Some(_) | None => None,
        }
    }

    /// The process of an exec, from the journal, else from the engine.
    async fn process(&self, exec: &ExecRef) -> Option<ProcessRef> {
        if let Some(process) = self.noted_process(exec) {
            return Some(process);
        }
        let pid = self.node.engine.inspect_exec(&exec.id).await.ok()?.pid?;
        process::find(pid).filter(|_| process::is_in(pid, &exec.container.id))
    }

    /// An outcome is known and not yet reported.
    fn has_ended(&self) -> bool {
        matches!(self.entry, Some(Entry { stage: Stage::Ended { .. }, .. }))
    }

    async fn remember(&mut self, exec: ExecRef, stage: Stage) -> Result<(), StepError> {
        let entry = Entry { exec, boot: self.node.boot.clone(), stage };
        self.node.journal.write(&self.key, self.created, &entry).await?;
        self.entry = Some(entry);
        Ok(())
    }

    /// The outcome is known, in memory at least: a journal that cannot be written never holds back a report.
    async fn end(&mut self, exec: ExecRef, outcome: Outcome) {
        let stage = Stage::Ended { outcome };
        if let Err(error) = self.remember(exec.clone(), stage.clone()).await {
            tracing::error!(request = %self.key, uid = %self.key.uid, %error, "the outcome could not be written to the journal, it is reported all the same");
            self.entry = Some(Entry { exec, boot: self.node.boot.clone(), stage });
        }
    }

    async fn report(&mut self, seen: ExecRequest, outcome: Outcome) -> Result<Next, StepError> {
        let begun = Instant::now();
        report::report(&self.node, &self.key, seen, outcome).await?;
        self.done(Step::Report, begun);
        self.forget().await?;
        Ok(Next::Done)
    }

    /// The request was deleted. What never started never will; what runs is watched to its end.
    async fn gone(&mut self) -> Result<Next, StepError> {
        let exec = self.look(self.entry.as_ref().map(|entry| &entry.exec)).await?;
        let action = decide(&Situation {
            wanted: Wanted::Gone,
            entry: self.entry.as_ref(),
            container: ContainerView::Unfit(Reason::ContainerNotRunning, "not asked".to_owned()),
            exec,
            boot: &self.node.boot,
            now: self.node.clock.now(),
        });
        if let (Action::Adopt, Some(entry)) = (&action, &self.entry) {
            tracing::warn!(request = %self.key, uid = %self.key.uid, exec = %entry.exec.id, "the request was deleted while its command runs; the command goes on");
            let process = self.process(&entry.exec).await;
            tokio::select! {
                () = self.node.stopping.cancelled() => return Ok(Next::Done),
                () = adopt::until_end(&self.node, &entry.exec.id, process) => {}
            }
        }
        self.forget().await?;
        Ok(Next::Done)
    }

    async fn forget(&mut self) -> Result<(), StepError> {
        self.node.spool.finish(&self.key, self.node.clock.now().into());
        if self.entry.is_some() {
            self.node.journal.remove(&self.key.uid).await?;
        }
        Ok(())
    }

    fn done(&self, step: Step, begun: Instant) {
        self.node.metrics.step(step, begun.elapsed());
    }
}
