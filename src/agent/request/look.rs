//! Look: what request, journal, engine and kernel say, and what is to be done then.

use super::{prepare, work::Work};
use crate::{
    agent::{
        command::witness,
        node::{Node, StepError, World},
    },
    api::{ExecRequest, Reason},
    core::{
        bind::unvouched,
        decide::{
            Action, ContainerView, EngineView, ExecView, InputView, RequestView, Situation, decide,
            decide_without_engine,
        },
        entry::{Entry, Stage},
        ids::{ContainerRef, ExecRef, ProcessRef},
        outcome::Outcome,
        request::{BoundRequest, Progress},
        second::First,
    },
    engine::{Engine, EngineError, ExecState, Habits},
    infra::kernel::Kernel,
};

impl<W: World> Work<W> {
    /// Looks at everything that the next step depends on, and decides.
    pub(super) async fn decide(&self, wanted: RequestView<'_>) -> Result<Action, StepError> {
        let entry = self.entry()?;
        let entry = entry.as_ref();
        let request = wanted.request();
        let first = self.first(request)?;
        let first = first.as_ref();
        let now = self.node.clock.now();
        let Habits { fences, keeps_output, .. } = *self.node.engine.habits();
        let handed_over = || self.node.handed_over.lock().contains_key(&self.key().uid);
        let keeps_output = keeps_output || matches!(wanted, RequestView::Unread(_)) && handed_over();
        let action = match (self.ask_engine(request, entry).await, request) {
            (Ok((container, exec)), _) => decide(&Situation {
                wanted,
                entry,
                container,
                exec,
                engine: EngineView { fences, keeps_output },
                input: request.map_or(InputView::There, |request| self.input(request)),
                first,
                boot: &self.node.boot,
                now,
            }),
            (Err(error), Some(request)) => {
                decide_without_engine(request, entry, first, now, &error.to_string()).ok_or(error)?
            }
            (Err(error), None) => return Err(error.into()),
        };
        Ok(self.name_what_held_it_up(action))
    }

    /// Prepares only what the admission policies vouch for, asked after the binding was read. Of a request of a batch that
    /// is asked after the batch was read, too: see `hold`.
    pub(super) async fn vouch(&self, seen: &ExecRequest, container: ContainerRef) -> Result<Action, StepError> {
        if seen.spec.batch.is_some() {
            return Ok(Action::Prepare(container));
        }
        let admission = self.node.gate.look().await;
        match unvouched(seen, &admission).map_err(StepError::Admission)? {
            None => Ok(Action::Prepare(container)),
            Some(why) => Ok(Action::Report(Outcome::refused(Reason::Forbidden, why, self.node.clock.now()))),
        }
    }

    /// What is remembered: in hand, else on a tombstone.
    pub(super) fn entry(&self) -> Result<Option<Entry>, StepError> {
        match self.memory.entry() {
            Some(entry) => Ok(Some(entry)),
            None => Ok(self.node.journal.tombstone(&self.key().uid)?),
        }
    }

    /// What the journal remembers of another request that holds the same target of a batch.
    fn first(&self, request: Option<&BoundRequest>) -> Result<Option<First>, StepError> {
        let Some(target) = request.and_then(BoundRequest::target) else { return Ok(None) };
        self.memory.is_for(target.clone());
        Ok(self.node.journal.first(&target, &self.key().uid)?)
    }

    fn input(&self, request: &BoundRequest) -> InputView {
        let from_client = request.spec.input_from_client().is_some();
        if from_client && !self.hub.input.is_held() { InputView::Awaited } else { InputView::There }
    }

