//! The holder: a process beside the agent that keeps FIFOs open while there is no agent.
//!
//! What is in a FIFO that nobody has open is lost. So whoever starts a command first gives the holder the ends from which its
//! output is read; the next agent asks for them back, and reads on. The holder never reads, and has no end to write to: the
//! output is at its end when the command's is.
//!
//! Whose they are and what for it does not know: it has descriptors by name, until it is told to let go of them.

pub mod client;
mod message;
pub mod server;
mod socket;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

/// In the folder of the execs. No container is called that.
const FOLDER: &str = ".holders";
const SUFFIX: &str = ".sock";

/// Where the holders of a node listen. `base`: the folder of the execs.
pub fn folder(base: &Path) -> PathBuf {
    base.join(FOLDER)
}

/// Where the holder of this name listens.
pub fn socket(base: &Path, name: &str) -> PathBuf {
    folder(base).join(format!("{name}{SUFFIX}"))
}

/// Where any holders listen, or have listened.
pub fn sockets(base: &Path) -> Vec<PathBuf> {
    let Ok(found) = std::fs::read_dir(folder(base)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = found.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(SUFFIX));
    paths.sort();
    paths
}
