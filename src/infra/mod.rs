//! The edges that agent and manager share: the API server, the kernel, the
//! clock, the audit trail, logs, metrics and the HTTP endpoints for them.

pub mod access;
pub mod audit;
pub mod buffered;
pub mod clock;
pub mod events;
pub mod health;
pub mod kernel;
pub mod listener;
pub mod metrics;
pub mod policies;
pub mod process;
pub mod pulse;
pub(crate) mod query;
pub mod rarely;
pub mod refusal;
pub mod requests;
pub mod retry;
pub mod shutdown;
pub mod telemetry;
pub mod websocket;
