//! `ExecBatch`: one command over many pods.
//!
//! | file | what |
//! |---|---|
//! | `spec` | the kind, and what of it may change |
//! | `targets` | in which pods |
//! | `template` | what runs there: the spec of a request without what differs from pod to pod |
//! | `status` | what came of it |
//! | `rules` | what the API server checks of it beyond its schema |

pub mod spec;
pub mod status;
pub mod targets;
pub mod template;

mod rules;

pub use spec::{Actor, Approval, ExecBatch, ExecBatchSpec, FailureAction, FailurePolicy};
pub use status::{BatchPhase, Ends, ExecBatchStatus, Group, Plan};
pub use targets::{
    GivenPod, OnForbidden, Operator, Pick, PodSelector, Requirement, Targets, WorkloadKind, WorkloadReference,
};
pub use template::{Input, Template, TemplateMetadata, TemplateSpec};
