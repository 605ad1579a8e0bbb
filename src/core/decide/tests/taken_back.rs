//! Requests that are canceled, or deleted while a finalizer holds them.

use super::*;

type Row = (Progress, Option<Stage>, Option<ExecView>, Step);

/// What has not started never will, with this as the reason; what runs is adopted, which ends it.
fn both(reason: Reason) -> Vec<Row> {
    use Progress::Bound;
    let won = || committed("e");
    let unwanted = || Step::Report(reason);
    vec![
        (Bound, None, NO_EXEC, unwanted()),
        (Bound, Some(Stage::Prepared), UNTOUCHED, unwanted()),
        (won(), Some(Stage::Prepared), UNTOUCHED, unwanted()),
        // Its start may still be on its way.
        (won(), Some(Stage::Starting), UNTOUCHED, Step::Report(Reason::OutcomeLost)),
        (won(), None, UNTOUCHED, unwanted()),
        (won(), Some(running()), ALIVE, Step::Adopt),
        (won(), Some(running()), ENDED, Step::Settle),
        (won(), Some(ended()), NO_EXEC, Step::Report(Reason::NonZeroExitCode)),
    ]
}

fn hold(rows: Vec<Row>, reason: Reason, take_back: impl Fn(&mut BoundRequest)) {
    for (progress, stage, exec, expected) in rows {
        let mut request = request(progress.clone());
        take_back(&mut request);
        let entry = stage.clone().map(entry);
        assert_eq!(
            step_of(RequestView::Request(&request), entry.as_ref(), exec, "boot-1", 1),
            expected,
            "{progress:?} {stage:?} {exec:?}"
        );
        if progress == Progress::Bound && stage.is_none() {
            let action = decide_without_engine(&request, None, None, at(1), "the engine is down");
            assert_eq!(action.map(step), Some(Step::Report(reason)));
        }
    }
}

#[test]
fn a_canceled_request_never_starts_and_a_running_one_is_adopted_to_be_ended() {
    hold(both(Reason::Canceled), Reason::Canceled, |request| request.spec.cancel = true);
}

#[test]
fn a_deleted_request_that_a_finalizer_holds_never_starts_and_its_end_is_reported() {
    // Whether it was canceled too makes no difference.
    for cancel in [false, true] {
        let mut rows = both(Reason::Deleted);
        rows.extend([
            (Progress::Bound, Some(ended()), NO_EXEC, Step::Report(Reason::NonZeroExitCode)),
            (Progress::Finished, Some(ended()), NO_EXEC, Step::Forget),
            (Progress::Finished, None, NO_EXEC, Step::Forget),
        ]);
        hold(rows, Reason::Deleted, |request| (request.deleting, request.spec.cancel) = (true, cancel));
    }
}
