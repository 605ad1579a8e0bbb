//! Follows a request to its end, over as many connections as that takes.

pub(crate) mod attempts;
pub(crate) mod conclude;
pub(crate) mod detach;
pub(crate) mod followed;
pub(crate) mod follower;
pub(crate) mod input;
pub(crate) mod kept;
pub(crate) mod log;
pub(crate) mod news;
pub(crate) mod open;
pub(crate) mod options;
pub(crate) mod output;
pub(crate) mod passed;
pub(crate) mod record;
#[cfg(test)]
pub(crate) mod scripted;
pub(crate) mod session;
pub(crate) mod shown;
pub(crate) mod signals;
pub(crate) mod watched;
