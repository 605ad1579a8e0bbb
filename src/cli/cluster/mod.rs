//! The cluster as the plugin sees it.

pub(crate) mod connection;
pub(crate) mod discovery;
pub mod flags;
mod kubeconfig;
mod requests;
