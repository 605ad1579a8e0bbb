//! Room that is given back from within a file: what comes before a place is cut out, and every place stays where it is.

use std::{fs::File, io};

use rustix::{
    fs::{FallocateFlags, fallocate},
    param::page_size,
};

/// Nobody will read what comes before this place.
pub(super) fn cut(file: &File, before: u64) -> io::Result<()> {
    // Of a page that is cut in part, the kernel makes zeros, and those would pass for what was written.
    let whole = before - before % page_size() as u64;
    if whole > 0 {
        fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, whole)?;
    }
    Ok(())
}
