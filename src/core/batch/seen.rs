//! What is known of the children of a plan. What a watch has told may be old: it says where to look, and decides nothing
//! that cannot be taken back. What is found there counts.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use super::end::End;
use crate::{api::ExecRequest, core::request::is_being_deleted};

/// By index. One that is not here has ended, or is gone, or the watch has not told of it yet.
pub type Children = BTreeMap<u16, Seen>;

/// An unfinished child, as far as a watch has told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub uid: String,
    pub canceled: bool,
    pub deleting: bool,
    pub stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nobody has looked at it since it was made.
    Held,
    /// It was looked at after its release, and could not be bound yet. It has to start until then.
    Waiting {
        start_by: Option<Timestamp>,
    },
    /// Its agent has to commit it until then.
    Bound {
        start_by: Option<Timestamp>,
    },
    /// Committed: its agent answers for it.
    Running,
    Ended,
}

impl Stage {
    /// Whether it was looked at after its release, so that its own status says until when it must start.
    pub const fn was_looked_at(self) -> bool {
        match self {
            Self::Held => false,
            Self::Waiting { .. } | Self::Bound { .. } | Self::Running | Self::Ended => true,
        }
    }
}

impl Seen {
    pub fn of(child: &ExecRequest) -> Self {
        let status = child.status.as_ref();
        let start_by = status.and_then(|status| status.start_by.as_ref()).map(|time| time.0);
        let stage = match status {
            Some(status) if status.completion_time.is_some() => Stage::Ended,
            Some(status) if status.exec_id.is_some() => Stage::Running,
            Some(status) if status.node_name.is_some() => Stage::Bound { start_by },
            Some(_) if start_by.is_some() => Stage::Waiting { start_by },
            Some(_) | None => Stage::Held,
        };
        Self {
            uid: child.metadata.uid.clone().unwrap_or_default(),
            canceled: child.spec.cancel,
            deleting: is_being_deleted(child),
            stage,
        }
    }
}

/// What a quorum read of a child has shown, and the write after it, if one was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Ended(End),
    /// There is none, or another object has its name.
    Absent,
    Unfinished {
        was_looked_at: bool,
    },
}
