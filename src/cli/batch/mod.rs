//! Batches: one command over many pods, as a person reads it.

pub(crate) mod fold;
