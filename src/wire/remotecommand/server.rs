//! The server's side of a connection.

use bytes::Bytes;

use super::{
    message::{Channel, Message, ProtocolError, gathered, message, parse},
    protocol::Protocol,
    resize::{Decoder, TerminalSize},
    streams::Streams,
};
use crate::wire::OutputStream;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromClient {
    /// Never empty.
    Input(Bytes),
    /// Given once; no input comes after it.
    InputEnded,
    Resized(TerminalSize),
}

/// One connection. Call [`Server::greeting`], then [`Server::output`] for each piece of output,
/// then [`Server::finish`]; then close with code 1000, and wait at most
/// [`CLOSE_WAIT`](super::protocol::CLOSE_WAIT) for the client's close.
#[derive(Debug)]
pub struct Server {
    protocol: Protocol,
    streams: Streams,
    resize: Decoder,
    input_ended: bool,
    finished: bool,
}

impl Server {
    pub fn new(protocol: Protocol, streams: Streams) -> Self {
        Self { protocol, streams, resize: Decoder::default(), input_ended: !streams.stdin, finished: false }
    }

    /// The first message: empty, on the lowest channel that is written to. It tells the client that it
    /// is connected before there is any output.
    pub fn greeting(&self) -> Bytes {
        let channel = match self.streams {
            Streams { stdout: true, .. } => Channel::Stdout,
            Streams { stderr: true, .. } => Channel::Stderr,
            Streams { .. } => Channel::Error,
        };
        message(channel, &[])
    }

    /// A message with output, given in parts; `None` if the client did not ask for this stream, if it
    /// would be empty, or after the status.
    pub fn output(&self, stream: OutputStream, parts: &[impl AsRef<[u8]>]) -> Option<Bytes> {
        let some = parts.iter().any(|part| !part.as_ref().is_empty());
        let wanted = self.streams.wants(stream) && some && !self.finished;
        wanted.then(|| gathered(stream.into(), parts))
    }

    /// The message with the status, a `metav1.Status` as JSON. `None` if it was sent before: there is
    /// exactly one, and it is the last message.
    pub fn finish(&mut self, status: &[u8]) -> Option<Bytes> {
        (!std::mem::replace(&mut self.finished, true)).then(|| message(Channel::Error, status))
    }

    /// Reads a message of the client; `None` if it can be ignored.
    pub fn receive(&mut self, message: Bytes) -> Result<Option<FromClient>, ProtocolError> {
        Ok(match parse(self.protocol, message)? {
            Message::Data(Channel::Stdin, bytes) if !self.input_ended => Some(FromClient::Input(bytes)),
            Message::Closed(Channel::Stdin) if !self.input_ended => {
                self.input_ended = true;
                Some(FromClient::InputEnded)
            }
            Message::Data(Channel::Resize, bytes) if self.streams.tty => {
                self.resize.push(&bytes)?.map(FromClient::Resized)
            }
            Message::Data(Channel::Stdin | Channel::Stdout | Channel::Stderr | Channel::Error | Channel::Resize, _)
            | Message::Closed(Channel::Stdin | Channel::Stdout | Channel::Stderr | Channel::Error | Channel::Resize)
            | Message::Empty(_)
            | Message::Nothing => None,
        })
    }
}
