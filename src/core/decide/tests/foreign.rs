//! What the journal and the status tell of the engine that ran this node's containers before.

use super::*;
use crate::core::second::First;

#[test]
fn what_another_engine_has_started_ends_as_unknown_and_what_it_has_not_never_starts_there() {
    use Progress::{Bound, Finished};
    let won = || committed("e");
    let lost = || Step::Report(Reason::OutcomeLost);
    let not_running = || unfit(Reason::ContainerNotRunning);
    let rows = [
        row("prepared", Bound, Some(Stage::Prepared), restarted(), FOREIGN, Step::Prepare),
        row(
            "prepared, its container is not back yet",
            Bound,
            Some(Stage::Prepared),
            not_running(),
            FOREIGN,
            Step::Report(Reason::ContainerNotRunning),
        ),
        row(
            "committed, and not started",
            won(),
            Some(Stage::Prepared),
            restarted(),
            FOREIGN,
            Step::Report(Reason::ContainerDied),
        ),
        row("about to start", won(), Some(Stage::Starting), restarted(), FOREIGN, lost()),
        row("about to be taken away", won(), Some(Stage::Fencing), restarted(), FOREIGN, lost()),
        row("ran", won(), Some(running()), restarted(), FOREIGN, lost()),
        row("runs on, though its engine is gone", won(), Some(running()), restarted(), ALIVE, Step::Adopt),
        row("ended", won(), Some(ended()), not_running(), FOREIGN, Step::Report(Reason::NonZeroExitCode)),
        row("no journal", won(), None, not_running(), FOREIGN, lost()),
        row("restored, about to start", Bound, Some(Stage::Starting), restarted(), FOREIGN, lost()),
        row("restored, ran", Bound, Some(running()), restarted(), FOREIGN, lost()),
        row("another exec was committed", committed("other"), Some(running()), restarted(), FOREIGN, lost()),
        row("given up", Finished, Some(running()), not_running(), FOREIGN, Step::Forget),
    ];
    for row in rows {
        for engine in [TOKENS, FENCES] {
            assert_eq!(step(ask(&row, engine, "boot-1", 1)), row.expected, "{}", row.name);
        }
    }
}

#[test]
fn without_its_request_it_waits_or_is_forgotten() {
    let entry = entry(running());
    let terms = Terms { active: None, grace: Duration::from_secs(1), stdin: false };
    for (wanted, expected) in [
        (RequestView::Unread(Some(terms)), Step::AwaitRequest),
        (RequestView::Unread(None), Step::AwaitRequest),
        (RequestView::Unbound, Step::AwaitBinding),
        (RequestView::Gone, Step::Forget),
    ] {
        assert_eq!(step_of(wanted, Some(&entry), FOREIGN, "boot-1", 1), expected, "{wanted:?}");
    }
}

#[test]
fn who_is_not_the_first_for_its_target_tells_of_the_first() {
    let request = request(Progress::Bound);
    let first = First { uid: "first".into(), outcome: None };
    let entry = entry(Stage::Prepared);
    let action = decide(&Situation {
        wanted: RequestView::Request(&request),
        entry: Some(&entry),
        container: restarted(),
        exec: Some((exec("e"), ExecView::Foreign)),
        engine: FENCES,
        input: InputView::There,
        first: Some(&first),
        boot: &"boot-1".into(),
        now: at(1),
    });
    assert_eq!(action, Action::Report(first.outcome_of_second(at(1))));
}
