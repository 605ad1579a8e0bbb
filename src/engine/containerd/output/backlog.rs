//! What was taken from a FIFO and may have to be read again: a file, in which a place is one in the stream.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::AsFd,
        unix::fs::{FileExt as _, OpenOptionsExt as _},
    },
    path::Path,
};

use bytes::Bytes;
use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
    pipe::{SpliceFlags, splice},
};

use super::super::hole::cut;

#[derive(Debug)]
pub(super) struct Backlog {
    file: File,
    end: u64,
}

impl Backlog {
    /// That which is there, or an empty one.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // Not for appending: nothing is spliced into such a file.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let end = file.metadata()?.len();
        Ok(Self { file, end })
    }

    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// Whether all from there on is still in it.
    pub(super) fn has_all_from(&self, place: u64) -> bool {
        match place.cmp(&self.end) {
            std::cmp::Ordering::Less => seek(&self.file, SeekFrom::Data(place)).is_ok_and(|data| data == place),
            std::cmp::Ordering::Equal => true,
            std::cmp::Ordering::Greater => false,
        }
    }

    /// Moves what is in a FIFO to its end: so many bytes; none at the end of the FIFO.
    pub(super) fn take(&mut self, fifo: impl AsFd, most: usize) -> io::Result<usize> {
        loop {
            // It is moved along only by what has arrived.
            let mut end = self.end;
            match splice(&fifo, None, &self.file, Some(&mut end), most, SpliceFlags::NONBLOCK) {
                Ok(moved) => {
                    self.end += moved as u64;
                    return Ok(moved);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(super) fn release(&self, before: u64) -> io::Result<()> {
        cut(&self.file, before)
    }

    pub(super) fn read(&self, place: u64, most: usize) -> io::Result<Bytes> {
        let most = usize::try_from(self.end.saturating_sub(place)).unwrap_or(usize::MAX).min(most);
        let mut bytes = vec![0; most];
        self.file.read_exact_at(&mut bytes, place)?;
        Ok(bytes.into())
    }
}

/// Nobody will read what comes before this place.
pub(super) fn release(path: &Path, before: u64) -> io::Result<()> {
    cut(&OpenOptions::new().write(true).open(path)?, before)
}
