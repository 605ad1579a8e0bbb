//! One record: an `audit.k8s.io/v1` Event about one act on one request, or on one batch.
//!
//! What Kubernetes has no field for is in annotations below `execlet.dev/`.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, MapAccess, Visitor},
};

use crate::{
    api::{Phase, Reason, Requester, names},
    core::{
        digest::sha256,
        ids::{BatchKey, BatchUid, RequestKey, RequestUid},
    },
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
    /// The targets of a batch are about to be fixed.
    Planned,
    /// Somebody else than its requester has looked at the plan of a batch, and lets it run.
    Approved,
    /// Targets of a batch may run from now on.
    Released,
    /// Requests of a batch are gone, and nobody else records their end.
    RequestsGone,
    /// The batch is about to end, and every target of its plan is accounted for.
    BatchFinished,
    /// The finished batch is about to be deleted: its time to live has passed.
    Expired,
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
            Self::Expired => "expired",
            Self::Planned => "planned",
            Self::Approved => "approved",
            Self::Released => "released",
            Self::RequestsGone => "requestsGone",
            Self::BatchFinished => "batchFinished",
        }
    }

    /// Whether it is the last of the records of a request or a batch.
    pub const fn is_end(self) -> bool {
        match self {
            Self::Denied | Self::Finished | Self::OutcomeUnknown | Self::BatchFinished => true,
            Self::Opened
            | Self::Resumed
            | Self::Bound
            | Self::Started
            | Self::Attached
            | Self::Detached
            | Self::Cancelled
            | Self::Planned
            | Self::Approved
            | Self::Released
            | Self::RequestsGone
            | Self::Expired => false,
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

/// The resources that records are about.
const REQUESTS: &str = "execrequests";
const BATCHES: &str = "execbatches";
const VERSION: &str = "v1alpha1";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub api_group: String,
    pub api_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subresource: Option<String>,
}

impl ObjectReference {
    pub fn request(key: &RequestKey) -> Self {
        Self::new(REQUESTS, &key.namespace, &key.name, key.uid.as_str())
    }

    pub fn batch(key: &BatchKey) -> Self {
        Self::new(BATCHES, &key.namespace, &key.name, key.uid.as_str())
    }

    fn new(resource: &str, namespace: &str, name: &str, uid: &str) -> Self {
        Self {
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            api_group: names::GROUP.to_owned(),
            api_version: VERSION.to_owned(),
            subresource: None,
        }
    }

    pub(super) fn uri(&self) -> String {
        let Self { api_group, api_version, namespace, resource, name, .. } = self;
        format!("/apis/{api_group}/{api_version}/namespaces/{namespace}/{resource}/{name}")
    }
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
    /// Who created the request or the batch, if a policy vouches for it; for `attached` and `detached`, who
    /// is connected. Empty if not known.
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

    /// The UID of the request that it is about.
    pub fn uid(&self) -> Option<RequestUid> {
        self.object_of(REQUESTS).map(|object| object.uid.as_str().into())
    }

    /// The UID of the batch that it is about.
    pub fn batch(&self) -> Option<BatchUid> {
        self.object_of(BATCHES).map(|object| object.uid.as_str().into())
    }

    fn object_of(&self, resource: &str) -> Option<&ObjectReference> {
        self.object_ref.as_ref().filter(|object| object.resource == resource)
    }

    /// The namespace and name of what it is about.
    pub fn name(&self) -> Option<String> {
        self.object_ref.as_ref().map(|object| format!("{}/{}", object.namespace, object.name))
    }

    /// A number among the annotations.
    pub fn number(&self, key: &str) -> Option<i64> {
        self.note(key)?.parse().ok()
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
