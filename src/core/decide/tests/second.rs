//! A second request for a target of a batch: a plan was made anew after an older state of the API server was restored.

use super::*;
use crate::core::second::First;

fn first(outcome: Option<Outcome>) -> First {
    First { uid: "first".into(), outcome }
}

fn second(
    progress: &Progress,
    stage: Option<Stage>,
    exec: Option<ExecView>,
    first: &First,
    engine: EngineView,
) -> Step {
    let (request, entry) = (request(progress.clone()), stage.map(entry));
    step(decide(&Situation {
        wanted: RequestView::Request(&request),
        entry: entry.as_ref(),
        container: same(),
        exec: asked(progress, entry.as_ref(), exec),
        engine,
        input: InputView::There,
        first: Some(first),
        boot: &"boot-1".into(),
        now: at(1),
    }))
}

#[test]
fn the_second_request_for_a_target_tells_of_the_first_and_never_starts() {
    use Progress::{Bound, Finished};
    let won = || committed("e");
    let known = || Step::Report(Reason::NonZeroExitCode);
    let taken = || Step::Report(Reason::TargetTaken);
    let lost = || Step::Report(Reason::OutcomeLost);
    let rows = [
        // its progress, what the journal has, and the exec; where the first has ended, and where it has not
        (Bound, None, NO_EXEC, known(), taken()),
        (Bound, Some(Stage::Prepared), UNTOUCHED, known(), taken()),
        (Bound, Some(Stage::Prepared), ABSENT, known(), taken()),
        (won(), Some(Stage::Prepared), UNTOUCHED, known(), taken()),
        (won(), Some(Stage::Prepared), ABSENT, known(), taken()),
        (won(), None, UNTOUCHED, known(), taken()),
        // it was started all the same, or may have been: never again
        (won(), Some(Stage::Starting), UNTOUCHED, lost(), lost()),
        (won(), Some(Stage::Fencing), UNTOUCHED, lost(), lost()),
        (won(), Some(Stage::Fencing), ABSENT, lost(), lost()),
        (Bound, Some(running()), UNTOUCHED, lost(), lost()),
        // and what it has done is looked after as ever
        (won(), None, ABSENT, Step::Settle, Step::Settle),
        (won(), Some(Stage::Starting), ALIVE, Step::Adopt, Step::Adopt),
        (won(), Some(running()), ENDED, Step::Settle, Step::Settle),
        (won(), Some(ended()), NO_EXEC, known(), known()),
        (Finished, None, NO_EXEC, Step::Forget, Step::Forget),
        (Finished, Some(Stage::Prepared), UNTOUCHED, Step::Forget, Step::Forget),
    ];
    for (progress, stage, exec, if_ended, if_not) in rows {
        for engine in [TOKENS, FENCES] {
            let name = format!("{progress:?} {stage:?} {exec:?} {engine:?}");
            assert_eq!(second(&progress, stage.clone(), exec, &first(Some(outcome())), engine), if_ended, "{name}");
            assert_eq!(second(&progress, stage.clone(), exec, &first(None), engine), if_not, "{name}");
        }
    }
}

#[test]
fn nothing_is_prepared_or_started_for_a_second_request_whatever_else_is_known() {
    let stages =
        [None, Some(Stage::Prepared), Some(Stage::Fencing), Some(Stage::Starting), Some(running()), Some(ended())];
    let views = [NO_EXEC, ABSENT, UNTOUCHED, SPENT, ALIVE, ENDED];
    for progress in [Progress::Bound, committed("e"), committed("another"), Progress::Finished] {
        for (stage, exec) in stages.iter().flat_map(|stage| views.map(|view| (stage.clone(), view))) {
            for engine in [TOKENS, FENCES] {
                let step = second(&progress, stage.clone(), exec, &first(None), engine);
                let name = format!("{progress:?} {stage:?} {exec:?} {engine:?}: {step:?}");
                assert!(!matches!(step, Step::Prepare | Step::StartSole | Step::StartAgain), "{name}");
                // What is taken away is replaced, unless it has finished.
                assert!(step != Step::Fence || progress == Progress::Finished, "{name}");
            }
        }
    }
}

#[test]
fn a_second_request_needs_neither_engine_nor_time_nor_its_requester() {
    let mut request = request(Progress::Bound);
    for (cancel, now) in [(false, 1), (true, 1), (false, DEADLINE)] {
        request.spec.cancel = cancel;
        for (stage, expected) in [
            (None, Some(Step::Report(Reason::TargetTaken))),
            (Some(Stage::Prepared), Some(Step::Report(Reason::TargetTaken))),
            (Some(Stage::Starting), None),
            (Some(ended()), Some(Step::Report(Reason::NonZeroExitCode))),
        ] {
            let entry = stage.map(entry);
            let action = decide_without_engine(&request, entry.as_ref(), Some(&first(None)), at(now), "it is down");
            assert_eq!(action.map(step), expected, "{entry:?}");
        }
    }
}
