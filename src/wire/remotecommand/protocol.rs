//! The versions of the protocol, and how a connection is closed.

use std::{fmt, time::Duration};

/// Header in which a client offers protocols and a server names the one it takes.
pub const PROTOCOL_HEADER: &str = "sec-websocket-protocol";
/// How long the side that has sent its close waits for the other's. To cut the connection earlier
/// would take from a slow reader what it has not read yet.
pub const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// Close codes of WebSocket (RFC 6455, section 7.4) as they are used here. A close with any but
/// [`close::NORMAL`] is an error to client-go.
pub mod close {
    /// After the status: the command has ended and everything was sent.
    pub const NORMAL: u16 = 1000;
    /// The server is stopping. The command goes on: attach again.
    pub const GOING_AWAY: u16 = 1001;
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// A text message: only binary ones are understood.
    pub const UNSUPPORTED: u16 = 1003;
    /// A limit was exceeded: the viewer was too slow, or silent for too long.
    pub const POLICY: u16 = 1008;
    pub const TOO_BIG: u16 = 1009;
    pub const INTERNAL: u16 = 1011;
    /// Most bytes of the reason that goes with the code.
    pub const MAX_REASON: usize = 123;

    /// As much of a reason as fits into a close frame.
    pub fn reason(text: &str) -> &str {
        let end = (0..=MAX_REASON.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        &text[..end]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Can close standard input.
    V5,
    /// Cannot.
    V4,
}

impl Protocol {
    /// What a client offers, the preferred one first.
    pub const OFFERED: [Self; 2] = [Self::V5, Self::V4];

    pub const fn name(self) -> &'static str {
        match self {
            Self::V5 => "v5.channel.k8s.io",
            Self::V4 => "v4.channel.k8s.io",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::OFFERED.into_iter().find(|protocol| protocol.name() == name)
    }

    /// The first in the client's list that we speak. The list may span several headers, each with
    /// several names. `None`: the handshake must fail.
    pub fn negotiate<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        headers.into_iter().flat_map(|header| header.split(',')).find_map(|name| Self::named(name.trim()))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
