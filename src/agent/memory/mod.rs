//! What the agent remembers: of each request, on disk, and of the ends that the engine has told.

pub mod disk;
pub mod exec_exits;
pub mod journal;
pub mod record;

mod targets;
mod tombstones;

pub(crate) mod noted;
pub(crate) mod request;
