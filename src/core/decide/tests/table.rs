//! The recovery table, row by row.

use super::*;

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
