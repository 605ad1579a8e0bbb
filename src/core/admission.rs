//! The admission policies: which must be installed, whether they are, and since when.
//!
//! The policies are files of the chart that are built into the program, so that the installed ones
//! can be compared with those of this version.
//!
//! An object created while they were not in place may name anybody as its requester. So it is not
//! enough that they are in place now: they must be unchanged since. UID and generation tell: a
//! policy that was deleted and created again has another UID, and one that was changed has another
//! generation, even if it was changed back. An upgrade writes each policy that it changes once: of those, generation by
//! generation, nothing else ever stood.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, ObjectMeta};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::api::names::policies as names;

/// The chart's files, with the placeholders `@AGENT@`, `@MANAGER@` and `@NAMESPACE@`.
const GUARDS_AND_FENCES: [&str; 5] = [
    include_str!("../../charts/execlet/files/policies/execlet-create.yaml"),
    include_str!("../../charts/execlet/files/policies/execlet-status.yaml"),
    include_str!("../../charts/execlet/files/policies/execlet-agent.yaml"),
    include_str!("../../charts/execlet/files/policies/execlet-manager.yaml"),
    include_str!("../../charts/execlet/files/policies/execlet-batch.yaml"),
];
const STAMPS: [&str; 2] = [
    include_str!("../../charts/execlet/files/policies/execlet-stamp.yaml"),
    include_str!("../../charts/execlet/files/policies/execlet-batch-stamp.yaml"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Stamped,
    /// All but the stamps, for servers without `MutatingAdmissionPolicy`: clients set
    /// `spec.requestedBy` themselves, and the guard still checks it.
    Guarded,
    /// None: nobody checks who requests what.
    Off,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    pub namespace: String,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("must be NAMESPACE:NAME")]
pub struct NotAServiceAccount;

impl ServiceAccount {
    pub fn username(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

impl FromStr for ServiceAccount {
    type Err = NotAServiceAccount;

    fn from_str(text: &str) -> Result<Self, NotAServiceAccount> {
        let (namespace, name) = text.split_once(':').ok_or(NotAServiceAccount)?;
        // Anything but a DNS name could break out of the quotes in the policies.
        let fine = |part: &str| {
            !part.is_empty()
                && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
        };
        if !fine(namespace) || !fine(name) {
            return Err(NotAServiceAccount);
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

/// The accounts that the policies name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounts {
    pub manager: ServiceAccount,
    /// Its namespace is also that of the agents' Leases.
    pub agent: ServiceAccount,
}

/// Cannot happen: a unit test parses the built-in policies.
#[derive(Debug, Error)]
#[error("a built-in admission policy cannot be parsed: {0}")]
pub struct Unreadable(#[from] serde_yaml_ng::Error);

/// A policy or binding that must be installed.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    pub resource: ApiResource,
    pub name: String,
    pub object: Value,
}

/// As in `validatingadmissionpolicy/execlet-create`.
impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.resource.kind.to_ascii_lowercase(), self.name)
    }
}

/// The policies and bindings that must be installed.
pub fn expected(mode: Mode, accounts: &Accounts) -> Result<Vec<Expected>, Unreadable> {
    let (stamps, others): (&[&str], &[&str]) = match mode {
        Mode::Stamped => (&STAMPS, &GUARDS_AND_FENCES),
        Mode::Guarded => (&[], &GUARDS_AND_FENCES),
        Mode::Off => (&[], &[]),
    };
    let mut all = Vec::new();
    for file in stamps.iter().chain(others) {
        let text = file
            .replace("@MANAGER@", &accounts.manager.username())
            .replace("@AGENT@", &accounts.agent.username())
            .replace("@NAMESPACE@", &accounts.agent.namespace);
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let object = Value::deserialize(document)?;
            let of = |field: &str| object.pointer(field).and_then(Value::as_str).unwrap_or_default();
            let kind = GroupVersionKind::gvk(names::GROUP, names::VERSION, of("/kind"));
            let plural = names::plural(of("/kind"));
            let resource = ApiResource::from_gvk_with_plural(&kind, &plural);
            all.push(Expected { resource, name: of("/metadata/name").to_owned(), object });
        }
    }
    Ok(all)
}

impl Expected {
    /// Compares with what was found.
    /// `Err` says that it is missing, or what differs.
    pub fn check(&self, found: Option<&DynamicObject>) -> Result<(), String> {
        let Some(found) = found else {
            return Err(format!("{self} is missing"));
        };
        let spec = found.data.get("spec").unwrap_or(&Value::Null);
        match difference("spec", &pruned(&self.object["spec"]), &pruned(spec)) {
            Some(path) => Err(format!("{self} was altered: {path} differs from this version of execlet")),
            None => Ok(()),
        }
    }
}

/// Without empty fields: the API server adds an empty selector where none was given.
fn pruned(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, field)| (name.clone(), pruned(field)));
            Value::Object(fields.filter(|(_, field)| !is_empty(field)).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(pruned).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn is_empty(value: &Value) -> bool {
    [Value::Null, json!({}), json!([]), json!("")].contains(value)
}

/// The path of the first difference.
fn difference(path: &str, one: &Value, other: &Value) -> Option<String> {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let names: BTreeSet<_> = one.keys().chain(other.keys()).collect();
            names.into_iter().find_map(|name| {
                let field = |of: &Map<String, Value>| of.get(name).cloned().unwrap_or_default();
                difference(&format!("{path}.{name}"), &field(one), &field(other))
            })
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let mut pairs = one.iter().zip(other).enumerate();
            pairs.find_map(|(index, (one, other))| difference(&format!("{path}[{index}]"), one, other))
        }
        _ => (one != other).then(|| path.to_owned()),
    }
}