    /// The deadline passed because of the disk, of the audit log, or of what others run.
    fn name_what_held_it_up(&self, action: Action) -> Action {
        match (action, self.held_up, &self.full) {
            (Action::Report(mut outcome), Some(by), _) if outcome.reason == Reason::StartingDeadlineExceeded => {
                outcome.reason = by.reason();
                outcome.message = format!("{}: {}", outcome.message, by.words());
                Action::Report(outcome)
            }
            (Action::Report(mut outcome), None, Some(full)) if outcome.reason == Reason::StartingDeadlineExceeded => {
                outcome.message = format!("{}: {full}", outcome.message);
                Action::Report(outcome)
            }
            (action, _, _) => action,
        }
    }

    async fn ask_engine(
        &self,
        request: Option<&BoundRequest>,
        entry: Option<&Entry>,
    ) -> Result<(ContainerView, Option<(ExecRef, ExecView)>), EngineError> {
        let not_asked = || ContainerView::Unfit(Reason::ContainerNotRunning, "not asked".to_owned());
        // What has ended does not depend on the engine, and must not wait for it.
        if let Some(Entry { stage: Stage::Ended { .. }, .. }) = entry {
            return Ok((not_asked(), None));
        }
        let exec = match exec_of(request, entry) {
            Some(exec) => {
                let view = self.look(&exec, entry).await?;
                Some((exec, view))
            }
            None => None,
        };
        let fencing = matches!(entry, Some(Entry { stage: Stage::Fencing, .. }));
        let container = match request {
            Some(request) if request.progress == Progress::Bound || fencing => {
                prepare::look(&self.node, request).await?
            }
            // It matters only for what is still to be created.
            Some(_) | None => not_asked(),
        };
        Ok((container, exec))
    }

    async fn look(&self, exec: &ExecRef, entry: Option<&Entry>) -> Result<ExecView, EngineError> {
        let node = &self.node;
        let noted = noted_process(entry, exec, node);
        if noted.is_some_and(|process| node.kernel.alive(process)) {
            return Ok(ExecView::Alive);
        }
        let own = node.engine.is_own(exec);
        let answer = if own { node.engine.state(exec).await } else { Ok(ExecState::Absent) };
        if noted.is_none() && witness::living(node, &self.memory, exec, &answer).await.is_some() {
            return Ok(ExecView::Alive);
        }
        Ok(match answer? {
            ExecState::Absent if !own => ExecView::Foreign,
            ExecState::Absent => ExecView::Absent,
            ExecState::Untouched => ExecView::Untouched,
            ExecState::Spent => ExecView::Spent,
            ExecState::Running { .. } => ExecView::Alive,
            ExecState::Ended { .. } => ExecView::Ended,
        })
    }

    /// The process of an exec, from the journal, else from the engine or by its tag.
    pub(super) async fn process(&self, exec: &ExecRef) -> Option<ProcessRef> {
        if let Some(process) = noted_process(self.memory.entry().as_ref(), exec, &self.node) {
            return Some(process);
        }
        let answer = self.node.engine.state(exec).await;
        witness::living(&self.node, &self.memory, exec, &answer).await
    }
}

/// The exec in question: the committed one, as the journal or, where that is lost, the status
/// knows it; before the commit the one in the journal, if any.
pub(super) fn exec_of(request: Option<&BoundRequest>, entry: Option<&Entry>) -> Option<ExecRef> {
    let known = entry.and_then(|entry| entry.exec.clone());
    match request {
        Some(BoundRequest { progress: Progress::Committed(committed), .. }) => {
            Some(known.filter(|exec| exec.stands_for(committed)).unwrap_or_else(|| committed.clone()))
        }
        Some(_) | None => known,
    }
}

/// The process that the journal has noted in this boot.
fn noted_process<W: World>(entry: Option<&Entry>, exec: &ExecRef, node: &Node<W>) -> Option<ProcessRef> {
    let entry = entry.filter(|entry| entry.is_current(exec, &node.boot))?;
    match &entry.stage {
        Stage::Running { process, .. } => Some(*process),
        Stage::Prepared | Stage::Fencing | Stage::Starting | Stage::Ended { .. } => None,
    }
}
