//! End to end: requests applied as users apply them, on a real cluster with the
//! chart installed. `make test-e2e` brings all of that about.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::needless_pass_by_value,
    reason = "tests: a failure is to be loud, and helpers read better so"
)]

mod audit;
mod chart;
mod crowd;
mod definition;
mod disturbed;
mod ending;
mod examples;
mod hostile;
mod lab;
mod outcomes;
mod output;
mod restarts;
mod seen;
mod targets;
