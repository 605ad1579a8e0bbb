//! The leading manager, and how much memory it takes, as the kernel tells.

use std::{fs, path::PathBuf};

use crate::{leading, node};

#[derive(Debug, PartialEq, Eq)]
pub struct Leader {
    pod: String,
    /// Of its process, in `/proc`.
    folder: PathBuf,
}

impl Leader {
    pub fn find() -> Self {
        let pod = leading::leader().expect("a leader");
        let (node, id) = leading::container(&pod).expect("its container");
        let pid: u32 = node::pid(&node, &id).parse().expect("the process of the leading manager");
        let folder = PathBuf::from(format!("/proc/{pid}"));
        Self { pod, folder }
    }

    /// KiB of memory that it has now.
    pub fn resident(&self) -> u64 {
        self.field("VmRSS:")
    }

    /// The most KiB that it had since [`Self::forget_most`].
    pub fn most(&self) -> u64 {
        self.field("VmHWM:")
    }

    pub fn forget_most(&self) {
        fs::write(self.folder.join("clear_refs"), "5").expect("the kernel counts anew");
    }

    fn field(&self, name: &str) -> u64 {
        let status = fs::read_to_string(self.folder.join("status")).expect("the manager lives");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of it");
        line.trim().strip_suffix(" kB").and_then(|number| number.parse().ok()).expect("a number")
    }
}
