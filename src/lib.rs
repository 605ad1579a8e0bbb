//! execlet: `kubectl exec` as a resource.
//!
//! `ARCHITECTURE.md` has the map. Arrows point down only: programs build agent
//! and manager, those use engine and infra, everything may use wire, core and
//! api, and core and api are pure. `tests/layering/` holds that.

#![warn(clippy::print_stdout, clippy::print_stderr, reason = "what cannot be printed panics there: infra::print")]
#![cfg_attr(
    test,
    allow(
        clippy::too_many_lines,
        clippy::needless_pass_by_value,
        clippy::unnecessary_wraps,
        clippy::large_stack_arrays,
        reason = "tables and helpers of tests read better so"
    )
)]

pub mod agent;
pub mod api;
pub mod cli;
pub mod core;
pub mod engine;
pub mod infra;
pub mod manager;
pub mod wire;
