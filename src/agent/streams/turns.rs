//! How many logs of this node are written and read at the same time.

use std::{io, sync::Arc};

use tokio::{sync::Semaphore, task::spawn_blocking};
use tokio_util::sync::PollSemaphore;

/// Logs that are written at the same time: more would only take memory.
pub(super) const WRITERS: usize = 8;
/// Viewers that read logs at the same time. What must not wait for them, the journal above all, has the other threads
/// for its blocking calls (Tokio has 512).
const READERS: usize = 64;

#[derive(Clone, Debug)]
pub struct Writers(pub(super) Arc<Semaphore>);

impl Default for Writers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(WRITERS)))
    }
}

impl Writers {
    pub(super) fn turn(&self) -> PollSemaphore {
        PollSemaphore::new(Arc::clone(&self.0))
    }
}

#[derive(Clone, Debug)]
pub struct Readers(Arc<Semaphore>);

impl Default for Readers {
    fn default() -> Self {
        Self::new(READERS)
    }
}

impl Readers {
    pub(super) fn new(readers: usize) -> Self {
        Self(Arc::new(Semaphore::new(readers)))
    }

    /// Runs `work` on a thread that may block, when it is its turn. It holds its turn until it is done, even if nobody waits.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let permit = Arc::clone(&self.0).acquire_owned().await.map_err(io::Error::other)?;
        let done = spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        done.await.map_err(io::Error::other)?
    }
}
