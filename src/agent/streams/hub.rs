//! Hub: where a command's output meets its log and its viewers.
//!
//! The pump puts pieces in; the log and each viewer take them out at their own pace. The hub holds a bounded tail of the
//! output: a viewer that falls behind reads on from the log, and comes back. The pump waits for the log alone, and for a
//! bounded time.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use super::{
    input::{Arrivals, Input},
    ring::{
        ALL_BYTES, BATCH_BYTES, Follows, Kept, LEAST_BYTES, MOST_BYTES, PIECE_BYTES, Phase, Piece, Pool, Ring,
        ViewPosition, Written,
    },
};
use crate::{
    api::ExecResult,
    core::{ids::RequestUid, output::LogState},
    wire::{remotecommand::TerminalSize, words::InputError},
};

/// How long no log of the node may take anything while a command waits for its own. A slow disk slows the command; one
/// that stands still costs its log.
pub const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub struct Hubs {
    all: Mutex<HashMap<RequestUid, Weak<Hub>>>,
    pool: Arc<Pool>,
    arrivals: Arc<Arrivals>,
}

impl Hubs {
    /// The hub of a request. It exists for as long as somebody holds it.
    pub fn of(&self, uid: &RequestUid) -> Arc<Hub> {
        let mut hubs = self.all.lock();
        if let Some(hub) = hubs.get(uid).and_then(Weak::upgrade) {
            return hub;
        }
        hubs.retain(|_, hub| hub.strong_count() > 0);
        let input = Input::new(Some((uid.clone(), Arc::clone(&self.arrivals))));
        let hub = Arc::new(Hub::new(Arc::clone(&self.pool), input));
        hubs.insert(uid.clone(), Arc::downgrade(&hub));
        hub
    }

    /// Waits until clients have taken the input of requests, and returns which.
    pub async fn arrivals(&self) -> HashSet<RequestUid> {
        self.arrivals.next().await
    }
}

#[derive(Debug)]
pub struct Hub {
    ring: Mutex<Ring>,
    changed: watch::Sender<()>,
    /// The log has taken something.
    room: Notify,
    viewers: AtomicUsize,
    pool: Arc<Pool>,
    size: watch::Sender<Option<TerminalSize>>,
    pub input: Arc<Input>,
}

/// Counts one viewer for as long as it exists.
#[derive(Debug)]
pub struct Viewing(Arc<Hub>);

impl Drop for Viewing {
    fn drop(&mut self) {
        if self.0.viewers.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.make_room(&mut self.0.ring.lock(), 0, LEAST_BYTES);
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.pool.sub(self.ring.lock().cost);
    }
}

impl Hub {
    /// A hub for a command that ended long ago: its log, what it wrote, and how it ended.
    pub fn ended(file: u64, written: Written, result: ExecResult) -> Arc<Self> {
        let hub = Self::logged(file, written);
        hub.conclude(result);
        hub.input.close(InputError::Ended);
        hub
    }

    /// A hub for a command of which only the log is known.
    pub fn logged(file: u64, written: Written) -> Arc<Self> {
        let hub = Self::new(Arc::default(), Input::new(None));
        hub.log_only(file, written);
        Arc::new(hub)
    }

    fn new(pool: Arc<Pool>, input: Input) -> Self {
        Self {
            ring: Mutex::new(Ring::new()),
            changed: watch::channel(()).0,
            room: Notify::new(),
            viewers: AtomicUsize::new(0),
            pool,
            size: watch::channel(None).0,
            input: Arc::new(input),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Ring)) {
        change(&mut self.ring.lock());
        self.changed.send_replace(());
    }

    /// Output begins here: `received` bytes came before, of which the log has `kept`.
    pub fn open(&self, received: u64, kept: Kept) {
        self.change(|ring| ring.open(received, kept));
    }

    /// Nobody reads the command's output, or ever did: the log is all there is.
    pub fn log_only(&self, file: u64, written: Written) {
        self.change(|ring| {
            ring.kept = Kept { output: u64::MAX, file, state: LogState::Whole };
            ring.written = written;
            ring.phase = Phase::Closed;
        });
    }

    /// So much of the output is noted: an agent that goes on after a crash begins there. What comes after it, of two
    /// streams, it may receive in another order. Without a word of this all counts as noted.
    pub fn note(&self, received: u64) {
        self.change(|ring| ring.note(received));
    }

    /// The end of the output that keeps its order whatever happens; none once the result is told.
    pub fn settled(&self) -> u64 {
        self.ring.lock().settled()
    }

    pub fn close(&self) {
        self.change(|ring| ring.phase = Phase::Closed);
    }

    /// The next agent goes on with it.
    pub fn moved(&self) {
        self.change(|ring| ring.phase = Phase::Moved);
    }

    /// Tells viewers how the command has ended. The first result stands.
    pub fn conclude(&self, result: ExecResult) {
        self.change(|ring| {
            ring.result.get_or_insert_with(|| Arc::new(result));
        });
    }

    pub fn result(&self) -> Option<Arc<ExecResult>> {
        self.ring.lock().result.clone()
    }

    /// No more output will come. If none has begun, the log is all there is: `file` says how much that is.
    pub fn end(&self, file: impl FnOnce() -> u64, written: Written) {
        let phase = self.ring.lock().phase;
        match phase {
            Phase::Waiting => self.log_only(file(), written),
            Phase::Open => self.close(),
            Phase::Closed | Phase::Moved => {}
        }
    }

