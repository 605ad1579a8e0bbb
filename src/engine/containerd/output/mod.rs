//! The output of an exec, of which nothing is lost or doubled when the agent is killed.
//!
//! It comes over FIFOs, of which the shim holds both ends. What is in one goes by `splice` to the end of a file, the
//! backlog: after a kill each byte is in one of the two, never in both. From there it is read as often as need be. A place
//! in the file is a place in the stream: what the agent has noted to keep is cut out of the file, and leaves a hole.
//!
//! A FIFO exists until its end was read. While there is no agent, a holder has it open, and gives it to the next one. When
//! nobody held it for a while and it is then at its end at once, what was in it may be lost: then all that is there is
//! given, and no end.

mod backlog;
pub mod pipe;
pub mod room;
pub mod source;

#[cfg(test)]
mod kill_tests;
#[cfg(test)]
mod tests;
