//! The cluster as the plugin sees it.

pub mod connection;

pub(crate) mod discovery;
pub(crate) mod requests;
