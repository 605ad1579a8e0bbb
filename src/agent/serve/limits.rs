//! What viewers may take of this agent. Each is told when it exceeds one of these.

use std::time::Duration;

use crate::{
    agent::streams::view,
    core::ids::RequestUid,
    infra::{quota, socket},
    wire::remotecommand::CLOSE_WAIT,
};

pub const CONNECTIONS: usize = 2048;
/// Those that have not shown yet that they are the manager's.
pub const STRANGERS: usize = 1024;
const _: () = assert!(STRANGERS <= CONNECTIONS / 2, "the rest is the manager's");
/// Most bytes of the head of a request: it has the user's groups.
pub const HEAD_BYTES: usize = 256 * 1024;
pub const VIEWERS: usize = 64;
/// Most bytes of a client's message. client-go sends 32 KiB and one.
pub const MESSAGE_BYTES: usize = 256 * 1024;
/// Read buffer for a client with input.
pub const LISTEN_BYTES: usize = 8 * 1024;
/// And for one that only watches: its messages are short.
pub const WATCH_BYTES: usize = 256;
/// Up to so many connections get large buffers.
pub const FEW: usize = 32;

/// Between two pings to a client. The plugin gives up after 16 s of silence.
const PING_EVERY: Duration = Duration::from_secs(15);
/// Between two unsolicited pongs to a client whose own pings are not read: older client-go gives up 16 s after the last
/// pong.
const PONG_EVERY: Duration = Duration::from_secs(5);
const _: () = assert!(PING_EVERY.as_secs() < 16 && PONG_EVERY.as_secs() < 16, "before a client gives up");

pub(super) type Viewers = quota::Quota<RequestUid>;
pub(super) type ViewerPermit = quota::Permit<RequestUid>;

/// What one connection may take of the agent's memory for what its client does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Bytes of the read buffer below TLS.
    pub below_tls: usize,
    /// Bytes that TLS may buffer, beside a message.
    pub tls: usize,
    /// Bytes of output in one message, about.
    pub message: usize,
}

impl Share {
    /// Of one among so many connections.
    pub const fn among(connections: usize) -> Self {
        if connections <= FEW {
            Self { below_tls: socket::SMALL, tls: 64 * 1024, message: 63 * 1024 }
        } else {
            Self { below_tls: 1024, tls: 4 * 1024, message: view::LEAST_READ_BYTES }
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long a viewer may take nothing while there is something for it.
    pub stall: Duration,
    /// How long nothing may come from either side, pings aside.
    pub idle: Duration,
    pub ping: Duration,
    /// Between two unsolicited pongs, while nothing is read.
    pub pong: Duration,
    /// How long pings may go unanswered, unless the client is busy with output.
    pub answer: Duration,
    /// How long a client may take for its close, once it has everything.
    pub close: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(600),
            idle: Duration::from_secs(4 * 3600),
            ping: PING_EVERY,
            pong: PONG_EVERY,
            answer: Duration::from_secs(70),
            close: CLOSE_WAIT,
        }
    }
}
