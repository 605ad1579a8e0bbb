//! What is to be done next for one request, in the normal course and after
//! any interruption: the only place that knows.
//!
//! The agent asks after each step. A request that runs undisturbed gets
//! `Prepare`, `Commit`, `Start`, `Report`; everything else is recovery.

mod situation;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

pub use self::situation::{ContainerView, EngineView, ExecView, InputView, RequestView, Situation};
use super::{
    entry::{Entry, Stage},
    ids::{ContainerRef, ExecRef},
    kill::Cause,
    outcome::Outcome,
    request::{BoundRequest, Progress},
    second::First,
};
use crate::api::Reason;

#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "one at a time")]
pub enum Action {
    /// Create an exec in this container and journal it.
    Prepare(ContainerRef),
    /// Wait until it is bound again, for only then can anything be written to its status.
    AwaitBinding,
    /// Wait for a client that sends the input. Until then nothing is committed: a request that waits is not
    /// running, and a restart of agent, engine or container finds nothing that could be lost.
    AwaitClient,
    /// Write this exec into the status, if nobody else has written there.
    Commit(ExecRef),
    /// Journal `starting`, then start the committed exec.
    Start {
        exec: ExecRef,
        /// Whether nobody can have started it before: only then is its stream whole and to be believed.
        sole: bool,
    },
    /// Journal `fencing`, take the exec away, and prepare another one in its place.
    Fence(ExecRef),
    /// It runs without us: wait for its end.
    Adopt(ExecRef),
    /// It has ended without us, or the engine has forgotten it, whose exits may still tell how it ended: collect the
    /// evidence and conclude.
    Settle(ExecRef),
    /// See to it that it ends in time, and that what was to be killed is, until the request can be read.
    Guard(ExecRef),
    /// Wait until the request can be read.
    AwaitRequest,
    /// Its outcome is reported, or there is nobody to report it to; what is left of it is killed.
    Kill,
    /// Write this outcome to journal and status.
    Report(Outcome),
    Forget,
}

/// It was said to start, and is no longer wanted: a start that is on its way still counts.
const MAY_STILL_START: &str =
    "the engine was asked to start the command and has not: whether it still does is not known";
/// A second start's connection may not be the one that the command reads from, and a command that finds
/// its input empty does harm: `cat > FILE` empties the file.
const WITHOUT_INPUT: &str =
    "the command may have been started, and its input cannot be delivered any more: it was not started again";

const SECOND: &str =
    "the command may have been started, and another request of the same batch has the pod: it was not started again";

const FOREIGN: &str = "the command was started, or may have been, in another container engine than the one that \
     runs this node's containers now: whether it ran to its end, and how it ended, cannot be known";
const FOREIGN_BEFORE_START: &str = "the node was given another container engine before the command could start";

const NO_EXEC: &str = "the command was started, and its exec is not known";

/// The recovery table.
pub fn decide(situation: &Situation<'_>) -> Action {
    let Situation { wanted, entry, .. } = situation;
    let request = match wanted {
        RequestView::Request(request) => request,
        RequestView::Unbound => return unbound(situation),
        RequestView::Gone => return abandoned(situation),
        RequestView::Unread(terms) => return unread(situation, terms.is_some()),
    };
    if let Some(action) = situation.first.and_then(|first| second(situation, request, first)) {
        return action;
    }
    match (&request.progress, entry) {
        // Somebody else has finished it: what runs of it here was given up, and must not go on.
        (Progress::Finished, _) => abandoned(situation),
        (Progress::Bound, None) => prepare(situation, request),
        (Progress::Bound, Some(entry)) => bound(situation, request, entry),
        (Progress::Committed(exec), Some(entry)) if entry.is_of(exec) => committed(situation, request, entry),
        // The status names another exec than the journal. The journal's was never started, or
        // else both the API server and this node have lost a part of their memory.
        (Progress::Committed(_), Some(entry)) if entry.may_have_run() => journal_and_status_differ(situation),
        (Progress::Committed(_), Some(_) | None) => committed_without_journal(situation, request),
    }
}

