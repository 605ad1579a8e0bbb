//! The side that has the command.

use bytes::Bytes;

use super::{
    Channel, Message, Protocol, ProtocolError, Streams, TerminalSize, gathered, message, parse, resize::Decoder,
};
use crate::wire::OutputStream;

/// What a client has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromClient {
    /// Input for the command; never empty.
    Input(Bytes),
    /// The end of the input. Told once; nothing more of it comes after.
    InputEnded,
    /// The size of its terminal.
    Resized(TerminalSize),
}

/// One connection, as the server sees it.
///
/// The order is: [`Server::greeting`], then [`Server::output`] as often as there is some, then
/// [`Server::finish`] once, a close with code 1000, and a wait of at most
/// [`CLOSE_WAIT`](super::CLOSE_WAIT) for the client's close.
#[derive(Debug)]
pub struct Server {
    protocol: Protocol,
    streams: Streams,
    resize: Decoder,
    input_ended: bool,
    finished: bool,
}

impl Server {
    /// After a handshake in which this protocol was taken.
    pub fn new(protocol: Protocol, streams: Streams) -> Self {
        Self { protocol, streams, resize: Decoder::default(), input_ended: !streams.stdin, finished: false }
    }

    /// The first message: empty, on the lowest channel that is written to. It tells the client that the
    /// connection stands, before there is any output.
    pub fn greeting(&self) -> Bytes {
        let channel = match self.streams {
            Streams { stdout: true, .. } => Channel::Stdout,
            Streams { stderr: true, .. } => Channel::Stderr,
            Streams { .. } => Channel::Error,
        };
        message(channel, &[])
    }

    /// A message with output, given in parts; `None` if the client did not ask for this stream, if there is
    /// nothing to say, or after the status.
    pub fn output(&self, stream: OutputStream, parts: &[impl AsRef<[u8]>]) -> Option<Bytes> {
        let some = parts.iter().any(|part| !part.as_ref().is_empty());
        let wanted = self.streams.wants(stream) && some && !self.finished;
        wanted.then(|| gathered(stream.into(), parts))
    }

    /// The message with the status, a `metav1.Status` as JSON. `None` if it was sent before: there is
    /// exactly one, and nothing after it.
    pub fn finish(&mut self, status: &[u8]) -> Option<Bytes> {
        (!std::mem::replace(&mut self.finished, true)).then(|| message(Channel::Error, status))
    }

    /// What a message of the client says; `None` if it says nothing that matters here.
    ///
    /// # Errors
    /// When it breaks the protocol: close with code 1002.
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
            | Message::Nothing => None,
        })
    }
}
