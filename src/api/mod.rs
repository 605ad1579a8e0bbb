//! The `execlet.dev/v1alpha1` API: the types, the reasons and the conditions.
//!
//! The Rust types are the source; `crds/` is generated from them. This module
//! is pure: it knows no client, no clock and no engine.

#![allow(
    clippy::doc_markdown,
    clippy::doc_link_with_quotes,
    reason = "the comments on the types are the manual that `kubectl explain` prints, which knows no Markdown"
)]

pub mod batch;
pub mod bytes;
pub mod conditions;
pub mod crd;
pub mod names;
pub mod reason;
pub mod request;
pub mod result;
pub mod status;

mod message;

pub use batch::{BatchPhase, ExecBatch, ExecBatchSpec, ExecBatchStatus};
pub use reason::Reason;
pub use request::{
    BatchReference, EnvVar, ExecRequest, ExecRequestSpec, OnDisconnect, OutputLimits, Requester, Stdin, StdinAttach,
    Target,
};
pub use result::ExecResult;
pub use status::{ExecRequestStatus, ExitCodeSource, OutputStatus, Phase, StreamStatus};
