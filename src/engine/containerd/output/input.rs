//! The input of an exec: a FIFO from which the shim reads.

use std::{io, path::Path, sync::Arc};

use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use tokio::net::unix::pipe::{OpenOptions, Sender};

use crate::{
    core::ids::ExecRef,
    engine::{InputSink, containerd::calls::Calls},
};

pub struct Input {
    exec: ExecRef,
    calls: Calls,
    /// `None`: it was closed.
    fifo: Mutex<Option<Arc<Sender>>>,
}

impl Input {
    /// Nobody needs to read from it yet.
    pub fn open(path: &Path, exec: &ExecRef, calls: &Calls) -> io::Result<Self> {
        let fifo = OpenOptions::new().read_write(true).open_sender(path)?;
        Ok(Self { exec: exec.clone(), calls: calls.clone(), fifo: Mutex::new(Some(Arc::new(fifo))) })
    }
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input").field("exec", &self.exec.id).field("fifo", &self.fifo).finish_non_exhaustive()
    }
}

impl InputSink for Input {
    fn write<'a>(&'a self, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<usize>> {
        async move {
            let fifo = self.fifo.lock().clone().ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
            loop {
                fifo.writable().await?;
                match fifo.try_write(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    written => return written,
                }
            }
        }
        .boxed()
    }

    /// The command sees the end once neither we nor the shim hold it for writing.
    fn close(&self) -> BoxFuture<'_, io::Result<()>> {
        async move {
            drop(self.fifo.lock().take());
            let (container, exec) = (self.exec.container.id.as_str(), self.exec.id.as_str());
            self.calls.close_input(container, exec).await.map_err(io::Error::other)
        }
        .boxed()
    }
}