    /// What is known of the output, if there is only the log.
    pub fn written(&self) -> Written {
        self.ring.lock().written
    }

    pub fn is_waiting(&self) -> bool {
        self.ring.lock().phase == Phase::Waiting
    }

    pub fn has_moved(&self) -> bool {
        self.ring.lock().phase == Phase::Moved
    }

    /// Waits until there is room for a piece of so many bytes, which only the log can hold up. Gives the log up when the
    /// disk takes nothing; a log that waits for its turn is not given up.
    pub async fn room(&self, bytes: usize) {
        self.until_the_log_lets(|| self.has_room(bytes + PIECE_BYTES)).await;
    }

    /// Waits until the log has all that there is, as [`Self::room`] does: more output waits meanwhile.
    pub async fn all_kept(&self) {
        self.until_the_log_lets(|| !self.is_behind()).await;
    }

    async fn until_the_log_lets(&self, goes_on: impl Fn() -> bool) {
        let mut writes = self.pool.writes();
        while !goes_on() {
            if timeout(PATIENCE, self.room.notified()).await.is_ok() {
                continue;
            }
            let now = self.pool.writes();
            if now == writes {
                self.give_up_log();
            }
            writes = now;
        }
    }

    /// Adds a piece, after [`Self::room`].
    pub fn push(&self, piece: Piece) {
        self.pool.add(piece.cost());
        self.change(|ring| ring.push(piece));
    }

    /// Drops what nobody needs, and says whether there is room for that much then.
    fn has_room(&self, cost: usize) -> bool {
        let limit = if self.pool.bytes() + cost > ALL_BYTES { LEAST_BYTES } else { MOST_BYTES };
        let mut ring = self.ring.lock();
        // What only viewers would need goes first.
        self.make_room(&mut ring, cost, if self.keeps_for_viewers() { limit } else { LEAST_BYTES });
        // A piece goes into an empty ring whatever its size.
        let room = ring.cost + cost <= limit || ring.pieces.is_empty();
        self.hold_up(ring, !room);
        room
    }

    /// Whether the log still has to take what is here, which it then does at once.
    fn is_behind(&self) -> bool {
        let ring = self.ring.lock();
        let behind = ring.kept.state == LogState::Whole && ring.unkept_bytes() > 0;
        self.hold_up(ring, behind);
        behind
    }

    /// Notes whether more output waits until the log has taken what is here. The log must not wait for it then: there will
    /// be none.
    fn hold_up(&self, mut ring: MutexGuard<'_, Ring>, held_up: bool) {
        let newly = held_up && !ring.held_up;
        ring.held_up = held_up;
        drop(ring);
        if newly {
            self.changed.send_replace(());
        }
    }

    /// What viewers could read from the log stays in memory too while there is room for it.
    fn keeps_for_viewers(&self) -> bool {
        self.viewers.load(Ordering::Relaxed) > 0 && !self.pool.is_crowded()
    }

    fn make_room(&self, ring: &mut Ring, cost: usize, limit: usize) {
        self.pool.sub(ring.make_room(cost, limit));
    }

    pub fn give_up_log(&self) {
        self.change(|ring| {
            if ring.kept.state == LogState::Whole {
                ring.kept.state = LogState::Slow;
            }
        });
        self.room.notify_one();
    }

    pub fn unkept(&self, most: usize) -> Vec<Piece> {
        self.ring.lock().unkept(most)
    }

    pub fn is_crowded(&self) -> bool {
        self.pool.is_crowded()
    }

    /// Whether the log should take at once what there is. Many small writes cost more than a few large ones.
    pub fn is_urgent(&self) -> bool {
        let enough = if self.is_crowded() { LEAST_BYTES / 2 } else { BATCH_BYTES };
        let ring = self.ring.lock();
        ring.unkept_bytes() >= enough as u64 || ring.held_up || ring.phase != Phase::Open
    }

    /// The log has this much now. A log that was given up stays so.
    pub fn keep(&self, kept: Kept) {
        self.pool.wrote();
        self.change(|ring| {
            let state = if ring.kept.state == LogState::Whole { kept.state } else { ring.kept.state };
            ring.kept = Kept { state, ..kept };
            ring.held_up = false;
            self.make_room(ring, 0, if self.keeps_for_viewers() { MOST_BYTES } else { 0 });
        });
        self.room.notify_one();
    }

    pub fn kept(&self) -> Kept {
        self.ring.lock().kept
    }

    pub fn now(&self) -> u64 {
        self.ring.lock().end()
    }

    /// The end of the output that was there before it began to be received here; `u64::MAX` if it has not begun.
    pub fn begun(&self) -> u64 {
        self.ring.lock().begun
    }

    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Somebody views the output: what they may need is kept.
    pub fn view(self: &Arc<Self>) -> Viewing {
        self.viewers.fetch_add(1, Ordering::Relaxed);
        Viewing(Arc::clone(self))
    }

    pub fn after(&self, position: ViewPosition, most: usize) -> Follows {
        self.ring.lock().after(position, most)
    }

    /// Sets the size of the terminal: the last viewer's counts.
    pub fn resize(&self, size: TerminalSize) {
        self.size.send_if_modified(|last| last.replace(size) != Some(size));
    }

    pub fn sizes(&self) -> watch::Receiver<Option<TerminalSize>> {
        self.size.subscribe()
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
