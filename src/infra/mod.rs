//! The edges that agent and manager share: the API server, the kernel, the
//! clock, the audit trail, logs, metrics, and what both serve over HTTP.

pub(crate) mod access;
pub mod arguments;
pub mod audit;
pub mod batches;
pub mod call;
pub mod client;
pub mod clock;
pub mod descriptors;
pub mod events;
pub mod health;
pub mod kernel;
pub(crate) mod listener;
pub mod metrics;
pub(crate) mod pages;
pub mod policies;
pub mod print;
pub mod process;
pub mod program;
pub mod pulse;
pub(crate) mod query;
pub(crate) mod quota;
pub(crate) mod rarely;
pub(crate) mod refusal;
pub mod requests;
pub mod retry;
pub mod shutdown;
pub mod socket;
pub mod telemetry;
pub(crate) mod unreadable;
pub(crate) mod watch;
pub(crate) mod websocket;
