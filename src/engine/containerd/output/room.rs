//! How far the backlog of an exec may grow: told by who releases it to who fills it.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::task::AtomicWaker;

use crate::{core::offsets::StreamOffsets, wire::OutputStream};

/// Most bytes of one stream that are kept until they are released. Then the command waits.
pub const MOST_BYTES: u64 = 1024 * 1024;

#[derive(Debug, Default)]
pub struct Room {
    stdout: AtomicU64,
    stderr: AtomicU64,
    pub(super) waker: AtomicWaker,
}

impl Room {
    pub fn from(released: StreamOffsets) -> Self {
        let room = Self::default();
        room.release(released);
        room
    }

    /// What comes before is kept elsewhere.
    pub fn release(&self, before: StreamOffsets) {
        self.stdout.fetch_max(before.stdout, Ordering::AcqRel);
        self.stderr.fetch_max(before.stderr, Ordering::AcqRel);
        self.waker.wake();
    }

    /// Bytes for which there is room, of a stream that is kept up to there.
    pub(super) fn left(&self, stream: OutputStream, end: u64) -> u64 {
        let released = match stream {
            OutputStream::Stdout => &self.stdout,
            OutputStream::Stderr => &self.stderr,
        };
        (released.load(Ordering::Acquire) + MOST_BYTES).saturating_sub(end)
    }
}
