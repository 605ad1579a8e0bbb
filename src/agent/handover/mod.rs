//! Handover: an agent that stops gives the engine's open connections to its successor, so that an update loses no output.
//!
//! The successor waits beside it for the journal's lock, connected to a socket in the state folder. An agent that is
//! told to stop sends each connection as a file descriptor, with what it has read but not decoded, and with what it has
//! received so far: counts, tails and the states of the hashes. Nobody reads from then until the successor has the lock,
//! which is short; the successor knows how long it was.

pub(crate) mod give;
pub(crate) mod message;
pub(crate) mod receive;
