mod fenced;
mod foreign;
mod second;
mod table;
mod taken_back;
mod unread;

use super::*;
use crate::{
    api::{ExecRequestSpec, ExitCodeSource, OutputStatus},
    core::{
        entry::Terms,
        ids::{ContainerId, ProcessRef},
        kill::Kill,
        outcome::Exit,
    },
};

const DEADLINE: i64 = 60;

const NO_EXEC: Option<ExecView> = None;
const ABSENT: Option<ExecView> = Some(ExecView::Absent);
const UNTOUCHED: Option<ExecView> = Some(ExecView::Untouched);
const SPENT: Option<ExecView> = Some(ExecView::Spent);
const FOREIGN: Option<ExecView> = Some(ExecView::Foreign);
const ALIVE: Option<ExecView> = Some(ExecView::Alive);
const ENDED: Option<ExecView> = Some(ExecView::Ended);

/// An engine whose execs are tokens, and one that can take an exec away.
const TOKENS: EngineView = EngineView { fences: false, keeps_output: false };
const FENCES: EngineView = EngineView { fences: true, keeps_output: true };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a small number")
}

fn container(started_at: &str) -> ContainerRef {
    ContainerRef { id: ContainerId::from("c"), started_at: Some(started_at.into()) }
}

fn request(progress: Progress) -> BoundRequest {
    let spec: ExecRequestSpec =
        serde_json::from_value(serde_json::json!({"target": {"podName": "web"}, "command": ["true"]})).expect("a spec");
    BoundRequest {
        key: crate::core::ids::RequestKey { namespace: "shop".into(), name: "r".into(), uid: "u".into() },
        node: "n1".into(),
        pod_name: "web".into(),
        pod_uid: "p".into(),
        container: "app".into(),
        spec,
        starting_deadline: at(DEADLINE),
        progress,
        committed_at: None,
        deleting: false,
    }
}

fn exec(id: &str) -> ExecRef {
    ExecRef { id: id.into(), container: container("first") }
}

/// As a status names it.
fn committed(id: &str) -> Progress {
    Progress::Committed(ExecRef { id: id.into(), container: ContainerRef { id: "c".into(), started_at: None } })
}

/// The exec that is looked at.
fn asked(progress: &Progress, entry: Option<&Entry>, view: Option<ExecView>) -> Option<(ExecRef, ExecView)> {
    let known = entry.and_then(|entry| entry.exec.clone());
    let exec = match progress {
        Progress::Committed(committed) => known.filter(|exec| exec.id == committed.id).unwrap_or(committed.clone()),
        Progress::Bound | Progress::Finished => known.unwrap_or_else(|| exec("e")),
    };
    view.map(|view| (exec, view))
}

fn entry(stage: Stage) -> Entry {
    Entry::new(Some(exec("e")), "boot-1".into(), stage)
}

fn running() -> Stage {
    Stage::Running { process: ProcessRef { pid: 7, start_ticks: 9 }, pipes: vec![], executed: true }
}

fn outcome() -> Outcome {
    Outcome::exited(Exit { code: 3, source: ExitCodeSource::Engine }, OutputStatus::default(), at(5))
}

fn ended() -> Stage {
    Stage::Ended { outcome: outcome() }
}

fn same() -> ContainerView {
    ContainerView::Running(container("first"))
}

fn restarted() -> ContainerView {
    ContainerView::Running(container("second"))
}

fn unfit(reason: Reason) -> ContainerView {
    ContainerView::Unfit(reason, "why".into())
}

/// What the table is about, without the words of a message.
#[derive(Debug, PartialEq)]
enum Step {
    Prepare,
    AwaitBinding,
    AwaitClient,
    Commit,
    StartSole,
    StartAgain,
    Fence,
    Adopt,
    Settle,
    Guard,
    AwaitRequest,
    Kill,
    Report(Reason),
    Forget,
}

fn step(action: Action) -> Step {
    match action {
        Action::Prepare(_) => Step::Prepare,
        Action::AwaitBinding => Step::AwaitBinding,
        Action::AwaitClient => Step::AwaitClient,
        Action::Commit(_) => Step::Commit,
        Action::Start { sole: true, .. } => Step::StartSole,
        Action::Start { sole: false, .. } => Step::StartAgain,
        Action::Fence(_) => Step::Fence,
        Action::Adopt(_) => Step::Adopt,
        Action::Settle(_) => Step::Settle,
        Action::Guard(_) => Step::Guard,
        Action::AwaitRequest => Step::AwaitRequest,
        Action::Kill => Step::Kill,
        Action::Report(outcome) => Step::Report(outcome.reason),
        Action::Forget => Step::Forget,
    }
}

