//! The input of an exec, of which nothing is lost or doubled when the agent is killed.
//!
//! It goes over a FIFO from which the shim reads. What comes for the command is put at the end of a file first, the backlog,
//! and from there the kernel moves it into the FIFO. How far it is, is the place of a file description: a holder has that,
//! too, so that the next agent goes on from there. As long as the shim lives it has the FIFO open, and keeps what is in it.

mod backlog;
#[cfg(test)]
mod kill_tests;

use std::{
    fmt, io,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use tokio::{
    net::unix::pipe::{OpenOptions, Sender},
    sync::{Notify, watch},
    task::JoinHandle,
};

use self::backlog::Backlog;
use super::{calls::Calls, folder::Folder};
use crate::{core::ids::ExecRef, engine::InputSink};

/// Most bytes that wait to go into the FIFO.
const MOST_BYTES: u64 = 64 * 1024;

pub struct Input {
    exec: ExecRef,
    calls: Calls,
    folder: Folder,
    path: PathBuf,
    backlog: Arc<Backlog>,
    /// There is more to give.
    added: Arc<Notify>,
    /// Changes whenever some was given, or none can be given any more.
    given: watch::Receiver<()>,
    /// `None`: it was closed.
    giving: Mutex<Option<JoinHandle<()>>>,
    /// A holder has its place.
    is_held: AtomicBool,
}

impl Input {
    /// Before the start of its exec. Nobody needs to read from it yet.
    pub fn open(folder: &Folder, exec: &ExecRef, calls: &Calls) -> io::Result<Self> {
        Self::over(folder, exec, calls, Backlog::make(&folder.input_backlog())?)
    }

    /// Goes on where another agent has stopped. `place`: what it has given to a holder. Also says how many bytes that agent
    /// has taken.
    pub fn reopen(folder: &Folder, exec: &ExecRef, calls: &Calls, place: OwnedFd) -> io::Result<(Self, u64)> {
        let backlog = Backlog::resume(&folder.input_backlog(), place)?;
        let taken = backlog.length()?;
        Ok((Self::over(folder, exec, calls, backlog)?, taken))
    }

    fn over(folder: &Folder, exec: &ExecRef, calls: &Calls, backlog: Backlog) -> io::Result<Self> {
        let fifo = OpenOptions::new().read_write(true).open_sender(folder.input())?;
        let (backlog, added) = (Arc::new(backlog), Arc::new(Notify::new()));
        let (tell, given) = watch::channel(());
        let giving = tokio::spawn(give(Arc::clone(&backlog), fifo, Arc::clone(&added), tell));
        Ok(Self {
            exec: exec.clone(),
            calls: calls.clone(),
            folder: folder.clone(),
            path: folder.input_backlog(),
            backlog,
            added,
            given,
            giving: Mutex::new(Some(giving)),
            is_held: AtomicBool::new(false),
        })
    }

    /// What a holder is to have of it, and where its file is.
    pub fn place(&self) -> (&Path, BorrowedFd<'_>) {
        (&self.path, self.backlog.place())
    }

    /// A holder has been given its place, or not.
    pub fn set_held(&self, is_held: bool) {
        self.is_held.store(is_held, Ordering::Relaxed);
    }

    fn is_open(&self) -> bool {
        self.giving.lock().as_ref().is_some_and(|giving| !giving.is_finished())
    }

    /// Waits until no more than this waits.
    async fn room(&self, most: u64) -> io::Result<u64> {
        let mut given = self.given.clone();
        loop {
            given.borrow_and_update();
            let rest = self.backlog.rest()?;
            if rest <= most {
                return Ok(rest);
            }
            if given.changed().await.is_err() || !self.is_open() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
    }
}

/// Gives what comes into the backlog, for ever.
async fn give(backlog: Arc<Backlog>, fifo: Sender, added: Arc<Notify>, tell: watch::Sender<()>) {
    let giving: io::Result<()> = async {
        loop {
            if backlog.rest()? == 0 {
                added.notified().await;
                continue;
            }
            fifo.writable().await?;
            match fifo.try_io(|| backlog.give(&fifo)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                moved => {
                    moved?;
                    backlog.release(&fifo)?;
                    tell.send_replace(());
                }
            }
        }
    }
    .await;
    if let Err(error) = giving {
        tracing::debug!(%error, "no more input can be given");
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("exec", &self.exec.id).field("backlog", &self.backlog).finish_non_exhaustive()
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        if let Some(giving) = self.giving.lock().take() {
            giving.abort();
        }
    }
}

impl InputSink for Input {
    /// What was handed over is given, by this agent or the next.
    fn write<'a>(&'a self, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<usize>> {
        async move {
            let rest = self.room(MOST_BYTES - 1).await?;
            if !self.is_open() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let most = usize::try_from(MOST_BYTES - rest).unwrap_or(usize::MAX).min(bytes.len());
            let added = self.backlog.add(&bytes[..most])?;
            self.added.notify_one();
            Ok(added)
        }
        .boxed()
    }

    /// The command sees the end once neither we nor the shim hold it for writing.
    fn close(&self) -> BoxFuture<'_, io::Result<()>> {
        async move {
            if self.is_open() {
                self.room(0).await?;
            }
            // Whoever comes next ends it, too.
            self.folder.end_input()?;
            let giving = self.giving.lock().take();
            if let Some(giving) = giving {
                giving.abort();
            }
            let (container, exec) = (self.exec.container.id.as_str(), self.exec.id.as_str());
            self.calls.close_input(container, exec).await.map_err(io::Error::other)
        }
        .boxed()
    }

    fn outlives_agent(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }
}
