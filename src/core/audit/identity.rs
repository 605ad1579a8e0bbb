//! Whether the records of a request or a batch are of this one: its name, who asked for it, and its command.

use super::{
    event::{Event, Verb},
    key,
    redact::{json, limited},
};
use crate::{
    api::{ExecBatch, ExecRequest, Requester},
    core::digest::sha256,
};

/// In what a request differs from its records, if in anything. `name` is its namespace and name.
pub(super) fn of_request(request: &ExecRequest, name: &str, events: &[&Event]) -> Vec<String> {
    let (by, command) = (request.spec.requested_by.as_ref(), &request.spec.command);
    let place = request.spec.batch.as_ref().map(|place| (place.uid.clone(), place.plan, place.index.into()));
    let place_in = |event: &Event| {
        Some((
            event.note(key::BATCH_UID)?.to_owned(),
            event.number(key::BATCH_PLAN).unwrap_or_default(),
            event.number(key::BATCH_INDEX).unwrap_or_default(),
        ))
    };
    let elsewhere = |event: &&&Event| place_in(event).is_some_and(|recorded| Some(recorded) != place);
    let of_another = events.iter().find(elsewhere).map(|_| "it has records of another batch or index".to_owned());
    sorted(events.iter().flat_map(|event| of_one(by, command, name, event)).chain(of_another))
}

/// The same of a batch.
pub(super) fn of_batch(batch: &ExecBatch, name: &str, events: &[&Event]) -> Vec<String> {
    let (by, command) = (batch.spec.requested_by.as_ref(), &batch.spec.template.spec.command);
    sorted(events.iter().flat_map(|event| of_one(by, command, name, event)))
}

fn sorted(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = all.collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn of_one(by: Option<&Requester>, command: &[String], name: &str, event: &Event) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(recorded) = event.name().filter(|recorded| recorded != name) {
        all.push(format!("it has records by another name: {recorded:?}"));
    }
    let recorded = &event.user.username;
    let own = !matches!(event.verb, Verb::Attached | Verb::Detached) && !recorded.is_empty();
    if own && by.map(|by| limited(by).0.username).as_ref() != Some(recorded) {
        all.push(format!("it has records of another requester: {recorded:?}"));
    }
    let whole = json(command);
    let same = match (event.note(key::COMMAND_SHA256), event.note(key::COMMAND), event.note(key::ARGUMENTS_LEFT_OUT)) {
        (Some(digest), _, _) => digest == sha256(whole.as_bytes()),
        (None, Some(recorded), None) => recorded == whole,
        // Its first arguments.
        (None, Some(recorded), Some(_)) => {
            let first: Vec<String> = serde_json::from_str(recorded).unwrap_or_default();
            command.starts_with(&first)
        }
        (None, None, _) => true,
    };
    if !same {
        all.push("it has records of another command".to_owned());
    }
    all
}
