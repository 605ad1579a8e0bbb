//! Hub: where a command's output meets its log and its viewers.
//!
//! The pump puts pieces in; the log and each viewer take them out, each in its own time. What
//! is here is a bounded end of the output: a viewer that falls behind it goes on from
//! the log, and returns. Nobody who reads is waited for but the log, and that for a
//! bounded time. A place in the output is a number of bytes, of both streams together.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use super::{input::Input, spool::LogState};
use crate::{
    api::{ExecResult, OutputStatus, StreamStatus},
    core::ids::RequestUid,
    wire::{OutputStream, remotecommand::TerminalSize, words::InputError},
};

/// Bytes of output that one command may always keep in memory: for its log, and for its viewers.
pub const LEAST_BYTES: usize = 32 * 1024;
/// Bytes that it may keep there while others leave room.
pub const MOST_BYTES: usize = 2 << 20;
/// Bytes that all commands together may keep there, beyond their least.
pub const ALL_BYTES: usize = 8 << 20;
/// Bytes that are written to a log at once, about.
pub const BATCH_BYTES: usize = 256 * 1024;
/// What a piece takes beside its bytes.
const PIECE_BYTES: usize = 96;
/// How long the log may take nothing while a command is held up by it, and no other log of the node anything either. A
/// disk that is slow slows the command; one that stands still costs its log.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// From which stream.
    pub stream: OutputStream,
    /// When it was received.
    pub at: Timestamp,
    /// The bytes.
    pub bytes: Bytes,
}

impl Piece {
    fn cost(&self) -> usize {
        self.bytes.len() + PIECE_BYTES
    }
}

/// What of the output is in the log's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// So much of the output, from its beginning.
    pub output: u64,
    /// So many bytes of the file.
    pub file: u64,
    /// Whether more is to come.
    pub state: LogState,
}

/// What is known of the output of a command that nobody hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// It wrote so many bytes, or more.
    pub bytes: u64,
    /// And no more; and all that it wrote was kept.
    pub whole: bool,
}

impl Written {
    /// It never ran, or what it wrote in the meantime does not matter.
    pub const NOTHING: Self = Self { bytes: 0, whole: true };
    /// It runs on, or did.
    pub const UNKNOWN: Self = Self { bytes: 0, whole: false };

    /// What a status says; `ran`: whether the command may have run.
    pub fn said(output: Option<&OutputStatus>, ran: bool) -> Self {
        let bytes = |stream: &StreamStatus| u64::try_from(stream.bytes).unwrap_or(0);
        match output {
            Some(output) => Self { bytes: bytes(&output.stdout) + bytes(&output.stderr), whole: output.complete },
            None if ran => Self::UNKNOWN,
            None => Self::NOTHING,
        }
    }
}

/// Where a viewer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// How much of the output it has.
    pub output: u64,
    /// A place before it that is known in the file: so much of the output is before so much of the file.
    pub known: (u64, u64),
}

impl Position {
    /// The beginning.
    pub const START: Self = Self { output: 0, known: (0, 0) };
}

/// What follows a place.
#[derive(Debug)]
pub enum Follows {
    /// These, and the place after them.
    Pieces(Vec<Piece>, Position),
    /// It is in the file, which goes to this place.
    InFile(Kept),
    /// It is nowhere any more: the next that is there is at this place.
    Gone(Position),
    /// Nothing yet.
    NotYet,
    /// The end: the command writes no more.
    End,
}

/// How far a command has come, for its viewers.
#[derive(Clone, Debug, Default)]
enum Phase {
    /// It has not begun to write.
    #[default]
    Waiting,
    /// It may write.
    Open,
    /// It writes no more, or nobody hears it.
    Closed,
    /// The next agent goes on with it.
    Moved,
}

#[derive(Debug)]
struct Ring {
    /// Each with its place.
    pieces: VecDeque<(u64, Piece)>,
    cost: usize,
    /// The place of the first piece, and of the one after the last.
    first: u64,
    next: u64,
    kept: Kept,
    written: Written,
    phase: Phase,
    result: Option<Arc<ExecResult>>,
    /// More output waits for what the log has not taken.
    held_up: bool,
}

/// What all commands of the node have in common.
#[derive(Debug, Default)]
struct Pool {
    /// What their output takes in memory.
    bytes: AtomicUsize,
    /// How often a log has taken something.
    writes: AtomicU64,
}

impl Pool {
    fn is_crowded(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= ALL_BYTES / 2
    }

