//! The plugin `kubectl execlet`: one file for each verb, over the same API as every other client.
//!
//! It does not know agent or manager, only the API server. What a verb takes from the
//! command line stands beside the verb; the program in `bin/kubectl-execlet` puts them
//! together, parses once, and ends with the [`exit`] code that a verb gives.

pub mod cluster;
pub mod error;
pub mod exit;
pub mod verb;

mod batch;
mod follow;
mod report;
mod request;
pub mod say;
mod typed;
