use super::*;
use crate::{
    api::{ExecRequestSpec, ExitCodeSource, OutputStatus},
    core::{ids::ContainerId, outcome::Exit},
};

const DEADLINE: i64 = 60;

const NO_EXEC: Option<ExecView> = None;
const ABSENT: Option<ExecView> = Some(ExecView::Absent);
const UNTOUCHED: Option<ExecView> = Some(ExecView::Untouched);
const SPENT: Option<ExecView> = Some(ExecView::Spent);
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
    Stage::Running { process: ProcessRef { pid: 7, start_ticks: 9 }, pipes: vec![] }
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
        wanted: Wanted::Request(&request),
        entry: entry.as_ref(),
        container: row.container.clone(),
        exec: asked(&row.progress, entry.as_ref(), row.exec),
        engine,
        input: InputView::There,
        boot: &boot.into(),
        now: at(now),
    })
}

/// What is to be done in the container that it was prepared in, with its input there.
fn step_of(wanted: Wanted<'_>, entry: Option<&Entry>, exec: Option<ExecView>, boot: &str, now: i64) -> Step {
    let progress = wanted.request().map_or(Progress::Bound, |request| request.progress.clone());
    step(decide(&Situation {
        wanted,
        entry,
        container: same(),
        exec: asked(&progress, entry, exec),
        engine: TOKENS,
        input: InputView::There,
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
            wanted: Wanted::Request(&request),
            entry: entry.as_ref(),
            container: container.clone(),
            exec: asked(&progress, entry.as_ref(), exec),
            engine: TOKENS,
            input,
            boot: &"boot-1".into(),
            now: at(now),
        });
        assert_eq!(step(action), expected, "{progress:?} {stage:?} {container:?} {exec:?} {input:?} at {now}");
        request.spec.cancel = true;
        let action = decide(&Situation {
            wanted: Wanted::Request(&request),
            entry: entry.as_ref(),
            container,
            exec: asked(&progress, entry.as_ref(), exec),
            engine: TOKENS,
            input,
            boot: &"boot-1".into(),
            now: at(now),
        });
        assert!(!matches!(action, Action::AwaitClient | Action::Start { .. }), "canceled: {action:?}");
    }
}

