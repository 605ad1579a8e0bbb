//! Names that must not be mixed up.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($( $(#[$doc:meta])* $name:ident, )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
            #[serde(transparent)]
            pub struct $name(String);

            impl $name {
                pub fn as_str(&self) -> &str {
                    &self.0
                }
            }

            impl<T: Into<String>> From<T> for $name {
                fn from(text: T) -> Self {
                    Self(text.into())
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(&self.0)
                }
            }
        )*
    };
}

id! {
    RequestUid,
    BatchUid,
    PodUid,
    NodeName,
    /// The engine's ID of a container.
    ContainerId,
    /// The engine's ID of an exec: it starts at most one process.
    ExecId,
    /// The kernel's ID of this boot of the node.
    BootId,
}

/// The name of an exec, where the engine lets its callers name them: no two execs ever have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecName {
    pub request: RequestUid,
    /// Counts the execs that were made for the request, from 1 on.
    pub number: u32,
}

impl ExecName {
    /// The name by which an exec goes, if it is one.
    pub fn of(id: &ExecId) -> Option<Self> {
        let (request, number) = id.0.rsplit_once('.')?;
        Some(Self { request: request.into(), number: number.parse().ok()? })
    }

    pub fn next(&self) -> Self {
        Self { request: self.request.clone(), number: self.number + 1 }
    }
}

impl fmt::Display for ExecName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.request, self.number)
    }
}

/// One run of one container: a restarted container may keep its ID, and gets another start time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerRef {
    pub id: ContainerId,
    /// When this run began, in the engine's own words. `None`: a status does not tell.
    #[serde(with = "empty_is_none")]
    pub started_at: Option<String>,
}

impl ContainerRef {
    /// Whether it may be the same run, as far as both tell.
    pub fn is_same_run(&self, other: &Self) -> bool {
        let same_start = self.started_at.as_ref().zip(other.started_at.as_ref()).is_none_or(|(one, two)| one == two);
        self.id == other.id && same_start
    }
}

/// One exec in one run of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecRef {
    pub id: ExecId,
    /// Where it was created.
    pub container: ContainerRef,
}

impl ExecRef {
    /// Whether the commit of `committed` lets this one start: it is the same, or has taken the place of one that was
    /// taken away before it could start.
    pub fn stands_for(&self, committed: &Self) -> bool {
        let same = self.id == committed.id
            || ExecName::of(&self.id)
                .zip(ExecName::of(&committed.id))
                .is_some_and(|(mine, theirs)| mine.request == theirs.request);
        same && self.container.id == committed.container.id
    }
}

/// Nothing is written as an empty text, as every version of the journal has it.
mod empty_is_none {
    use serde::{Deserialize, Deserializer, Serializer};

    #[allow(clippy::ref_option, reason = "serde's signature")]
    pub fn serialize<S: Serializer>(text: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text.as_deref().unwrap_or_default())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
        Ok(Some(String::deserialize(from)?).filter(|text| !text.is_empty()))
    }
}

/// One process of the node, not to be confused with a later one of the same PID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessRef {
    /// PID in the node's own PID namespace.
    pub pid: u32,
    /// The kernel's start time, in clock ticks since boot.
    pub start_ticks: u64,
}

/// Which request, everywhere and for ever.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestKey {
    pub namespace: String,
    pub name: String,
    pub uid: RequestUid,
}

impl fmt::Display for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One pod as a target of one batch: however often the batch is planned, its command starts there once at most.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetKey {
    pub batch: BatchUid,
    /// As the engine knows it: of a static pod another one than the API server's.
    pub pod: PodUid,
}

/// Which batch, everywhere and for ever.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchKey {
    pub namespace: String,
    pub name: String,
    pub uid: BatchUid,
}

impl fmt::Display for BatchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
