//! The output of one command that is in memory, and how far the command has come.
//!
//! A position in the output counts the bytes of both streams together.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;

use crate::{
    api::{ExecResult, OutputStatus, StreamStatus},
    core::output::LogState,
    wire::OutputStream,
};

/// Bytes of output that one command may always keep in memory, for its log and its viewers.
pub const LEAST_BYTES: usize = 32 * 1024;
/// Bytes that it may keep there while others leave room.
pub const MOST_BYTES: usize = 2 << 20;
/// Bytes that all commands together may keep there, beyond their least.
pub const ALL_BYTES: usize = 8 << 20;
/// About how many bytes are written to a log at once.
pub const BATCH_BYTES: usize = 256 * 1024;
/// What a piece takes beside its bytes.
pub(super) const PIECE_BYTES: usize = 96;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub stream: OutputStream,
    /// When it was received.
    pub at: Timestamp,
    pub bytes: Bytes,
}

impl Piece {
    pub(super) fn cost(&self) -> usize {
        self.bytes.len() + PIECE_BYTES
    }
}

/// How much of the output is in the log's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Bytes of the output, from its beginning.
    pub output: u64,
    /// Bytes of the file.
    pub file: u64,
    pub state: LogState,
}

/// What is known of the output of a command of which there is only the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// It wrote at least so many bytes.
    pub bytes: u64,
    /// And no more, and all of them were kept.
    pub whole: bool,
}

impl Written {
    /// It never ran, or what it wrote in the meantime does not matter.
    pub const NOTHING: Self = Self { bytes: 0, whole: true };
    /// It still runs, or did.
    pub const UNKNOWN: Self = Self { bytes: 0, whole: false };