#[test]
fn the_recovery_table_holds_row_by_row() {
    use Progress::{Bound, Finished};
    let won = || committed("e");
    let rows = [
        // the undisturbed way
        row("bound and new", Bound, None, same(), NO_EXEC, Step::Prepare),
        row("prepared", Bound, Some(Stage::Prepared), same(), UNTOUCHED, Step::Commit),
        row("commit won", won(), Some(Stage::Prepared), same(), UNTOUCHED, Step::StartSole),
        row("ended", won(), Some(ended()), same(), ENDED, Step::Report(Reason::NonZeroExitCode)),
        row("reported", Finished, Some(ended()), same(), ENDED, Step::Forget),
        row("reported, journal gone", Finished, None, same(), NO_EXEC, Step::Forget),
        // before the commit
        row(
            "pod replaced before prepare",
            Bound,
            None,
            unfit(Reason::PodReplaced),
            NO_EXEC,
            Step::Report(Reason::PodReplaced),
        ),
        row(
            "paused before prepare",
            Bound,
            None,
            unfit(Reason::ContainerNotRunning),
            NO_EXEC,
            Step::Report(Reason::ContainerNotRunning),
        ),
        row(
            "container restarted before commit",
            Bound,
            Some(Stage::Prepared),
            restarted(),
            ABSENT,
            Step::Report(Reason::ContainerDied),
        ),
        row(
            "container gone before commit",
            Bound,
            Some(Stage::Prepared),
            unfit(Reason::ContainerNotRunning),
            ABSENT,
            Step::Report(Reason::ContainerDied),
        ),
        row(
            "pod replaced before commit",
            Bound,
            Some(Stage::Prepared),
            unfit(Reason::PodReplaced),
            ABSENT,
            Step::Report(Reason::PodReplaced),
        ),
        row(
            "engine restarted before commit, same container",
            Bound,
            Some(Stage::Prepared),
            same(),
            ABSENT,
            Step::Prepare,
        ),
        // between commit and start
        row(
            "exec gone between commit and start",
            won(),
            Some(Stage::Prepared),
            restarted(),
            ABSENT,
            Step::Report(Reason::ContainerDied),
        ),
        row("started by somebody else", won(), Some(Stage::Prepared), same(), ALIVE, Step::Adopt),
        // the start call was or may have been made
        row("start call lost, never started", won(), Some(Stage::Starting), same(), UNTOUCHED, Step::StartAgain),
        row("start call lost, runs", won(), Some(Stage::Starting), same(), ALIVE, Step::Adopt),
        row("start call lost, ended", won(), Some(Stage::Starting), same(), ENDED, Step::Settle),
        // The engine has forgotten it, and its events may still tell its code.
        row("start call lost, forgotten", won(), Some(Stage::Starting), same(), ABSENT, Step::Settle),
        row("running, alive", won(), Some(running()), same(), ALIVE, Step::Adopt),
        row("running, ended", won(), Some(running()), same(), ENDED, Step::Settle),
        row(
            "running, ended in a container that was restarted",
            won(),
            Some(running()),
            restarted(),
            ENDED,
            Step::Settle,
        ),
        row("running, forgotten", won(), Some(running()), same(), ABSENT, Step::Settle),
        // the journal was lost
        row("no journal, alive", won(), None, same(), ALIVE, Step::Adopt),
        row("no journal, ended", won(), None, same(), ENDED, Step::Settle),
        row("no journal, never started", won(), None, same(), UNTOUCHED, Step::StartAgain),
        row("no journal, forgotten", won(), None, same(), ABSENT, Step::Settle),
        // the status was restored from an older state: never run again
        row("restored, alive", Bound, Some(running()), same(), ALIVE, Step::Adopt),
        row("restored, ended", Bound, Some(Stage::Starting), same(), ENDED, Step::Settle),
        row(
            "restored, never started",
            Bound,
            Some(Stage::Starting),
            same(),
            UNTOUCHED,
            Step::Report(Reason::OutcomeLost),
        ),
        row("restored, outcome known", Bound, Some(ended()), same(), ABSENT, Step::Report(Reason::NonZeroExitCode)),
        // the status names another exec than the journal
        row("another exec was committed", committed("other"), Some(Stage::Prepared), same(), ABSENT, Step::Settle),
        row(
            "another exec was committed and runs",
            committed("other"),
            Some(Stage::Prepared),
            same(),
            ALIVE,
            Step::Adopt,
        ),
        // both names may have run: what the journal remembers as started, and what the status names
        row(
            "another exec was committed after a start, and was never started",
            committed("other"),
            Some(Stage::Starting),
            same(),
            UNTOUCHED,
            Step::Report(Reason::OutcomeLost),
        ),
        row(
            "another exec was committed after a start, and is forgotten",
            committed("other"),
            Some(Stage::Starting),
            same(),
            ABSENT,
            Step::Report(Reason::OutcomeLost),
        ),
        row(
            "another exec was committed after a start, and runs",
            committed("other"),
            Some(running()),
            same(),
            ALIVE,
            Step::Adopt,
        ),
        row("another exec was committed after an end", committed("other"), Some(ended()), same(), ENDED, Step::Settle),
        // a tombstone: it ended long ago, and an older state of the API server was restored
        row(
            "tombstone, restored as bound",
            Bound,
            Some(ended()),
            same(),
            NO_EXEC,
            Step::Report(Reason::NonZeroExitCode),
        ),
        row(
            "tombstone, restored as running",
            won(),
            Some(ended()),
            same(),
            NO_EXEC,
            Step::Report(Reason::NonZeroExitCode),
        ),
        // somebody else has finished it, and it runs here
        row("given up, and runs", Finished, Some(running()), same(), ALIVE, Step::Adopt),
        row(
            "given up, its start call was lost, and it runs",
            Finished,
            Some(Stage::Starting),
            same(),
            ALIVE,
            Step::Adopt,
        ),
        row("given up before its start", Finished, Some(Stage::Prepared), same(), UNTOUCHED, Step::Forget),
        row("given up, never started", Finished, Some(Stage::Starting), same(), UNTOUCHED, Step::Forget),
        row("given up, and ended", Finished, Some(running()), same(), ENDED, Step::Forget),
    ];
    for row in rows {
        assert_eq!(step(ask(&row, TOKENS, "boot-1", 1)), row.expected, "{}", row.name);
    }
}

