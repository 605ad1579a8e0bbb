use super::*;
use crate::cli::report::fixture::{at, batch, children, report};

fn told(report: &Report) -> Vec<(i32, &str, &str, Option<i32>)> {
    let of = |same: &'_ Same| (same.count, same.exit_code);
    report
        .results
        .iter()
        .map(|same| (of(same).0, same.indexes.as_str(), same.reason.as_str(), of(same).1))
        .filter(|(_, indexes, _, _)| *indexes != "9")
        .collect()
}

#[test]
fn what_ended_the_same_is_together_and_nothing_else_is() {
    let report = report();
    assert_eq!(
        told(&report),
        [
            (2, "0,10", "Completed", Some(0)),
            (1, "1", "NonZeroExitCode", Some(3)),
            (1, "2", "Completed", Some(0)),
            (1, "3", "Completed", Some(0)),
            (1, "4", "Completed", Some(0)),
            (1, "5", "Completed", Some(0)),
            (1, "6", "Completed", Some(0)),
            (1, "7", "PodNotFound", None),
        ],
        "equal output and another code; binary; cut ends that look the same; the other stream; incomplete"
    );
    let by_index = |index: &str| report.results.iter().find(|same| same.indexes == index).expect("a result");
    assert_eq!(by_index("0,10").pods, "db-[0,10]");
    assert_eq!(by_index("2").stdout.base64.as_deref(), Some("Yf/+AA=="));
    assert_eq!((by_index("3").stdout.truncated, by_index("5").stdout.bytes, by_index("5").stderr.bytes), (true, 0, 3));
    assert_eq!(by_index("6").incomplete().as_deref(), Some("The output may be incomplete: StreamLost."));
}

#[test]
fn every_index_has_its_end() {
    let report = report();
    let ends: Vec<&str> = report.commands.iter().map(|command| command.end).collect();
    let (good, bad) = ("succeeded", "failed");
    assert_eq!(ends, [good, bad, good, good, good, good, good, "notRun", "unknown", bad, good, "unfinished"]);
    let Counts { released, succeeded, failed, not_run, unknown, skipped, unfinished } = report.counts;
    assert_eq!((released, succeeded, failed, not_run, unknown, skipped, unfinished), (11, 7, 2, 1, 1, 0, 1));
    let gone = &report.commands[8];
    assert_eq!((gone.request.as_deref(), gone.result, gone.message.as_str()), (None, None, "its request is gone"));
    assert_eq!(report.commands[11].message, "held until it is released");
    assert_eq!((report.commands[0].pod.as_str(), report.commands[0].result), ("db-0", Some(1)), "not another plan's");
    assert_eq!(report.notes.len(), 3, "{:?}", report.notes);
}

#[test]
fn what_the_batch_does_not_count_yet_its_request_tells() {
    let mut batch = batch();
    batch.status.as_mut().expect("a status").succeeded = crate::api::batch::Ends::default();
    let report = Report::of(&batch, &children(), at("05:00")).expect("a report");
    assert_eq!((report.counts.succeeded, report.results[0].count), (7, 2));
}

#[test]
fn a_report_has_no_secret_of_the_batch() {
    let text = serde_json::to_string(&report()).expect("JSON");
    assert!(text.contains("PASSWORD") && !text.contains("hunter"), "{text}");
}

#[test]
fn a_batch_that_was_refused_or_not_looked_at_has_a_report_too() {
    let mut batch = batch();
    batch.status = None;
    let report = Report::of(&batch, &[], at("05:00")).expect("a report");
    assert_eq!((report.commands.len(), report.plan.total, report.released_by), (0, 0, None));
}
