//! Whether the records of a request are of this request: its name, who asked for it, and its command.

use super::{
    event::{Event, Verb},
    key,
    redact::{json, limited},
};
use crate::{api::ExecRequest, core::digest::sha256};

/// In what the request differs from its records, if in anything. `name` is its namespace and name.
pub(super) fn contradictions(request: &ExecRequest, name: &str, events: &[&Event]) -> Vec<String> {
    let mut all: Vec<String> = events.iter().flat_map(|event| of_one(request, name, event)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn of_one(request: &ExecRequest, name: &str, event: &Event) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(object) = &event.object_ref {
        let recorded = format!("{}/{}", object.namespace, object.name);
        if recorded != name {
            all.push(format!("it has records by another name: {recorded:?}"));
        }
    }
    let recorded = &event.user.username;
    let own = !matches!(event.verb, Verb::Attached | Verb::Detached) && !recorded.is_empty();
    let by = request.spec.requested_by.as_ref().map(|by| limited(by).0.username);
    if own && by.as_ref() != Some(recorded) {
        all.push(format!("it has records of another requester: {recorded:?}"));
    }
    let whole = json(&request.spec.command);
    let same = match (event.note(key::COMMAND_SHA256), event.note(key::COMMAND), event.note(key::ARGUMENTS_LEFT_OUT)) {
        (Some(digest), _, _) => digest == sha256(whole.as_bytes()),
        (None, Some(command), None) => command == whole,
        // Its first arguments.
        (None, Some(command), Some(_)) => {
            let first: Vec<String> = serde_json::from_str(command).unwrap_or_default();
            request.spec.command.starts_with(&first)
        }
        (None, None, _) => true,
    };
    if !same {
        all.push("it has records of another command".to_owned());
    }
    all
}
