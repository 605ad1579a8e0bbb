//! The output of a running exec, chunk by chunk.

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::wire::{
    OutputStream,
    docker_frames::{Decoder, FrameError},
};

/// Bytes asked of the engine's connection at once.
const READ_BYTES: usize = 64 * 1024;

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// From which stream.
    pub stream: OutputStream,
    /// The bytes.
    pub bytes: Bytes,
}

/// The stream broke: what the command wrote from here on is lost.
#[derive(Debug, Error)]
pub enum StreamError {
    /// The connection failed.
    #[error("the connection to the engine broke: {0}")]
    Io(#[from] std::io::Error),
    /// The framing is wrong, or ends early.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// The output of one exec. Reading must never wait for anybody else: a slow
/// reader makes the engine lose output and falsify the exit code.
pub struct ExecStream {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    framing: Framing,
    buffer: BytesMut,
}

enum Framing {
    /// With a terminal: bytes as they are.
    Raw,
    /// Without: frames of two streams.
    Frames(Decoder),
}

impl ExecStream {
    /// Takes over a connection on which the engine sends output.
    pub fn new(reader: impl AsyncRead + Send + Unpin + 'static, tty: bool) -> Self {
        let framing = if tty { Framing::Raw } else { Framing::Frames(Decoder::default()) };
        Self { reader: Box::new(reader), framing, buffer: BytesMut::new() }
    }

    /// The next piece; `None` at a clean end. Safe to cancel: nothing read is lost.
    ///
    /// # Errors
    /// When the connection breaks, or ends inside a frame.
    pub async fn next(&mut self) -> Result<Option<Chunk>, StreamError> {
        loop {
            if let Some(chunk) = self.buffered()? {
                return Ok(Some(chunk));
            }
            self.buffer.reserve(READ_BYTES);
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return match &self.framing {
                    Framing::Raw => Ok(None),
                    Framing::Frames(decoder) => Ok(decoder.finish(&self.buffer).map(|()| None)?),
                };
            }
        }
    }

    fn buffered(&mut self) -> Result<Option<Chunk>, FrameError> {
        if self.buffer.is_empty() {
            return Ok(None);
        }
        match &mut self.framing {
            Framing::Raw => Ok(Some(Chunk { stream: OutputStream::Stdout, bytes: self.buffer.split().freeze() })),
            Framing::Frames(decoder) => {
                Ok(decoder.decode(&mut self.buffer)?.map(|(stream, bytes)| Chunk { stream, bytes }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(bytes: &'static [u8], tty: bool) -> Result<Vec<Chunk>, StreamError> {
        let mut stream = ExecStream::new(bytes, tty);
        let mut chunks = Vec::new();
        while let Some(chunk) = stream.next().await? {
            chunks.push(chunk);
        }
        Ok(chunks)
    }

    #[tokio::test]
    async fn terminal_output_that_looks_like_a_frame_header_is_output() -> Result<(), StreamError> {
        let bytes = b"\x01\x00\x00\x00\x00\x00\x00\x09hi";
        let chunks = read_all(bytes, true).await?;
        assert_eq!(chunks, [Chunk { stream: OutputStream::Stdout, bytes: Bytes::from_static(bytes) }]);
        Ok(())
    }

    #[tokio::test]
    async fn frames_are_told_apart() -> Result<(), StreamError> {
        let chunks = read_all(b"\x02\0\0\0\0\0\0\x01e\x01\0\0\0\0\0\0\x01o", false).await?;
        let expected = [(OutputStream::Stderr, &b"e"[..]), (OutputStream::Stdout, &b"o"[..])];
        assert_eq!(chunks, expected.map(|(stream, bytes)| Chunk { stream, bytes: Bytes::from_static(bytes) }));
        Ok(())
    }

    #[tokio::test]
    async fn a_stream_that_ends_inside_a_frame_is_broken() {
        let result = read_all(b"\x01\0\0\0\0\0\0\x09hi", false).await;
        assert!(matches!(result, Err(StreamError::Frame(FrameError::Truncated))), "{result:?}");
    }
}
