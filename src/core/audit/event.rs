//! One record: an `audit.k8s.io/v1` Event about one act on one request.
//!
//! What Kubernetes has no field for is in annotations below `execlet.dev/`.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use serde::{Deserialize, Serialize};

use super::redact::{CommandDetail, annotate_env, as_json, limited};
use crate::{
    api::{ExecRequest, Phase, Reason, Requester, Stdin, names},
    core::{
        bind::was_vouched_for,
        digest::sha256,
        ids::{ExecRef, RequestKey, RequestUid},
        kill::Cause,
        outcome::Outcome,
        request::{NotBound, key_of},
        transition::Binding,
    },
};

/// Most characters of a message or of `spec.reason` in a record.
const TEXT_LIMIT: usize = 1024;

/// Keys of annotations.
pub mod key {
    #![allow(missing_docs, reason = "docs/audit.md has the table of what they mean")]

    pub const WRITER: &str = "execlet.dev/writer";
    pub const SEQUENCE: &str = "execlet.dev/sequence";
    pub const PREVIOUS: &str = "execlet.dev/previous";
    pub const CUT_BYTES: &str = "execlet.dev/cut-bytes";
    pub const CUT_SHA256: &str = "execlet.dev/cut-sha256";
    pub const LOST: &str = "execlet.dev/lost";
    pub const PUBLISHED: &str = "execlet.dev/published-head";
    pub const VERSION: &str = "execlet.dev/version";

    pub const POD: &str = "execlet.dev/pod";
    pub const POD_UID: &str = "execlet.dev/pod-uid";
    pub const CONTAINER: &str = "execlet.dev/container";
    pub const CONTAINER_ID: &str = "execlet.dev/container-id";
    pub const IMAGE: &str = "execlet.dev/image";
    pub const NODE: &str = "execlet.dev/node";
    pub const EXEC_ID: &str = "execlet.dev/exec-id";

    pub const COMMAND: &str = "execlet.dev/command";
    pub const COMMAND_SHA256: &str = "execlet.dev/command-sha256";
    pub const ARGUMENTS_LEFT_OUT: &str = "execlet.dev/arguments-left-out";
    pub const ENV: &str = "execlet.dev/env";
    pub const ENV_LEFT_OUT: &str = "execlet.dev/env-left-out";
    pub const ENV_SHA256: &str = "execlet.dev/env-sha256";
    pub const CLAIMED_USER: &str = "execlet.dev/claimed-user";
    pub const USER_INFO_SHA256: &str = "execlet.dev/user-info-sha256";
    pub const USER: &str = "execlet.dev/user";
    pub const STDIN: &str = "execlet.dev/stdin";
    pub const REQUEST_REASON: &str = "execlet.dev/request-reason";

    pub const REASON: &str = "execlet.dev/reason";
    pub const MESSAGE: &str = "execlet.dev/message";
    pub const RAN: &str = "execlet.dev/ran";
    pub const EXIT_CODE: &str = "execlet.dev/exit-code";
    pub const EXIT_CODE_SOURCE: &str = "execlet.dev/exit-code-source";
    pub const OUTPUT_COMPLETE: &str = "execlet.dev/output-complete";
    pub const STDOUT_BYTES: &str = "execlet.dev/stdout-bytes";
    pub const STDOUT_SHA256: &str = "execlet.dev/stdout-sha256";
    pub const STDERR_BYTES: &str = "execlet.dev/stderr-bytes";
    pub const STDERR_SHA256: &str = "execlet.dev/stderr-sha256";
    pub const SESSION: &str = "execlet.dev/session";
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// The writer has begun to write, at its start.
    Opened,
    /// The writer writes again, after it could not.
    Resumed,
    /// The requester may not do this: nothing ran.
    Denied,
    /// The request was given to a node, a pod and a container.
    Bound,
    /// The command is being started.
    Started,
    /// Somebody is being connected to the command.
    Attached,
    /// Somebody was connected until now.
    Detached,
    /// The command is being ended from outside.
    Cancelled,
    /// The request has ended, and it is known how.
    Finished,
    /// The request has ended, and how its command ended is not known.
    OutcomeUnknown,
}

impl Verb {
    /// Every verb there is.
    pub const ALL: [Self; 10] = [
        Self::Opened,
        Self::Resumed,
        Self::Denied,
        Self::Bound,
        Self::Started,
        Self::Attached,
        Self::Detached,
        Self::Cancelled,
        Self::Finished,
        Self::OutcomeUnknown,
    ];

