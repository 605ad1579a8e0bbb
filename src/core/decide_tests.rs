use super::*;
use crate::{
    api::{ExecRequestSpec, ExitCodeSource, OutputStatus},
    core::{ids::ContainerId, outcome::Exit},
};

const DEADLINE: i64 = 60;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a small number")
}

fn container(started_at: &str) -> ContainerRef {
    ContainerRef { id: ContainerId::from("c"), started_at: started_at.into() }
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
        container_id: "c".into(),
        committed_at: None,
    }
}

fn entry(stage: Stage) -> Entry {
    let exec = ExecRef { id: "e".into(), container: container("first") };
    Entry { exec, boot: "boot-1".into(), stage, started: None, fed: false, kill: None }
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
        Action::Commit => Step::Commit,
        Action::Start { sole: true } => Step::StartSole,
        Action::Start { sole: false } => Step::StartAgain,
        Action::Adopt => Step::Adopt,
        Action::Settle => Step::Settle,
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
    exec: ExecView,
    expected: Step,
}

fn row(
    name: &'static str,
    progress: Progress,
    stage: Option<Stage>,
    container: ContainerView,
    exec: ExecView,
    expected: Step,
) -> Row {
    Row { name, progress, stage, container, exec, expected }
}

fn ask(row: &Row, boot: &str, now: i64) -> Action {
    let request = request(row.progress.clone());
    let entry = row.stage.clone().map(entry);
    decide(&Situation {
        wanted: Wanted::Request(&request),
        entry: entry.as_ref(),
        container: row.container.clone(),
        exec: row.exec,
        input: InputView::There,
        boot: &boot.into(),
        now: at(now),
    })
}

/// What is to be done in the container that it was prepared in, with its input there.
fn step_of(wanted: Wanted<'_>, entry: Option<&Entry>, exec: ExecView, boot: &str, now: i64) -> Step {
    step(decide(&Situation {
        wanted,
        entry,
        container: same(),
        exec,
        input: InputView::There,
        boot: &boot.into(),
        now: at(now),
    }))
}

/// A request whose input comes from a client, or is in the request itself.
#[test]
fn no_command_is_started_without_its_input() {
    use ExecView::{Alive, Created, Ended, None as NoExec, Unknown};
    use InputView::{Awaited, There};
    use Progress::{Bound, Committed, Finished};
    let won = || Committed("e".into());
    let late = Reason::StartingDeadlineExceeded;
    let rows = [
        // waiting is before everything: nothing is created, journaled or committed
        (Bound, None, same(), NoExec, Awaited, 1, Step::AwaitClient),
        (Bound, None, same(), NoExec, There, 1, Step::Prepare),
        (Bound, None, same(), NoExec, Awaited, DEADLINE, Step::Report(late)),
        (Bound, None, unfit(Reason::PodReplaced), NoExec, Awaited, 1, Step::Report(Reason::PodReplaced)),
        // the client goes away before the commit
        (Bound, Some(Stage::Prepared), same(), Created, Awaited, 1, Step::AwaitClient),
        (Bound, Some(Stage::Prepared), same(), Created, There, 1, Step::Commit),
        (Bound, Some(Stage::Prepared), same(), Created, Awaited, DEADLINE, Step::Report(late)),
        (Bound, Some(Stage::Prepared), restarted(), Unknown, Awaited, 1, Step::Report(Reason::ContainerDied)),
        (Bound, Some(Stage::Prepared), same(), Unknown, Awaited, 1, Step::AwaitClient),
        // the agent goes away between commit and start, and the client's connection with it
        (won(), Some(Stage::Prepared), same(), Created, Awaited, 1, Step::AwaitClient),
        (won(), Some(Stage::Prepared), same(), Created, There, 1, Step::StartSole),
        (won(), Some(Stage::Prepared), same(), Created, Awaited, DEADLINE, Step::Report(late)),
        // it may have been started: a second start cannot bring its input
        (won(), Some(Stage::Starting), same(), Created, Awaited, 1, Step::Report(Reason::OutcomeLost)),
        (won(), Some(Stage::Starting), same(), Created, There, 1, Step::Report(Reason::OutcomeLost)),
        (won(), None, same(), Created, There, 1, Step::Report(Reason::OutcomeLost)),
        // what runs or has ended is what it is, client or not
        (won(), Some(Stage::Starting), same(), Alive, Awaited, 1, Step::Adopt),
        (won(), Some(running()), same(), Alive, Awaited, DEADLINE, Step::Adopt),
        (won(), Some(running()), same(), Ended, Awaited, 1, Step::Settle),
        (won(), Some(ended()), same(), Ended, Awaited, 1, Step::Report(Reason::NonZeroExitCode)),
        (Finished, Some(Stage::Prepared), same(), Created, Awaited, 1, Step::Forget),
    ];
    for (progress, stage, container, exec, input, now, expected) in rows {
        let mut request = request(progress.clone());
        request.spec.stdin = Some(crate::api::Stdin::default());
        let entry = stage.clone().map(entry);
        let action = decide(&Situation {
            wanted: Wanted::Request(&request),
            entry: entry.as_ref(),
            container: container.clone(),
            exec,
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
            exec,
            input,
            boot: &"boot-1".into(),
            now: at(now),
        });
        assert!(!matches!(action, Action::AwaitClient | Action::Start { .. }), "canceled: {action:?}");
    }
}

