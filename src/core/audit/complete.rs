//! Checks that each request has all its records.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use super::{
    chain::Link,
    event::{Event, Verb},
    identity, key,
};
use crate::{
    api::{
        ExecRequest, ExecRequestStatus, Reason,
        conditions::{self, ConditionType, Truth},
    },
    core::ids::RequestUid,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Namespace and name.
    pub request: String,
    pub uid: RequestUid,
    pub missing: String,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {} ({}): {}", self.request, self.uid, self.missing)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completeness {
    pub recorded: usize,
    /// How many finished requests the records were compared with.
    pub compared: usize,
    /// How many requests were not, because they had not finished.
    pub unfinished: usize,
    pub gaps: Vec<Gap>,
}

/// Compares the records of all writers with each other, and with the requests as the API server has,
/// or had, them. A request that has not finished may still lack records.
pub fn complete<'a>(
    events: impl IntoIterator<Item = &'a Event>,
    requests: impl IntoIterator<Item = &'a ExecRequest>,
) -> Completeness {
    let mut sets: BTreeMap<RequestUid, Vec<&Event>> = BTreeMap::new();
    let mut writers = Writers::default();
    for event in events {
        writers.see(event);
        if let Some(uid) = event.uid() {
            sets.entry(uid.clone()).or_default().push(event);
        }
    }
    let mut result = Completeness { recorded: sets.len(), ..Completeness::default() };
    for (uid, events) in &sets {
        let missing = required_by_records(events).into_iter().chain(writers.unpaired(events));
        result.gaps.extend(missing.map(|missing| gap(&name_of(events), uid, missing)));
    }
    for request in requests {
        let Some(uid) = request.metadata.uid.as_deref().map(RequestUid::from) else { continue };
        let events = sets.get(&uid).map_or(&[][..], Vec::as_slice);
        let name = format!(
            "{}/{}",
            request.metadata.namespace.as_deref().unwrap_or_default(),
            request.metadata.name.as_deref().unwrap_or_default()
        );
        let mut missing = identity::contradictions(request, &name, events);
        if let Some(status) = request.status.as_ref().filter(|status| status.completion_time.is_some()) {
            result.compared += 1;
            missing.extend(required_by_status(status, events));
        } else {
            result.unfinished += 1;
            let ended = events.iter().any(|event| event.verb.is_end());
            missing.extend(ended.then(|| "it has a record of its end, and has not finished".to_owned()));
        }
        result.gaps.extend(missing.into_iter().map(|missing| gap(&name, &uid, missing)));
    }
    result
}

fn gap(request: &str, uid: &RequestUid, missing: String) -> Gap {
    Gap { request: request.to_owned(), uid: uid.clone(), missing }
}

fn name_of(events: &[&Event]) -> String {
    let object = events.iter().find_map(|event| event.object_ref.as_ref());
    object.map(|object| format!("{}/{}", object.namespace, object.name)).unwrap_or_default()
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

fn required_by_status(status: &ExecRequestStatus, events: &[&Event]) -> Vec<String> {
    let with = |verb: Verb, notes: &[(&str, Option<&str>)]| {
        events.iter().any(|event| event.verb == verb && notes.iter().all(|(key, value)| event.note(key) == *value))
    };
    let finished = conditions::get(&status.conditions, ConditionType::Finished);
    let reason = finished.map(|finished| finished.reason.as_str()).unwrap_or_default();
    let started = conditions::get(&status.conditions, ConditionType::Started)
        .is_some_and(|started| started.status == Truth::True.as_str());
    let mut missing = Vec::new();

    let code = status.exit_code.map(|code| code.to_string());
    let end = [(key::REASON, Some(reason)), (key::EXIT_CODE, code.as_deref())];
    let known = Reason::ALL.iter().find(|known| known.as_str() == reason);
    if !known.is_some_and(|known| with(Verb::of_end(*known), &end)) {
        missing.push(format!("it ended with {reason} (exit code {code:?}), but no record says so"));
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