/// Why a running command is to be ended now, if it is.
pub fn cause_to_kill(wanted: &RequestView<'_>, running: Option<Duration>) -> Option<Cause> {
    let terms = match wanted {
        RequestView::Gone => return Some(Cause::Deleted),
        // Nobody wants it to end. Whoever does tells it by a status that is finished.
        RequestView::Unbound => return None,
        RequestView::Request(BoundRequest { progress: Progress::Finished, .. }) => return Some(Cause::GivenUp),
        RequestView::Request(request) if request.deleting => return Some(Cause::Deleted),
        RequestView::Request(request) if request.spec.cancel => return Some(Cause::Canceled),
        RequestView::Request(request) => Some(request.terms()),
        RequestView::Unread(terms) => *terms,
    };
    match (terms.and_then(|terms| terms.active), running) {
        (Some(deadline), Some(running)) if running >= deadline => Some(Cause::DeadlineExceeded),
        (Some(_) | None, Some(_) | None) => None,
    }
}

/// What can be decided while the engine does not answer: an outcome that is known is reported, and
/// what has not been committed by its deadline is given up. `None`: wait for the engine.
pub fn decide_without_engine(
    request: &BoundRequest,
    entry: Option<&Entry>,
    first: Option<&First>,
    now: Timestamp,
    why: &str,
) -> Option<Action> {
    // As in `decide`: the journal of another exec than the committed one says nothing.
    let entry = entry.filter(|entry| match &request.progress {
        Progress::Committed(exec) => entry.is_of(exec),
        Progress::Bound | Progress::Finished => true,
    });
    let unwanted = taken_back(request, now);
    match (&request.progress, entry.map(|entry| &entry.stage)) {
        (Progress::Finished, None | Some(Stage::Prepared | Stage::Ended { .. })) => Some(Action::Forget),
        (Progress::Bound | Progress::Committed(_), Some(Stage::Ended { outcome })) => {
            Some(Action::Report(outcome.clone()))
        }
        (Progress::Bound, None | Some(Stage::Prepared)) if first.is_some() => {
            first.map(|first| Action::Report(first.outcome_of_second(now)))
        }
        (Progress::Bound, None | Some(Stage::Prepared)) if unwanted.is_some() => unwanted.map(Action::Report),
        (Progress::Bound, None | Some(Stage::Prepared)) if now >= request.starting_deadline => {
            let message = format!(
                "the command did not start within startingDeadlineSeconds={}: {why}",
                request.spec.starting_deadline_seconds
            );
            Some(Action::Report(Outcome::refused(Reason::StartingDeadlineExceeded, message, now)))
        }
        // Of what is finished something may run and is to be killed: only the engine knows its process.
        (Progress::Finished, Some(Stage::Fencing | Stage::Starting | Stage::Running { .. }))
        | (
            Progress::Bound | Progress::Committed(_),
            None | Some(Stage::Prepared | Stage::Fencing | Stage::Starting | Stage::Running { .. }),
        ) => None,
    }
}

/// It is not the first for its target, so it never starts, wanted or not. What runs of it all the same, or has run, is
/// looked after as ever.
fn second(situation: &Situation<'_>, request: &BoundRequest, first: &First) -> Option<Action> {
    use ExecView::{Absent, Foreign, Untouched};
    let stage = situation.entry.map(|entry| &entry.stage);
    match (&request.progress, stage, situation.exec.as_ref().map(|(_, view)| view)) {
        (Progress::Bound, None, _)
        | (
            Progress::Bound | Progress::Committed(_),
            Some(Stage::Prepared),
            None | Some(Untouched | Absent | Foreign),
        )
        | (Progress::Committed(_), None, None | Some(Untouched)) => {
            Some(Action::Report(first.outcome_of_second(situation.now)))
        }
        (Progress::Bound | Progress::Committed(_), Some(Stage::Fencing), Some(Absent))
        | (
            Progress::Bound | Progress::Committed(_),
            Some(Stage::Fencing | Stage::Starting | Stage::Running { .. }),
            Some(Untouched),
        ) => Some(lost(situation, SECOND)),
        (Progress::Bound | Progress::Committed(_) | Progress::Finished, _, _) => None,
    }
}

/// Bound once, and no longer: what runs goes on, and nothing starts.
fn unbound(situation: &Situation<'_>) -> Action {
    let Situation { entry, exec, engine, boot, .. } = situation;
    match (entry, exec) {
        // Its end would be missed otherwise.
        (Some(entry), Some((exec, ExecView::Alive)))
            if entry.boot == **boot && entry.is_under_way() && !engine.keeps_output =>
        {
            Action::Adopt(exec.clone())
        }
        (Some(_), _) => Action::AwaitBinding,
        (None, _) => Action::Forget,
    }
}

