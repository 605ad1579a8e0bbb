//! execlet: `kubectl exec` as a resource.
//!
//! `ARCHITECTURE.md` has the map. Arrows point down only: programs build agent
//! and manager, those use engine and infra, everything may use wire, core and
//! api, and core and api are pure. `tests/layering.rs` holds that.

pub mod agent;
pub mod api;
pub mod core;
pub mod engine;
pub mod infra;
pub mod manager;
pub mod wire;
