//! Log writer: writes what the hub has of a command's output into its log.
//!
//! It runs beside the pump, not before it: a disk that stands still holds the command up for a moment, then costs the log.

use std::{future::poll_fn, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::PollSemaphore;

use super::{
    hub::Hub,
    ring::{BATCH_BYTES, Kept, Piece},
    spool::Log,
    turns::Writers,
};
use crate::core::output::LogState;

/// How long output waits in memory for more before it goes to the log.
const FLUSH_AFTER: Duration = Duration::from_millis(100);
/// How long the disk may take for the end of a log after the command has ended.
const LAST_WRITES: Duration = Duration::from_secs(10);

pub(crate) struct LogWriter {
    hub: Arc<Hub>,
    /// Its place in the queue for a turn, which it keeps.
    turn: PollSemaphore,
    changes: watch::Receiver<()>,
    /// `None` while [`LogWriter::writing`] has it.
    log: Option<Log>,
    writing: Option<JoinHandle<Log>>,
    /// Until when output waits for more.
    waiting: Option<Instant>,
    /// How much of the output an agent before this one had put into the file.
    before: u64,
}

impl LogWriter {
    pub(crate) fn new(hub: &Arc<Hub>, writers: &Writers, log: Log, before: u64) -> Self {
        let (hub, turn, changes) = (Arc::clone(hub), writers.turn(), hub.changes());
        Self { hub, turn, changes, log: Some(log), writing: None, waiting: None, before }
    }

    /// Writes until the log takes no more. Cancel-safe.
    pub(crate) async fn work(&mut self) {
        // Even if the log was given up meanwhile: what it has taken is there.
        self.await_write().await;
        while self.hub.kept().state == LogState::Whole {
            self.changes.borrow_and_update();
            if self.hub.unkept(1).is_empty() {
                if self.changes.changed().await.is_err() {
                    return;
                }
                continue;
            }
            // More may come, and a write costs the same.
            let until = *self.waiting.get_or_insert_with(|| Instant::now() + FLUSH_AFTER);
            while !self.hub.is_urgent() {
                tokio::select! {
                    biased;
                    () = sleep_until(until) => break,
                    changed = self.changes.changed() => if changed.is_err() { return },
                }
            }
            self.write().await;
        }
    }

    /// Writes all that is there, within [`LAST_WRITES`]. Returns what became of the log.
    pub(crate) async fn finish(&mut self) -> LogState {
        let last = async {
            self.await_write().await;
            while !self.hub.unkept(1).is_empty() && self.write().await {}
        };
        if timeout(LAST_WRITES, last).await.is_err() {
            self.hub.give_up_log();
        }
        // Leaves the queue, or its turn would be wasted.
        self.turn = PollSemaphore::new(self.turn.clone_inner());
        self.hub.kept().state
    }

    /// Writes a batch; whether there was one.
    async fn write(&mut self) -> bool {
        // The semaphore is never closed.
        let Some(permit) = poll_fn(|context| self.turn.poll_acquire(context)).await else { return false };
        let pieces = self.hub.unkept(BATCH_BYTES);
        if pieces.is_empty() {
            return false;
        }
        let Some(mut log) = self.log.take() else { return false };
        self.waiting = None;
        self.writing = Some(spawn_blocking(move || {
            for Piece { stream, at, bytes } in pieces {
                log.append(stream, at, &bytes);
                // A piece takes more bytes in the log than in memory.
                if log.waiting() >= BATCH_BYTES {
                    log.flush();
                }
            }
            log.flush();
            drop(permit);
            log
        }));
        self.await_write().await;
        true
    }

    /// Waits for the write that is under way.
    async fn await_write(&mut self) {
        let Some(writing) = &mut self.writing else { return };
        let written = writing.await;
        self.writing = None;
        let kept = self.hub.kept();
        match written {
            Ok(log) => {
                let (output, file) = log.extent();
                let state = log.state();
                self.log = Some(log);
                self.hub.keep(match state {
                    // How much was written is not known.
                    LogState::Failed => Kept { state, ..kept },
                    LogState::Whole | LogState::Limited | LogState::Slow => {
                        Kept { output: self.before + output, file, state }
                    }
                });
            }
            Err(error) => {
                tracing::error!(%error, "the task that writes a log failed");
                self.hub.keep(Kept { state: LogState::Failed, ..kept });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, pin::pin};

    use k8s_openapi::jiff::Timestamp;
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;
    use crate::{
        agent::streams::{hub::Hubs, spool::Spool, turns::WRITERS},
        api::OutputLimits,
        core::ids::RequestKey,
        wire::OutputStream,
    };

    #[tokio::test]
    async fn whoever_waits_for_a_turn_keeps_its_place_though_it_is_left_now_and_then() {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Spool::open(folder.path(), 1 << 20, &HashSet::new(), Gauge::default()).expect("a spool");
        let key = RequestKey { namespace: "shop".into(), name: "dump".into(), uid: "u".into() };
        let log = spool.create(&key, &OutputLimits::default(), LogState::Whole);
        let hub = Hubs::default().of(&key.uid);
        hub.open(0, Kept { output: 0, file: 0, state: LogState::Whole });
        hub.push(Piece { stream: OutputStream::Stdout, at: Timestamp::UNIX_EPOCH, bytes: "abc".into() });
        hub.close();
        let writers = Writers::default();
        let mut taken: Vec<_> = (0..WRITERS).filter_map(|_| Arc::clone(&writers.0).try_acquire_owned().ok()).collect();
        let mut log_writer = LogWriter::new(&hub, &writers, log, 0);
        assert!(timeout(Duration::ZERO, log_writer.work()).await.is_err());
        // One that comes after it, and keeps what it gets.
        let mut next = pin!(writers.0.acquire());
        assert!(timeout(Duration::ZERO, &mut next).await.is_err());
        assert!(timeout(Duration::ZERO, log_writer.work()).await.is_err());
        assert_eq!((taken.len(), hub.kept().output), (WRITERS, 0));
        taken.pop();
        let state = timeout(Duration::from_secs(5), log_writer.finish()).await;
        assert_eq!((state, hub.kept().output), (Ok(LogState::Whole), 3));
        drop(next.await);
    }
}