struct Row {
    name: &'static str,
    progress: Progress,
    stage: Option<Stage>,
    container: ContainerView,
    exec: Option<ExecView>,
    expected: Step,
}

fn row(
    name: &'static str,
    progress: Progress,
    stage: Option<Stage>,
    container: ContainerView,
    exec: Option<ExecView>,
    expected: Step,
) -> Row {
    Row { name, progress, stage, container, exec, expected }
}

fn ask(row: &Row, engine: EngineView, boot: &str, now: i64) -> Action {
    let request = request(row.progress.clone());
    let entry = row.stage.clone().map(entry);
    decide(&Situation {
        wanted: RequestView::Request(&request),
        entry: entry.as_ref(),
        container: row.container.clone(),
        exec: asked(&row.progress, entry.as_ref(), row.exec),
        engine,
        input: InputView::There,
        first: None,
        boot: &boot.into(),
        now: at(now),
    })
}

/// What is to be done in the container that it was prepared in, with its input there.
fn step_of(wanted: RequestView<'_>, entry: Option<&Entry>, exec: Option<ExecView>, boot: &str, now: i64) -> Step {
    let progress = wanted.request().map_or(Progress::Bound, |request| request.progress.clone());
    step(decide(&Situation {
        wanted,
        entry,
        container: same(),
        exec: asked(&progress, entry, exec),
        engine: TOKENS,
        input: InputView::There,
        first: None,
        boot: &boot.into(),
        now: at(now),
    }))
}

/// A request whose input comes from a client, or is in the request itself.
#[test]
fn no_command_is_started_without_its_input() {
    use InputView::{Awaited, There};
    use Progress::{Bound, Finished};
    let won = || committed("e");
    let late = Reason::StartingDeadlineExceeded;
    let rows = [
        // waiting is before everything: nothing is created, journaled or committed
        (Bound, None, same(), NO_EXEC, Awaited, 1, Step::AwaitClient),
        (Bound, None, same(), NO_EXEC, There, 1, Step::Prepare),
        (Bound, None, same(), NO_EXEC, Awaited, DEADLINE, Step::Report(late)),
        (Bound, None, unfit(Reason::PodReplaced), NO_EXEC, Awaited, 1, Step::Report(Reason::PodReplaced)),
        // the client goes away before the commit
        (Bound, Some(Stage::Prepared), same(), UNTOUCHED, Awaited, 1, Step::AwaitClient),
        (Bound, Some(Stage::Prepared), same(), UNTOUCHED, There, 1, Step::Commit),
        (Bound, Some(Stage::Prepared), same(), UNTOUCHED, Awaited, DEADLINE, Step::Report(late)),
        (Bound, Some(Stage::Prepared), restarted(), ABSENT, Awaited, 1, Step::Report(Reason::ContainerDied)),
        (Bound, Some(Stage::Prepared), same(), ABSENT, Awaited, 1, Step::AwaitClient),
        // the agent goes away between commit and start, and the client's connection with it
        (won(), Some(Stage::Prepared), same(), UNTOUCHED, Awaited, 1, Step::AwaitClient),
        (won(), Some(Stage::Prepared), same(), UNTOUCHED, There, 1, Step::StartSole),
        (won(), Some(Stage::Prepared), same(), UNTOUCHED, Awaited, DEADLINE, Step::Report(late)),
        // it may have been started: a second start cannot bring its input
        (won(), Some(Stage::Starting), same(), UNTOUCHED, Awaited, 1, Step::Report(Reason::OutcomeLost)),
        (won(), Some(Stage::Starting), same(), UNTOUCHED, There, 1, Step::Report(Reason::OutcomeLost)),
        (won(), None, same(), UNTOUCHED, There, 1, Step::Report(Reason::OutcomeLost)),
        // what runs or has ended is what it is, client or not
        (won(), Some(Stage::Starting), same(), ALIVE, Awaited, 1, Step::Adopt),
        (won(), Some(running()), same(), ALIVE, Awaited, DEADLINE, Step::Adopt),
        (won(), Some(running()), same(), ENDED, Awaited, 1, Step::Settle),
        (won(), Some(ended()), same(), ENDED, Awaited, 1, Step::Report(Reason::NonZeroExitCode)),
        (Finished, Some(Stage::Prepared), same(), UNTOUCHED, Awaited, 1, Step::Forget),
    ];
    for (progress, stage, container, exec, input, now, expected) in rows {
        let mut request = request(progress.clone());
        request.spec.stdin = Some(crate::api::Stdin::default());
        let entry = stage.clone().map(entry);
        let action = decide(&Situation {
            wanted: RequestView::Request(&request),
            entry: entry.as_ref(),
            container: container.clone(),
            exec: asked(&progress, entry.as_ref(), exec),
            engine: TOKENS,
            input,
            first: None,
            boot: &"boot-1".into(),
            now: at(now),
        });
        assert_eq!(step(action), expected, "{progress:?} {stage:?} {container:?} {exec:?} {input:?} at {now}");
        request.spec.cancel = true;
        let action = decide(&Situation {
            wanted: RequestView::Request(&request),
            entry: entry.as_ref(),
            container,
            exec: asked(&progress, entry.as_ref(), exec),
            engine: TOKENS,
            input,
            first: None,
            boot: &"boot-1".into(),
            now: at(now),
        });
        assert!(!matches!(action, Action::AwaitClient | Action::Start { .. }), "canceled: {action:?}");
    }
}

