//! Room that is given back from within a file: what comes before a place is cut out, and every place stays where it is.

use std::{fs::File, io};

use rustix::fs::{FallocateFlags, fallocate};

/// Holes are cut out of whole pages.
const PAGE: u64 = 4096;

/// Nobody will read what comes before this place.
pub(super) fn cut(file: &File, before: u64) -> io::Result<()> {
    let whole = before - before % PAGE;
    if whole > 0 {
        fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, whole)?;
    }
    Ok(())
}
