//! One stream of an exec: its FIFO, its backlog, and how far it was read.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::fs::{fstat, stat};
use tokio::{
    net::unix::pipe::{OpenOptions, Receiver},
    time::{Sleep, sleep},
};

use super::{
    backlog::{self, Backlog},
    room::Room,
};
use crate::{
    core::offsets::StreamOffsets,
    engine::{Chunk, READ_BYTES, containerd::folder::Folder},
    wire::OutputStream,
};

/// Pause before what had no place on the disk is tried again: others may have left some.
const FULL_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct Pipe {
    stream: OutputStream,
    path: PathBuf,
    fifo: Fifo,
    backlog: Backlog,
    /// Up to where it was read.
    read: u64,
    full: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Fifo {
    Open {
        receiver: Receiver,
        /// The kernel may not tell of what was there before it was opened, nor of an end: it is yet to be looked at.
        is_new: bool,
    },
    /// Its end was read.
    Over,
    /// It is not known what was in it at its end.
    Lost,
}

/// What came of an attempt to have something to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    Some,
    /// There is no room, and then nothing is taken.
    NoRoom,
    Over,
    Lost,
}

impl Pipe {
    /// Before the start of its exec.
    pub fn open(folder: &Folder, stream: OutputStream) -> io::Result<Self> {
        let path = folder.fifo(stream);
        let receiver = OpenOptions::new().open_receiver(&path)?;
        Self::new(folder, stream, Fifo::Open { receiver, is_new: true }, 0)
    }

    /// After a gap, in which nobody read. `held`: the FIFO, if somebody has had it open for all of that time. `Err` within:
    /// something is missing from there on.
    pub fn reopen(
        folder: &Folder,
        stream: OutputStream,
        from: u64,
        held: Option<OwnedFd>,
    ) -> io::Result<Result<Self, Self>> {
        let path = folder.fifo(stream);
        let held = held.filter(|held| leads_to(&path, held));
        let was_held = held.is_some();
        let opened = match held {
            // It tells of the end by itself, as it was open before anybody wrote: only then is there one.
            Some(held) => Receiver::from_owned_fd(held),
            None => OpenOptions::new().open_receiver(&path),
        };
        let fifo = match opened {
            Ok(receiver) => Fifo::Open { receiver, is_new: false },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Fifo::Over,
            Err(error) => return Err(error),
        };
        let mut pipe = Self::new(folder, stream, fifo, from)?;
        if !was_held {
            pipe.look_after_gap()?;
        }
        if pipe.backlog.has_all_from(from) {
            return Ok(Ok(pipe));
        }
        pipe.read = pipe.backlog.end();
        Ok(Err(pipe))
    }

    fn new(folder: &Folder, stream: OutputStream, fifo: Fifo, read: u64) -> io::Result<Self> {
        let backlog = Backlog::open(&folder.backlog(stream))?;
        Ok(Self { stream, path: folder.fifo(stream), fifo, backlog, read, full: None })
    }

    /// Something in it, or somebody who may write to it, shows that it was held all the time; an end shows nothing, unless
    /// it comes later. The look has to come first.
    fn look_after_gap(&mut self) -> io::Result<()> {
        let Fifo::Open { receiver, .. } = &self.fifo else { return Ok(()) };
        match self.backlog.take(receiver, READ_BYTES) {
            Ok(0) => self.fifo = Fifo::Lost,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::StorageFull) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What a holder is to have of it, and where its FIFO is; as long as it is open.
    pub fn end(&self) -> Option<(&Path, BorrowedFd<'_>)> {
        self.receiver().map(|receiver| (self.path.as_path(), receiver.as_fd()))
    }

    pub const fn stream(&self) -> OutputStream {
        self.stream
    }

    /// The FIFO itself, as long as it is open.
    pub const fn receiver(&self) -> Option<&Receiver> {
        match &self.fifo {
            Fifo::Open { receiver, .. } => Some(receiver),
            Fifo::Over | Fifo::Lost => None,
        }
    }

    pub(super) const fn has_some(&self) -> bool {
        self.read < self.backlog.end()
    }

    /// What comes next in the backlog.
    pub(super) fn next(&mut self, most: usize) -> io::Result<Chunk> {
        let bytes = self.backlog.read(self.read, most)?;
        self.read += bytes.len() as u64;
        Ok(Chunk { stream: self.stream, bytes })
    }

    /// Nobody reads again what was read.
    pub(super) fn release_read(&self, room: &Room) -> io::Result<()> {
        let (stdout, stderr) = match self.stream {
            OutputStream::Stdout => (self.read, 0),
            OutputStream::Stderr => (0, self.read),
        };
        room.release(StreamOffsets { stdout, stderr });
        self.backlog.release(self.read)
    }

    /// Takes from the FIFO, if there is nothing to read.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>, room: &Room) -> Poll<io::Result<Filled>> {
        loop {
            if self.has_some() {
                return Poll::Ready(Ok(Filled::Some));
            }
            if let Some(pause) = &mut self.full {
                ready!(pause.as_mut().poll(context));
                self.full = None;
            }
            let (receiver, is_new) = match &mut self.fifo {
                Fifo::Open { receiver, is_new } => (receiver, is_new),
                Fifo::Over => return Poll::Ready(Ok(Filled::Over)),
                Fifo::Lost => return Poll::Ready(Ok(Filled::Lost)),
            };
            let most =
                usize::try_from(room.left(self.stream, self.backlog.end())).unwrap_or(usize::MAX).min(READ_BYTES);
            if most == 0 {
                return Poll::Ready(Ok(Filled::NoRoom));
            }
            let taken = if *is_new {
                self.backlog.take(&*receiver, most)
            } else {
                ready!(receiver.poll_read_ready(context))?;
                receiver.try_io(|| self.backlog.take(&*receiver, most))
            };
            match taken {
                Ok(0) => {
                    // Whoever opens it again is to know.
                    fs::remove_file(&self.path)?;
                    self.fifo = Fifo::Over;
                }
                Ok(_) => *is_new = false,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => *is_new = false,
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    self.full = Some(Box::pin(sleep(FULL_PAUSE)));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// Whether this very file is there.
pub fn leads_to(path: &Path, file: impl AsFd) -> bool {
    let (there, here) = (stat(path), fstat(file));
    matches!((there, here), (Ok(there), Ok(here)) if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino))
}

/// What comes before these places is kept elsewhere.
pub fn release(folder: &Folder, before: StreamOffsets) -> io::Result<()> {
    for (stream, before) in [(OutputStream::Stdout, before.stdout), (OutputStream::Stderr, before.stderr)] {
        match backlog::release(&folder.backlog(stream), before) {
            // Of a terminal there is one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            released => released?,
        }
    }
    Ok(())
}
