//! What lies between a command and its viewers: its output in memory and on disk, and its input.

pub mod hub;
pub mod input;
pub mod log_writer;
pub mod ring;
pub mod spool;
pub mod view;

pub(crate) mod base64_text;
pub(crate) mod digest;
pub(crate) mod feed;
pub(crate) mod recall;
pub(crate) mod state;

mod tail;