/// Nothing starts, and nothing is reported: what was started is looked after.
fn unread(situation: &Situation<'_>, terms_are_known: bool) -> Action {
    let Situation { entry, exec, engine, boot, .. } = situation;
    let Some(entry) = entry.filter(|entry| entry.boot == **boot) else { return Action::AwaitRequest };
    match (&entry.stage, exec) {
        (Stage::Fencing | Stage::Starting | Stage::Running { .. }, Some((exec, view))) => match view {
            // What it wrote, or whether it was to have input, only its request tells.
            ExecView::Alive if engine.keeps_output || !terms_are_known => Action::Guard(exec.clone()),
            ExecView::Alive => Action::Adopt(exec.clone()),
            // The engine may have forgotten how it ended by the time that the request can be read.
            ExecView::Ended | ExecView::Spent | ExecView::Absent if !engine.keeps_output && terms_are_known => {
                Action::Settle(exec.clone())
            }
            // A start that is on its way may yet count.
            ExecView::Untouched => Action::Guard(exec.clone()),
            ExecView::Ended | ExecView::Spent | ExecView::Absent | ExecView::Foreign => Action::AwaitRequest,
        },
        (Stage::Ended { .. }, _) if entry.has_survivors() => {
            entry.exec.clone().map_or(Action::AwaitRequest, Action::Guard)
        }
        (Stage::Prepared | Stage::Fencing | Stage::Starting | Stage::Running { .. } | Stage::Ended { .. }, _) => {
            Action::AwaitRequest
        }
    }
}

/// Nobody waits for its outcome any more: what runs is killed, and nothing starts.
fn abandoned(situation: &Situation<'_>) -> Action {
    let Situation { wanted, entry, exec, engine, boot, .. } = situation;
    let Some(entry) = entry.filter(|entry| entry.boot == **boot) else { return Action::Forget };
    match (&entry.stage, exec) {
        // A start that is on its way would be nobody's to kill.
        (Stage::Fencing | Stage::Starting, Some((exec, ExecView::Untouched))) if engine.fences => {
            Action::Fence(exec.clone())
        }
        (Stage::Fencing | Stage::Starting | Stage::Running { .. }, Some((exec, ExecView::Alive))) => {
            Action::Adopt(exec.clone())
        }
        // Of one that ended by itself the audit trail still tells how.
        (
            Stage::Fencing | Stage::Starting | Stage::Running { .. },
            Some((exec, ExecView::Ended | ExecView::Spent | ExecView::Absent)),
        ) if entry.kill.is_none() && matches!(wanted, RequestView::Gone) => Action::Settle(exec.clone()),
        // What it left behind when it ended by itself is nobody's to kill.
        (Stage::Ended { .. }, _) if entry.has_survivors() => Action::Kill,
        // Its killing has begun: its own process has ended, what that has started may live on.
        (Stage::Fencing | Stage::Starting | Stage::Running { .. }, _) if entry.kill.is_some() => Action::Kill,
        (Stage::Prepared | Stage::Fencing | Stage::Starting | Stage::Running { .. } | Stage::Ended { .. }, _) => {
            Action::Forget
        }
    }
}

/// Nothing has run. Either the way is clear, or it never will.
fn prepare(situation: &Situation<'_>, request: &BoundRequest) -> Action {
    match (&situation.container, no_longer_wanted(situation, request)) {
        (_, Some(outcome)) => Action::Report(outcome),
        (ContainerView::Unfit(reason, message), None) => {
            Action::Report(Outcome::refused(*reason, message.clone(), situation.now))
        }
        (ContainerView::Running(_), None) if situation.input == InputView::Awaited => Action::AwaitClient,
        (ContainerView::Running(container), None) => Action::Prepare(container.clone()),
    }
}

/// Not committed, as far as the status says.
fn bound(situation: &Situation<'_>, request: &BoundRequest, entry: &Entry) -> Action {
    match &entry.stage {
        Stage::Prepared if entry.boot != *situation.boot => prepare(situation, request),
        Stage::Prepared => prepared(situation, request),
        // The status has forgotten a commit that the journal remembers: an older state of
        // the API server was restored. It must never run a second time.
        Stage::Fencing | Stage::Starting | Stage::Running { .. } => {
            fenced(situation, request, entry).unwrap_or_else(|| started(situation, entry))
        }
        Stage::Ended { outcome } => Action::Report(outcome.clone()),
    }
}