#[test]
fn what_survived_its_killing_is_killed_on_in_this_boot_and_forgotten_in_the_next() {
    let mut entry = entry(ended());
    let kill = Kill::new(Cause::Canceled, Duration::ZERO, Duration::ZERO);
    entry.kill = Some(Kill { survivors: true, ..kill });
    let finished = request(Progress::Finished);
    let committed = request(committed("e"));
    let cases = [
        (RequestView::Request(&finished), "boot-1", Step::Kill),
        (RequestView::Gone, "boot-1", Step::Kill),
        (RequestView::Request(&finished), "boot-2", Step::Forget),
        (RequestView::Gone, "boot-2", Step::Forget),
        (RequestView::Request(&committed), "boot-1", Step::Report(Reason::NonZeroExitCode)),
    ];
    for (wanted, boot, expected) in cases {
        assert_eq!(step_of(wanted, Some(&entry), NO_EXEC, boot, 1), expected, "{wanted:?} {boot}");
    }
}

#[test]
fn a_running_command_is_ended_for_one_of_four_causes() {
    let running = request(committed("e"));
    let mut canceled = running.clone();
    canceled.spec.cancel = true;
    let mut limited = running.clone();
    limited.spec.active_deadline_seconds = Some(30);
    let mut deleted = canceled.clone();
    deleted.deleting = true;
    let mut finished = request(Progress::Finished);
    finished.deleting = true;
    let second = |n| Some(Duration::from_secs(n));
    for (wanted, running, expected) in [
        (RequestView::Request(&running), second(1_000_000), None),
        (RequestView::Request(&limited), second(29), None),
        (RequestView::Request(&limited), None, None),
        (RequestView::Request(&limited), second(30), Some(Cause::DeadlineExceeded)),
        (RequestView::Request(&canceled), second(1), Some(Cause::Canceled)),
        (RequestView::Request(&deleted), second(1), Some(Cause::Deleted)),
        (RequestView::Request(&finished), second(1), Some(Cause::GivenUp)),
        (RequestView::Gone, second(1), Some(Cause::Deleted)),
        (RequestView::Unbound, second(1_000_000), None),
    ] {
        assert_eq!(cause_to_kill(&wanted, running), expected, "{wanted:?} {running:?}");
    }
}

#[test]
fn after_a_restart_of_the_node_nothing_is_adopted_or_started_again() {
    use Progress::Bound;
    let won = || committed("e");
    let rows = [
        row("prepared", Bound, Some(Stage::Prepared), restarted(), ABSENT, Step::Prepare),
        row("committed", won(), Some(Stage::Prepared), restarted(), ABSENT, Step::Report(Reason::ContainerDied)),
        row("starting", won(), Some(Stage::Starting), restarted(), ABSENT, Step::Report(Reason::OutcomeLost)),
        row(
            "starting, same exec ID",
            won(),
            Some(Stage::Starting),
            restarted(),
            UNTOUCHED,
            Step::Report(Reason::OutcomeLost),
        ),
        row("running, PID taken again", won(), Some(running()), restarted(), ALIVE, Step::Report(Reason::OutcomeLost)),
        row("outcome known", won(), Some(ended()), restarted(), ABSENT, Step::Report(Reason::NonZeroExitCode)),
    ];
    for row in rows {
        assert_eq!(step(ask(&row, TOKENS, "boot-2", 1)), row.expected, "{}", row.name);
    }
}

