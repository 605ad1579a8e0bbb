//! What the Docker Engine really does with an exec, shown on a real one.
//!
//! `EXECLET_TEST_ENGINE` names its socket; `make test-engine` sets it. Every
//! test makes a container of its own and removes it. Some look at the container's
//! processes: run them on the engine's machine, as root. `docs/engine.md` lists the
//! facts that the code is built on, each with the test that shows it here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers belong to the tests, and a test fails by a panic"
)]

mod codes;
mod command;
mod containers;
mod ends;
mod events;
mod executed;
mod family;
mod input;
mod lab;
mod lost;
mod output;
mod refusals;
mod restart;
mod starts;
mod terminal;
