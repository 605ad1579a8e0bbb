//! Checks that each request and each batch has all its records.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use super::{
    batch::counts,
    chain::Link,
    event::{Event, Verb},
    identity, key,
    members::Members,
    whole,
};
use crate::{
    api::{
        ExecBatch, ExecRequest, ExecRequestStatus, Reason,
        conditions::{self, ConditionType, Truth},
    },
    core::ids::{BatchUid, RequestUid},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// `request` or `batch`.
    pub kind: &'static str,
    /// Namespace and name.
    pub name: String,
    pub uid: String,
    pub missing: String,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({}): {}", self.kind, self.name, self.uid, self.missing)
    }
}

/// Objects as the API server has, or had, them.
#[derive(Clone, Debug, Default)]
pub struct Export {
    pub requests: Vec<ExecRequest>,
    pub batches: Vec<ExecBatch>,
}

/// How many requests or batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub recorded: usize,
    /// Finished ones that the records were compared with.
    pub compared: usize,
    /// Those that were not compared, because they had not finished.
    pub unfinished: usize,
}

impl Count {
    fn seen(&mut self, has_finished: bool) {
        *(if has_finished { &mut self.compared } else { &mut self.unfinished }) += 1;
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completeness {
    pub requests: Count,
    pub batches: Count,
    /// Planned batches without a record of their end: they go on, or were deleted before they had finished.
    pub batches_without_end: usize,
    pub gaps: Vec<Gap>,
}

/// Compares the records of all writers with each other, and with an export. What has not finished may still lack records.
pub fn complete<'a>(events: impl IntoIterator<Item = &'a Event>, export: &Export) -> Completeness {
    let mut sets: BTreeMap<RequestUid, Vec<&Event>> = BTreeMap::new();
    let mut of_batches: BTreeMap<BatchUid, Vec<&Event>> = BTreeMap::new();
    let mut writers = Writers::default();
    for event in events {
        writers.see(event);
        if let Some(uid) = event.uid() {
            sets.entry(uid).or_default().push(event);
        } else if let Some(uid) = event.batch() {
            of_batches.entry(uid).or_default().push(event);
        }
    }
    let members = Members::of(&sets);
    let (mut result, seconds) = (Completeness::default(), members.seconds());
    requests(&mut result, &sets, &seconds, &writers, export);
    batches(&mut result, &of_batches, &members, export);
    result
}

fn requests(
    result: &mut Completeness,
    sets: &BTreeMap<RequestUid, Vec<&Event>>,
    seconds: &BTreeSet<RequestUid>,
    writers: &Writers,
    export: &Export,
) {
    result.requests.recorded = sets.len();
    let gap = |name: &str, uid: &RequestUid, missing| gap("request", name, uid.as_str(), missing);
    for (uid, events) in sets {
        let missing = if seconds.contains(uid) { Vec::new() } else { required_by_records(events) };
        let missing = missing.into_iter().chain(writers.unpaired(events));
        result.gaps.extend(missing.map(|missing| gap(&name_of(events), uid, missing)));
    }
    for request in &export.requests {
        let Some(uid) = request.metadata.uid.as_deref().map(RequestUid::from) else { continue };
        let events = sets.get(&uid).map_or(&[][..], Vec::as_slice);
        let name = name(request.metadata.namespace.as_deref(), request.metadata.name.as_deref());
        let mut missing = identity::of_request(request, &name, events);
        let finished = request.status.as_ref().filter(|status| status.completion_time.is_some());
        result.requests.seen(finished.is_some());
        match finished {
            Some(status) => missing.extend(required_by_status(status, events, seconds.contains(&uid))),
            None => missing.extend(ended_too_early(events)),
        }
        result.gaps.extend(missing.into_iter().map(|missing| gap(&name, &uid, missing)));
    }
}

fn batches(
    result: &mut Completeness,
    of_batches: &BTreeMap<BatchUid, Vec<&Event>>,
    members: &Members,
    export: &Export,
) {
    result.batches.recorded = of_batches.len();
    let uid_of = |batch: &ExecBatch| batch.metadata.uid.as_deref().map(BatchUid::from);
    let goes_on = |batch: &&ExecBatch| batch.status.as_ref().is_none_or(|status| status.completion_time.is_none());
    let going: BTreeSet<BatchUid> = export.batches.iter().filter(goes_on).filter_map(uid_of).collect();
    let all: BTreeSet<&BatchUid> = of_batches.keys().chain(members.0.keys()).collect();
    let gap = |name: &str, uid: &BatchUid, missing| gap("batch", name, uid.as_str(), missing);
    for uid in all {
        let events = of_batches.get(uid).map_or(&[][..], Vec::as_slice);
        let members = members.0.get(uid).map_or(&[][..], Vec::as_slice);
        let missing = whole::gaps(events, members);
        let has = |of: fn(&Event) -> bool| events.iter().any(|event| of(event));
        if has(|event| event.verb == Verb::Planned) && !has(|event| event.verb.is_end()) {
            result.batches_without_end += 1;
        }
        let name = members.first().map_or_else(|| name_of(events), |member| member.batch.clone());
        result.gaps.extend(missing.into_iter().map(|missing| gap(&name, uid, missing)));
    }
    for batch in &export.batches {
        let Some(uid) = uid_of(batch) else { continue };
        let events = of_batches.get(&uid).map_or(&[][..], Vec::as_slice);
        let name = name(batch.metadata.namespace.as_deref(), batch.metadata.name.as_deref());
        let mut missing = identity::of_batch(batch, &name, events);
        result.batches.seen(!going.contains(&uid));
        missing.extend(if going.contains(&uid) { ended_too_early(events) } else { end_of_batch(batch, events) });
        result.gaps.extend(missing.into_iter().map(|missing| gap(&name, &uid, missing)));
    }
}

fn gap(kind: &'static str, name: &str, uid: &str, missing: String) -> Gap {
    Gap { kind, name: name.to_owned(), uid: uid.to_owned(), missing }
}

fn name(namespace: Option<&str>, name: Option<&str>) -> String {
    format!("{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default())
}

fn name_of(events: &[&Event]) -> String {
    events.iter().find_map(|event| event.name()).unwrap_or_default()
}

fn ended_too_early(events: &[&Event]) -> Option<String> {
    let ended = events.iter().any(|event| event.verb.is_end());
    ended.then(|| "it has a record of its end, and has not finished".to_owned())
}

/// The end of a finished batch, by its status.
fn end_of_batch(batch: &ExecBatch, events: &[&Event]) -> Option<String> {
    let status = batch.status.as_ref()?;
    let finished = conditions::get(&status.conditions, ConditionType::Finished);
    let reason = finished.map(|finished| finished.reason.as_str()).unwrap_or_default();
    let digest = status.plan.as_ref().and_then(|plan| plan.digest.as_deref());
    let counts = counts(status);
    let says_so = |event: &&Event| {
        event.verb.is_end()
            && event.note(key::REASON) == Some(reason)
            && event.note(key::PLAN_DIGEST) == digest
            && counts.iter().all(|(key, count)| event.number(key) == Some((*count).into()))
    };
    (!events.iter().any(says_so))
        .then(|| format!("it ended with {reason} ({} accounted for), but no record says so", status.done))
}

fn required_by_records(events: &[&Event]) -> Vec<String> {
    let has = |verb| events.iter().any(|event| event.verb == verb);
    let ended = events.iter().any(|event| event.verb.is_end());
    let code = events.iter().any(|event| event.note(key::EXIT_CODE).is_some());
    let mut missing = Vec::new();
    if has(Verb::Started) && !ended {
        missing.push("it started, but has no record of its end".to_owned());
    }
    if (code || has(Verb::Cancelled)) && !has(Verb::Started) {
        missing.push("it ran, but has no record of its start".to_owned());
    }
    if has(Verb::Started) && !has(Verb::Bound) {
        missing.push("it started, but has no record of being bound".to_owned());
    }
    missing
}

/// Line numbers in a writer's chain.
struct Lines {
    /// Of the first line at hand.
    first: u64,
    /// Of the writer's latest start.
    started: u64,
}

#[derive(Default)]
struct Writers(HashMap<String, Lines>);

impl Writers {
    fn see(&mut self, event: &Event) {
        let Some(link) = Link::of(event) else { return };
        let lines = self.0.entry(link.writer).or_insert(Lines { first: link.sequence, started: 0 });
        lines.first = lines.first.min(link.sequence);
        if event.verb == Verb::Opened {
            lines.started = lines.started.max(link.sequence);
        }
    }

    /// Connections to a request that has ended with only one of `attached` and `detached`. A writer that
    /// restarted may have left one open, and older lines of a log may be gone.
    fn unpaired(&self, events: &[&Event]) -> Vec<String> {
        let has = |verb, session| events.iter().any(|other| other.verb == verb && other.note(key::SESSION) == session);
        let ended = events.iter().any(|event| event.verb.is_end());
        let mut missing = Vec::new();
        for event in events {
            let Some(link) = Link::of(event) else { continue };
            let (Some(lines), session) = (self.0.get(&link.writer), event.note(key::SESSION)) else { continue };
            if event.verb == Verb::Attached && ended && link.sequence > lines.started && !has(Verb::Detached, session) {
                missing.push("a client attached, but has no record of its disconnection".to_owned());
            }
            if event.verb == Verb::Detached && lines.first == 1 && !has(Verb::Attached, session) {
                missing.push("a client disconnected, but has no record of attaching".to_owned());
            }
        }
        missing
    }
}

/// `is_second`: it tells how another request ended, and was not started itself.
fn required_by_status(status: &ExecRequestStatus, events: &[&Event], is_second: bool) -> Vec<String> {
    let with = |verb: Verb, notes: &[(&str, Option<&str>)]| {
        events.iter().any(|event| event.verb == verb && notes.iter().all(|(key, value)| event.note(key) == *value))
    };
    let finished = conditions::get(&status.conditions, ConditionType::Finished);
    let reason = finished.map(|finished| finished.reason.as_str()).unwrap_or_default();
    let started = !is_second
        && conditions::get(&status.conditions, ConditionType::Started)
            .is_some_and(|started| started.status == Truth::True.as_str());
    let mut missing = Vec::new();

    let code = status.exit_code.map(|code| code.to_string());
    let end = [(key::REASON, Some(reason)), (key::EXIT_CODE, code.as_deref())];
    let known = Reason::ALL.iter().find(|known| known.as_str() == reason);
    if !known.is_some_and(|known| with(Verb::of_end(*known), &end)) {
        let code = code.map(|code| format!(", exit code {code}")).unwrap_or_default();
        missing.push(format!("it ended with {reason}{code}, but no record says so"));
    }
    let place = [
        (key::NODE, status.node_name.as_deref()),
        (key::POD_UID, status.pod_uid.as_deref()),
        (key::CONTAINER, status.container.as_deref()),
    ];
    if status.node_name.is_some() && !with(Verb::Bound, &place) {
        missing.push("it has no record of being bound to its node, pod and container".to_owned());
    }
    // A lost request may have been lost between commit and start.
    let lost = [Reason::OutcomeLost, Reason::NodeLost].map(Reason::as_str).contains(&reason);
    if started && !lost && !with(Verb::Started, &[(key::EXEC_ID, status.exec_id.as_deref())]) {
        missing.push("it has no record of starting its exec".to_owned());
    }
    let cut_short = [Reason::Canceled, Reason::DeadlineExceeded, Reason::Deleted].map(Reason::as_str).contains(&reason);
    if started && cut_short && !with(Verb::Cancelled, &[(key::REASON, Some(reason))]) {
        missing.push(format!("its command was killed ({reason}), but no record says so"));
    }
    missing
}

#[cfg(test)]
#[path = "complete_tests.rs"]
mod tests;
