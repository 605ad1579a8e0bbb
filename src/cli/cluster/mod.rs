//! The cluster as the plugin sees it.

pub(crate) mod batches;
pub(crate) mod connection;
mod credential;
pub(crate) mod discovery;
pub mod flags;
mod kubeconfig;
mod requests;