#[test]
fn nothing_starts_after_the_starting_deadline() {
    use Progress::Bound;
    let rows = [
        row("bound", Bound, None, same(), NO_EXEC, Step::Report(Reason::StartingDeadlineExceeded)),
        row(
            "prepared",
            Bound,
            Some(Stage::Prepared),
            same(),
            UNTOUCHED,
            Step::Report(Reason::StartingDeadlineExceeded),
        ),
        row(
            "committed",
            committed("e"),
            Some(Stage::Prepared),
            same(),
            UNTOUCHED,
            Step::Report(Reason::StartingDeadlineExceeded),
        ),
        row(
            "committed, journal lost",
            committed("e"),
            None,
            same(),
            UNTOUCHED,
            Step::Report(Reason::StartingDeadlineExceeded),
        ),
        row(
            "start call lost, and it may be on its way",
            committed("e"),
            Some(Stage::Starting),
            same(),
            UNTOUCHED,
            Step::Report(Reason::OutcomeLost),
        ),
        row("running", committed("e"), Some(running()), same(), ALIVE, Step::Adopt),
        row("ended", committed("e"), Some(running()), same(), ENDED, Step::Settle),
    ];
    for row in rows {
        assert_eq!(step(ask(&row, TOKENS, "boot-1", DEADLINE)), row.expected, "{}", row.name);
    }
}

#[test]
fn without_the_engine_only_what_needs_none_is_decided() {
    use Progress::{Bound, Finished};
    let won = || committed("e");
    let late = Some(Step::Report(Reason::StartingDeadlineExceeded));
    let known = || Some(Step::Report(Reason::NonZeroExitCode));
    for (progress, stage, now, expected) in [
        (Bound, None, 1, None),
        (Bound, None, DEADLINE, late),
        (Bound, Some(Stage::Prepared), DEADLINE, Some(Step::Report(Reason::StartingDeadlineExceeded))),
        (won(), Some(Stage::Prepared), DEADLINE, None),
        (won(), Some(running()), DEADLINE, None),
        (Bound, Some(Stage::Starting), DEADLINE, None),
        (won(), None, DEADLINE, None),
        (won(), Some(ended()), 1, known()),
        (Bound, Some(ended()), 1, known()),
        (Finished, Some(ended()), 1, Some(Step::Forget)),
        // it may run, and only the engine knows as what
        (Finished, Some(running()), 1, None),
    ] {
        let request = request(progress.clone());
        let entry = stage.clone().map(entry);
        let action = decide_without_engine(&request, entry.as_ref(), None, at(now), "the engine is down");
        assert_eq!(action.map(step), expected, "{progress:?} {stage:?} {now}");
    }
}

#[test]
fn a_deleted_request_never_starts_and_is_forgotten_once_its_end_is_known() {
    let cases = [
        (None, NO_EXEC, "boot-1", Step::Forget),
        (Some(Stage::Prepared), UNTOUCHED, "boot-1", Step::Forget),
        (Some(Stage::Starting), UNTOUCHED, "boot-1", Step::Forget),
        (Some(Stage::Starting), ABSENT, "boot-1", Step::Settle),
        (Some(running()), ALIVE, "boot-1", Step::Adopt),
        (Some(running()), ENDED, "boot-1", Step::Settle),
        (Some(running()), ENDED, "boot-2", Step::Forget),
        (Some(ended()), ENDED, "boot-1", Step::Forget),
    ];
    for (stage, exec, boot, expected) in cases {
        let entry = stage.clone().map(entry);
        assert_eq!(step_of(RequestView::Gone, entry.as_ref(), exec, boot, 1), expected, "{stage:?} {exec:?} {boot}");
    }
}

#[test]
fn what_runs_goes_on_though_a_restored_state_of_the_api_server_shows_its_request_unbound() {
    let cases = [
        (None, NO_EXEC, "boot-1", Step::Forget),
        (Some(Stage::Prepared), UNTOUCHED, "boot-1", Step::AwaitBinding),
        (Some(Stage::Starting), UNTOUCHED, "boot-1", Step::AwaitBinding),
        (Some(Stage::Starting), ALIVE, "boot-1", Step::Adopt),
        (Some(running()), ALIVE, "boot-1", Step::Adopt),
        (Some(running()), ENDED, "boot-1", Step::AwaitBinding),
        (Some(running()), ALIVE, "boot-2", Step::AwaitBinding),
        (Some(ended()), NO_EXEC, "boot-1", Step::AwaitBinding),
    ];
    for (stage, exec, boot, expected) in cases {
        let entry = stage.clone().map(entry);
        assert_eq!(
            step_of(RequestView::Unbound, entry.as_ref(), exec, boot, DEADLINE),
            expected,
            "{stage:?} {exec:?} {boot}"
        );
    }
}
