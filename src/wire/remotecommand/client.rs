//! The side that has the terminal.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::{Channel, MAX_STATUS, Message, Protocol, ProtocolError, TerminalSize, close, message, parse};
use crate::wire::OutputStream;

/// What a server has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromServer {
    /// Output of the command; never empty.
    Output(OutputStream, Bytes),
    /// A piece of the status. All of it is had from [`Client::closed`].
    Status,
}

/// The connection ended without saying how the command did. To take this for success is the trap of the
/// protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoStatus {
    /// The server closed as after a status.
    #[error("the connection was closed, and no status was sent")]
    Closed,
    /// The server closed for another reason.
    #[error("the connection was closed with code {0}, before there was a status")]
    Code(u16),
    /// It broke.
    #[error("the connection broke off before there was a status")]
    Broken,
}

/// One connection, as the client sees it.
#[derive(Debug)]
pub struct Client {
    protocol: Protocol,
    input_ended: bool,
    status: BytesMut,
}

impl Client {
    /// After a handshake in which the server took this protocol.
    pub fn new(protocol: Protocol) -> Self {
        Self { protocol, input_ended: false, status: BytesMut::new() }
    }

    /// A message with input; `None` if there is nothing to say, or after the end of the input.
    pub fn input(&self, bytes: &[u8]) -> Option<Bytes> {
        (!bytes.is_empty() && !self.input_ended).then(|| message(Channel::Stdin, bytes))
    }

    /// The message that ends the input; `None` if that was said before, or cannot be: version 4 has no
    /// way to say it.
    pub fn end_input(&mut self) -> Option<Bytes> {
        match self.protocol {
            Protocol::V5 if !self.input_ended => {
                self.input_ended = true;
                Some(Bytes::from_static(&[super::CLOSE, Channel::Stdin as u8]))
            }
            Protocol::V5 | Protocol::V4 => None,
        }
    }

    /// A message with the size of the terminal.
    pub fn resize(&self, size: TerminalSize) -> Bytes {
        let TerminalSize { width, height } = size;
        message(Channel::Resize, format!(r#"{{"Width":{width},"Height":{height}}}"#).as_bytes())
    }

    /// What a message of the server says; `None` if it says nothing that matters here.
    ///
    /// # Errors
    /// When it breaks the protocol.
    pub fn receive(&mut self, message: Bytes) -> Result<Option<FromServer>, ProtocolError> {
        Ok(match parse(self.protocol, message)? {
            Message::Data(Channel::Stdout, bytes) => Some(FromServer::Output(OutputStream::Stdout, bytes)),
            Message::Data(Channel::Stderr, bytes) => Some(FromServer::Output(OutputStream::Stderr, bytes)),
            Message::Data(Channel::Error, bytes) => {
                if self.status.len() + bytes.len() > MAX_STATUS {
                    return Err(ProtocolError::StatusTooLong);
                }
                self.status.extend_from_slice(&bytes);
                Some(FromServer::Status)
            }
            Message::Data(Channel::Stdin | Channel::Resize, _) | Message::Closed(_) | Message::Nothing => None,
        })
    }

    /// The status, once the connection has ended: with the code of the server's close, or `None` if it
    /// broke. A status that came stands, however the connection ended.
    ///
    /// # Errors
    /// When there was none.
    pub fn closed(self, code: Option<u16>) -> Result<Bytes, NoStatus> {
        match (self.status.is_empty(), code) {
            (false, _) => Ok(self.status.freeze()),
            (true, Some(close::NORMAL)) => Err(NoStatus::Closed),
            (true, Some(code)) => Err(NoStatus::Code(code)),
            (true, None) => Err(NoStatus::Broken),
        }
    }
}