    fn is_full_with(&self, cost: usize) -> bool {
        self.bytes.load(Ordering::Relaxed) + cost > ALL_BYTES
    }

    fn add(&self, cost: usize) {
        self.bytes.fetch_add(cost, Ordering::Relaxed);
    }

    fn sub(&self, cost: usize) {
        self.bytes.fetch_sub(cost, Ordering::Relaxed);
    }
}

/// The commands of this node that have viewers, or may have.
#[derive(Debug, Default)]
pub struct Hubs {
    all: Mutex<HashMap<RequestUid, Weak<Hub>>>,
    pool: Arc<Pool>,
    arrivals: Arc<Arrivals>,
}

/// The requests whose input a client has taken, until somebody asks.
#[derive(Debug, Default)]
pub struct Arrivals {
    of: Mutex<HashSet<RequestUid>>,
    some: Notify,
}

impl Arrivals {
    fn add(&self, uid: &RequestUid) {
        self.of.lock().insert(uid.clone());
        self.some.notify_one();
    }

    fn take(&self) -> HashSet<RequestUid> {
        std::mem::take(&mut *self.of.lock())
    }
}

impl Hubs {
    /// That of a request. It lasts for as long as somebody has it.
    pub fn of(&self, uid: &RequestUid) -> Arc<Hub> {
        let mut hubs = self.all.lock();
        if let Some(hub) = hubs.get(uid).and_then(Weak::upgrade) {
            return hub;
        }
        hubs.retain(|_, hub| hub.strong_count() > 0);
        let arrived = (uid.clone(), Arc::clone(&self.arrivals));
        let hub = Arc::new(Hub::new(Arc::clone(&self.pool), Some(arrived)));
        hubs.insert(uid.clone(), Arc::downgrade(&hub));
        hub
    }

    /// Waits until clients have taken the input of requests, and says which.
    pub async fn arrivals(&self) -> HashSet<RequestUid> {
        loop {
            let arrived = self.arrivals.take();
            if !arrived.is_empty() {
                return arrived;
            }
            self.arrivals.some.notified().await;
        }
    }
}

/// The output of one command, its input and the size of its terminal.
#[derive(Debug)]
pub struct Hub {
    ring: Mutex<Ring>,
    changed: watch::Sender<()>,
    /// The log has taken something.
    room: Notify,
    viewers: AtomicUsize,
    pool: Arc<Pool>,
    size: watch::Sender<Option<TerminalSize>>,
    /// What goes to the command.
    pub input: Input,
    arrivals: Option<(RequestUid, Arc<Arrivals>)>,
}

/// Somebody views the output.
#[derive(Debug)]
pub struct Viewing(Arc<Hub>);

impl Drop for Viewing {
    fn drop(&mut self) {
        if self.0.viewers.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.make_room(&mut self.0.ring(), 0, LEAST_BYTES);
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.pool.sub(self.ring().cost);
    }
}

impl Hub {
    /// That of a command that ended long ago: what is in its log, what it wrote, and how it ended.
    pub fn ended(file: u64, written: Written, result: ExecResult) -> Arc<Self> {
        let hub = Self::logged(file, written);
        hub.conclude(result);
        hub.input.close(InputError::Ended);
        hub
    }

    /// That of a command of which nobody knows more yet than what is in its log.
    pub fn logged(file: u64, written: Written) -> Arc<Self> {
        let hub = Self::new(Arc::default(), None);
        hub.log_only(file, written);
        Arc::new(hub)
    }

    fn new(pool: Arc<Pool>, arrivals: Option<(RequestUid, Arc<Arrivals>)>) -> Self {
        let ring = Ring {
            pieces: VecDeque::new(),
            cost: 0,
            first: 0,
            next: 0,
            kept: Kept { output: 0, file: 0, state: LogState::Whole },
            written: Written::NOTHING,
            phase: Phase::Waiting,
            result: None,
            held_up: false,
        };
        Self {
            ring: Mutex::new(ring),
            changed: watch::channel(()).0,
            room: Notify::new(),
            viewers: AtomicUsize::new(0),
            pool,
            size: watch::channel(None).0,
            input: Input::default(),
            arrivals,
        }
    }

