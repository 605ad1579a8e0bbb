//! The leader's work: binds requests, gives up those whose node is lost, and takes batches to their end.

pub mod batch;

mod bind;
pub(super) mod lead;
mod lost;
pub(super) mod write;
