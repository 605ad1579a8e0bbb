//! What is recorded of a request or a batch, and the record of each act on a request.

use std::collections::BTreeMap;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
    jiff::Timestamp,
};

use super::{
    event::{Event, ObjectReference, Verb, audit_id},
    key,
    redact::{CommandDetail, annotate_env, json, limited},
};
use crate::{
    api::{BatchReference, EnvVar, ExecRequest, Requester, Stdin},
    core::{
        bind::was_vouched_for,
        ids::{ExecRef, RequestKey},
        kill::Cause,
        outcome::Outcome,
        request::{NotBound, key_of},
        transition::Binding,
    },
};

/// In characters: how much of a message or of `spec.reason` is recorded.
const TEXT_LIMIT: usize = 1024;

/// A request or a batch, as far as the recorder knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    object: ObjectReference,
    user: Requester,
    vouched_for: bool,
    created: Option<Timestamp>,
    /// Messages may name the program, so they are recorded only with the whole command.
    detail: CommandDetail,
    annotations: BTreeMap<String, String>,
}

impl Subject {
    /// A request that was read. Its `spec.requestedBy` is only a claim unless the admission policies
    /// vouched for it when the request was bound: see [`vouched_for`](Self::vouched_for).
    pub fn of(request: &ExecRequest, detail: CommandDetail) -> Result<Self, NotBound> {
        let mut subject = Self::known_by_key(&key_of(&request.metadata)?, detail);
        let (spec, status) = (&request.spec, request.status.as_ref());
        let container = status.and_then(|status| status.container.as_deref()).or(spec.target.container.as_deref());
        subject.note(key::POD, Some(&spec.target.pod_name));
        subject.note(key::CONTAINER, container);
        subject.note(key::POD_UID, status.and_then(|status| status.pod_uid.as_deref()));
        subject.note(key::NODE, status.and_then(|status| status.node_name.as_deref()));
        if let Some(BatchReference { name, uid, plan, index }) = &spec.batch {
            subject.note(key::BATCH, Some(name));
            subject.note(key::BATCH_UID, Some(uid));
            subject.note(key::BATCH_PLAN, Some(&plan.to_string()));
            subject.note(key::BATCH_INDEX, Some(&index.to_string()));
        }
        subject.asked_for(&Asked {
            at: request.metadata.creation_timestamp.as_ref(),
            by: spec.requested_by.as_ref(),
            command: &spec.command,
            env: &spec.env,
            user: spec.user.as_deref(),
            stdin: spec.stdin.as_ref().map(stdin_kind),
            why: spec.reason.as_deref(),
        });
        subject.vouched_for = was_vouched_for(request);
        Ok(subject)
    }

    /// The same of a request or a batch.
    pub(super) fn asked_for(&mut self, asked: &Asked<'_>) {
        self.created = asked.at.map(|time| time.0);
        if let Some(by) = asked.by {
            let (user, digest) = limited(by);
            self.user = user;
            self.note(key::USER_INFO_SHA256, digest.as_deref());
        }
        self.note(key::USER, asked.user);
        self.note(key::STDIN, asked.stdin);
        self.note(key::REQUEST_REASON, asked.why.map(cut).as_deref());
        let names: Vec<String> = asked.env.iter().map(|variable| variable.name.clone()).collect();
        annotate_env(&names, &mut self.annotations);
        self.detail.annotate(asked.command, &mut self.annotations);
    }

    #[must_use]
    pub fn vouched_for(self) -> Self {
        Self { vouched_for: true, ..self }
    }

    /// A request of which only the key is known.
    pub fn known_by_key(key: &RequestKey, detail: CommandDetail) -> Self {
        Self::new(ObjectReference::request(key), detail)
    }

    pub(super) fn new(object: ObjectReference, detail: CommandDetail) -> Self {
        Self {
            object,
            user: Requester::default(),
            vouched_for: false,
            created: None,
            detail,
            annotations: BTreeMap::new(),
        }
    }