    /// A client has taken the input.
    pub(crate) fn client_arrived(&self) {
        if let Some((uid, arrivals)) = &self.arrivals {
            arrivals.add(uid);
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock()
    }

    fn change(&self, change: impl FnOnce(&mut Ring)) {
        change(&mut self.ring());
        self.changed.send_replace(());
    }

    /// Output begins here: `received` bytes came before, and this is what the log has of them.
    pub fn open(&self, received: u64, kept: Kept) {
        self.change(|ring| {
            (ring.first, ring.next, ring.kept) = (received, received, kept);
            ring.phase = Phase::Open;
        });
    }

    /// Nobody hears the command any more, or ever did: what the log has is all there is.
    pub fn log_only(&self, file: u64, written: Written) {
        self.change(|ring| {
            ring.kept = Kept { output: u64::MAX, file, state: LogState::Whole };
            ring.written = written;
            ring.phase = Phase::Closed;
        });
    }

    /// The command writes no more.
    pub fn close(&self) {
        self.change(|ring| ring.phase = Phase::Closed);
    }

    /// The next agent goes on with it: here is nothing more to come.
    pub fn moved(&self) {
        self.change(|ring| ring.phase = Phase::Moved);
    }

    /// How it has ended, for those who watch. The first word stands.
    pub fn conclude(&self, result: ExecResult) {
        self.change(|ring| {
            ring.result.get_or_insert_with(|| Arc::new(result));
        });
    }

    /// How it has ended, if that is known.
    pub fn result(&self) -> Option<Arc<ExecResult>> {
        self.ring().result.clone()
    }

    /// It is over: what has not begun has nothing but its log, of this much output, and nothing more is to come.
    pub fn end(&self, file: impl FnOnce() -> u64, written: Written) {
        let phase = self.ring().phase.clone();
        match phase {
            Phase::Waiting => self.log_only(file(), written),
            Phase::Open => self.close(),
            Phase::Closed | Phase::Moved => {}
        }
    }

    /// What is known of the output, if nobody hears the command.
    pub fn written(&self) -> Written {
        self.ring().written
    }

    /// Whether it has not begun to write.
    pub fn is_waiting(&self) -> bool {
        matches!(self.ring().phase, Phase::Waiting)
    }

    /// Whether the next agent has it.
    pub fn has_moved(&self) -> bool {
        matches!(self.ring().phase, Phase::Moved)
    }

    /// Waits until there is room for a piece of so many bytes: only while the log has not taken what is in its way. Gives
    /// that log up when the disk takes nothing. A log that waits for its turn is not given up.
    pub async fn room(&self, bytes: usize) {
        let mut writes = self.pool.writes.load(Ordering::Relaxed);
        while !self.has_room(bytes + PIECE_BYTES) {
            if timeout(PATIENCE, self.room.notified()).await.is_ok() {
                continue;
            }
            let now = self.pool.writes.load(Ordering::Relaxed);
            if now == writes {
                self.give_up_log();
            }
            writes = now;
        }
    }

    /// Adds a piece, for which [`Self::room`] was waited.
    pub fn push(&self, piece: Piece) {
        let cost = piece.cost();
        self.pool.add(cost);
        self.change(|ring| {
            ring.cost += cost;
            let place = ring.next;
            ring.next += piece.bytes.len() as u64;
            ring.pieces.push_back((place, piece));
        });
    }

    /// Drops what may go, and says whether there is room for that much then.
    fn has_room(&self, cost: usize) -> bool {
        let limit = if self.pool.is_full_with(cost) { LEAST_BYTES } else { MOST_BYTES };
        let mut ring = self.ring();
        // What only viewers would need goes first.
        self.make_room(&mut ring, cost, if self.keeps_for_viewers() { limit } else { LEAST_BYTES });
        // One that is alone goes in whatever its size.
        let room = ring.cost + cost <= limit || ring.pieces.is_empty();
        let news = !room && !ring.held_up;
        ring.held_up = !room;
        drop(ring);
        if news {
            // The log must not wait for more: there will be none.
            self.changed.send_replace(());
        }
        room
    }

    /// What viewers can read from the log stays in memory while there is room for it.
    fn keeps_for_viewers(&self) -> bool {
        self.viewers.load(Ordering::Relaxed) > 0 && !self.pool.is_crowded()
    }

    /// Drops from the front what may go, until another `cost` fits into `limit`.
    fn make_room(&self, ring: &mut Ring, cost: usize, limit: usize) {
        self.pool.sub(ring.make_room(cost, limit));
    }

    /// The log takes no more.
    pub fn give_up_log(&self) {
        self.change(|ring| {
            if ring.kept.state == LogState::Whole {
                ring.kept.state = LogState::Slow;
            }
        });
        self.room.notify_one();
    }

    /// What the log has not taken yet, at most about so many bytes.
    pub fn unkept(&self, most: usize) -> Vec<Piece> {
        let ring = self.ring();
        if ring.kept.state == LogState::Whole { ring.from(ring.kept.output, most) } else { Vec::new() }
    }

    /// Whether all commands together have much in memory.
    pub fn is_crowded(&self) -> bool {
        self.pool.is_crowded()
    }

    /// Whether the log should take it at once. Many small writes cost more than a few large ones.
    pub fn is_urgent(&self) -> bool {
        let enough = if self.is_crowded() { LEAST_BYTES / 2 } else { BATCH_BYTES };
        let ring = self.ring();
        let unkept = ring.next - ring.kept.output.min(ring.next);
        unkept >= enough as u64 || ring.held_up || !matches!(ring.phase, Phase::Open)
    }

    /// What the log has now. A log that was given up stays so.
    pub fn keep(&self, kept: Kept) {
        self.pool.writes.fetch_add(1, Ordering::Relaxed);
        self.change(|ring| {
            let state = if ring.kept.state == LogState::Whole { kept.state } else { ring.kept.state };
            ring.kept = Kept { state, ..kept };
            ring.held_up = false;
            self.make_room(ring, 0, if self.keeps_for_viewers() { MOST_BYTES } else { 0 });
        });
        self.room.notify_one();
    }

    /// What the log has.
    pub fn kept(&self) -> Kept {
        self.ring().kept
    }

    /// The end of what there is now.
    pub fn now(&self) -> u64 {
        let ring = self.ring();
        match ring.phase {
            Phase::Waiting => 0,
            Phase::Open | Phase::Closed | Phase::Moved => ring.next.max(ring.kept.output),
        }
    }

    /// Waits for any change since the receiver has looked last.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Somebody views the output: what it may need is kept.
    pub fn view(self: &Arc<Self>) -> Viewing {
        self.viewers.fetch_add(1, Ordering::Relaxed);
        Viewing(Arc::clone(self))
    }

    /// What follows a place: at most about so many bytes.
    pub fn after(&self, place: Position, most: usize) -> Follows {
        let ring = self.ring();
        let Position { output, known } = place;
        let known = if ring.kept.output <= output && ring.kept.output != u64::MAX {
            (ring.kept.output, ring.kept.file)
        } else {
            known
        };
        let begun = !matches!(ring.phase, Phase::Waiting);
        if begun && output >= ring.first && output < ring.next {
            let pieces = ring.from(output, most);
            let read: u64 = pieces.iter().map(|piece| piece.bytes.len() as u64).sum();
            return Follows::Pieces(pieces, Position { output: output + read, known });
        }
        if begun && output < ring.kept.output {
            return Follows::InFile(ring.kept);
        }
        if begun && output < ring.first {
            return Follows::Gone(Position { output: ring.first, known });
        }
        match ring.phase {
            Phase::Waiting | Phase::Open => Follows::NotYet,
            Phase::Closed | Phase::Moved => Follows::End,
        }
    }

    /// The size of a viewer's terminal. The last one counts.
    pub fn resize(&self, size: TerminalSize) {
        self.size.send_if_modified(|last| last.replace(size) != Some(size));
    }

    /// The sizes, as they come; those in between are of no interest.
    pub fn sizes(&self) -> watch::Receiver<Option<TerminalSize>> {
        self.size.subscribe()
    }
}

impl Ring {
    /// Drops from the front what may go, until another `cost` fits into `limit`. Gives what was freed.
    fn make_room(&mut self, cost: usize, limit: usize) -> usize {
        let before = self.cost;
        while self.cost + cost > limit
            && let Some((place, piece)) = self.pieces.front()
        {
            let end = place + piece.bytes.len() as u64;
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

    /// The pieces from a place on: one, or more that are at most so many bytes.
    fn from(&self, output: u64, most: usize) -> Vec<Piece> {
        let begin = self.pieces.partition_point(|(place, piece)| place + piece.bytes.len() as u64 <= output);
        let mut left = most;
        let mut taken = Vec::new();
        for (place, piece) in self.pieces.iter().skip(begin) {
            // In the middle of a piece only where the log was cut.
            let skip = usize::try_from(output.saturating_sub(*place)).unwrap_or(0);
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

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn piece(length: usize) -> Piece {
        Piece { stream: OutputStream::Stdout, at: Timestamp::UNIX_EPOCH, bytes: vec![b'x'; length].into() }
    }

    /// As the pump does.
    async fn push(hub: &Hub, piece: Piece) {
        hub.room(piece.bytes.len()).await;
        hub.push(piece);
    }

    fn open(hub: &Hub, state: LogState) {
        hub.open(0, Kept { output: 0, file: 0, state });
    }

    #[tokio::test]
    async fn little_waits_for_more_before_it_is_written_unless_there_are_many() {
        let hubs = Hubs::default();
        let hub = hubs.of(&"u".into());
        open(&hub, LogState::Whole);
        push(&hub, piece(BATCH_BYTES - 1)).await;
        assert!(!hub.is_urgent());
        push(&hub, piece(1)).await;
        assert!(hub.is_urgent());
        // What is kept for viewers is no reason to write.
        let _viewing = hub.view();
        hub.keep(Kept { output: BATCH_BYTES as u64, file: 1, state: LogState::Whole });
        push(&hub, piece(LEAST_BYTES / 2)).await;
        assert!(!hub.is_urgent());
        hubs.pool.add(ALL_BYTES / 2);
        assert!(hub.is_urgent());
        hubs.pool.sub(ALL_BYTES / 2);
        hub.close();
        assert!(hub.is_urgent(), "no more is to come");
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_stands_still_costs_the_log_after_two_seconds_and_then_nothing() {
        let hubs = Hubs::default();
        let hub = hubs.of(&"u".into());
        open(&hub, LogState::Whole);
        let begun = Instant::now();
        for _ in 0..1000 {
            push(&hub, piece(32 * 1024)).await;
        }
        assert_eq!(hub.kept().state, LogState::Slow);
        assert!((PATIENCE..PATIENCE * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        assert!(hubs.pool.bytes.load(Ordering::Relaxed) <= MOST_BYTES, "what nobody needs goes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_is_slow_slows_the_command_and_nothing_is_lost() {
        let hub = Hubs::default().of(&"u".into());
        open(&hub, LogState::Whole);
        let mut output = 0;
        let begun = Instant::now();
        let pushing = async {
            for _ in 0..1000 {
                push(&hub, piece(32 * 1024)).await;
            }
        };
        let slow = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                output += hub.unkept(BATCH_BYTES).iter().map(|piece| piece.bytes.len() as u64).sum::<u64>();
                hub.keep(Kept { output, file: output, state: LogState::Whole });
            }
        };
        tokio::select! {
            () = pushing => {}
            () = slow => {}
        }
        assert_eq!(hub.kept().state, LogState::Whole);
        assert!(begun.elapsed() > Duration::from_secs(100), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_waits_for_its_turn_is_not_given_up_while_others_have_theirs() {
        let hubs = Hubs::default();
        let (hub, other) = (hubs.of(&"u".into()), hubs.of(&"other".into()));
        open(&hub, LogState::Whole);
        open(&other, LogState::Whole);
        let pushing = async {
            for _ in 0..1000 {
                push(&hub, piece(32 * 1024)).await;
            }
        };
        let others = async {
            for _ in 0..20 {
                tokio::time::sleep(PATIENCE / 2).await;
                other.keep(Kept { output: 0, file: 0, state: LogState::Whole });
            }
            assert_eq!(hub.kept().state, LogState::Whole);
            Instant::now()
        };
        let ((), stopped) = tokio::join!(pushing, others);
        assert_eq!(hub.kept().state, LogState::Slow, "nobody has a turn any more");
        assert!(stopped.elapsed() <= PATIENCE * 2, "{:?}", stopped.elapsed());
    }

    #[tokio::test]
    async fn a_log_in_the_way_of_more_output_is_urgent_however_little_it_has_to_take() {
        let hubs = Hubs::default();
        let hub = hubs.of(&"u".into());
        open(&hub, LogState::Whole);
        // Pieces take more than their bytes.
        for _ in 0..LEAST_BYTES / PIECE_BYTES {
            hub.push(piece(1));
        }
        assert!(!hub.is_urgent());
        hubs.pool.add(ALL_BYTES);
        let mut changes = hub.changes();
        assert!(timeout(Duration::ZERO, hub.room(1)).await.is_err());
        assert!(hub.is_urgent());
        assert!(changes.has_changed().expect("a hub"), "the log hears of it");
        changes.borrow_and_update();
        assert!(timeout(Duration::ZERO, hub.room(1)).await.is_err());
        assert!(!changes.has_changed().expect("a hub"), "once");
        let output = hub.now();
        hub.keep(Kept { output, file: 1, state: LogState::Whole });
        assert!(!hub.is_urgent());
        assert!(timeout(Duration::ZERO, hub.room(1)).await.is_ok());
        hubs.pool.sub(ALL_BYTES);
    }

    #[tokio::test]
    async fn what_was_kept_for_viewers_goes_with_the_last_of_them() {
        let hubs = Hubs::default();
        let hub = hubs.of(&"u".into());
        open(&hub, LogState::Limited);
        let (one, other) = (hub.view(), hub.view());
        for _ in 0..10 {
            push(&hub, piece(LEAST_BYTES)).await;
        }
        drop(one);
        assert!(hubs.pool.bytes.load(Ordering::Relaxed) > 10 * LEAST_BYTES);
        drop(other);
        assert!(hubs.pool.bytes.load(Ordering::Relaxed) <= LEAST_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_log_that_is_given_up_waits_no_longer() {
        let hub = Hubs::default().of(&"u".into());
        open(&hub, LogState::Whole);
        let begun = Instant::now();
        let pushing = async {
            for _ in 0..1000 {
                push(&hub, piece(32 * 1024)).await;
            }
        };
        let giving_up = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            hub.give_up_log();
        };
        tokio::join!(pushing, giving_up);
        assert_eq!((hub.kept().state, begun.elapsed().as_secs()), (LogState::Slow, 1));
    }

    #[tokio::test]
    async fn five_hundred_noisy_commands_stay_within_their_bounds() {
        let hubs = Hubs::default();
        let mut all = Vec::new();
        for number in 0..500 {
            let hub = hubs.of(&format!("u{number}").as_str().into());
            open(&hub, LogState::Limited);
            let viewing = hub.view();
            for _ in 0..100 {
                push(&hub, piece(16 * 1024)).await;
            }
            all.push((hub, viewing));
        }
        let used = hubs.pool.bytes.load(Ordering::Relaxed);
        assert!(used <= ALL_BYTES + 501 * LEAST_BYTES, "{used}");
        drop(all);
        assert_eq!(hubs.pool.bytes.load(Ordering::Relaxed), 0, "everything comes back");
    }

    #[tokio::test]
    async fn what_the_log_has_not_taken_stays_and_what_it_has_goes() {
        let hub = Hubs::default().of(&"u".into());
        open(&hub, LogState::Whole);
        for _ in 0..10 {
            push(&hub, piece(1000)).await;
        }
        assert_eq!(hub.unkept(usize::MAX).len(), 10);
        hub.keep(Kept { output: 5000, file: 6000, state: LogState::Whole });
        assert_eq!(hub.unkept(usize::MAX).len(), 5);
        assert!(matches!(hub.after(Position::START, 1), Follows::InFile(_)));
        let live = hub.after(Position { output: 5000, known: (0, 0) }, usize::MAX);
        assert!(matches!(live, Follows::Pieces(pieces, place) if pieces.len() == 5 && place.known == (5000, 6000)));
    }

    #[tokio::test]
    async fn whatever_is_over_ends_for_those_who_watch() {
        let written = Written { bytes: 7, whole: false };
        let hub = Hubs::default().of(&"u".into());
        hub.end(|| 9, written);
        assert!(matches!(hub.after(Position::START, 1), Follows::InFile(Kept { file: 9, .. })));
        assert_eq!(hub.written(), written);
        let hub = Hubs::default().of(&"u".into());
        open(&hub, LogState::Whole);
        push(&hub, piece(3)).await;
        hub.end(|| 9, written);
        assert!(matches!(hub.after(Position::START, 1), Follows::Pieces(..)), "what was heard is shown");
        assert!(matches!(hub.after(Position { output: 3, known: (0, 0) }, 1), Follows::End));
    }

    #[test]
    fn the_same_request_has_the_same_hub_for_as_long_as_somebody_has_it() {
        let hubs = Hubs::default();
        let first = hubs.of(&"u".into());
        assert!(Arc::ptr_eq(&first, &hubs.of(&"u".into())));
        first.conclude(ExecResult::of_exit_code(0));
        first.conclude(ExecResult::of_exit_code(1));
        assert_eq!(first.result().as_deref(), Some(&ExecResult::of_exit_code(0)), "the first word stands");
        drop(first);
        assert_eq!(hubs.of(&"u".into()).result(), None);
    }
}