#[test]
fn a_canceled_request_never_starts_and_a_running_one_is_adopted_to_be_ended() {
    use Progress::Bound;
    let won = || committed("e");
    let canceled = || Step::Report(Reason::Canceled);
    for (progress, stage, exec, expected) in [
        (Bound, None, NO_EXEC, canceled()),
        (Bound, Some(Stage::Prepared), UNTOUCHED, canceled()),
        (won(), Some(Stage::Prepared), UNTOUCHED, canceled()),
        // Its start may still be on its way.
        (won(), Some(Stage::Starting), UNTOUCHED, Step::Report(Reason::OutcomeLost)),
        (won(), None, UNTOUCHED, canceled()),
        (won(), Some(running()), ALIVE, Step::Adopt),
        (won(), Some(running()), ENDED, Step::Settle),
        (won(), Some(ended()), NO_EXEC, Step::Report(Reason::NonZeroExitCode)),
    ] {
        let mut request = request(progress.clone());
        request.spec.cancel = true;
        let entry = stage.clone().map(entry);
        assert_eq!(
            step_of(Wanted::Request(&request), entry.as_ref(), exec, "boot-1", 1),
            expected,
            "{progress:?} {stage:?} {exec:?}"
        );
        if progress == Bound && stage.is_none() {
            let action = decide_without_engine(&request, None, at(1), "the engine is down");
            assert_eq!(action.map(step), Some(canceled()));
        }
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
        (Wanted::Request(&finished), "boot-1", Step::Kill),
        (Wanted::Gone, "boot-1", Step::Kill),
        (Wanted::Request(&finished), "boot-2", Step::Forget),
        (Wanted::Gone, "boot-2", Step::Forget),
        (Wanted::Request(&committed), "boot-1", Step::Report(Reason::NonZeroExitCode)),
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
    let finished = request(Progress::Finished);
    let second = |n| Some(Duration::from_secs(n));
    for (wanted, running, expected) in [
        (Wanted::Request(&running), second(1_000_000), None),
        (Wanted::Request(&limited), second(29), None),
        (Wanted::Request(&limited), None, None),
        (Wanted::Request(&limited), second(30), Some(Cause::DeadlineExceeded)),
        (Wanted::Request(&canceled), second(1), Some(Cause::Canceled)),
        (Wanted::Request(&finished), second(1), Some(Cause::GivenUp)),
        (Wanted::Gone, second(1), Some(Cause::Deleted)),
        (Wanted::Unbound, second(1_000_000), None),
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
        let action = decide_without_engine(&request, entry.as_ref(), at(now), "the engine is down");
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
        assert_eq!(step_of(Wanted::Gone, entry.as_ref(), exec, boot, 1), expected, "{stage:?} {exec:?} {boot}");
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
            step_of(Wanted::Unbound, entry.as_ref(), exec, boot, DEADLINE),
            expected,
            "{stage:?} {exec:?} {boot}"
        );
    }
}

#[test]
fn an_engine_that_fences_leaves_nothing_of_a_start_in_doubt() {
    use Progress::{Bound, Finished};
    let won = || committed("e");
    let died = || Step::Report(Reason::ContainerDied);
    let rows = [
        row("start call lost, never started", won(), Some(Stage::Starting), same(), UNTOUCHED, Step::Fence),
        row("start call lost, runs", won(), Some(Stage::Starting), same(), ALIVE, Step::Adopt),
        row("start call lost, spent", won(), Some(Stage::Starting), same(), SPENT, Step::Settle),
        row("start call lost, forgotten", won(), Some(Stage::Starting), same(), ABSENT, Step::Settle),
        row("not taken away yet", won(), Some(Stage::Fencing), same(), UNTOUCHED, Step::Fence),
        row("taken away", won(), Some(Stage::Fencing), same(), ABSENT, Step::Fence),
        row("taken away, container restarted", won(), Some(Stage::Fencing), restarted(), ABSENT, died()),
        row("started after all", won(), Some(Stage::Fencing), same(), ALIVE, Step::Adopt),
        row("started after all, and ended", won(), Some(Stage::Fencing), same(), ENDED, Step::Settle),
        row("no journal, never started", won(), None, same(), UNTOUCHED, Step::Fence),
        row("restored, never started", Bound, Some(Stage::Starting), same(), UNTOUCHED, Step::Fence),
        row("restored, taken away", Bound, Some(Stage::Fencing), same(), ABSENT, Step::Fence),
        row("given up, may still start", Finished, Some(Stage::Starting), same(), UNTOUCHED, Step::Fence),
        row("given up, never started", Finished, Some(Stage::Prepared), same(), UNTOUCHED, Step::Forget),
        row("given up, taken away", Finished, Some(Stage::Fencing), same(), ABSENT, Step::Forget),
    ];
    for row in rows {
        assert_eq!(step(ask(&row, FENCES, "boot-1", 1)), row.expected, "{}", row.name);
    }
    let starting = entry(Stage::Starting);
    let gone = Situation {
        wanted: Wanted::Gone,
        entry: Some(&starting),
        container: same(),
        exec: Some((exec("e"), ExecView::Untouched)),
        engine: FENCES,
        input: InputView::There,
        boot: &"boot-1".into(),
        now: at(1),
    };
    assert_eq!(decide(&gone), Action::Fence(exec("e")), "deleted, may still start");
    // What was taken away has surely not run: that it came too late is no doubt.
    let taken = row("", won(), Some(Stage::Fencing), same(), ABSENT, Step::Forget);
    assert_eq!(step(ask(&taken, FENCES, "boot-1", DEADLINE)), Step::Report(Reason::StartingDeadlineExceeded));
    assert_eq!(step(ask(&taken, FENCES, "boot-2", 1)), Step::Report(Reason::OutcomeLost), "the journal tells no more");
}

