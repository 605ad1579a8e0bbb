//! containerd, which each test starts for itself.

mod broken;
mod fence;
mod held;
mod input;
mod once;
mod output;
mod recording;
mod state;
mod users;

pub mod node;
