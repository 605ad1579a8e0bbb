//! How both streams of a command come over one connection.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::wire::OutputStream;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub stream: OutputStream,
    pub bytes: Bytes,
}

pub trait Framing: Send {
    /// The next output in `input`, or `None` if more bytes are needed.
    /// After an error the stream is of no more use.
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Chunk>, FrameError>;

    /// Says whether the stream may end here.
    fn finish(&self, rest: &[u8]) -> Result<(), FrameError>;

    /// What has to come before the rest, so that another one goes on where this one stops.
    fn resumption(&self) -> Vec<u8>;
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    #[error("frame header {0:02x?} names no output stream")]
    Header(Vec<u8>),
    #[error("the stream ended inside a frame")]
    Truncated,
}

/// All bytes are output of one stream, as a terminal's are.
pub struct Raw;

impl Framing for Raw {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Chunk>, FrameError> {
        Ok((!input.is_empty()).then(|| Chunk { stream: OutputStream::Stdout, bytes: input.split().freeze() }))
    }

    fn finish(&self, _: &[u8]) -> Result<(), FrameError> {
        Ok(())
    }

    fn resumption(&self) -> Vec<u8> {
        Vec::new()
    }
}
