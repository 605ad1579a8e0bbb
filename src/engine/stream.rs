//! The output of a running exec, chunk by chunk, and its input.

use std::{
    fmt,
    future::poll_fn,
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{BufMut as _, BytesMut};
use futures::future::BoxFuture;
use rustix::{
    io::Errno,
    net::{RecvFlags, Shutdown, recv, shutdown},
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt, Interest},
    net::UnixStream,
    task::yield_now,
};

use super::framing::{Chunk, FrameError, Framing, Raw};

/// Most bytes asked of the engine's connection at once.
pub const READ_BYTES: usize = 64 * 1024;
/// Most bytes that were read and not decoded, in [`Parts::rest`]: what was asked for, and what the buffer had room for.
pub const REST_BYTES: usize = 4 * READ_BYTES;

/// Pieces after which others have their turn.
const PIECES: u8 = 64;

/// The stream broke: what the command wrote from here on is lost.
#[derive(Debug, Error)]
pub enum StreamError {
    #[error("the connection to the engine broke: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// The output of one exec. Reading must never wait for anybody else: a slow
/// reader makes the engine lose output.
pub struct ExecStream {
    reader: Reader,
    framing: Box<dyn Framing>,
    buffer: BytesMut,
    tty: bool,
    /// So many pieces since others had their turn.
    pieces: u8,
}

enum Reader {
    /// The engine's own socket, which another process can go on with.
    Unix(Arc<UnixStream>),
    Other(Box<dyn AsyncRead + Send + Unpin>),
    /// Output that comes in pieces of its own, and the way to the input, if there is one.
    Source(Box<dyn OutputSource>, Option<ExecInput>),
    Lost,
}

/// Output that does not come over one connection.
pub trait OutputSource: Send {
    /// Waits until there is something to read, or the end: `false`.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>>;

    /// The next piece, of so many bytes at most; `None` at a clean end.
    fn poll_next(&mut self, context: &mut Context<'_>, bytes: usize) -> Poll<io::Result<Option<Chunk>>>;
}

/// Where input goes that does not go over one connection.
pub trait InputSink: Send + Sync + fmt::Debug {
    /// Hands over some of the bytes: how many. Safe to cancel: then none were.
    fn write<'a>(&'a self, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<usize>>;

    /// Ends the input. To end it again does no harm.
    fn close(&self) -> BoxFuture<'_, io::Result<()>>;

    /// Whether what was handed over, and the end, reach the command also if this agent is killed now; and the next one can
    /// go on.
    fn outlives_agent(&self) -> bool;
}

/// A stream in a form that can be given to another process.
#[derive(Debug)]
pub struct Parts {
    pub connection: OwnedFd,
    /// What was read from it and not yet decoded, as it would have to come next.
    pub rest: Vec<u8>,
    pub tty: bool,
}

impl ExecStream {
    /// Takes over a connection on which the engine sends output; `tty`: whether it is a terminal's.
    pub fn new(reader: impl AsyncRead + Send + Unpin + 'static, framing: Box<dyn Framing>, tty: bool) -> Self {
        Self::of(Reader::Other(Box::new(reader)), framing, BytesMut::new(), tty)
    }

    /// Takes over the engine's socket, of which so much was read already.
    pub fn over(connection: UnixStream, framing: Box<dyn Framing>, buffer: BytesMut, tty: bool) -> Self {
        Self::of(Reader::Unix(Arc::new(connection)), framing, buffer, tty)
    }

    /// Output that comes in pieces of its own, and the way to the input.
    pub fn from_source(source: impl OutputSource + 'static, input: Option<Arc<dyn InputSink>>, tty: bool) -> Self {
        let input = input.map(ExecInput::Sink);
        Self::of(Reader::Source(Box::new(source), input), Box::new(Raw), BytesMut::new(), tty)
    }

    /// A stream whose connection is lost: it ends with an error.
    pub fn broken() -> Self {
        Self::of(Reader::Lost, Box::new(Raw), BytesMut::new(), true)
    }

    fn of(reader: Reader, framing: Box<dyn Framing>, buffer: BytesMut, tty: bool) -> Self {
        Self { reader, framing, buffer, tty, pieces: 0 }
    }

    /// Takes the stream apart, for another process.
    /// `Err` gives the stream itself back: it is not over a socket, or no more descriptors can be had.
    pub fn into_parts(self) -> Result<Parts, Self> {
        let Reader::Unix(connection) = &self.reader else { return Err(self) };
        let rest = [self.framing.resumption(), self.buffer.to_vec()].concat();
        // Another descriptor of the same connection: whoever writes to it may still have this one.
        match connection.as_fd().try_clone_to_owned() {
            Ok(connection) => Ok(Parts { connection, rest, tty: self.tty }),
            Err(error) => {
                tracing::warn!(%error, "no descriptor is left for a connection to the engine");
                Err(self)
            }
        }
    }

    /// The way to the command's input; `None` if this connection has none.
    pub fn input(&self) -> Option<ExecInput> {
        match &self.reader {
            Reader::Unix(connection) => Some(ExecInput::Unix(Arc::clone(connection))),
            Reader::Source(_, input) => input.clone(),
            Reader::Other(_) | Reader::Lost => None,
        }
    }

