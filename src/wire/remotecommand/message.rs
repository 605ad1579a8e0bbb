//! One message: a channel and its payload, or the close of a channel.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::protocol::Protocol;
use crate::wire::OutputStream;

/// First byte of a message that closes a channel; protocol v5 only.
pub(super) const CLOSE: u8 = 255;
/// Most bytes that are kept of a status. The largest that we send is smaller.
pub const MAX_STATUS: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Channel {
    Stdin = 0,
    /// With a terminal: all of the command's output.
    Stdout = 1,
    Stderr = 2,
    /// The status at the end.
    Error = 3,
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

/// The peer broke the protocol: the connection must end.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    #[error("a CLOSE message has two bytes, this one has {0}")]
    CloseLength(usize),
    #[error("there is no channel {0} to close")]
    CloseChannel(u8),
    #[error("the message on the resize channel is not a terminal size: {0}")]
    Resize(String),
    #[error("the status has more than {MAX_STATUS} bytes")]
    StatusTooLong,
}

/// What a message says; whether it is allowed is not checked yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Never empty.
    Data(Channel, Bytes),
    Closed(Channel),
    Empty(Channel),
    /// Without a channel, or on an unknown one: to be ignored.
    Nothing,
}

pub(super) fn parse(protocol: Protocol, mut message: Bytes) -> Result<Message, ProtocolError> {
    match (message.first().copied(), protocol) {
        (None, _) => Ok(Message::Nothing),
        (Some(CLOSE), Protocol::V5) => match message[..] {
            [_, number] => Channel::of(number).map(Message::Closed).ok_or(ProtocolError::CloseChannel(number)),
            ref other => Err(ProtocolError::CloseLength(other.len())),
        },
        (Some(number), _) => Ok(match Channel::of(number) {
            Some(channel) if message.len() > 1 => Message::Data(channel, message.split_off(1)),
            Some(channel) => Message::Empty(channel),
            None => Message::Nothing,
        }),
    }
}

pub(super) fn message(channel: Channel, payload: &[u8]) -> Bytes {
    gathered(channel, &[payload])
}

pub(super) fn gathered(channel: Channel, parts: &[impl AsRef<[u8]>]) -> Bytes {
    let length: usize = parts.iter().map(|part| part.as_ref().len()).sum();
    let mut message = BytesMut::with_capacity(1 + length);
    message.put_u8(channel as u8);
    for part in parts {
        message.put_slice(part.as_ref());
    }
    message.freeze()
}
