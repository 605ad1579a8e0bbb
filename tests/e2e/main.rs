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

mod access;
mod agents;
mod alike;
mod audit;
mod batch_deleted;
mod batch_differing;
mod batch_lab;
mod batch_leaders;
mod batch_limits;
mod batch_refused;
mod batch_report;
mod batch_restore;
mod batch_results;
mod batch_rights;
mod batch_stolen;
mod batch_withdrawn;
mod batch_workloads;
mod batches;
mod chart;
mod clients;
mod crowd;
mod cuts;
mod definition;
mod disk;
mod disturbed;
mod ending;
mod engine_named;
mod examples;
mod fences;
mod follower;
mod gate;
mod hardening;
mod held;
mod holder;
mod hostile;
mod input;
mod interop;
mod intruders;
mod kubectl;
mod lab;
mod leader;
mod leading;
mod live_restore;
mod measured;
mod moved;
mod node;
#[path = "../engine/not_shown.rs"]
mod not_shown;
mod outcomes;
mod output;
mod plugin;
mod plugin_batches;
mod recovery;
mod restarts;
mod seen;
mod stand_in;
mod stolen;
mod subject;
mod subresources;
mod targets;
mod terminal;
mod turnstile;
mod unexecuted;
