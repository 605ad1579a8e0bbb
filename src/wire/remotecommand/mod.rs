//! The remotecommand protocol over WebSocket, `v5.channel.k8s.io` and `v4.channel.k8s.io`, as
//! kubectl, client-go, kube-rs and the kubelet speak it.
//!
//! Works on whole WebSocket messages: `[channel][payload]` in a binary one. The framing below,
//! pings, deadlines and whose bytes these are, are the caller's to know.

mod client;
mod resize;
mod server;

use std::{fmt, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

pub use self::{
    client::{Client, FromServer, NoStatus},
    resize::TerminalSize,
    server::{FromClient, Server},
};
use super::OutputStream;

/// Header in which a client offers protocols, and a server names the one it has taken.
pub const PROTOCOL_HEADER: &str = "sec-websocket-protocol";
/// First byte of a message that closes a channel; protocol v5 only.
const CLOSE: u8 = 255;
/// Most bytes that are kept of a status. The largest that we send is smaller.
pub const MAX_STATUS: usize = 1 << 20;
/// How long whoever has sent its close waits for the other's. To cut the connection earlier would
/// take from a slow reader what it has not read yet.
pub const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// Close codes of WebSocket (RFC 6455, section 7.4) as they are used here. A close with any but
/// [`close::NORMAL`] is an error to client-go.
pub mod close {
    /// After the status: the command has ended and everything was sent.
    pub const NORMAL: u16 = 1000;
    /// The server stops. The command goes on: attach again.
    pub const GOING_AWAY: u16 = 1001;
    /// A message that breaks the protocol.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// A text message, where only binary ones are understood.
    pub const UNSUPPORTED: u16 = 1003;
    /// A limit was exceeded: the viewer was too slow, or silent for too long.
    pub const POLICY: u16 = 1008;
    /// A message that is too large.
    pub const TOO_BIG: u16 = 1009;
    /// The server failed.
    pub const INTERNAL: u16 = 1011;
    /// Most bytes of a reason beside the code.
    pub const MAX_REASON: usize = 123;

    /// The beginning of a reason that fits into a close frame.
    pub fn reason(text: &str) -> &str {
        let end = (0..=MAX_REASON.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        &text[..end]
    }
}

/// Which version is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// With a way to close standard input.
    V5,
    /// Without.
    V4,
}

impl Protocol {
    /// Both, the better one first: what a client offers.
    pub const OFFERED: [Self; 2] = [Self::V5, Self::V4];

    /// Its name in the handshake.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V5 => "v5.channel.k8s.io",
            Self::V4 => "v4.channel.k8s.io",
        }
    }

    /// The protocol of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::OFFERED.into_iter().find(|protocol| protocol.name() == name)
    }

    /// The first in the client's list that is spoken here. The list may be spread over several headers,
    /// each with several names. `None`: the handshake must fail.
    pub fn negotiate<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        headers.into_iter().flat_map(|header| header.split(',')).find_map(|name| Self::named(name.trim()))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A channel of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Channel {
    /// To the command.
    Stdin = 0,
    /// From the command; with a terminal all of its output.
    Stdout = 1,
    /// From the command.
    Stderr = 2,
    /// The status at the end.
    Error = 3,
    /// Sizes of the client's terminal.
    Resize = 4,
}

impl Channel {
    const ALL: [Self; 5] = [Self::Stdin, Self::Stdout, Self::Stderr, Self::Error, Self::Resize];

    fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| *channel as u8 == number)
    }
}

impl From<OutputStream> for Channel {
    fn from(stream: OutputStream) -> Self {
        match stream {
            OutputStream::Stdout => Self::Stdout,
            OutputStream::Stderr => Self::Stderr,
        }
    }
}

/// Which channels a client asks for: `PodAttachOptions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    clippy::struct_field_names,
    reason = "the four options of the API, by its names"
)]
pub struct Streams {
    /// It sends the command's input.
    pub stdin: bool,
    /// It wants standard output.
    pub stdout: bool,
    /// It wants standard error.
    pub stderr: bool,
    /// It has a terminal and tells its size.
    pub tty: bool,
}

/// Why a choice of channels makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StreamsError {
    /// None of the three.
    #[error("at least one of stdin, stdout and stderr must be true")]
    None,
    /// A terminal has one output.
    #[error("tty and stderr cannot both be true: a terminal has one output, which is stdout")]
    TtyAndStderr,
}

impl Streams {
    /// Says whether the choice makes sense, as the kubelet does.
    ///
    /// # Errors
    /// When it does not.
    pub fn validate(self) -> Result<Self, StreamsError> {
        match self {
            Self { stdin: false, stdout: false, stderr: false, .. } => Err(StreamsError::None),
            Self { stderr: true, tty: true, .. } => Err(StreamsError::TtyAndStderr),
            streams => Ok(streams),
        }
    }

    fn wants(self, stream: OutputStream) -> bool {
        match stream {
            OutputStream::Stdout => self.stdout,
            OutputStream::Stderr => self.stderr,
        }
    }
}

/// The other side broke the protocol: the connection must end.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// Not `[255, channel]`.
    #[error("a CLOSE message has two bytes, this one has {0}")]
    CloseLength(usize),
    /// There is no such channel.
    #[error("there is no channel {0} to close")]
    CloseChannel(u8),
    /// Not what a size looks like.
    #[error("the message on the resize channel is no terminal size: {0}")]
    Resize(String),
    /// Larger than any status.
    #[error("the status has more than {MAX_STATUS} bytes")]
    StatusTooLong,
}

/// What a message says, before anybody has judged whether it may.
#[derive(Debug, PartialEq, Eq)]
enum Message {
    /// Payload of a channel; never empty.
    Data(Channel, Bytes),
    /// A channel was closed.
    Closed(Channel),
    /// To be ignored: empty, or on a channel that there is not.
    Nothing,
}

/// Reads one message.
fn parse(protocol: Protocol, mut message: Bytes) -> Result<Message, ProtocolError> {
    match (message.first().copied(), protocol) {
        (None, _) => Ok(Message::Nothing),
        (Some(CLOSE), Protocol::V5) => match message[..] {
            [_, number] => Channel::of(number).map(Message::Closed).ok_or(ProtocolError::CloseChannel(number)),
            ref other => Err(ProtocolError::CloseLength(other.len())),
        },
        (Some(number), _) => Ok(match Channel::of(number) {
            Some(channel) if message.len() > 1 => Message::Data(channel, message.split_off(1)),
            Some(_) | None => Message::Nothing,
        }),
    }
}

/// Writes one message.
fn message(channel: Channel, payload: &[u8]) -> Bytes {
    gathered(channel, &[payload])
}

fn gathered(channel: Channel, parts: &[impl AsRef<[u8]>]) -> Bytes {
    let length: usize = parts.iter().map(|part| part.as_ref().len()).sum();
    let mut message = BytesMut::with_capacity(1 + length);
    message.put_u8(channel as u8);
    for part in parts {
        message.put_slice(part.as_ref());
    }
    message.freeze()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
