//! Engines that can take an exec away, and at most once on any engine.

use super::*;

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
        wanted: RequestView::Gone,
        entry: Some(&starting),
        container: same(),
        exec: Some((exec("e"), ExecView::Untouched)),
        engine: FENCES,
        input: InputView::There,
        first: None,
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
            wanted: RequestView::Request(&request),
            entry: Some(&entry),
            container: same(),
            exec: Some((exec, ExecView::Untouched)),
            engine: FENCES,
            input: InputView::There,
            first: None,
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
            Action::Guard(_) | Action::AwaitRequest => panic!("it was read: {facts}"),
            Action::Kill => panic!("nothing has survived: {facts}"),
            Action::Adopt(_) | Action::Settle(_) | Action::Forget => {}
        }
    }
}
