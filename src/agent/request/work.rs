//! One request, from the moment the agent sees it to its end: look, decide, act.
//!
//! The undisturbed way and every recovery are the same loop. What is to be done
//! is `core::decide`'s to say; how, the steps' beside this file.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use tokio::{sync::watch, time::sleep};

use super::{
    attend, commit, prepare,
    report::{self, Reported},
    settle,
    start::{self, Attended},
};
use crate::{
    agent::{
        command::{
            kill,
            oversee::{News, Survivors},
            witness::{self, Seen},
        },
        handover::message::StreamState,
        memory::{record::Record, request::Memory},
        node::{Node, StepError, World},
        streams::{hub::Hub, recall::recall, ring::Written},
    },
    api::{ExecRequest, ExecRequestStatus, ExecResult, Reason},
    core::{
        bind::unvouched,
        decide::{
            Action, ContainerView, Entry, ExecView, InputView, Situation, Stage, Wanted, decide, decide_without_engine,
        },
        ids::{ContainerRef, ExecRef, ProcessRef, RequestKey},
        kill::Kill,
        outcome::Outcome,
        pauses::Pauses,
        request::{BoundRequest, Progress},
    },
    engine::{Engine, EngineError, ExecStream},
    infra::{kernel::Kernel, metrics::Step, requests::Requests},
};

/// Pause after the first failed step; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A little more than until a deadline, for clocks that are not so fine.
const CLOCK_GRAIN: Duration = Duration::from_millis(2);

/// One request in the agent's hands.
pub(crate) struct Work<W: World> {
    node: Arc<Node<W>>,
    memory: Memory<W>,
    /// Who watches.
    hub: Arc<Hub>,
    /// The object as last read; `None` until it is read, or when it must be read again.
    seen: Option<ExecRequest>,
    news: watch::Receiver<News>,
    /// What the agent has to wait for before it may start anything, if the last step failed for it.
    held_up: Option<HeldUp>,
    /// An exec that was created and could not be put down. The engine keeps every one: no second is made.
    unwritten: Option<ExecRef>,
    /// Resource versions that it wrote or finished with: news of them is no news.
    versions: Vec<String>,
}

/// What keeps an agent from starting anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeldUp {
    /// The disk of its journal is full.
    Disk,
    /// The audit log cannot be written, and must be.
    Audit,
    /// An admission policy does not stand as it must.
    Policies,
}

impl HeldUp {
    fn by(error: &StepError) -> Option<Self> {
        match error {
            StepError::Journal(error) if error.is_full() => Some(Self::Disk),
            StepError::Audit(_) => Some(Self::Audit),
            StepError::Admission(_) => Some(Self::Policies),
            StepError::Engine(_) | StepError::Api(_) | StepError::Journal(_) | StepError::Refused(_) => None,
        }
    }

    const fn reason(self) -> Reason {
        match self {
            Self::Disk => Reason::NodeDiskFull,
            Self::Audit => Reason::AuditUnavailable,
            Self::Policies => Reason::AdmissionNotReady,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Disk => "the disk of the agent's journal is full, and it starts nothing that it could not remember",
            Self::Audit => "the agent cannot write its audit log, and nothing may run that is not recorded",
            Self::Policies => "nobody can tell who asked for it and who bound it",
        }
    }
}

/// What the loop does after an action.
enum Next {
    Again,
    Done,
}

/// How the watching of a running command ended.
#[allow(clippy::large_enum_variant, reason = "one for each request in hand")]
pub(crate) enum Watched {
    /// With an outcome.
    Ended(Outcome),
    /// The agent stops: the next one goes on.
    Left,
}

impl<W: World> Work<W> {
    /// A request that the watch has shown.
    pub(crate) fn new(
        node: Arc<Node<W>>,
        key: RequestKey,
        created: Timestamp,
        seen: Option<ExecRequest>,
        entry: Option<Entry>,
        news: watch::Receiver<News>,
    ) -> Self {
        let hub = node.hubs.of(&key.uid);
        let memory = Memory::new(Arc::clone(&node), key, created, entry);
        Self { node, memory, hub, seen, news, held_up: None, unwritten: None, versions: Vec::new() }
    }