    pub fn from_parts(parts: Parts, framing: Box<dyn Framing>) -> io::Result<Self> {
        let connection = std::os::unix::net::UnixStream::from(parts.connection);
        connection.set_nonblocking(true)?;
        let connection = UnixStream::from_std(connection)?;
        Ok(Self::over(connection, framing, BytesMut::from(parts.rest.as_slice()), parts.tty))
    }

    /// Waits until there is something to read, or the end: `false`. Safe to cancel.
    pub async fn ready(&mut self) -> io::Result<bool> {
        let socket = match &mut self.reader {
            Reader::Unix(socket) => &*socket,
            Reader::Source(source, _) => return poll_fn(|context| source.poll_ready(context)).await,
            Reader::Other(_) | Reader::Lost => return Ok(true),
        };
        if !self.buffer.is_empty() {
            return Ok(true);
        }
        loop {
            socket.readable().await?;
            // What was read last may have been all there was.
            let look = || Ok(recv(socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT)?.1 > 0);
            match socket.try_io(Interest::READABLE, look) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                looked => return looked,
            }
        }
    }

    /// Lets go of room that it has kept for more.
    pub fn let_go(&mut self) {
        let_go(&mut self.buffer);
    }

    /// The next piece; `None` at a clean end. Safe to cancel: nothing read is lost.
    pub async fn next(&mut self) -> Result<Option<Chunk>, StreamError> {
        self.next_of(READ_BYTES).await
    }

    /// As [`Self::next`], but asks the engine for so many bytes at once, of [`READ_BYTES`] at most.
    pub async fn next_of(&mut self, bytes: usize) -> Result<Option<Chunk>, StreamError> {
        let bytes = bytes.clamp(1, READ_BYTES);
        // Neither a socket that always has something nor what is in the buffer gives others their turn. By Tokio's budget
        // they would have it, but not what waits beside this in the same task: it has none left then.
        self.pieces += 1;
        if self.pieces >= PIECES {
            self.pieces = 0;
            yield_now().await;
        }
        loop {
            if !self.buffer.is_empty()
                && let Some(chunk) = self.framing.decode(&mut self.buffer)?
            {
                return Ok(Some(chunk));
            }
            let read = match &mut self.reader {
                Reader::Unix(socket) => read(socket, &mut self.buffer, bytes).await?,
                Reader::Other(reader) => {
                    self.buffer.reserve(bytes);
                    reader.read_buf(&mut self.buffer).await?
                }
                Reader::Source(source, _) => return Ok(poll_fn(|context| source.poll_next(context, bytes)).await?),
                Reader::Lost => return Err(io::Error::from(io::ErrorKind::NotConnected).into()),
            };
            if read == 0 {
                return Ok(self.framing.finish(&self.buffer).map(|()| None)?);
            }
        }
    }
}

/// Safe to cancel.
async fn read(socket: &UnixStream, buffer: &mut BytesMut, bytes: usize) -> io::Result<usize> {
    loop {
        socket.readable().await?;
        buffer.reserve(bytes);
        // It may have room for more than that.
        match socket.try_read_buf(&mut (&mut *buffer).limit(bytes)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
        // Idle commands are many.
        let_go(buffer);
    }
}

fn let_go(buffer: &mut BytesMut) {
    if buffer.is_empty() {
        *buffer = BytesMut::new();
    }
}

#[derive(Clone, Debug)]
pub enum ExecInput {
    Unix(Arc<UnixStream>),
    Sink(Arc<dyn InputSink>),
}

impl ExecInput {
    /// Hands over some of the bytes: how many. Waits while the command does not read. Safe to cancel:
    /// then none were.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let connection = match self {
            Self::Unix(connection) => connection,
            Self::Sink(sink) => return sink.write(bytes).await,
        };
        loop {
            connection.writable().await?;
            match connection.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
        }
    }

    /// Whether the next agent can go on with it if this one is killed, and nothing is lost that was handed over.
    pub fn outlives_agent(&self) -> bool {
        match self {
            Self::Unix(_) => false,
            Self::Sink(sink) => sink.outlives_agent(),
        }
    }

    /// Ends the input. Never of a terminal, whose end of input is a character. To end it again does no harm.
    pub async fn close(&self) -> io::Result<()> {
        match self {
            Self::Sink(sink) => sink.close().await,
            Self::Unix(connection) => match shutdown(connection, Shutdown::Write) {
                // It is closed already.
                Ok(()) | Err(Errno::NOTCONN) => Ok(()),
                Err(error) => Err(error.into()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{engine::docker::frames::framing, wire::OutputStream};

    async fn read_all(bytes: &'static [u8], tty: bool) -> Result<Vec<Chunk>, StreamError> {
        let mut stream = ExecStream::new(bytes, framing(tty), tty);
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
    async fn whoever_reads_what_does_not_end_leaves_others_their_turn() {
        let (_engine, ours) = UnixStream::pair().expect("a pair");
        let frames = b"\x01\0\0\0\0\0\0\x01o".repeat(10_000);
        let mut stream = ExecStream::over(ours, framing(false), BytesMut::from(&frames[..]), false);
        let reading =
            async { while stream.next().await.is_ok_and(|chunk| chunk.is_some() && stream.buffer.len() > 9) {} };
        tokio::select! {
            biased;
            () = reading => panic!("all of it was read before another task had its turn"),
            other = tokio::spawn(std::future::ready(())) => other.expect("a task"),
        }
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
