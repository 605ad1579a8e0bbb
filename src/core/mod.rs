//! What execlet decides, without anything it decides about.
//!
//! Pure: no tokio, no engine, no client, no clock. Facts come in as values, and
//! what is to be done goes out as a value.

pub mod access;
pub mod admission;
pub mod audit;
pub mod batch;
pub mod bind;
pub mod decide;
pub mod digest;
pub mod entry;
pub mod evidence;
pub mod execution;
pub mod family;
pub mod ids;
pub mod kill;
pub mod offsets;
pub mod outcome;
pub mod output;
pub mod pauses;
pub mod printable;
pub mod program;
pub mod queue;
pub mod request;
pub mod runtime;
pub mod second;
pub mod strings;
pub mod transition;