/// A start that is on its way would count: only what is taken away from under it has surely not run.
fn fenced(situation: &Situation<'_>, request: &BoundRequest, entry: &Entry) -> Option<Action> {
    if entry.boot != *situation.boot || !situation.engine.fences {
        return None;
    }
    match (&entry.stage, situation.exec.as_ref()?) {
        (Stage::Starting | Stage::Fencing, (exec, ExecView::Untouched)) => Some(Action::Fence(exec.clone())),
        // Nobody but the fence takes an exec away before its end is put down: it has not run.
        (Stage::Fencing, (exec, ExecView::Absent)) => {
            Some(match (&situation.container, no_longer_wanted(situation, request)) {
                (_, Some(outcome)) => Action::Report(outcome),
                (ContainerView::Running(now), None) if now.is_same_run(&exec.container) => Action::Fence(exec.clone()),
                (ContainerView::Running(_), None) => container_died(situation, exec),
                (ContainerView::Unfit(reason, message), None) => {
                    Action::Report(Outcome::refused(*reason, message.clone(), situation.now))
                }
            })
        }
        (Stage::Prepared | Stage::Fencing | Stage::Starting | Stage::Running { .. } | Stage::Ended { .. }, _) => None,
    }
}

/// An exec was created, and nothing is committed.
fn prepared(situation: &Situation<'_>, request: &BoundRequest) -> Action {
    if let Some(outcome) = no_longer_wanted(situation, request) {
        return Action::Report(outcome);
    }
    let Some((exec, view)) = &situation.exec else { return prepare(situation, request) };
    match (&situation.container, view) {
        // Nothing is lost by an exec that was never committed, and whatever its engine ran is gone for good.
        (_, ExecView::Foreign) => prepare(situation, request),
        (ContainerView::Running(now), _) if *now != exec.container => container_died(situation, exec),
        (ContainerView::Running(_), ExecView::Absent) => prepare(situation, request),
        (ContainerView::Running(_), _) if situation.input == InputView::Awaited => Action::AwaitClient,
        (ContainerView::Running(_), _) => Action::Commit(exec.clone()),
        (ContainerView::Unfit(Reason::ContainerNotRunning, _), ExecView::Absent) => container_died(situation, exec),
        (ContainerView::Unfit(reason, message), _) => {
            Action::Report(Outcome::refused(*reason, message.clone(), situation.now))
        }
    }
}

fn committed(situation: &Situation<'_>, request: &BoundRequest, entry: &Entry) -> Action {
    if let Some(action) = fenced(situation, request, entry) {
        return action;
    }
    let here = entry.boot == *situation.boot;
    match (&entry.stage, &situation.exec) {
        (Stage::Ended { outcome }, _) => Action::Report(outcome.clone()),
        (Stage::Prepared, _) if !here => {
            gone_before_start(situation, "the node was restarted before the command could start")
        }
        (Stage::Prepared, Some((exec, ExecView::Untouched))) => match no_longer_wanted(situation, request) {
            Some(outcome) => Action::Report(outcome),
            // The agent ended between commit and start, and the client's connection with it.
            None if situation.input == InputView::Awaited => Action::AwaitClient,
            None => Action::Start { exec: exec.clone(), sole: true },
        },
        (Stage::Prepared, None | Some((_, ExecView::Absent))) => {
            gone_before_start(situation, "the container or the engine was restarted before the command could start")
        }
        (Stage::Prepared, Some((_, ExecView::Foreign))) => gone_before_start(situation, FOREIGN_BEFORE_START),
        (Stage::Prepared, Some((exec, ExecView::Alive))) => Action::Adopt(exec.clone()),
        (Stage::Prepared, Some((exec, ExecView::Ended | ExecView::Spent))) => Action::Settle(exec.clone()),
        (Stage::Starting, Some((exec, ExecView::Untouched))) if here => {
            match (&request.spec.stdin, no_longer_wanted(situation, request)) {
                (Some(_), _) => lost(situation, WITHOUT_INPUT),
                (None, Some(unwanted)) => lost(situation, &format!("{MAY_STILL_START} ({})", unwanted.reason)),
                (None, None) => Action::Start { exec: exec.clone(), sole: false },
            }
        }
        (Stage::Fencing | Stage::Starting | Stage::Running { .. }, _) => started(situation, entry),
    }
}