#[test]
fn the_recovery_table_holds_row_by_row() {
    use ExecView::{Alive, Created, Ended, None as NoExec, Unknown};
    use Progress::{Bound, Committed, Finished};
    let won = || Committed("e".into());
    let rows = [
        // the undisturbed way
        row("bound and new", Bound, None, same(), NoExec, Step::Prepare),
        row("prepared", Bound, Some(Stage::Prepared), same(), Created, Step::Commit),
        row("commit won", won(), Some(Stage::Prepared), same(), Created, Step::StartSole),
        row("ended", won(), Some(ended()), same(), Ended, Step::Report(Reason::NonZeroExitCode)),
        row("reported", Finished, Some(ended()), same(), Ended, Step::Forget),
        row("reported, journal gone", Finished, None, same(), NoExec, Step::Forget),
        // before the commit
        row(
            "pod replaced before prepare",
            Bound,
            None,
            unfit(Reason::PodReplaced),
            NoExec,
            Step::Report(Reason::PodReplaced),
        ),
        row(
            "paused before prepare",
            Bound,
            None,
            unfit(Reason::ContainerNotRunning),
            NoExec,
            Step::Report(Reason::ContainerNotRunning),
        ),
        row(
            "container restarted before commit",
            Bound,
            Some(Stage::Prepared),
            restarted(),
            Unknown,
            Step::Report(Reason::ContainerDied),
        ),
        row(
            "container gone before commit",
            Bound,
            Some(Stage::Prepared),
            unfit(Reason::ContainerNotRunning),
            Unknown,
            Step::Report(Reason::ContainerDied),
        ),
        row(
            "pod replaced before commit",
            Bound,
            Some(Stage::Prepared),
            unfit(Reason::PodReplaced),
            Unknown,
            Step::Report(Reason::PodReplaced),
        ),
        row(
            "engine restarted before commit, same container",
            Bound,
            Some(Stage::Prepared),
            same(),
            Unknown,
            Step::Prepare,
        ),
        // between commit and start
        row(
            "exec gone between commit and start",
            won(),
            Some(Stage::Prepared),
            restarted(),
            Unknown,
            Step::Report(Reason::ContainerDied),
        ),
        row("started by somebody else", won(), Some(Stage::Prepared), same(), Alive, Step::Adopt),
        // the start call was or may have been made
        row("start call lost, never started", won(), Some(Stage::Starting), same(), Created, Step::StartAgain),
        row("start call lost, runs", won(), Some(Stage::Starting), same(), Alive, Step::Adopt),
        row("start call lost, ended", won(), Some(Stage::Starting), same(), Ended, Step::Settle),
        // The engine has forgotten it, and its events may still tell its code.
        row("start call lost, forgotten", won(), Some(Stage::Starting), same(), Unknown, Step::Settle),
        row("running, alive", won(), Some(running()), same(), Alive, Step::Adopt),
        row("running, ended", won(), Some(running()), same(), Ended, Step::Settle),
        row(
            "running, ended in a container that was restarted",
            won(),
            Some(running()),
            restarted(),
            Ended,
            Step::Settle,
        ),
        row("running, forgotten", won(), Some(running()), same(), Unknown, Step::Settle),
        // the journal was lost
        row("no journal, alive", won(), None, same(), Alive, Step::Adopt),
        row("no journal, ended", won(), None, same(), Ended, Step::Settle),
        row("no journal, never started", won(), None, same(), Created, Step::StartAgain),
        row("no journal, forgotten", won(), None, same(), Unknown, Step::Settle),
        // the status was restored from an older state: never run again
        row("restored, alive", Bound, Some(running()), same(), Alive, Step::Adopt),
        row("restored, ended", Bound, Some(Stage::Starting), same(), Ended, Step::Settle),
        row(
            "restored, never started",
            Bound,
            Some(Stage::Starting),
            same(),
            Created,
            Step::Report(Reason::OutcomeLost),
        ),
        row("restored, outcome known", Bound, Some(ended()), same(), Unknown, Step::Report(Reason::NonZeroExitCode)),
        // the status names another exec than the journal
        row(
            "another exec was committed",
            Committed("other".into()),
            Some(Stage::Prepared),
            same(),
            Unknown,
            Step::Settle,
        ),
        row(
            "another exec was committed and runs",
            Committed("other".into()),
            Some(Stage::Prepared),
            same(),
            Alive,
            Step::Adopt,
        ),
        // both names may have run: what the journal remembers as started, and what the status names
        row(
            "another exec was committed after a start, and was never started",
            Committed("other".into()),
            Some(Stage::Starting),
            same(),
            Created,
            Step::Report(Reason::OutcomeLost),
        ),
        row(
            "another exec was committed after a start, and is forgotten",
            Committed("other".into()),
            Some(Stage::Starting),
            same(),
            Unknown,
            Step::Report(Reason::OutcomeLost),
        ),
        row(
            "another exec was committed after a start, and runs",
            Committed("other".into()),
            Some(running()),
            same(),
            Alive,
            Step::Adopt,
        ),
        row(
            "another exec was committed after an end",
            Committed("other".into()),
            Some(ended()),
            same(),
            Ended,
            Step::Settle,
        ),
        // a tombstone: it ended long ago, and an older state of the API server was restored
        row(
            "tombstone, restored as bound",
            Bound,
            Some(ended()),
            same(),
            NoExec,
            Step::Report(Reason::NonZeroExitCode),
        ),
        row(
            "tombstone, restored as running",
            won(),
            Some(ended()),
            same(),
            NoExec,
            Step::Report(Reason::NonZeroExitCode),
        ),
        // somebody else has finished it, and it runs here
        row("given up, and runs", Finished, Some(running()), same(), Alive, Step::Adopt),
        row(
            "given up, its start call was lost, and it runs",
            Finished,
            Some(Stage::Starting),
            same(),
            Alive,
            Step::Adopt,
        ),
        row("given up before its start", Finished, Some(Stage::Prepared), same(), Created, Step::Forget),
        row("given up, never started", Finished, Some(Stage::Starting), same(), Created, Step::Forget),
        row("given up, and ended", Finished, Some(running()), same(), Ended, Step::Forget),
    ];
    for row in rows {
        assert_eq!(step(ask(&row, "boot-1", 1)), row.expected, "{}", row.name);
    }
}

