//! One request, from the moment the agent sees it to its end: look, decide, act.
//!
//! The undisturbed way and every recovery are the same loop. What is to be done
//! is `core::decide`'s to say; how, the steps' beside this file.

use std::{
    mem::replace,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use tokio::{sync::watch, time::sleep};

use super::{
    attend, commit,
    held_up::HeldUp,
    prepare, settle,
    start::{self, Attempt},
};
use crate::{
    agent::{
        command::{
            running::{News, RunningCommand, WatchEnd},
            seen::Seen,
        },
        memory::request::Memory,
        node::{Node, StepError, World},
        streams::{hub::Hub, recall::recall},
    },
    api::{ExecRequest, ExecRequestStatus, Reason},
    core::{
        decide::{Action, RequestView},
        entry::{Entry, Stage, Terms},
        ids::{ContainerRef, ExecRef, RequestKey},
        outcome::Outcome,
        pauses::Pauses,
        queue::Full,
        request::{BoundRequest, Progress, is_being_deleted},
    },
    engine::{Engine, Fenced},
    infra::metrics::Step,
};

/// Pauses after steps that failed.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Slack for coarse clocks.
const CLOCK_GRAIN: Duration = Duration::from_millis(2);

pub(crate) struct Work<W: World> {
    pub(super) node: Arc<Node<W>>,
    pub(super) memory: Memory<W>,
    pub(super) hub: Arc<Hub>,
    /// The object as last read.
    pub(super) seen: Object,
    pub(super) news: watch::Receiver<News>,
    /// What the agent has to wait for before it may start anything, if the last step failed for it.
    pub(super) held_up: Option<HeldUp>,
    /// What it waited for, if its deadline passed before its turn came.
    pub(crate) full: Option<Full>,
    /// An exec that was created and could not be put down. The engine keeps every one: no second is made.
    unwritten: Option<ExecRef>,
    /// Resource versions that it wrote or finished with: watch events for these are ignored.
    pub(super) versions: Vec<String>,
}

/// A request, as the API server has it.
pub(super) enum Object {
    /// It is not read yet, or must be read again.
    Unread,
    There(Box<ExecRequest>),
    Gone,
}

impl Object {
    pub(super) fn of(found: Option<ExecRequest>) -> Self {
        found.map_or(Self::Gone, |found| Self::There(found.into()))
    }

    /// As written, unless it must be read again.
    fn written(written: Option<ExecRequest>) -> Self {
        written.map_or(Self::Unread, |written| Self::There(written.into()))
    }
}

pub(super) enum Next {
    Again,
    Done,
}

impl<W: World> Work<W> {
    /// A request that the watch has shown, or one that only the journal knows of.
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
        let seen = Object::written(seen);
        Self { node, memory, hub, seen, news, held_up: None, full: None, unwritten: None, versions: Vec::new() }
    }

    pub(super) fn key(&self) -> &RequestKey {
        self.memory.key()
    }

    /// Works until nothing is left to do. Gives the resource versions whose watch events are ignored.
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
                    self.seen = Object::Unread;
                    sleep(pauses.next_pause()).await;
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
        let seen = match replace(&mut self.seen, Object::Unread) {
            Object::Unread => self.read().await?,
            seen @ (Object::There(_) | Object::Gone) => seen,
        };
        let seen = match seen {
            Object::There(seen) => Some(*seen),
            Object::Gone => None,
            Object::Unread => return self.act_unread().await,
        };
        if let Some(seen) = &seen {
            self.memory.saw(seen);
        }
        let bound = seen.as_ref().and_then(|seen| BoundRequest::try_from(seen).ok());
        // Nobody binds again what is being deleted.
        let seen = seen.filter(|seen| bound.is_some() || !is_being_deleted(seen));
        let wanted = match (&seen, &bound) {
            (None, _) => RequestView::Gone,
            (Some(_), None) if self.memory.entry().is_none() => return Ok(Next::Done),
            (Some(_), None) => RequestView::Unbound,
            (Some(_), Some(request)) => RequestView::Request(request),
        };
        let action = self.decide(wanted).await?;
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

    async fn act(&mut self, action: Action, seen: ExecRequest, request: &BoundRequest) -> Result<Next, StepError> {
        if let Some(ExecRequestStatus { completion_time: Some(_), result: Some(result), .. }) = &seen.status {
            // Whoever has finished it: what the object says is what those who watch are told.
            self.hub.conclude(result.clone());
        }
        match action {
            Action::Prepare(container) => self.prepare(seen, request, container).await,
            Action::AwaitBinding => Ok(self.await_binding().await),
            Action::AwaitClient => {
                if self.await_client(request).await {
                    self.seen = Object::There(seen.into());
                }
                Ok(Next::Again)
            }
            Action::Commit(exec) => {
                let begun = Instant::now();
                let written = commit::commit(&self.node, &seen, &exec).await?;
                self.versions.extend(written.as_ref().and_then(|seen| seen.metadata.resource_version.clone()));
                self.seen = Object::written(written);
                self.done(Step::Commit, begun);
                Ok(Next::Again)
            }
            Action::Start { exec, sole } => self.start(request, &exec, sole).await,
            Action::Fence(exec) if request.progress == Progress::Finished => self.take_away(exec).await,
            Action::Fence(exec) => self.fence(seen, request, exec).await,
            Action::Adopt(exec) => self.go_on(request, &exec, true).await,
            Action::Settle(exec) => self.go_on(request, &exec, false).await,
            Action::Kill => Ok(if self.kill().await { self.forget(None).await } else { Next::Done }),
            // It was read.
            Action::Guard(_) | Action::AwaitRequest => Ok(Next::Again),
            Action::Report(mut outcome) => {
                if outcome.may_have_run && outcome.output.is_none() {
                    outcome.output = Some(recall(&self.node.spool, self.key(), &request.spec.output).await);
                }
                self.report(seen, request, outcome).await
            }
            Action::Forget => Ok(self.forget(None).await),
        }
    }

    async fn prepare(
        &mut self,
        seen: ExecRequest,
        request: &BoundRequest,
        container: ContainerRef,
    ) -> Result<Next, StepError> {
        let begun = Instant::now();
        // Before anything is committed: a request that has to wait for it can still be given up.
        self.node.audit.available().await?;
        let held = match self.hold(&seen).await? {
            Ok(held) => held,
            Err(outcome) => return self.report(seen, request, outcome).await,
        };
        let exec = match self.unwritten.take().filter(|exec| exec.container == container) {
            Some(exec) => exec,
            None => match prepare::create(&self.node, request, container, held, None).await? {
                Ok(exec) => exec,
                Err(outcome) => return self.report(seen, request, outcome).await,
            },
        };
        self.unwritten = Some(exec.clone());
        self.memory.put_down(exec, Stage::Prepared).await?;
        self.unwritten = None;
        self.done(Step::Prepare, begun);
        self.seen = Object::There(seen.into());
        Ok(Next::Again)
    }

    async fn start(&mut self, request: &BoundRequest, exec: &ExecRef, sole: bool) -> Result<Next, StepError> {
        self.node.audit.started(&self.memory.subject(), exec).await?;
        self.memory.put_down(exec.clone(), Stage::Starting).await?;
        let attended = attended(&self.node, &self.memory, &self.hub, RequestView::Request(request), exec);
        match start::start(&attended, request, &mut self.news, sole).await? {
            Attempt::WatchEnd(watched) => Ok(self.end(exec, watched, Some(request)).await),
            Attempt::Refused(error) => {
                self.memory.put_down(exec.clone(), Stage::Prepared).await?;
                Err(error)
            }
        }
    }

    /// Takes an exec away that was never started, and prepares another one in its place.
    async fn fence(&mut self, seen: ExecRequest, request: &BoundRequest, exec: ExecRef) -> Result<Next, StepError> {
        self.memory.put_down(exec.clone(), Stage::Fencing).await?;
        match self.node.engine.fence(&exec).await? {
            Fenced::Started => self.started_after_all(&exec).await,
            Fenced::NeverRan => {
                let next = match self.hold(&seen).await? {
                    Ok(held) => prepare::replace(&self.node, request, held, &exec).await?,
                    Err(outcome) => Err(outcome),
                };
                match next {
                    Ok(next) => self.memory.put_down(next, Stage::Prepared).await?,
                    Err(outcome) => return self.report(seen, request, outcome).await,
                }
            }
        }
        Ok(Next::Again)
    }

    /// The same, where none is to take its place.
    async fn take_away(&mut self, exec: ExecRef) -> Result<Next, StepError> {
        self.memory.put_down(exec.clone(), Stage::Fencing).await?;
        match self.node.engine.fence(&exec).await? {
            Fenced::Started => self.started_after_all(&exec).await,
            Fenced::NeverRan => self.memory.put_down(exec, Stage::Prepared).await?,
        }
        Ok(Next::Again)
    }

    /// It is looked at again. Should it be gone then, it has run.
    async fn started_after_all(&self, exec: &ExecRef) {
        self.memory.note_started(exec).await;
        sleep(FIRST_PAUSE).await;
    }

    /// Goes on with a command that an agent before this one has started: with its output, if that can still be had.
    async fn go_on(&mut self, request: &BoundRequest, exec: &ExecRef, lives: bool) -> Result<Next, StepError> {
        let attended = attended(&self.node, &self.memory, &self.hub, RequestView::Request(request), exec);
        let watched = match start::output(&attended, request).await? {
            Some(output) => start::go_on(&attended, request, &mut self.news, output).await,
            None if lives => {
                let process = self.process(exec).await;
                let watched = attend::without_output(&attended, &mut self.news, process).await;
                self.with_input_lost(watched, request.terms())
            }
            None => {
                let outcome = settle_unseen(&attended).await;
                self.with_input_lost(WatchEnd::Ended(outcome), request.terms())
            }
        };
        Ok(self.end(exec, watched, Some(request)).await)
    }

    /// There is nobody to report to, for now or for good. What never started never will; what runs and is gone is killed.
    async fn act_without_request(&mut self, action: Action, wanted: RequestView<'_>) -> Result<Next, StepError> {
        let reported = match action {
            Action::Adopt(exec) => {
                let process = self.process(&exec).await;
                let attended = attended(&self.node, &self.memory, &self.hub, wanted, &exec);
                let watched = attend::without_output(&attended, &mut self.news, process).await;
                return Ok(self.end(&exec, watched, None).await);
            }
            Action::Settle(exec) => {
                let attended = attended(&self.node, &self.memory, &self.hub, wanted, &exec);
                let outcome = settle_unseen(&attended).await;
                return Ok(self.end(&exec, WatchEnd::Ended(outcome), None).await);
            }
            Action::Kill if !self.kill().await => return Ok(Next::Done),
            Action::Fence(exec) => return self.take_away(exec).await,
            Action::AwaitBinding => return Ok(self.await_binding().await),
            Action::Guard(_) | Action::AwaitRequest => return Ok(Next::Again),
            Action::Report(outcome) => Some(outcome),
            // However it was ended, the audit trail tells that it was.
            Action::Kill
            | Action::Prepare(_)
            | Action::AwaitClient
            | Action::Commit(_)
            | Action::Start { .. }
            | Action::Forget => None,
        };
        let never = matches!(self.memory.entry(), Some(entry) if !entry.may_have_run());
        let outcome = reported.or_else(|| {
            let message = "the request was deleted before the command could start";
            (never && self.memory.outcome().is_none())
                .then(|| Outcome::refused(Reason::Deleted, message, self.node.clock.now()))
        });
        self.record_end_unreported(outcome.as_ref()).await?;
        Ok(self.forget(outcome).await)
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

    /// A command that nobody stayed with to its end: its input ended with the connection.
    pub(super) fn with_input_lost(&self, watched: WatchEnd, terms: Terms) -> WatchEnd {
        let fed = !terms.stdin || self.memory.entry().is_some_and(|entry| entry.fed);
        match watched {
            WatchEnd::Ended(outcome) if !fed => WatchEnd::Ended(outcome.with_input_lost()),
            watched @ (WatchEnd::Ended(_) | WatchEnd::Left) => watched,
        }
    }

    pub(super) fn done(&self, step: Step, begun: Instant) {
        self.node.metrics.step(step, begun.elapsed());
    }
}

pub(super) fn attended<'a, W: World>(
    node: &'a Node<W>,
    memory: &'a Memory<W>,
    hub: &'a Arc<Hub>,
    wanted: RequestView<'a>,
    exec: &'a ExecRef,
) -> RunningCommand<'a, W> {
    RunningCommand { node, wanted, exec, memory, hub }
}

/// Concludes for a command that has ended while nobody was there.
pub(super) async fn settle_unseen<W: World>(attended: &RunningCommand<'_, W>) -> Outcome {
    let begun = attended.memory.entry().and_then(|entry| entry.kill).map(|kill| OnceLock::from(kill.cause));
    let (_, nothing) = watch::channel(Seen::default());
    settle::unseen(attended, &nothing, &begun.unwrap_or_default()).await
}
