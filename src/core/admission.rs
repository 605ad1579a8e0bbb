//! The admission policies: what must stand, whether it does, and since when.
//!
//! The policies are the files of the chart; the program carries them, so that what stands in a
//! cluster is held against what this version was built with. How they are read is not known here.
//!
//! An object that was created while they did not stand may name anybody as its requester. So the
//! question is never only whether they stand, but since when nobody has changed them. The API
//! server answers that by UID and generation: a policy that was deleted and created again has
//! another UID, one that was changed, and be it back and forth, another generation.

use std::{collections::BTreeSet, fmt, str::FromStr};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, ObjectMeta};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::api::names::policies as names;

/// The chart's files. `@AGENT@`, `@MANAGER@` and `@NAMESPACE@` are filled in.
const GUARD_AND_FENCES: [&str; 3] = [
    include_str!("../../charts/execlet/files/policies/execlet-create.yaml"),
    include_str!("../../charts/execlet/files/policies/execlet-status.yaml"),
    include_str!("../../charts/execlet/files/policies/execlet-agent.yaml"),
];
const STAMP: &str = include_str!("../../charts/execlet/files/policies/execlet-stamp.yaml");

/// Which policies the installation has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All of them.
    Stamped,
    /// All but the stamp, on servers that have no `MutatingAdmissionPolicy`: clients fill
    /// `spec.requestedBy` in, and the guard checks it all the same.
    Guarded,
    /// None: who asks for what is not checked.
    Off,
}

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A text that names no service account.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("write it as NAMESPACE:NAME")]
pub struct NotAServiceAccount;

impl ServiceAccount {
    /// The name by which the API server knows it as a user.
    pub fn username(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

impl FromStr for ServiceAccount {
    type Err = NotAServiceAccount;

    fn from_str(text: &str) -> Result<Self, NotAServiceAccount> {
        let (namespace, name) = text.split_once(':').ok_or(NotAServiceAccount)?;
        // What is not a DNS name could break out of the policies' quotes.
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

/// Whom the policies speak of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounts {
    /// The manager's account.
    pub manager: ServiceAccount,
    /// The agents' account; its namespace is that of their Leases.
    pub agent: ServiceAccount,
}

/// The built-in policies cannot be read, which a unit test shows not to be so.
#[derive(Debug, Error)]
#[error("a policy that this program carries cannot be read: {0}")]
pub struct Unreadable(#[from] serde_yaml_ng::Error);

/// One object that must stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// Its kind, for asking for it.
    pub resource: ApiResource,
    /// Its name.
    pub name: String,
    /// The whole object, as it is applied.
    pub object: Value,
}

/// As in `validatingadmissionpolicy/execlet-create`.
impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.resource.kind.to_ascii_lowercase(), self.name)
    }
}

/// The policies and bindings of an installation; none if it has none.
///
/// # Errors
/// When a file that this program carries is broken.
pub fn expected(mode: Mode, accounts: &Accounts) -> Result<Vec<Expected>, Unreadable> {
    let files: &[&str] = match mode {
        Mode::Stamped => &[STAMP, GUARD_AND_FENCES[0], GUARD_AND_FENCES[1], GUARD_AND_FENCES[2]],
        Mode::Guarded => &GUARD_AND_FENCES,
        Mode::Off => &[],
    };
    let mut all = Vec::new();
    for file in files {
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
    /// Whether what was found is what must stand; if not, what is wrong with it.
    ///
    /// # Errors
    /// When it is missing, or is another one.
    pub fn check(&self, found: Option<&DynamicObject>) -> Result<(), String> {
        let Some(found) = found else {
            return Err(format!("{self} is missing"));
        };
        let spec = found.data.get("spec").unwrap_or(&Value::Null);
        match difference("spec", &pruned(&self.object["spec"]), &pruned(spec)) {
            Some(path) => Err(format!("{self} was altered: {path} is not as this version of execlet has it")),
            None => Ok(()),
        }
    }
}

/// Without fields that say nothing: the API server writes an empty selector where none was given.
fn pruned(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, field)| (name.clone(), pruned(field)));
            Value::Object(fields.filter(|(_, field)| !says_nothing(field)).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(pruned).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The first place where two values are not the same.
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

/// Which versions of the policies stand: the same text for as long as nobody touches one of them.
pub fn versions<'a>(found: impl Iterator<Item = &'a ObjectMeta>) -> String {
    let version = |meta: &ObjectMeta| {
        format!("{}@{}", meta.uid.as_deref().unwrap_or_default(), meta.generation.unwrap_or_default())
    };
    found.map(version).collect::<Vec<_>>().join(" ")
}

/// What the manager remembers beyond its own life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Since when these versions were seen to stand.
    pub since: Timestamp,
    /// [`versions`] of them.
    pub versions: String,
}

impl Record {
    /// These versions stand now. If they stood before, then since then: nobody has touched them
    /// in between, or they would be others.
    pub fn seen(before: Option<&Self>, versions: String, changed: Option<Timestamp>, now: Timestamp) -> Self {
        let since = match before {
            Some(before) if before.versions == versions => before.since,
            // The API server's clock may be ahead of ours; requests bear its time.
            Some(_) | None => changed.map_or(now, |changed| now.max(changed)),
        };
        Self { since, versions }
    }
}

/// When the API server last wrote one of these objects, as far as it says so.
pub fn last_change<'a>(found: impl Iterator<Item = &'a ObjectMeta>) -> Option<Timestamp> {
    let times = |meta: &'a ObjectMeta| {
        let managed = meta.managed_fields.iter().flatten().filter_map(|entry| entry.time.as_ref());
        managed.chain(&meta.creation_timestamp).map(|time| time.0)
    };
    found.flat_map(times).max()
}

/// What can be said of the policies at a moment after a request was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The installation has none, and says so.
    Off,
    /// They stand; what was created from then on is what it says.
    Since(Timestamp),
    /// They do not, or it is not known whether they do; for people.
    Broken(String),
}

impl Admission {
    /// From a record: `margin` later, because a policy takes a moment to reach every API server,
    /// and clocks differ.
    pub fn since(record: &Record, margin: SignedDuration) -> Self {
        match record.since.checked_add(margin) {
            Ok(from) => Self::Since(from),
            Err(_) => Self::Broken(format!("the policies are said to stand since {}", record.since)),
        }
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
