//! One record: an `audit.k8s.io/v1` Event about one act on one request.
//!
//! What Kubernetes has no field for is in annotations below `execlet.dev/`.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use serde::{Deserialize, Serialize};

use super::sha256;
use crate::{
    api::{Phase, Reason, Requester},
    core::ids::RequestUid,
};

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

/// A UUID (version 8) that is made of what it stands for: the same for the same parts.
pub(super) fn audit_id(parts: &[&str]) -> String {
    let digest = sha256(parts.join("\n").as_bytes());
    format!("{}-{}-8{}-8{}-{}", &digest[..8], &digest[8..12], &digest[13..16], &digest[17..20], &digest[20..32])
}