#[test]
fn a_canceled_request_never_starts_and_a_running_one_is_adopted_to_be_ended() {
    use Progress::{Bound, Committed};
    let won = || Committed("e".into());
    let canceled = || Step::Report(Reason::Canceled);
    for (progress, stage, exec, expected) in [
        (Bound, None, ExecView::None, canceled()),
        (Bound, Some(Stage::Prepared), ExecView::Created, canceled()),
        (won(), Some(Stage::Prepared), ExecView::Created, canceled()),
        // Its start may still be on its way.
        (won(), Some(Stage::Starting), ExecView::Created, Step::Report(Reason::OutcomeLost)),
        (won(), None, ExecView::Created, canceled()),
        (won(), Some(running()), ExecView::Alive, Step::Adopt),
        (won(), Some(running()), ExecView::Ended, Step::Settle),
        (won(), Some(ended()), ExecView::None, Step::Report(Reason::NonZeroExitCode)),
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
    let committed = request(Progress::Committed("e".into()));
    let cases = [
        (Wanted::Request(&finished), "boot-1", Step::Kill),
        (Wanted::Gone, "boot-1", Step::Kill),
        (Wanted::Request(&finished), "boot-2", Step::Forget),
        (Wanted::Gone, "boot-2", Step::Forget),
        (Wanted::Request(&committed), "boot-1", Step::Report(Reason::NonZeroExitCode)),
    ];
    for (wanted, boot, expected) in cases {
        assert_eq!(step_of(wanted, Some(&entry), ExecView::None, boot, 1), expected, "{wanted:?} {boot}");
    }
}

#[test]
fn a_running_command_is_ended_for_one_of_four_causes() {
    let running = request(Progress::Committed("e".into()));
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
    use Progress::{Bound, Committed};
    let won = || Committed("e".into());
    let rows = [
        row("prepared", Bound, Some(Stage::Prepared), restarted(), ExecView::Unknown, Step::Prepare),
        row(
            "committed",
            won(),
            Some(Stage::Prepared),
            restarted(),
            ExecView::Unknown,
            Step::Report(Reason::ContainerDied),
        ),
        row(
            "starting",
            won(),
            Some(Stage::Starting),
            restarted(),
            ExecView::Unknown,
            Step::Report(Reason::OutcomeLost),
        ),
        row(
            "starting, same exec ID",
            won(),
            Some(Stage::Starting),
            restarted(),
            ExecView::Created,
            Step::Report(Reason::OutcomeLost),
        ),
        row(
            "running, PID taken again",
            won(),
            Some(running()),
            restarted(),
            ExecView::Alive,
            Step::Report(Reason::OutcomeLost),
        ),
        row(
            "outcome known",
            won(),
            Some(ended()),
            restarted(),
            ExecView::Unknown,
            Step::Report(Reason::NonZeroExitCode),
        ),
    ];
    for row in rows {
        assert_eq!(step(ask(&row, "boot-2", 1)), row.expected, "{}", row.name);
    }
}

#[test]
fn nothing_starts_after_the_starting_deadline() {
    use Progress::{Bound, Committed};
    let rows = [
        row("bound", Bound, None, same(), ExecView::None, Step::Report(Reason::StartingDeadlineExceeded)),
        row(
            "prepared",
            Bound,
            Some(Stage::Prepared),
            same(),
            ExecView::Created,
            Step::Report(Reason::StartingDeadlineExceeded),
        ),
        row(
            "committed",
            Committed("e".into()),
            Some(Stage::Prepared),
            same(),
            ExecView::Created,
            Step::Report(Reason::StartingDeadlineExceeded),
        ),
        row(
            "committed, journal lost",
            Committed("e".into()),
            None,
            same(),
            ExecView::Created,
            Step::Report(Reason::StartingDeadlineExceeded),
        ),
        row(
            "start call lost, and it may be on its way",
            Committed("e".into()),
            Some(Stage::Starting),
            same(),
            ExecView::Created,
            Step::Report(Reason::OutcomeLost),
        ),
        row("running", Committed("e".into()), Some(running()), same(), ExecView::Alive, Step::Adopt),
        row("ended", Committed("e".into()), Some(running()), same(), ExecView::Ended, Step::Settle),
    ];
    for row in rows {
        assert_eq!(step(ask(&row, "boot-1", DEADLINE)), row.expected, "{}", row.name);
    }
}

#[test]
fn without_the_engine_only_what_needs_none_is_decided() {
    use Progress::{Bound, Committed, Finished};
    let won = || Committed("e".into());
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
        (None, ExecView::None, "boot-1", Step::Forget),
        (Some(Stage::Prepared), ExecView::Created, "boot-1", Step::Forget),
        (Some(Stage::Starting), ExecView::Created, "boot-1", Step::Forget),
        (Some(Stage::Starting), ExecView::Unknown, "boot-1", Step::Settle),
        (Some(running()), ExecView::Alive, "boot-1", Step::Adopt),
        (Some(running()), ExecView::Ended, "boot-1", Step::Settle),
        (Some(running()), ExecView::Ended, "boot-2", Step::Forget),
        (Some(ended()), ExecView::Ended, "boot-1", Step::Forget),
    ];
    for (stage, exec, boot, expected) in cases {
        let entry = stage.clone().map(entry);
        assert_eq!(step_of(Wanted::Gone, entry.as_ref(), exec, boot, 1), expected, "{stage:?} {exec:?} {boot}");
    }
}

