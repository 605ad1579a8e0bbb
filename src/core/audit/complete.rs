//! Whether each request has all the records that it must have.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use super::{
    chain::Link,
    event::{Event, Verb},
    key,
};
use crate::{
    api::{
        ExecRequest, ExecRequestStatus, Reason,
        conditions::{self, ConditionType, Truth},
    },
    core::ids::RequestUid,
};

/// A record that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Namespace and name of the request.
    pub request: String,
    /// Its UID.
    pub uid: RequestUid,
    /// What is missing.
    pub missing: String,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {} ({}): {}", self.request, self.uid, self.missing)
    }
}

/// What was looked at, and what is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completeness {
    /// Requests that have records.
    pub recorded: usize,
    /// Finished requests that the records were held against.
    pub compared: usize,
    /// What is missing.
    pub gaps: Vec<Gap>,
}

/// Holds the records of all writers against each other, and against the requests as the API server
/// has, or had, them. A request that has not finished need not have all of its records yet.
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
        let missing = among_themselves(events).into_iter().chain(writers.unpaired(events));
        result.gaps.extend(missing.map(|missing| gap(&name_of(events), uid, missing)));
    }
    for request in requests {
        let (Some(uid), Some(status)) = (request.metadata.uid.as_deref(), &request.status) else { continue };
        if status.completion_time.is_none() {
            continue;
        }
        result.compared += 1;
        let uid = RequestUid::from(uid);
        let events = sets.get(&uid).map_or(&[][..], Vec::as_slice);
        let namespace = request.metadata.namespace.as_deref().unwrap_or_default();
        let name = format!("{namespace}/{}", request.metadata.name.as_deref().unwrap_or_default());
        result.gaps.extend(of_request(status, events).into_iter().map(|missing| gap(&name, &uid, missing)));
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

/// What the records say that there must be.
fn among_themselves(events: &[&Event]) -> Vec<String> {
    let has = |verb| events.iter().any(|event| event.verb == verb);
    let ended = events.iter().any(|event| event.verb.is_end());
    let code = events.iter().any(|event| event.note(key::EXIT_CODE).is_some());
    let mut missing = Vec::new();
    if has(Verb::Started) && !ended {
        missing.push("started, and no record of its end".to_owned());
    }
    if (code || has(Verb::Cancelled)) && !has(Verb::Started) {
        missing.push("it ran, and no record of its start".to_owned());
    }
    if has(Verb::Started) && !has(Verb::Bound) {
        missing.push("started, and no record that it was bound".to_owned());
    }
    missing
}

/// What is known of a writer's chain.
struct Life {
    /// Number of its first line that is here.
    first: u64,
    /// Number of the last line that says that the writer has begun.
    begun: u64,
}

/// The writers of the records, by their names.
#[derive(Default)]
struct Writers(HashMap<String, Life>);

impl Writers {
    fn see(&mut self, event: &Event) {
        let Some(link) = Link::of(event) else { return };
        let life = self.0.entry(link.writer).or_insert(Life { first: link.sequence, begun: 0 });
        life.first = life.first.min(link.sequence);
        if event.verb == Verb::Opened {
            life.begun = life.begun.max(link.sequence);
        }
    }

    /// Clients of a request that has ended who came and did not go, or went and did not come. A writer that
    /// has begun anew may have left one open, and the older lines of a log may be gone.
    fn unpaired(&self, events: &[&Event]) -> Vec<String> {
        let has = |verb, session| events.iter().any(|other| other.verb == verb && other.note(key::SESSION) == session);
        let ended = events.iter().any(|event| event.verb.is_end());
        let mut missing = Vec::new();
        for event in events {
            let Some(link) = Link::of(event) else { continue };
            let (Some(life), session) = (self.0.get(&link.writer), event.note(key::SESSION)) else { continue };
            if event.verb == Verb::Attached && ended && link.sequence > life.begun && !has(Verb::Detached, session) {
                missing.push("a client was attached, and no record that it has gone".to_owned());
            }
            if event.verb == Verb::Detached && life.first == 1 && !has(Verb::Attached, session) {
                missing.push("a client has gone, and no record that it was attached".to_owned());
            }
        }
        missing
    }
}

/// What the status says that there must be.
fn of_request(status: &ExecRequestStatus, events: &[&Event]) -> Vec<String> {
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
        missing.push(format!("ended with {reason} (exit code {code:?}), and no record says so"));
    }
    let place = [
        (key::NODE, status.node_name.as_deref()),
        (key::POD_UID, status.pod_uid.as_deref()),
        (key::CONTAINER, status.container.as_deref()),
    ];
    if status.node_name.is_some() && !with(Verb::Bound, &place) {
        missing.push("no record that it was bound to its node, pod and container".to_owned());
    }
    // What was lost may have been lost between the commit and the start.
    let lost = [Reason::OutcomeLost, Reason::NodeLost].map(Reason::as_str).contains(&reason);
    if started && !lost && !with(Verb::Started, &[(key::EXEC_ID, status.exec_id.as_deref())]) {
        missing.push("no record that its exec was started".to_owned());
    }
    let cut_short = [Reason::Canceled, Reason::DeadlineExceeded].map(Reason::as_str).contains(&reason);
    if started && cut_short && !with(Verb::Cancelled, &[(key::REASON, Some(reason))]) {
        missing.push(format!("its command was ended ({reason}), and no record says so"));
    }
    missing
}

#[cfg(test)]
#[path = "complete_tests.rs"]
mod tests;
