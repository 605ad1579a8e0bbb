//! The client's side of a connection.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::{
    message::{CLOSE, Channel, MAX_STATUS, Message, ProtocolError, message, parse},
    protocol::{Protocol, close},
    resize::TerminalSize,
};
use crate::wire::OutputStream;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromServer {
    /// Output of the command; never empty.
    Output(OutputStream, Bytes),
    /// All output from before the client came was told: what follows is written now.
    Now,
    /// A piece of the status: [`Client::closed`] gives all of it.
    Status,
}

/// The connection ended without a status. Taking this for success is the classic mistake with this
/// protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoStatus {
    /// With code 1000, as after a status.
    #[error("the connection was closed without a status")]
    Closed,
    #[error("the connection was closed with code {0} before a status was sent")]
    Code(u16),
    #[error("the connection broke before a status was sent")]
    Broken,
}

#[derive(Debug)]
pub struct Client {
    protocol: Protocol,
    input_ended: bool,
    greeted: bool,
    status: BytesMut,
}

impl Client {
    pub fn new(protocol: Protocol) -> Self {
        Self { protocol, input_ended: false, greeted: false, status: BytesMut::new() }
    }

    /// A message with input; `None` if it would be empty, or after the end of the input.
    pub fn input(&self, bytes: &[u8]) -> Option<Bytes> {
        (!bytes.is_empty() && !self.input_ended).then(|| message(Channel::Stdin, bytes))
    }

    /// The message that ends the input; `None` if it was sent before, or with version 4, which has no
    /// such message.
    pub fn end_input(&mut self) -> Option<Bytes> {
        match self.protocol {
            Protocol::V5 if !self.input_ended => {
                self.input_ended = true;
                Some(Bytes::from_static(&[CLOSE, Channel::Stdin as u8]))
            }
            Protocol::V5 | Protocol::V4 => None,
        }
    }

    pub fn resize(&self, size: TerminalSize) -> Bytes {
        let TerminalSize { width, height } = size;
        message(Channel::Resize, format!(r#"{{"Width":{width},"Height":{height}}}"#).as_bytes())
    }

    /// Reads a message of the server; `None` if it can be ignored.
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
            Message::Empty(Channel::Stdout | Channel::Stderr) => {
                std::mem::replace(&mut self.greeted, true).then_some(FromServer::Now)
            }
            Message::Data(Channel::Stdin | Channel::Resize, _)
            | Message::Empty(Channel::Stdin | Channel::Error | Channel::Resize)
            | Message::Closed(_)
            | Message::Nothing => None,
        })
    }

    /// The status, once the connection has ended: `code` is that of the server's close, or `None` if it
    /// broke. A status that was received counts, however the connection ended.
    pub fn closed(self, code: Option<u16>) -> Result<Bytes, NoStatus> {
        match (self.status.is_empty(), code) {
            (false, _) => Ok(self.status.freeze()),
            (true, Some(close::NORMAL)) => Err(NoStatus::Closed),
            (true, Some(code)) => Err(NoStatus::Code(code)),
            (true, None) => Err(NoStatus::Broken),
        }
    }
}
