//! Intake: the requests of this node come in, and wait for their turn.

pub mod desk;
pub mod watch;

mod refuse;