    /// The word in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Resumed => "resumed",
            Self::Denied => "denied",
            Self::Bound => "bound",
            Self::Started => "started",
            Self::Attached => "attached",
            Self::Detached => "detached",
            Self::Cancelled => "cancelled",
            Self::Finished => "finished",
            Self::OutcomeUnknown => "outcomeUnknown",
        }
    }

    /// Whether nothing follows it in a request's records.
    pub const fn is_end(self) -> bool {
        match self {
            Self::Denied | Self::Finished | Self::OutcomeUnknown => true,
            Self::Opened
            | Self::Resumed
            | Self::Bound
            | Self::Started
            | Self::Attached
            | Self::Detached
            | Self::Cancelled => false,
        }
    }

    /// The verb for the end of a request.
    pub const fn of_end(reason: Reason) -> Self {
        match (reason, reason.final_phase()) {
            (Reason::Forbidden, _) => Self::Denied,
            (_, Phase::Unknown) => Self::OutcomeUnknown,
            (_, Phase::Succeeded | Phase::Failed | Phase::Pending | Phase::Bound | Phase::Running) => Self::Finished,
        }
    }

    const fn stage(self) -> Stage {
        match self {
            Self::Started | Self::Attached => Stage::ResponseStarted,
            Self::Opened
            | Self::Resumed
            | Self::Denied
            | Self::Bound
            | Self::Detached
            | Self::Cancelled
            | Self::Finished
            | Self::OutcomeUnknown => Stage::ResponseComplete,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far an act has come, in the words of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It has begun, and lasts.
    ResponseStarted,
    /// It is done.
    ResponseComplete,
}

/// The object that an act is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    /// `execrequests`.
    pub resource: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: RequestUid,
    /// `execlet.dev`.
    pub api_group: String,
    /// `v1alpha1`.
    pub api_version: String,
    /// What of it, if not all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subresource: Option<String>,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// `Event`.
    pub kind: String,
    /// `audit.k8s.io/v1`.
    pub api_version: String,
    /// `Metadata`: neither input nor output of a command is in it.
    pub level: String,
    /// The same for the same act, so that a record that is repeated after a crash can be told.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// How far the act has come.
    pub stage: Stage,
    /// Path of the request at the API server.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// What happened.
    pub verb: Verb,
    /// Who created the request, if that is proven; for `attached` and `detached`, who is connected. Empty if
    /// not known.
    pub user: Requester,
    /// Where a client is connected from.
    #[serde(rename = "sourceIPs", default, skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<String>,
    /// Which request; none for the writer's own acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectReference>,
    /// When the request was created; when that is not known, the time of the act.
    pub request_received_timestamp: MicroTime,
    /// When the act happened.
    pub stage_timestamp: MicroTime,
    /// Everything else.
    pub annotations: BTreeMap<String, String>,
}

impl Event {
    /// An annotation.
    pub fn note(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    /// UID of the request.
    pub fn uid(&self) -> Option<&RequestUid> {
        self.object_ref.as_ref().map(|object| &object.uid)
    }

    /// An act of the writer itself.
    pub fn of_writer(verb: Verb, writer: &str, at: Timestamp, annotations: BTreeMap<String, String>) -> Self {
        let id = audit_id(&[verb.as_str(), writer, &at.to_string()]);
        Self {
            kind: "Event".to_owned(),
            api_version: "audit.k8s.io/v1".to_owned(),
            level: "Metadata".to_owned(),
            audit_id: id,
            stage: verb.stage(),
            request_uri: String::new(),
            verb,
            user: Requester::default(),
            source_ips: Vec::new(),
            object_ref: None,
            request_received_timestamp: MicroTime(at),
            stage_timestamp: MicroTime(at),
            annotations,
        }
    }
}

/// A request, as far as it is known to who records.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    key: RequestKey,
    user: Requester,
    /// Whether that is proven.
    vouched_for: bool,
    created: Option<Timestamp>,
    /// Messages may name the program: they are shown only where the whole command is.
    detail: CommandDetail,
    annotations: BTreeMap<String, String>,
}

impl Subject {
    /// A request that has been read. Who it says has created it is a mere claim, unless it was bound while
    /// the admission policies vouched for that: see [`vouched_for`](Self::vouched_for).
    ///
    /// # Errors
    /// When the object has no namespace, name or UID.
    pub fn of(request: &ExecRequest, detail: CommandDetail) -> Result<Self, NotBound> {
        let mut subject = Self::known_by_key(&key_of(&request.metadata)?, detail);
        subject.created = request.metadata.creation_timestamp.as_ref().map(|time| time.0);
        if let Some(by) = &request.spec.requested_by {
            let (user, digest) = limited(by);
            subject.user = user;
            subject.note(key::USER_INFO_SHA256, digest.as_deref());
        }
        let (spec, status) = (&request.spec, request.status.as_ref());
        let stdin = spec.stdin.as_ref().map(stdin_kind);
        let container = status.and_then(|status| status.container.as_deref()).or(spec.target.container.as_deref());
        subject.note(key::POD, Some(&spec.target.pod_name));
        subject.note(key::CONTAINER, container);
        subject.note(key::POD_UID, status.and_then(|status| status.pod_uid.as_deref()));
        subject.note(key::NODE, status.and_then(|status| status.node_name.as_deref()));
        subject.note(key::USER, spec.user.as_deref());
        subject.note(key::STDIN, stdin);
        subject.note(key::REQUEST_REASON, spec.reason.as_deref().map(cut).as_deref());
        let names: Vec<String> = spec.env.iter().map(|variable| variable.name.clone()).collect();
        annotate_env(&names, &mut subject.annotations);
        detail.annotate(&spec.command, &mut subject.annotations);
        subject.vouched_for = was_vouched_for(request);
        Ok(subject)
    }

