//! What a verification says, in words.

use std::collections::BTreeSet;

use super::{
    complete::{Completeness, Count, Export, complete},
    event::Event,
    examine::{Against, Found, examine},
    key,
    verify::Report,
};
use crate::core::ids::RequestUid;

/// Lines as they were found: they may quote what anybody has written into a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub lines: Vec<String>,
    pub wrong: bool,
}

/// Verifies chains. With an export also whether each request and each batch has its records, of all or of one batch.
pub fn verdict(chains: Vec<Found>, against: Against<'_>, export: Option<&Export>, batch: Option<&str>) -> Verdict {
    let examined = examine(chains, against);
    let mut lines: Vec<String> =
        examined.chains.iter().flat_map(|(found, report)| of_chain(report, found.files.len())).collect();
    lines.extend(examined.faults.iter().map(ToString::to_string));
    let mut wrong = examined.is_wrong();
    if let Some(export) = export {
        let mut events: Vec<Event> = examined.chains.into_iter().flat_map(|(_, report)| report.events).collect();
        if let Some(batch) = batch {
            events = of_batch(events, batch);
        }
        let found = complete(&events, export);
        wrong |= !found.gaps.is_empty();
        lines.extend(of_records(&found));
    }
    Verdict { lines, wrong }
}

/// The bad lines of a chain, then a summary of it.
fn of_chain(report: &Report, files: usize) -> Vec<String> {
    let mut lines: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    let Report { writer, first, starts, cuts, lost, events, head, .. } = report;
    let state = if report.findings.is_empty() { "intact" } else { "NOT INTACT" };
    let against = match report.vouched {
        Some(line) => format!(
            ", checked against the published head (line {line}; {} records after it that nothing vouches for yet)",
            head.sequence - line
        ),
        None => ", no head to check against: whole in itself, and nothing vouches for it".to_owned(),
    };
    let gone = match first {
        1 => String::new(),
        _ => " (the lines before it are not here: rotated, or removed)".to_owned(),
    };
    lines.push(format!(
        "{}: {state}: {} records in {files} files, from line {first}{gone}, {starts} starts, {cuts} reported cuts, {lost} lost{against}; head {head}",
        // Letters of other alphabets look like those of a name.
        writer.escape_default(),
        events.len(),
    ));
    lines
}

fn of_records(found: &Completeness) -> Vec<String> {
    let mut lines: Vec<String> = found.gaps.iter().map(ToString::to_string).collect();
    let of = |what: &str, Count { recorded, compared, unfinished }| {
        format!(
            "{recorded} {what} have records, {compared} finished {what} were compared, {unfinished} had not finished"
        )
    };
    if found.batches != Count::default() {
        let unended = match found.batches_without_end {
            0 => String::new(),
            unended => format!(", {unended} without a record of their end: they go on, or were deleted before"),
        };
        lines.push(of("batches", found.batches) + &unended);
    }
    lines.push(format!("{}, {} gaps", of("requests", found.requests), found.gaps.len()));
    lines
}

/// The records of one batch and its requests, and those of no object at all. `wanted`: its name, its namespace and name as
/// `NAMESPACE/NAME`, or its UID.
pub fn of_batch(mut events: Vec<Event>, wanted: &str) -> Vec<Event> {
    let is_it = |uid: &str, namespace: &str, name: &str| {
        wanted == uid || wanted == name || wanted.split_once('/') == Some((namespace, name))
    };
    let is_of = |event: &Event| {
        let Some(object) = &event.object_ref else { return true };
        match (event.batch(), event.note(key::BATCH_UID), event.note(key::BATCH)) {
            (Some(uid), _, _) => is_it(uid.as_str(), &object.namespace, &object.name),
            (None, Some(uid), Some(name)) => is_it(uid, &object.namespace, name),
            (None, _, _) => false,
        }
    };
    // Of a request that was gone when an agent restarted, some records do not say which batch it was of.
    let requests: BTreeSet<RequestUid> = events.iter().filter(|event| is_of(event)).filter_map(Event::uid).collect();
    events.retain(|event| is_of(event) || event.uid().is_some_and(|uid| requests.contains(&uid)));
    events
}
