//! What viewers may take of this agent. Each is told when it exceeds one.

use std::{collections::HashMap, hash::Hash, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{agent::streams::view, core::ids::RequestUid, infra::buffered, wire::remotecommand::CLOSE_WAIT};

/// Connections in all.
pub const CONNECTIONS: usize = 2048;
/// Those that have not shown yet that they are the manager's.
pub const STRANGERS: usize = 1024;
const _: () = assert!(STRANGERS <= CONNECTIONS / 2, "the rest is the manager's");
/// How long nothing may come from the other end of a connection before it is asked whether it is there.
pub const KEEPALIVE: Duration = Duration::from_secs(60);
/// Pause before it is asked again.
pub const KEEPALIVE_AGAIN: Duration = Duration::from_secs(15);
/// How often it is asked before the connection is dead.
pub const KEEPALIVE_TIMES: u32 = 4;
/// How long a connection may take for its TLS handshake, and again for the head of a request.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of the head of a request: it has the user's groups.
pub const HEAD_BYTES: usize = 256 * 1024;
/// Viewers of one request.
pub const VIEWERS: usize = 64;
/// Most lines that may be asked for from the end of a log.
pub const TAIL_LINES: u64 = 1_000_000;
/// Bytes that are read at once of a client with input.
pub const LISTEN_BYTES: usize = 8 * 1024;
/// And of one who only watches: what it says is short.
pub const WATCH_BYTES: usize = 256;
/// As many connections are few.
pub const FEW: usize = 32;

/// What one connection may take of the agent's memory, for what its client does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Bytes that are asked of the kernel at once.
    pub below_tls: usize,
    /// Bytes that TLS may gather, beside a message.
    pub tls: usize,
    /// Bytes of output in one message, about; more are gathered nowhere.
    pub message: usize,
}

impl Share {
    /// Of one among so many connections.
    pub const fn among(connections: usize) -> Self {
        if connections <= FEW {
            Self { below_tls: buffered::SMALL, tls: 64 * 1024, message: 63 * 1024 }
        } else {
            Self { below_tls: 1024, tls: 4 * 1024, message: view::LEAST_READ_BYTES }
        }
    }
}
/// How long a viewer may take nothing while there is something for it.
const STALL_TIMEOUT: Duration = Duration::from_secs(600);
/// How long nothing may come from either side, pings aside.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4 * 3600);
/// Between two pings to a client. The plugin gives up after 16 s of silence.
const PING_EVERY: Duration = Duration::from_secs(15);
/// Between two pongs that nobody has asked for, to a client whose own pings are not read: older client-go gives
/// up 16 s after the last pong.
const PONG_EVERY: Duration = Duration::from_secs(5);
/// How long a client may not answer them, unless it is busy with output.
const PONG_TIMEOUT: Duration = Duration::from_secs(70);
const _: () = assert!(PING_EVERY.as_secs() < 16 && PONG_EVERY.as_secs() < 16, "before anybody gives up");

/// How patient the server is with those who watch.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long one may take nothing while there is something for it.
    pub stall: Duration,
    /// How long nothing may come from either side, pings aside.
    pub idle: Duration,
    /// Between two pings.
    pub ping: Duration,
    /// Between two pongs that nobody has asked for, while nothing is read.
    pub pong: Duration,
    /// How long pings may go without an answer.
    pub answer: Duration,
    /// How long a client may take for its close, once it has everything.
    pub close: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            stall: STALL_TIMEOUT,
            idle: IDLE_TIMEOUT,
            ping: PING_EVERY,
            pong: PONG_EVERY,
            answer: PONG_TIMEOUT,
            close: CLOSE_WAIT,
        }
    }
}

/// How many there are of each kind.
#[derive(Clone, Debug)]
pub struct Counted<K>(Arc<Mutex<HashMap<K, usize>>>, usize);

/// One that is counted, for as long as it is there.
#[derive(Debug)]
pub struct Slot<K: Hash + Eq> {
    of: Counted<K>,
    key: Option<K>,
}

/// Viewers, by request.
pub type Viewers = Counted<RequestUid>;

impl<K: Hash + Eq + Clone> Counted<K> {
    /// At most so many of each.
    pub fn new(most: usize) -> Self {
        Self(Arc::default(), most)
    }

    /// One more, if there may be.
    pub fn enter(&self, key: &K) -> Option<Slot<K>> {
        let mut counts = self.0.lock();
        let count = counts.entry(key.clone()).or_insert(0);
        if *count >= self.1 {
            return None;
        }
        *count += 1;
        Some(Slot { of: self.clone(), key: Some(key.clone()) })
    }
}

impl<K: Hash + Eq> Drop for Slot<K> {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let mut counts = self.of.0.lock();
        if let Some(count) = counts.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_places_and_they_come_back() {
        let counted = Counted::new(2);
        let first = counted.enter(&"a");
        let second = counted.enter(&"a");
        assert!(first.is_some() && second.is_some());
        assert!(counted.enter(&"a").is_none());
        assert!(counted.enter(&"b").is_some());
        drop(first);
        assert!(counted.enter(&"a").is_some());
    }
}