/// It was started, or may have been. It is never started again.
fn started(situation: &Situation<'_>, entry: &Entry) -> Action {
    if entry.boot != *situation.boot {
        return lost(situation, "the node was restarted while the command ran");
    }
    match &situation.exec {
        Some((exec, ExecView::Alive)) => Action::Adopt(exec.clone()),
        Some((exec, ExecView::Ended | ExecView::Spent | ExecView::Absent)) => Action::Settle(exec.clone()),
        Some((_, ExecView::Foreign)) => lost(situation, FOREIGN),
        Some((_, ExecView::Untouched)) => {
            lost(situation, "the status no longer shows that the command was committed, so it was not started")
        }
        None => lost(situation, NO_EXEC),
    }
}

/// The journal is lost. Whether it was started can only be asked of the engine.
fn committed_without_journal(situation: &Situation<'_>, request: &BoundRequest) -> Action {
    match &situation.exec {
        Some((exec, ExecView::Alive)) => Action::Adopt(exec.clone()),
        Some((exec, ExecView::Ended | ExecView::Spent | ExecView::Absent)) => Action::Settle(exec.clone()),
        // Whether it was ever started, only the journal knew.
        Some((_, ExecView::Foreign)) => lost(situation, FOREIGN),
        Some((exec, ExecView::Untouched)) => match no_longer_wanted(situation, request) {
            Some(outcome) => Action::Report(outcome),
            None if situation.engine.fences => Action::Fence(exec.clone()),
            None if request.spec.stdin.is_some() => lost(situation, WITHOUT_INPUT),
            None => Action::Start { exec: exec.clone(), sole: false },
        },
        None => lost(situation, NO_EXEC),
    }
}

/// The status names one exec, and the journal remembers the start of another. One has run, or may
/// have: the other is never started.
fn journal_and_status_differ(situation: &Situation<'_>) -> Action {
    match &situation.exec {
        Some((exec, ExecView::Alive)) => Action::Adopt(exec.clone()),
        Some((exec, ExecView::Ended)) => Action::Settle(exec.clone()),
        Some((_, ExecView::Untouched | ExecView::Spent | ExecView::Absent | ExecView::Foreign)) | None => lost(
            situation,
            "the status and the agent's journal name different execs, and one of them may have run: neither is started",
        ),
    }
}

/// Why what has not started must not start.
fn no_longer_wanted(situation: &Situation<'_>, request: &BoundRequest) -> Option<Outcome> {
    taken_back(request, situation.now).or_else(|| too_late(situation, request))
}

/// Why what has not started is not wanted any more: who made the request has changed their mind.
fn taken_back(request: &BoundRequest, now: Timestamp) -> Option<Outcome> {
    let (reason, message) = if request.deleting {
        (Reason::Deleted, "the request was deleted before the command could start: nothing ran")
    } else if request.spec.cancel {
        (Reason::Canceled, "canceled before the command could start: nothing ran")
    } else {
        return None;
    };
    Some(Outcome::refused(reason, message, now))
}

fn too_late(situation: &Situation<'_>, request: &BoundRequest) -> Option<Outcome> {
    (situation.now >= request.starting_deadline).then(|| {
        let why = match situation.input {
            InputView::There => format!("it waited for its turn on node {}", request.node),
            InputView::Awaited => "no client attached with stdin, from which its input was to come".to_owned(),
        };
        let seconds = request.spec.starting_deadline_seconds;
        let message = format!("the command did not start within startingDeadlineSeconds={seconds}: {why}");
        Outcome::refused(Reason::StartingDeadlineExceeded, message, situation.now)
    })
}

fn container_died(situation: &Situation<'_>, exec: &ExecRef) -> Action {
    let message = format!("container {} was restarted or ended before the command could start", exec.container.id);
    Action::Report(Outcome::refused(Reason::ContainerDied, message, situation.now))
}

fn gone_before_start(situation: &Situation<'_>, message: &str) -> Action {
    Action::Report(Outcome::refused(Reason::ContainerDied, message, situation.now))
}

fn lost(situation: &Situation<'_>, message: &str) -> Action {
    Action::Report(Outcome::lost(message, None, situation.now))
}

#[cfg(test)]
mod tests;
