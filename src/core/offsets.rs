//! A place in the output of a command.

use serde::{Deserialize, Serialize};

/// So many bytes of each stream come before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOffsets {
    pub stdout: u64,
    pub stderr: u64,
}

impl StreamOffsets {
    pub const fn total(self) -> u64 {
        self.stdout + self.stderr
    }
}