    /// What a status says of the output; `ran`: whether the command may have run.
    pub fn said(output: Option<&OutputStatus>, ran: bool) -> Self {
        let bytes = |stream: &StreamStatus| u64::try_from(stream.bytes).unwrap_or(0);
        match output {
            Some(output) => Self { bytes: bytes(&output.stdout) + bytes(&output.stderr), whole: output.complete },
            None if ran => Self::UNKNOWN,
            None => Self::NOTHING,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewPosition {
    pub output: u64,
    /// A position at or before it that is known in the file too: bytes of output, bytes of the file.
    pub known: (u64, u64),
}

impl ViewPosition {
    pub const START: Self = Self { output: 0, known: (0, 0) };
}

#[derive(Debug)]
pub enum Follows {
    /// These pieces, and the position after them.
    Pieces(Vec<Piece>, ViewPosition),
    /// It is in the file, which has this much.
    InFile(Kept),
    /// It is kept nowhere: the next output that is there is at this position.
    Gone(ViewPosition),
    NotYet,
    /// Nothing: the command writes no more.
    End,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Waiting,
    Open,
    /// It writes no more, or nobody reads what it writes.
    Closed,
    /// The next agent goes on with it.
    Moved,
}

#[derive(Debug)]
pub(super) struct Ring {
    pub(super) pieces: VecDeque<(u64, Piece)>,
    pub(super) cost: usize,
    /// The position of the first piece, and the one after the last.
    first: u64,
    next: u64,
    /// Where it began to be received here: what is before was written before.
    pub(super) begun: u64,
    pub(super) kept: Kept,
    pub(super) written: Written,
    pub(super) phase: Phase,
    pub(super) result: Option<Arc<ExecResult>>,
    noted: u64,
    /// More output waits until the log has taken what is here.
    pub(super) held_up: bool,
}

impl Ring {
    pub(super) fn new() -> Self {
        Self {
            pieces: VecDeque::new(),
            cost: 0,
            first: 0,
            next: 0,
            begun: u64::MAX,
            kept: Kept { output: 0, file: 0, state: LogState::Whole },
            written: Written::NOTHING,
            phase: Phase::Waiting,
            result: None,
            noted: u64::MAX,
            held_up: false,
        }
    }

    pub(super) fn open(&mut self, position: u64, kept: Kept) {
        (self.first, self.next, self.begun, self.kept) = (position, position, position, kept);
        self.phase = Phase::Open;
    }

    pub(super) fn push(&mut self, piece: Piece) {
        self.cost += piece.cost();
        let position = self.next;
        self.next += piece.bytes.len() as u64;
        self.pieces.push_back((position, piece));
    }

    /// What comes before this is never received anew.
    pub(super) fn note(&mut self, noted: u64) {
        self.noted = noted;
    }

    /// The end of what is [noted](Self::note); of a command whose result is told, no end.
    pub(super) fn settled(&self) -> u64 {
        if self.result.is_some() { u64::MAX } else { self.noted }
    }

    /// The end of the output so far.
    pub(super) fn end(&self) -> u64 {
        if self.phase == Phase::Waiting { 0 } else { self.next.max(self.kept.output) }
    }

    pub(super) fn unkept_bytes(&self) -> u64 {
        self.next - self.kept.output.min(self.next)
    }

    /// What the log has not taken, about `most` bytes of it.
    pub(super) fn unkept(&self, most: usize) -> Vec<Piece> {
        if self.kept.state == LogState::Whole { self.from(self.kept.output, most) } else { Vec::new() }
    }

    /// What follows a position, about `most` bytes of it.
    pub(super) fn after(&self, ViewPosition { output, known }: ViewPosition, most: usize) -> Follows {
        if self.phase == Phase::Waiting {
            return Follows::NotYet;
        }
        let kept = self.kept;
        let known = if kept.output <= output { (kept.output, kept.file) } else { known };
        if output >= self.first && output < self.next {
            let pieces = self.from(output, most);
            let read: u64 = pieces.iter().map(|piece| piece.bytes.len() as u64).sum();
            return Follows::Pieces(pieces, ViewPosition { output: output + read, known });
        }
        if output < kept.output {
            return Follows::InFile(kept);
        }
        if output < self.first {
            return Follows::Gone(ViewPosition { output: self.first, known });
        }
        if self.phase == Phase::Open { Follows::NotYet } else { Follows::End }
    }

    /// Drops from the front what neither the log nor a viewer needs, until another `cost` fits into `limit`. Returns what
    /// was freed.
    pub(super) fn make_room(&mut self, cost: usize, limit: usize) -> usize {
        let before = self.cost;
        while self.cost + cost > limit
            && let Some((position, piece)) = self.pieces.front()
        {
            let end = position + piece.bytes.len() as u64;
            if self.kept.state == LogState::Whole && end > self.kept.output {
                // The log still needs it.
                break;
            }
            self.first = end;
            self.cost -= piece.cost();
            self.pieces.pop_front();
        }
        before - self.cost
    }

    /// The pieces from a position on: one, or more that have at most `most` bytes together.
    fn from(&self, output: u64, most: usize) -> Vec<Piece> {
        let begin = self.pieces.partition_point(|(position, piece)| position + piece.bytes.len() as u64 <= output);
        let mut left = most;
        let mut taken = Vec::new();
        for (position, piece) in self.pieces.iter().skip(begin) {
            // In the middle of a piece only where the log was cut.
            let skip = usize::try_from(output.saturating_sub(*position)).unwrap_or(0);
            let bytes = piece.bytes.slice(skip..);
            if bytes.len() > left && !taken.is_empty() {
                break;
            }
            left = left.saturating_sub(bytes.len());
            taken.push(Piece { bytes, ..piece.clone() });
        }
        taken
    }
}

#[derive(Debug, Default)]
pub(super) struct Pool {
    bytes: AtomicUsize,
    /// How often a log has taken something.
    writes: AtomicU64,
}

impl Pool {
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.bytes() >= ALL_BYTES / 2
    }

    pub(super) fn add(&self, cost: usize) {
        self.bytes.fetch_add(cost, Ordering::Relaxed);
    }

    pub(super) fn sub(&self, cost: usize) {
        self.bytes.fetch_sub(cost, Ordering::Relaxed);
    }

    pub(super) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    pub(super) fn wrote(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
    }
}