#[test]
fn an_exec_that_has_taken_the_place_of_the_committed_one_may_start() {
    let request = request(committed("u.1"));
    let entry = Entry { exec: Some(exec("u.2")), ..entry(Stage::Prepared) };
    let situation = |exec: &str| {
        let exec = ExecRef { id: exec.into(), container: container("first") };
        decide(&Situation {
            wanted: Wanted::Request(&request),
            entry: Some(&entry),
            container: same(),
            exec: Some((exec, ExecView::Untouched)),
            engine: FENCES,
            input: InputView::There,
            boot: &"boot-1".into(),
            now: at(1),
        })
    };
    assert_eq!(situation("u.2"), Action::Start { exec: exec("u.2"), sole: true });
    let elsewhere = ExecRef { container: ContainerRef { id: "other".into(), started_at: None }, ..exec("u.1") };
    assert!(!exec("u.2").stands_for(&elsewhere), "the commit names the container, too");
    assert!(!exec("v.2").stands_for(&exec("u.1")), "and the request");
}

/// Every combination of facts: whatever else is decided, at most once must hold.
#[test]
fn no_combination_of_facts_starts_what_may_have_run() {
    let progresses = [Progress::Bound, committed("e"), committed("other"), Progress::Finished];
    let stages =
        [None, Some(Stage::Prepared), Some(Stage::Fencing), Some(Stage::Starting), Some(running()), Some(ended())];
    let execs = [NO_EXEC, ABSENT, UNTOUCHED, SPENT, ALIVE, ENDED];
    let containers = [same(), restarted(), unfit(Reason::PodReplaced)];
    for progress in &progresses {
        for stage in &stages {
            for exec in execs {
                for container in &containers {
                    for engine in [TOKENS, FENCES] {
                        let row = row("", progress.clone(), stage.clone(), container.clone(), exec, Step::Forget);
                        at_most_once(&row, engine);
                    }
                }
            }
        }
    }
}

fn at_most_once(row: &Row, engine: EngineView) {
    let Row { progress, stage, exec, container, .. } = row;
    for (boot, now) in [("boot-1", 1), ("boot-1", DEADLINE), ("boot-2", 1), ("boot-2", DEADLINE)] {
        let action = ask(row, engine, boot, now);
        let facts = format!("{progress:?} {stage:?} {exec:?} {container:?} {engine:?} {boot} {now}: {action:?}");
        match action {
            Action::Prepare(_) | Action::Commit(_) => {
                assert_eq!(*progress, Progress::Bound, "{facts}");
                assert!(matches!(stage, None | Some(Stage::Prepared)), "{facts}");
            }
            Action::Start { .. } => {
                assert!(matches!(progress, Progress::Committed(_)), "{facts}");
                assert_eq!(*exec, UNTOUCHED, "{facts}");
                let started = matches!(stage, Some(Stage::Running { .. } | Stage::Ended { .. } | Stage::Fencing));
                assert!(!started, "{facts}");
                assert!(!engine.fences || matches!(stage, Some(Stage::Prepared)), "a start in doubt: {facts}");
            }
            Action::Fence(_) => {
                assert!(engine.fences && *exec != ALIVE && *exec != ENDED && *exec != SPENT, "{facts}");
                assert!(*exec == UNTOUCHED || matches!(stage, Some(Stage::Fencing)), "{facts}");
            }
            Action::Report(_) => assert_ne!(*progress, Progress::Finished, "{facts}"),
            Action::AwaitClient => panic!("its input is there: {facts}"),
            Action::AwaitBinding => panic!("it is bound: {facts}"),
            Action::Kill => panic!("nothing has survived: {facts}"),
            Action::Adopt(_) | Action::Settle(_) | Action::Forget => {}
        }
    }
}
