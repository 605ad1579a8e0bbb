//! containerd, which each test starts for itself.

mod fence;
mod held;
mod input;
mod lost;
mod once;
mod output;
mod recording;
mod state;
mod users;

pub mod node;
