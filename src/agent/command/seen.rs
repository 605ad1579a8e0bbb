//! What has been seen of an exec's process.

use tokio::time::Instant;

use crate::core::{execution::Sighting, ids::ProcessRef};

#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Which process it is. One that ends at once may never be seen.
    pub(crate) process: Option<ProcessRef>,
    /// Whether it has executed the command.
    pub(crate) executed: Sighting,
    /// Inodes of the pipes that it writes to.
    pub(crate) pipes: Vec<u64>,
    pub(crate) alive: Option<Instant>,
    /// The moment by which it had ended, for one that was seen to live; else one before its end.
    pub(crate) ended: Option<Instant>,
    /// When that was learned.
    pub(crate) noticed: Option<Instant>,
    /// Its exit code, if the kernel kept it.
    pub(crate) exit: Option<i32>,
    /// Whether a process held its output after its end; `None` if that could not be seen.
    pub(crate) held: Option<bool>,
    /// All is seen that will be.
    pub(crate) whole: bool,
}
