//! What keeps an agent from starting anything.

use crate::{agent::node::StepError, api::Reason};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeldUp {
    /// The disk of its journal is full.
    Disk,
    /// The audit log cannot be written, and must be.
    Audit,
    /// An admission policy does not stand as it must.
    Policies,
    /// The API server does not tell its batch, or what the requester of that may do.
    Batch,
}

impl HeldUp {
    pub(crate) fn by(error: &StepError) -> Option<Self> {
        match error {
            StepError::Journal(error) if error.is_full() => Some(Self::Disk),
            StepError::Audit(_) => Some(Self::Audit),
            StepError::Admission(_) => Some(Self::Policies),
            StepError::Batch(_) => Some(Self::Batch),
            StepError::Engine(_)
            | StepError::Start(_)
            | StepError::Api(_)
            | StepError::Journal(_)
            | StepError::Refused(_) => None,
        }
    }

    pub(crate) const fn reason(self) -> Reason {
        match self {
            Self::Disk => Reason::NodeDiskFull,
            Self::Audit => Reason::AuditUnavailable,
            Self::Policies => Reason::AdmissionNotReady,
            Self::Batch => Reason::BatchNotChecked,
        }
    }

    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Disk => "the disk of the agent's journal is full, and it starts nothing that it could not remember",
            Self::Audit => "the agent cannot write its audit log, and nothing may run that is not recorded",
            Self::Policies => "nobody can tell who asked for it and who bound it",
            Self::Batch => "nothing of a batch is started that was not held against the batch",
        }
    }
}
