//! What the engines really do with an exec, shown on real ones.
//!
//! `EXECLET_TEST_ENGINE` names the socket of a Docker Engine; `make test-engine` sets it. Every
//! test makes a container of its own and removes it. Some look at the container's
//! processes: run them on the engine's machine, as root. `docs/docker.md` lists the
//! facts that the code is built on, each with the test that shows it here.
//!
//! The tests in `both/` run on containerd instead if that variable says `containerd`, as `make test-containerd` does. Those
//! in `containerd/` do so always: each starts one for itself. `docs/containerd.md` lists its facts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers belong to the tests, and a test fails by a panic"
)]

mod both;
mod codes;
mod containerd;
mod containers;
mod ends;
mod events;
mod executed;
mod family;
mod groups;
mod input;
mod lab;
mod lost;
mod not_shown;
mod output;
mod refusals;
mod restart;
mod stage;
mod starts;
