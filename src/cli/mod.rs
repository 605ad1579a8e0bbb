//! The plugin `kubectl execlet`: one file a verb, over the same API as everybody else's.
//!
//! It knows neither agent nor manager: what it sees is the API server. What a
//! verb takes from the command line stands beside the verb; the program in
//! `bin/kubectl-execlet` puts them together, parses once, and ends with the
//! [`exit`] code that a verb gives.

pub mod cluster;
pub mod error;
pub mod exit;
pub mod verb;

mod follow;
mod say;
