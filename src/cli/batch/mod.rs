//! Batches: one command over many pods, as a person follows and reads it.
//!
//! Counts and the end are the batch's own; who runs, and what was written, its requests tell.

pub mod arguments;
pub(crate) mod asked;
pub(crate) mod children;
pub(crate) mod create;
pub(crate) mod fold;
pub(crate) mod follow;
pub(crate) mod gathered;
pub(crate) mod merged;
pub(crate) mod merged_live;
pub(crate) mod report;
pub(crate) mod stage;
pub(crate) mod summary;
pub(crate) mod view;
pub(crate) mod words;
pub(crate) mod written;

mod selector;
