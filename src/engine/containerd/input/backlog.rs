//! What a command is yet to be given: a file, and a description of it whose place is how much has gone into the FIFO.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
};

use rustix::{
    fs::{SeekFrom, fstat, seek},
    io::{Errno, ioctl_fionread},
    pipe::{SpliceFlags, splice},
};

use super::super::hole::cut;

#[derive(Debug)]
pub(super) struct Backlog {
    /// Only ever appended to: what is in the FIFO are pages of this file.
    file: File,
    /// Moved along by the kernel with what it moves into the FIFO. The place outlives whoever holds it.
    given: OwnedFd,
}

impl Backlog {
    /// Of a command that is yet to be started.
    pub(super) fn make(path: &Path) -> io::Result<Self> {
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let given = OpenOptions::new().read(true).open(path)?.into();
        Self::resume(path, given)
    }

    /// One that was made before, and the description that tells how much was given.
    pub(super) fn resume(path: &Path, given: OwnedFd) -> io::Result<Self> {
        Ok(Self { file: OpenOptions::new().append(true).open(path)?, given })
    }

    pub(super) fn place(&self) -> BorrowedFd<'_> {
        self.given.as_fd()
    }

    /// Bytes of the input that have ever come.
    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Bytes that are not in the FIFO yet.
    pub(super) fn rest(&self) -> io::Result<u64> {
        Ok(self.length()?.saturating_sub(seek(&self.given, SeekFrom::Current(0))?))
    }

    pub(super) fn add(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.file).write(bytes)
    }

    /// Moves into the FIFO what there is room for.
    pub(super) fn give(&self, fifo: impl AsFd) -> io::Result<usize> {
        let most = usize::try_from(self.rest()?).unwrap_or(usize::MAX);
        loop {
            match splice(&self.given, None, &fifo, None, most, SpliceFlags::NONBLOCK) {
                Err(Errno::INTR) => {}
                moved => return Ok(moved?),
            }
        }
    }

    /// Nobody needs what the command has taken out of the FIFO.
    pub(super) fn release(&self, fifo: impl AsFd) -> io::Result<()> {
        let taken = seek(&self.given, SeekFrom::Current(0))?.saturating_sub(ioctl_fionread(fifo)?);
        if fstat(&self.file)?.st_blocks > 0 { cut(&self.file, taken) } else { Ok(()) }
    }
}
