//! One record: an `audit.k8s.io/v1` Event about one act on one request.
//!
//! What Kubernetes has no field for is in annotations below `execlet.dev/`.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, MapAccess, Visitor},
};

use crate::{
    api::{Phase, Reason, Requester},
    core::{digest::sha256, ids::RequestUid},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    Opened,
    /// The writer writes again after it could not.
    Resumed,
    /// The requester was not allowed to do this: nothing ran.
    Denied,
    Bound,
    /// The command is about to start.
    Started,
    /// A client is about to be connected to the command.
    Attached,
    Detached,
    /// The command is about to be killed.
    Cancelled,
    /// The request has ended with a known outcome.
    Finished,
    /// The request has ended, but nobody knows how its command did.
    OutcomeUnknown,
}

impl Verb {
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

    /// Whether it is the last of a request's records.
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

    pub const fn of_end(reason: Reason) -> Self {
        match (reason, reason.final_phase()) {
            (Reason::Forbidden, _) => Self::Denied,
            (_, Phase::Unknown) => Self::OutcomeUnknown,
            (_, Phase::Succeeded | Phase::Failed | Phase::Pending | Phase::Bound | Phase::Running) => Self::Finished,
        }
    }

    const fn stage(self) -> Stage {
        if matches!(self, Self::Started | Self::Attached) { Stage::ResponseStarted } else { Stage::ResponseComplete }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The audit stages of Kubernetes that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Begun, and still going on.
    ResponseStarted,
    ResponseComplete,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub uid: RequestUid,
    pub api_group: String,
    pub api_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subresource: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    pub kind: String,
    pub api_version: String,
    /// `Metadata`: input and output of a command are not recorded.
    pub level: String,
    /// The same for the same act, so that a record repeated after a crash is recognized.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    pub stage: Stage,
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    pub verb: Verb,
    /// Who created the request, if a policy vouches for it; for `attached` and `detached`, who is
    /// connected. Empty if not known.
    pub user: Requester,
    /// Of the connected client.
    #[serde(rename = "sourceIPs", default, skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectReference>,
    /// When the request was created; if that is not known, the time of the act.
    pub request_received_timestamp: MicroTime,
    pub stage_timestamp: MicroTime,
    #[serde(deserialize_with = "each_key_once")]
    pub annotations: BTreeMap<String, String>,
}

/// Of a key that is there twice, each reader would believe another value.
fn each_key_once<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Notes;
    impl<'de> Visitor<'de> for Notes {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of texts, with each key once")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
            let mut notes = BTreeMap::new();
            while let Some((key, value)) = from.next_entry()? {
                if let Some(before) = notes.insert(key, value) {
                    return Err(A::Error::custom(format!("a key is there twice, once with {before:?}")));
                }
            }
            Ok(notes)
        }
    }
    from.deserialize_map(Notes)
}

impl Event {
    pub fn note(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    pub fn uid(&self) -> Option<&RequestUid> {
        self.object_ref.as_ref().map(|object| &object.uid)
    }

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

/// A UUID (version 8) derived from these parts: the same for the same parts.
pub(super) fn audit_id(parts: &[&str]) -> String {
    let digest = sha256(parts.join("\n").as_bytes());
    format!("{}-{}-8{}-8{}-{}", &digest[..8], &digest[8..12], &digest[13..16], &digest[17..20], &digest[20..32])
}
