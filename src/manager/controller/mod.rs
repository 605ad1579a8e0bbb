//! The leader's work: binds requests, and gives up those whose node is lost.

mod bind;
pub(super) mod lead;
mod lost;
pub(super) mod write;
