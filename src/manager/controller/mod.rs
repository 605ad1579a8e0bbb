//! What the leader does: it binds requests to nodes.

pub(crate) mod bind;
