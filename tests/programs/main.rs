//! The programs themselves, where they need no cluster.
#![allow(clippy::expect_used, reason = "the helpers belong to the tests, and a test fails by a panic")]

mod credential;
mod holder;
mod printing;
