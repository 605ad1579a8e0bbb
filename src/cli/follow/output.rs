//! Where the command's output goes: our own standard streams, and a recording.
//!
//! A thread writes, so that a reader who stalls holds up the stream, but not the
//! signals and the keys that leave it.

use std::{
    io::{self, Write},
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::record::Recorder;
use crate::{
    cli::{error::Error, say::terminal::Size},
    wire::OutputStream,
};

/// Pieces that wait to be written; with frames of 32 KiB at most 256 KiB.
const WAITING: usize = 8;

#[derive(Debug)]
enum Piece {
    Output(OutputStream, Bytes),
    Size(Size),
}

/// Where a stream stands in a pair; with a terminal all output is the first.
pub const fn index(stream: OutputStream) -> usize {
    match stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => 1,
    }
}

/// The way to the thread that writes.
#[derive(Debug)]
pub struct Output {
    pieces: mpsc::Sender<Piece>,
    thread: JoinHandle<Result<(), Error>>,
}

/// Nobody reads any longer: `| head` has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NobodyReads;

impl Output {
    /// To our own standard streams.
    pub fn start(recorder: Option<Recorder>) -> Self {
        Self::to(io::stdout(), io::stderr(), recorder)
    }

    /// To these.
    pub fn to(
        stdout: impl Write + Send + 'static,
        stderr: impl Write + Send + 'static,
        recorder: Option<Recorder>,
    ) -> Self {
        let (pieces, waiting) = mpsc::channel(WAITING);
        let thread = thread::spawn(move || write(waiting, stdout, stderr, recorder));
        Self { pieces, thread }
    }

    /// Has something written, in its turn.
    pub async fn write(&self, stream: OutputStream, bytes: Bytes) -> Result<(), NobodyReads> {
        self.pieces.send(Piece::Output(stream, bytes)).await.map_err(|_| NobodyReads)
    }

    /// Tells the recording of a new size.
    pub async fn resized(&self, size: Size) {
        // A thread that has ended says why in `finish`.
        drop(self.pieces.send(Piece::Size(size)).await);
    }

    /// Waits until all of it is written.
    ///
    /// # Errors
    /// When it could not be. A pipe that was closed is none: see [`NobodyReads`].
    pub async fn finish(self) -> Result<(), Error> {
        drop(self.pieces);
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        match joined {
            Ok(Ok(written)) => written,
            Ok(Err(_)) | Err(_) => Err(Error::Show("the writer has failed".to_owned())),
        }
    }
}

fn write(
    mut waiting: mpsc::Receiver<Piece>,
    mut stdout: impl Write,
    mut stderr: impl Write,
    mut recorder: Option<Recorder>,
) -> Result<(), Error> {
    let mut result = Ok(());
    while let Some(piece) = waiting.blocking_recv() {
        let written = match &piece {
            Piece::Output(OutputStream::Stdout, bytes) => stdout.write_all(bytes).and_then(|()| stdout.flush()),
            Piece::Output(OutputStream::Stderr, bytes) => stderr.write_all(bytes).and_then(|()| stderr.flush()),
            Piece::Size(_) => Ok(()),
        };
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => {
                result = Err(Error::Show(error.to_string()));
                break;
            }
        }
        let noted = match (&mut recorder, &piece) {
            (Some(recorder), Piece::Output(stream, bytes)) => recorder.output(index(*stream), bytes),
            (Some(recorder), Piece::Size(size)) => recorder.resize(*size),
            (None, _) => Ok(()),
        };
        if let Err(error) = noted {
            result = Err(error);
            break;
        }
    }
    result.and(recorder.map_or(Ok(()), |mut recorder| recorder.finish()))
}
