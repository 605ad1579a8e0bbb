//! The listener: TLS, and who asks.

pub(crate) mod front_proxy;
pub(crate) mod server;
