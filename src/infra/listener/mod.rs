//! Connections over TLS: what the servers of agent and manager share.

pub mod keep_alive;
pub mod seats;