/// The versions of the policies as text: the same as long as nobody touches one of them.
pub fn versions<'a>(found: impl Iterator<Item = &'a ObjectMeta>) -> String {
    let version = |meta: &ObjectMeta| {
        format!("{}@{}", meta.uid.as_deref().unwrap_or_default(), meta.generation.unwrap_or_default())
    };
    found.map(version).collect::<Vec<_>>().join(" ")
}

/// What the manager stores about the policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Since when these versions have been seen.
    pub since: Timestamp,
    pub versions: String,
}

impl Record {
    /// These versions were found now. If they go on from those of the record before, its time holds.
    pub fn seen(before: Option<&Self>, versions: String, changed: Option<Timestamp>, now: Timestamp) -> Self {
        let since = match before.filter(|before| before.goes_on_to(&versions)) {
            Some(before) => before.since,
            // The API server's clock, which dates requests, may be ahead of ours.
            None => changed.map_or(now, |changed| now.max(changed)),
        };
        Self { since, versions }
    }

    /// Whether at every moment between the record and these versions each policy was as one of the two says. They are the
    /// same, so nobody has touched them. Or each that differs was written once, by an upgrade: it has the next generation,
    /// and is as it must be. One that is new or gone breaks this: it says nothing of the time before or after.
    pub fn goes_on_to(&self, versions: &str) -> bool {
        if self.versions == versions {
            return true;
        }
        let (Some(before), Some(now)) = (parsed(&self.versions), parsed(versions)) else { return false };
        let goes_on = |(uid, generation): (&&str, &i64)| {
            before.get(uid).is_some_and(|was| generation == was || *generation == was.saturating_add(1))
        };
        before.len() == now.len() && now.iter().all(goes_on)
    }
}

/// The generation of each by its UID, if that can be read.
fn parsed(versions: &str) -> Option<BTreeMap<&str, i64>> {
    let mut parsed = BTreeMap::new();
    for version in versions.split_whitespace() {
        let (uid, generation) = version.split_once('@').filter(|(uid, _)| !uid.is_empty())?;
        parsed.insert(uid, generation.parse().ok()?);
    }
    Some(parsed)
}

/// When the API server last wrote one of these objects, as far as they tell.
pub fn last_change<'a>(found: impl Iterator<Item = &'a ObjectMeta>) -> Option<Timestamp> {
    let times = |meta: &'a ObjectMeta| {
        let managed = meta.managed_fields.iter().flatten().filter_map(|entry| entry.time.as_ref());
        managed.chain(&meta.creation_timestamp).map(|time| time.0)
    };
    found.flat_map(times).max()
}

/// The state of the policies at a moment after a request was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// None are installed, on purpose.
    Off,
    /// In place: they vouch for requests created from then on.
    Since(Timestamp),
    /// Not in place, or it is not known; with the reason.
    Broken(String),
}

impl Admission {
    /// `margin` after the record's time, because a policy takes a moment to reach every API server and
    /// clocks differ.
    pub fn since(record: &Record, margin: SignedDuration) -> Self {
        match record.since.checked_add(margin) {
            Ok(from) => Self::Since(from),
            Err(_) => {
                Self::Broken(format!("the recorded time of the admission policies is out of range: {}", record.since))
            }
        }
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
