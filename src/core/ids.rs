//! Names that must not be mixed up.

use std::fmt;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

macro_rules! id {
    ($( $(#[$doc:meta])* $name:ident, )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
            #[serde(transparent)]
            pub struct $name(String);

            impl $name {
                /// The text itself.
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
    /// UID of a request.
    RequestUid,
    /// UID of a pod.
    PodUid,
    /// Name of a node.
    NodeName,
    /// The engine's ID of a container.
    ContainerId,
    /// The engine's ID of an exec: a token that starts at most one process.
    ExecId,
    /// The kernel's ID of this boot of the node.
    BootId,
}

/// One run of one container: a restarted container keeps its ID and gets another start time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerRef {
    /// The engine's ID.
    pub id: ContainerId,
    /// The engine's `State.StartedAt`, as it says it.
    pub started_at: String,
}

/// One exec in one run of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecRef {
    /// The engine's ID of the exec.
    pub id: ExecId,
    /// Where it was created.
    pub container: ContainerRef,
}

impl ExecRef {
    /// Of what ended before an exec was created for it.
    pub fn none() -> Self {
        Self { id: "".into(), container: ContainerRef { id: "".into(), started_at: String::new() } }
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
    /// Namespace of the request.
    pub namespace: String,
    /// Name of the request.
    pub name: String,
    /// UID of the request.
    pub uid: RequestUid,
}

impl fmt::Display for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A moment, as the API server writes it.
pub type Moment = Timestamp;