    /// The admission policies vouch for its requester.
    pub fn vouched_for(self) -> Self {
        Self { vouched_for: true, ..self }
    }

    /// A request of which no more is known than which one it is.
    pub fn known_by_key(key: &RequestKey, detail: CommandDetail) -> Self {
        Self {
            key: key.clone(),
            user: Requester::default(),
            vouched_for: false,
            created: None,
            detail,
            annotations: BTreeMap::new(),
        }
    }

    /// Which request.
    pub fn key(&self) -> &RequestKey {
        &self.key
    }

    fn note(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.annotations.insert(key.to_owned(), value.to_owned());
        }
    }

    /// It is bound. `image` is that of the container, if it is known.
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

    /// Its command is being started.
    pub fn started(&self, exec: &ExecRef, at: Timestamp) -> Event {
        let mut event = self.event(Verb::Started, &[exec.id.as_str()], at);
        event.annotations.insert(key::EXEC_ID.to_owned(), exec.id.to_string());
        event.annotations.insert(key::CONTAINER_ID.to_owned(), exec.container.id.to_string());
        event
    }

    /// Its command is being ended.
    pub fn cancelled(&self, cause: Cause, at: Timestamp) -> Event {
        let mut event = self.event(Verb::Cancelled, &[cause.reason().as_str()], at);
        event.annotations.insert(key::REASON.to_owned(), cause.reason().to_string());
        event.annotations.insert(key::MESSAGE.to_owned(), cause.words().to_owned());
        event
    }

    /// It has ended.
    pub fn ended(&self, outcome: &Outcome, at: Timestamp) -> Event {
        let mut event = self.event(Verb::of_end(outcome.reason), &[outcome.reason.as_str()], at);
        let mut note = |key: &str, value: String| drop(event.annotations.insert(key.to_owned(), value));
        note(key::REASON, outcome.reason.to_string());
        if self.detail == CommandDetail::Full {
            note(key::MESSAGE, cut(&outcome.message));
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

    /// Somebody is being connected to its command.
    pub fn attached(&self, by: &Requester, client: &Client, at: Timestamp) -> Event {
        let mut event = self.event(Verb::Attached, &[&by.username, &client.address, &at.to_string()], at);
        event.connected(by, client);
        event.annotations.insert(key::SESSION.to_owned(), event.audit_id.clone());
        event
    }

    /// Somebody was connected until now. `session` is what the record `attached` has.
    pub fn detached(&self, by: &Requester, client: &Client, session: &str, at: Timestamp) -> Event {
        let mut event = self.event(Verb::Detached, &[session], at);
        event.connected(by, client);
        event.annotations.insert(key::SESSION.to_owned(), session.to_owned());
        event
    }

    fn event(&self, verb: Verb, act: &[&str], at: Timestamp) -> Event {
        let RequestKey { namespace, name, uid } = &self.key;
        let (group, version, resource) = (names::GROUP, "v1alpha1", "execrequests");
        let mut event = Event::of_writer(verb, "", at, self.annotations.clone());
        event.audit_id = audit_id(&[&[uid.as_str(), verb.as_str()], act].concat());
        event.request_uri = format!("/apis/{group}/{version}/namespaces/{namespace}/{resource}/{name}");
        if self.vouched_for {
            event.user = self.user.clone();
        } else if self.user != Requester::default() {
            event.annotations.insert(key::CLAIMED_USER.to_owned(), as_json(&self.user));
        }
        event.request_received_timestamp = MicroTime(self.created.unwrap_or(at));
        event.object_ref = Some(ObjectReference {
            resource: resource.to_owned(),
            namespace: namespace.clone(),
            name: name.clone(),
            uid: uid.clone(),
            api_group: group.to_owned(),
            api_version: version.to_owned(),
            subresource: None,
        });
        event
    }
}

impl Event {
    fn connected(&mut self, by: &Requester, client: &Client) {
        let (user, digest) = limited(by);
        self.user = user;
        // It is about another one.
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

/// A client that is connected to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address, as far as known.
    pub address: String,
    /// Whether it holds standard input.
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

/// A UUID (version 8) that is made of what it stands for: the same for the same parts.
fn audit_id(parts: &[&str]) -> String {
    let digest = sha256(parts.join("\n").as_bytes());
    format!("{}-{}-8{}-8{}-{}", &digest[..8], &digest[8..12], &digest[13..16], &digest[17..20], &digest[20..32])
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
