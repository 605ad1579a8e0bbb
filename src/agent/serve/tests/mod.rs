//! The server as a manager meets it, and as somebody else does: over real TLS and `WebSocket`.

mod access;
mod connections;
mod input;
mod lab;
mod log;
mod viewing;