#[test]
fn what_runs_goes_on_though_a_restored_state_of_the_api_server_shows_its_request_unbound() {
    let cases = [
        (None, ExecView::None, "boot-1", Step::Forget),
        (Some(Stage::Prepared), ExecView::Created, "boot-1", Step::AwaitBinding),
        (Some(Stage::Starting), ExecView::Created, "boot-1", Step::AwaitBinding),
        (Some(Stage::Starting), ExecView::Alive, "boot-1", Step::Adopt),
        (Some(running()), ExecView::Alive, "boot-1", Step::Adopt),
        (Some(running()), ExecView::Ended, "boot-1", Step::AwaitBinding),
        (Some(running()), ExecView::Alive, "boot-2", Step::AwaitBinding),
        (Some(ended()), ExecView::None, "boot-1", Step::AwaitBinding),
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

/// Every combination of facts: whatever else is decided, at most once must hold.
#[test]
fn no_combination_of_facts_starts_what_may_have_run() {
    let progresses =
        [Progress::Bound, Progress::Committed("e".into()), Progress::Committed("other".into()), Progress::Finished];
    let stages = [None, Some(Stage::Prepared), Some(Stage::Starting), Some(running()), Some(ended())];
    let execs = [ExecView::None, ExecView::Unknown, ExecView::Created, ExecView::Alive, ExecView::Ended];
    let containers = [same(), restarted(), unfit(Reason::PodReplaced)];
    for progress in &progresses {
        for stage in &stages {
            for exec in execs {
                for container in &containers {
                    for boot in ["boot-1", "boot-2"] {
                        for now in [1, DEADLINE] {
                            let row = row("", progress.clone(), stage.clone(), container.clone(), exec, Step::Forget);
                            let action = ask(&row, boot, now);
                            let facts =
                                format!("{progress:?} {stage:?} {exec:?} {container:?} {boot} {now}: {action:?}");
                            match action {
                                Action::Prepare(_) | Action::Commit => {
                                    assert_eq!(*progress, Progress::Bound, "{facts}");
                                    assert!(matches!(stage, None | Some(Stage::Prepared)), "{facts}");
                                }
                                Action::Start { .. } => {
                                    assert!(matches!(progress, Progress::Committed(_)), "{facts}");
                                    assert_eq!(exec, ExecView::Created, "{facts}");
                                    assert!(
                                        !matches!(stage, Some(Stage::Running { .. } | Stage::Ended { .. })),
                                        "{facts}"
                                    );
                                }
                                Action::Report(_) => assert_ne!(*progress, Progress::Finished, "{facts}"),
                                Action::AwaitClient => panic!("its input is there: {facts}"),
                                Action::AwaitBinding => panic!("it is bound: {facts}"),
                                Action::Kill => panic!("nothing has survived: {facts}"),
                                Action::Adopt | Action::Settle | Action::Forget => {}
                            }
                        }
                    }
                }
            }
        }
    }
}