    pub(super) fn note(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.annotations.insert(key.to_owned(), value.to_owned());
        }
    }

    /// `image` is the container's, if known.
    pub fn bound(&self, binding: &Binding, image: Option<&str>, at: Timestamp) -> Event {
        let mut event = self.event(Verb::Bound, &[&binding.node, &binding.pod_uid, &binding.container], at);
        for (key, value) in
            [(key::NODE, &binding.node), (key::POD_UID, &binding.pod_uid), (key::CONTAINER, &binding.container)]
        {
            event.annotations.insert(key.to_owned(), value.clone());
        }
        event.annotations.extend(image.map(|image| (key::IMAGE.to_owned(), image.to_owned())));
        event
    }

    pub fn started(&self, exec: &ExecRef, at: Timestamp) -> Event {
        let mut event = self.event(Verb::Started, &[exec.id.as_str()], at);
        event.annotations.insert(key::EXEC_ID.to_owned(), exec.id.to_string());
        event.annotations.insert(key::CONTAINER_ID.to_owned(), exec.container.id.to_string());
        event
    }

    pub fn cancelled(&self, cause: Cause, at: Timestamp) -> Event {
        let mut event = self.event(Verb::Cancelled, &[cause.reason().as_str()], at);
        event.annotations.insert(key::REASON.to_owned(), cause.reason().to_string());
        event.annotations.insert(key::MESSAGE.to_owned(), cause.words().to_owned());
        event
    }

    pub fn ended(&self, outcome: &Outcome, at: Timestamp) -> Event {
        let mut event = self.event(Verb::of_end(outcome.reason), &[outcome.reason.as_str()], at);
        let mut note = |key: &str, value: String| drop(event.annotations.insert(key.to_owned(), value));
        note(key::REASON, outcome.reason.to_string());
        if let Some(message) = self.message(&outcome.message) {
            note(key::MESSAGE, message);
        }
        note(key::RAN, outcome.may_have_run.to_string());
        if let Some(exit) = outcome.exit {
            note(key::EXIT_CODE, exit.code.to_string());
            note(key::EXIT_CODE_SOURCE, format!("{:?}", exit.source));
        }
        if let Some(output) = &outcome.output {
            note(key::OUTPUT_COMPLETE, output.complete.to_string());
            for (bytes, digest, stream) in [
                (key::STDOUT_BYTES, key::STDOUT_SHA256, &output.stdout),
                (key::STDERR_BYTES, key::STDERR_SHA256, &output.stderr),
            ] {
                note(bytes, stream.bytes.to_string());
                if let Some(sha256) = &stream.sha256 {
                    note(digest, sha256.clone());
                }
            }
        }
        event
    }

    pub fn attached(&self, by: &Requester, client: &Client, at: Timestamp) -> Event {
        let mut event = self.event(Verb::Attached, &[&by.username, &client.address, &at.to_string()], at);
        event.connected(by, client);
        event.annotations.insert(key::SESSION.to_owned(), event.audit_id.clone());
        event
    }

    /// `session` is the one in the record `attached`.
    pub fn detached(&self, by: &Requester, client: &Client, session: &str, at: Timestamp) -> Event {
        let mut event = self.event(Verb::Detached, &[session], at);
        event.connected(by, client);
        event.annotations.insert(key::SESSION.to_owned(), session.to_owned());
        event
    }

    pub(super) fn event(&self, verb: Verb, act: &[&str], at: Timestamp) -> Event {
        let mut event = Event::of_writer(verb, "", at, self.annotations.clone());
        event.audit_id = audit_id(&[&[self.object.uid.as_str(), verb.as_str()], act].concat());
        event.request_uri = self.object.uri();
        if self.vouched_for {
            event.user = self.user.clone();
        } else if self.user != Requester::default() {
            event.annotations.insert(key::CLAIMED_USER.to_owned(), json(&self.user));
        }
        event.request_received_timestamp = MicroTime(self.created.unwrap_or(at));
        event.object_ref = Some(self.object.clone());
        event
    }

    pub(super) const fn is_vouched_for(&self) -> bool {
        self.vouched_for
    }

    /// A message for people, as far as it may be recorded.
    pub(super) fn message(&self, text: &str) -> Option<String> {
        (self.detail == CommandDetail::Full).then(|| cut(text))
    }
}

/// What was asked for, when, by whom and why.
pub(super) struct Asked<'a> {
    pub(super) at: Option<&'a Time>,
    pub(super) by: Option<&'a Requester>,
    pub(super) command: &'a [String],
    pub(super) env: &'a [EnvVar],
    pub(super) user: Option<&'a str>,
    pub(super) stdin: Option<&'static str>,
    pub(super) why: Option<&'a str>,
}

impl Event {
    fn connected(&mut self, by: &Requester, client: &Client) {
        let (user, digest) = limited(by);
        self.user = user;
        // Those are about the requester.
        for key in [key::CLAIMED_USER, key::USER_INFO_SHA256] {
            self.annotations.remove(key);
        }
        self.annotations.extend(digest.map(|digest| (key::USER_INFO_SHA256.to_owned(), digest)));
        self.source_ips = vec![client.address.clone()];
        self.annotations.insert(key::STDIN.to_owned(), client.stdin.to_string());
        if let Some(object) = &mut self.object_ref {
            object.subresource = Some("attach".to_owned());
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub address: String,
    pub stdin: bool,
}

const fn stdin_kind(stdin: &Stdin) -> &'static str {
    match stdin {
        Stdin { attach: Some(_), .. } => "attach",
        Stdin { data: Some(_), .. } => "data",
        Stdin { .. } => "text",
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_LIMIT).collect()
}

#[cfg(test)]
#[path = "subject_tests.rs"]
mod tests;