    /// A request that only the journal knows of.
    pub(crate) fn remembered(node: Arc<Node<W>>, record: Record, news: watch::Receiver<News>) -> Self {
        Self::new(node, record.request, record.created, None, Some(record.entry), news)
    }

    fn key(&self) -> &RequestKey {
        self.memory.key()
    }

    /// Works until nothing is left to do. Gives the resource versions that are no news any more.
    pub(crate) async fn run(mut self) -> Vec<String> {
        let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            match self.step().await {
                Ok(Next::Done) => return self.versions,
                Ok(Next::Again) => {
                    pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
                    self.held_up = None;
                }
                Err(error) => {
                    tracing::warn!(request = %self.key(), uid = %self.key().uid, %error, "a step failed, it will be tried again");
                    if self.node.stopping.is_cancelled() && self.memory.outcome().is_none() {
                        return self.versions;
                    }
                    self.complain(&error).await;
                    self.seen = None;
                    sleep(pauses.next()).await;
                }
            }
        }
    }

    /// Tells people what holds a request up, once.
    async fn complain(&mut self, error: &StepError) {
        let held_up = HeldUp::by(error);
        if let Some(by) = held_up
            && self.held_up != held_up
        {
            let why = format!("the command does not start: {}: {error}", by.words());
            self.node.events.publish(self.key(), "Prepare", by.reason(), &why).await;
        }
        self.held_up = held_up;
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        let seen = match self.seen.take() {
            Some(seen) => Some(seen),
            None => self.node.requests.get(self.key()).await?,
        };
        // A request that is being deleted is as good as gone, whoever still holds it.
        if let Some(seen) = &seen {
            self.memory.saw(seen);
        }
        let seen = seen.filter(|seen| seen.metadata.deletion_timestamp.is_none());
        let bound = seen.as_ref().and_then(|seen| BoundRequest::try_from(seen).ok());
        let wanted = match (&seen, &bound) {
            (None, _) => Wanted::Gone,
            (Some(_), None) if self.memory.entry().is_none() => return Ok(Next::Done),
            (Some(_), None) => Wanted::Unbound,
            (Some(_), Some(request)) => Wanted::Request(request),
        };
        let entry = self.entry()?;
        let action = self.decide(wanted, entry.as_ref()).await?;
        let seen = seen.zip(bound.as_ref());
        let action = match (action, &seen) {
            (Action::Prepare(container), Some((seen, _))) => self.vouch(seen, container).await?,
            (action, _) => action,
        };
        if self.node.stopping.is_cancelled() && !matches!(action, Action::Report(_) | Action::Forget) {
            return Ok(Next::Done);
        }
        tracing::debug!(request = %self.key(), uid = %self.key().uid, ?action, "decided");
        match seen {
            Some((seen, request)) => self.act(action, seen, request).await,
            None => self.act_without_request(action, wanted).await,
        }
    }

    /// Prepares only what the admission policies vouch for, asked after the binding was read.
    async fn vouch(&self, seen: &ExecRequest, container: ContainerRef) -> Result<Action, StepError> {
        let admission = self.node.gate.look().await;
        match unvouched(seen, &admission).map_err(StepError::Admission)? {
            None => Ok(Action::Prepare(container)),
            Some(why) => Ok(Action::Report(Outcome::refused(Reason::Forbidden, why, self.node.clock.now()))),
        }
    }

    /// What is remembered: in hand, else on a tombstone.
    fn entry(&self) -> Result<Option<Entry>, StepError> {
        match self.memory.entry() {
            Some(entry) => Ok(Some(entry)),
            None => Ok(self.node.journal.tombstone(&self.key().uid)?),
        }
    }

    async fn decide(&self, wanted: Wanted<'_>, entry: Option<&Entry>) -> Result<Action, StepError> {
        let request = wanted.request();
        let now = self.node.clock.now();
        let asked = match entry.map(|entry| &entry.stage) {
            // What has ended does not depend on the engine, and must not wait for it.
            Some(Stage::Ended { .. }) => Ok((not_asked(), ExecView::None)),
            Some(Stage::Prepared | Stage::Starting | Stage::Running { .. }) | None => {
                self.ask_engine(request, entry).await
            }
        };
        let action = match (asked, request) {
            (Ok((container, exec)), _) => decide(&Situation {
                wanted,
                entry,
                container,
                exec,
                input: request.map_or(InputView::There, |request| self.input(request)),
                boot: &self.node.boot,
                now,
            }),
            (Err(error), Some(request)) => {
                decide_without_engine(request, entry, now, &error.to_string()).ok_or(error)?
            }
            (Err(error), None) => return Err(error.into()),
        };
        Ok(self.name_what_held_it_up(action))
    }

    fn input(&self, request: &BoundRequest) -> InputView {
        let from_client = request.spec.stdin.as_ref().is_some_and(|stdin| stdin.attach.is_some());
        if from_client && !self.hub.input.is_held() { InputView::Awaited } else { InputView::There }
    }

    /// Waits until a client has the input, or until everything has to be looked at again.
    async fn await_client(&mut self, request: &BoundRequest) -> bool {
        let left = Duration::try_from(self.node.clock.now().duration_until(request.starting_deadline));
        tokio::select! {
            biased;
            () = self.node.stopping.cancelled() => false,
            () = self.hub.input.held() => true,
            changed = self.news.changed() => {
                if changed.is_err() {
                    // Nobody watches any more: the agent stops.
                    self.node.stopping.cancelled().await;
                }
                false
            }
            () = sleep(left.unwrap_or_default() + CLOCK_GRAIN) => false,
        }
    }

    /// The deadline passed because of the disk, or of the audit log.
    fn name_what_held_it_up(&self, action: Action) -> Action {
        match (action, self.held_up) {
            (Action::Report(mut outcome), Some(by)) if outcome.reason == Reason::StartingDeadlineExceeded => {
                outcome.reason = by.reason();
                outcome.message = format!("{}: {}", outcome.message, by.words());
                Action::Report(outcome)
            }
            (action, _) => action,
        }
    }

    async fn ask_engine(
        &self,
        request: Option<&BoundRequest>,
        entry: Option<&Entry>,
    ) -> Result<(ContainerView, ExecView), EngineError> {
        let exec = self.look(request, entry).await?;
        let container = match request {
            Some(request) if request.progress == Progress::Bound => prepare::look(&self.node, request).await?,
            // It matters only for what has not been committed.
            Some(_) | None => not_asked(),
        };
        Ok((container, exec))
    }

    async fn act(&mut self, action: Action, seen: ExecRequest, request: &BoundRequest) -> Result<Next, StepError> {
        let begun = Instant::now();
        if let Some(ExecRequestStatus { completion_time: Some(_), result: Some(result), .. }) = &seen.status {
            // Whoever has finished it: what the object says is what those who watch are told.
            self.hub.conclude(result.clone());
        }
        let exec = exec_of(Some(request), self.memory.entry().as_ref());
        match action {
            Action::Prepare(container) => {
                // Before anything is committed: a request that has to wait for it can still be given up.
                self.node.audit.available().await?;
                let exec = match self.unwritten.take().filter(|exec| exec.container == container) {
                    Some(exec) => exec,
                    None => match prepare::create(&self.node, request, container).await? {
                        Ok(exec) => exec,
                        Err(outcome) => return self.report(seen, request, outcome).await,
                    },
                };
                self.unwritten = Some(exec.clone());
                self.memory.put_down(exec, Stage::Prepared).await?;
                self.unwritten = None;
                self.done(Step::Prepare, begun);
                self.seen = Some(seen);
            }
            Action::AwaitBinding => return Ok(self.await_binding().await),
            Action::AwaitClient => {
                if self.await_client(request).await {
                    self.seen = Some(seen);
                }
            }
            Action::Commit => {
                if let Some(exec) = exec {
                    self.seen = commit::commit(&self.node, &seen, &exec).await?;
                    self.versions.extend(self.seen.as_ref().and_then(|seen| seen.metadata.resource_version.clone()));
                    self.done(Step::Commit, begun);
                }
            }
            Action::Start { sole } => {
                let Some(exec) = exec else { return Ok(Next::Again) };
                self.node.audit.started(&self.memory.subject(), &exec).await?;
                self.memory.put_down(exec.clone(), Stage::Starting).await?;
                let attended =
                    Attended { node: &self.node, request, exec: &exec, memory: &self.memory, hub: &self.hub };
                let watched = start::start(&attended, &mut self.news, sole).await;
                if let (true, Err(StepError::Engine(error))) = (sole, &watched)
                    && error.is_refusal()
                {
                    // Nothing runs, and the exec's one start is not spent.
                    self.memory.put_down(exec.clone(), Stage::Prepared).await?;
                }
                let watched = watched?;
                return Ok(self.end(&exec, watched, Some(request)).await);
            }
            Action::Adopt | Action::Settle => {
                let Some(exec) = exec else { return Ok(Next::Again) };
                let watched = match self.inherited(&exec, request) {
                    Some(stream) => {
                        let attended =
                            Attended { node: &self.node, request, exec: &exec, memory: &self.memory, hub: &self.hub };
                        start::resume(&attended, &mut self.news, stream).await
                    }
                    None if action == Action::Adopt => {
                        let process = self.process(&exec).await;
                        let (memory, news) = (&self.memory, &mut self.news);
                        let watched = attend::adopt(
                            &self.node,
                            Wanted::Request(request),
                            &exec,
                            process,
                            memory,
                            news,
                            &self.hub,
                        )
                        .await;
                        self.with_input_lost(watched, request)
                    }
                    None => {
                        let outcome = self.settle_unseen(&exec, Some(request)).await;
                        self.with_input_lost(Watched::Ended(outcome), request)
                    }
                };
                return Ok(self.end(&exec, watched, Some(request)).await);
            }
            Action::Kill => return Ok(self.kill().await),
            Action::Report(mut outcome) => {
                if outcome.may_have_run && outcome.output.is_none() {
                    outcome.output = Some(recall(&self.node.spool, self.key(), &request.spec.output).await);
                }
                return self.report(seen, request, outcome).await;
            }
            Action::Forget => return Ok(self.forget(None).await),
        }
        Ok(Next::Again)
    }

    /// Waits until the request may have been bound again.
    async fn await_binding(&mut self) -> Next {
        tokio::select! {
            biased;
            () = self.node.stopping.cancelled() => Next::Done,
            changed = self.news.changed() => match changed {
                Ok(()) => Next::Again,
                // Nobody watches any more: the agent stops.
                Err(_) => Next::Done,
            },
            // Of its deletion the watch does not tell.
            () = sleep(LONGEST_PAUSE) => Next::Again,
        }
    }

    /// There is nobody to report to, for now or for good. What never started never will; what runs and is gone is killed.
    async fn act_without_request(&mut self, action: Action, wanted: Wanted<'_>) -> Result<Next, StepError> {
        match (action, exec_of(None, self.memory.entry().as_ref())) {
            (Action::Adopt, Some(exec)) => {
                let process = self.process(&exec).await;
                let watched =
                    attend::adopt(&self.node, wanted, &exec, process, &self.memory, &mut self.news, &self.hub).await;
                Ok(self.end(&exec, watched, None).await)
            }
            (Action::Settle, Some(exec)) => {
                let outcome = self.settle_unseen(&exec, None).await;
                Ok(self.end(&exec, Watched::Ended(outcome), None).await)
            }
            (Action::Kill, _) => Ok(self.kill().await),
            (Action::AwaitBinding, _) => Ok(self.await_binding().await),
            (action, _) => {
                let never = matches!(&self.memory.entry(), Some(entry) if !entry.may_have_run());
                let outcome = match action {
                    Action::Report(outcome) => Some(outcome),
                    Action::Prepare(_)
                    | Action::AwaitBinding
                    | Action::AwaitClient
                    | Action::Commit
                    | Action::Start { .. }
                    | Action::Adopt
                    | Action::Settle
                    | Action::Kill
                    | Action::Forget
                        if never && self.memory.outcome().is_none() =>
                    {
                        let message = "the request was deleted before the command could start";
                        Some(Outcome::refused(Reason::Deleted, message, self.node.clock.now()))
                    }
                    Action::Prepare(_)
                    | Action::AwaitBinding
                    | Action::AwaitClient
                    | Action::Commit
                    | Action::Start { .. }
                    | Action::Adopt
                    | Action::Settle
                    | Action::Kill
                    | Action::Forget => None,
                };
                self.record_end_unreported(outcome.as_ref()).await?;
                Ok(self.forget(outcome).await)
            }
        }
    }

    /// Concludes for a command that has ended while nobody was there.
    async fn settle_unseen(&self, exec: &ExecRef, request: Option<&BoundRequest>) -> Outcome {
        let begun = self.memory.entry().and_then(|entry| entry.kill).map(|kill| OnceLock::from(kill.cause));
        let (_, nothing) = watch::channel(Seen::default());
        settle::unseen(&self.node, &self.memory, exec, request, &nothing, &begun.unwrap_or_default()).await
    }

    /// There is nobody to report to: the audit trail alone tells how it ended.
    async fn record_end_unreported(&self, outcome: Option<&Outcome>) -> Result<(), StepError> {
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

    /// The stream of an exec that the agent before this one has handed over.
    fn inherited(&self, exec: &ExecRef, request: &BoundRequest) -> Option<(ExecStream, StreamState)> {
        self.node.take_handed_over(&self.key().uid)?.open(&exec.id, &request.spec.output)
    }

    /// A command that nobody stayed with to its end: its input ended with the connection.
    fn with_input_lost(&self, watched: Watched, request: &BoundRequest) -> Watched {
        let fed = request.spec.stdin.is_none() || self.memory.entry().is_some_and(|entry| entry.fed);
        match watched {
            Watched::Ended(outcome) if !fed => Watched::Ended(outcome.with_input_lost()),
            watched @ (Watched::Ended(_) | Watched::Left) => watched,
        }
    }

    /// Goes on killing what has survived.
    async fn kill(&mut self) -> Next {
        if let Some(entry) = self.memory.entry() {
            tokio::select! {
                biased;
                () = self.node.stopping.cancelled() => return Next::Done,
                () = kill::to_the_last(&self.node, self.key(), &entry) => {}
            }
        }
        self.forget(None).await
    }

    /// What engine and kernel say of the exec.
    async fn look(&self, request: Option<&BoundRequest>, entry: Option<&Entry>) -> Result<ExecView, EngineError> {
        let Some(exec) = exec_of(request, entry) else { return Ok(ExecView::None) };
        let node = &self.node;
        if noted_process(entry, &exec, node).is_some_and(|process| node.kernel.alive(process)) {
            return Ok(ExecView::Alive);
        }
        match node.engine.inspect_exec(&exec.id).await {
            Ok(state) => Ok(match (state.code, state.pid) {
                // The engine takes some living processes for ended ones: the kernel decides.
                (_, Some(pid)) if witness::process_of(node, &self.memory, &exec, pid).is_some() => ExecView::Alive,
                (Some(_), _) => ExecView::Ended,
                (None, None) if !state.running => ExecView::Created,
                (None, _) => ExecView::Alive,
            }),
            Err(EngineError::NoSuchExec(_)) => Ok(ExecView::Unknown),
            Err(error) => Err(error),
        }
    }

    /// The process of an exec, from the journal, else from the engine.
    async fn process(&self, exec: &ExecRef) -> Option<ProcessRef> {
        if let Some(process) = noted_process(self.memory.entry().as_ref(), exec, &self.node) {
            return Some(process);
        }
        let pid = self.node.engine.inspect_exec(&exec.id).await.ok()?.pid?;
        witness::process_of(&self.node, &self.memory, exec, pid)
    }

    /// Notes how a command has ended. The report is the next step.
    async fn end(&mut self, exec: &ExecRef, watched: Watched, request: Option<&BoundRequest>) -> Next {
        let mut outcome = match watched {
            Watched::Ended(outcome) => outcome,
            Watched::Left => return Next::Done,
        };
        let entry = self.memory.entry();
        let kill = entry.as_ref().and_then(|entry| entry.kill.clone()).filter(|kill| !kill.survivors);
        if let (Some(entry), Some(kill)) = (entry, kill) {
            let unfinished = Kill { survivors: true, ..traced(&entry, kill.clone()) };
            tokio::select! {
                biased;
                // The outcome is not lost: the next agent goes on with the killing.
                () = self.node.stopping.cancelled() => self.memory.note_kill(exec, unfinished).await,
                living = kill::finish(&self.node, self.key(), &entry, &kill) => if !living.is_empty() {
                    self.memory.note_kill(exec, unfinished).await;
                    outcome = settle::survived(&self.node, request, &Survivors { cause: kill.cause, living }).await;
                }
            }
        }
        self.memory.end(exec, outcome).await;
        Next::Again
    }

    async fn report(&mut self, seen: ExecRequest, request: &BoundRequest, outcome: Outcome) -> Result<Next, StepError> {
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
            let exec = exec_of(Some(request), entry.as_ref()).unwrap_or_else(ExecRef::none);
            self.memory.end(&exec, outcome.clone()).await;
        }
        Ok(())
    }

    /// Tells those who watch how it has ended. What was said before stands.
    fn conclude(&self, outcome: &Outcome, result: ExecResult) {
        let written = Written::said(outcome.output.as_ref(), outcome.may_have_run);
        self.hub.end(|| self.node.spool.size(self.key()), written);
        self.hub.conclude(result);
    }

    async fn forget(&mut self, reported: Option<Outcome>) -> Next {
        let ran = self.memory.entry().is_some_and(|entry| entry.may_have_run());
        let reported = match (reported, self.memory.outcome()) {
            (None, None) if ran => {
                let message = "the request was finished or deleted while its command ran";
                Some(Outcome::lost(message, None, self.node.clock.now()))
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
        self.memory.forget(reported).await;
        Next::Done
    }

    fn done(&self, step: Step, begun: Instant) {
        self.node.metrics.step(step, begun.elapsed());
    }
}

/// What is being killed, as far as it was known in the end.
fn traced(entry: &Entry, kill: Kill) -> Kill {
    match &entry.stage {
        Stage::Running { process, pipes } => Kill { process: Some(*process), pipes: pipes.clone(), ..kill },
        Stage::Prepared | Stage::Starting | Stage::Ended { .. } => kill,
    }
}

/// A container that no decision depends on.
fn not_asked() -> ContainerView {
    ContainerView::Unfit(Reason::ContainerNotRunning, "not asked".to_owned())
}

/// The exec in question: the committed one, as the journal or, where that is lost, the status
/// knows it; before the commit the one in the journal, if any.
fn exec_of(request: Option<&BoundRequest>, entry: Option<&Entry>) -> Option<ExecRef> {
    let known = entry.map(|entry| entry.exec.clone()).filter(|exec| !exec.id.as_str().is_empty());
    let Some(BoundRequest { progress: Progress::Committed(id), container_id, .. }) = request else { return known };
    known.filter(|exec| exec.id == *id).or_else(|| {
        let container = ContainerRef { id: container_id.clone(), started_at: String::new() };
        Some(ExecRef { id: id.clone(), container })
    })
}

/// The process that the journal has noted in this boot.
fn noted_process<W: World>(entry: Option<&Entry>, exec: &ExecRef, node: &Node<W>) -> Option<ProcessRef> {
    match entry {
        Some(Entry { stage: Stage::Running { process, .. }, exec: noted, boot, .. })
            if noted.id == exec.id && *boot == node.boot =>
        {
            Some(*process)
        }
        Some(_) | None => None,
    }
}
