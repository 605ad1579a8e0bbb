//! While the API server does not answer.

use super::*;

const TERMS: Terms = Terms { active: Some(Duration::from_secs(30)), grace: Duration::from_secs(1), stdin: false };

fn unread(stage: Option<Stage>, exec: Option<ExecView>, engine: EngineView, terms: Option<Terms>, boot: &str) -> Step {
    let entry = stage.map(entry);
    step(decide(&Situation {
        wanted: RequestView::Unread(terms),
        entry: entry.as_ref(),
        container: same(),
        exec: asked(&Progress::Bound, entry.as_ref(), exec),
        engine,
        input: InputView::There,
        first: None,
        boot: &boot.into(),
        now: at(DEADLINE),
    }))
}

#[test]
fn what_runs_is_looked_after_though_its_request_cannot_be_read_and_nothing_starts_or_is_reported() {
    use Step::{Adopt, AwaitRequest, Guard, Settle};
    let rows = [
        // what the journal has, and the exec; on an engine of tokens, on one that keeps output
        (None, NO_EXEC, AwaitRequest, AwaitRequest),
        (Some(Stage::Prepared), UNTOUCHED, AwaitRequest, AwaitRequest),
        (Some(Stage::Prepared), ABSENT, AwaitRequest, AwaitRequest),
        (Some(Stage::Starting), UNTOUCHED, Guard, Guard),
        (Some(Stage::Fencing), UNTOUCHED, Guard, Guard),
        (Some(Stage::Starting), ALIVE, Adopt, Guard),
        (Some(running()), ALIVE, Adopt, Guard),
        (Some(Stage::Starting), ABSENT, Settle, AwaitRequest),
        (Some(running()), ENDED, Settle, AwaitRequest),
        (Some(running()), SPENT, Settle, AwaitRequest),
        (Some(ended()), NO_EXEC, AwaitRequest, AwaitRequest),
    ];
    for (stage, exec, tokens, keeps) in rows {
        let name = format!("{stage:?} {exec:?}");
        assert_eq!(unread(stage.clone(), exec, TOKENS, Some(TERMS), "boot-1"), tokens, "{name}");
        assert_eq!(unread(stage.clone(), exec, FENCES, Some(TERMS), "boot-1"), keeps, "{name}");
        assert_eq!(unread(stage, exec, TOKENS, Some(TERMS), "boot-2"), AwaitRequest, "{name}, in another boot");
    }
}

#[test]
fn a_record_of_an_earlier_version_does_not_tell_enough_to_conclude_without_its_request() {
    for (exec, expected) in [(ALIVE, Step::Guard), (ENDED, Step::AwaitRequest)] {
        assert_eq!(unread(Some(running()), exec, TOKENS, None, "boot-1"), expected, "{exec:?}");
    }
}

#[test]
fn what_survived_its_killing_is_killed_on() {
    let mut entry = entry(ended());
    entry.kill = Some(Kill { survivors: true, ..Kill::new(Cause::Canceled, Duration::ZERO, Duration::ZERO) });
    let wanted = RequestView::Unread(Some(TERMS));
    assert_eq!(step_of(wanted, Some(&entry), NO_EXEC, "boot-1", 1), Step::Guard);
    assert_eq!(step_of(wanted, Some(&entry), NO_EXEC, "boot-2", 1), Step::AwaitRequest);
}

#[test]
fn a_deadline_is_kept_by_what_the_journal_has_of_it() {
    let without = Terms { active: None, ..TERMS };
    for (terms, running, expected) in [
        (Some(TERMS), Some(29), None),
        (Some(TERMS), Some(30), Some(Cause::DeadlineExceeded)),
        (Some(TERMS), None, None),
        (Some(without), Some(1_000_000), None),
        (None, Some(1_000_000), None),
    ] {
        let running = running.map(Duration::from_secs);
        assert_eq!(cause_to_kill(&RequestView::Unread(terms), running), expected, "{terms:?} {running:?}");
    }
}
