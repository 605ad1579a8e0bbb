//! What lies between a command and its viewers: its output in memory and on disk, and its input.

pub mod hub;
pub mod ring;
pub mod spool;
pub mod turns;

pub(crate) mod digest;
pub(crate) mod feed;
pub(crate) mod input;
pub(crate) mod log_writer;
pub(crate) mod recall;
pub(crate) mod state;
pub(crate) mod view;

mod tail;
