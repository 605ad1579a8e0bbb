//! Where the command's output goes: our own standard streams, and a recording.
//!
//! A thread writes, so that a reader who stalls holds up the stream, but neither
//! signals nor the detach keys.

use std::{
    io::{self, Write},
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::record::Recorder;
use crate::{
    cli::{
        error::Error,
        say::{print, terminal::Size},
    },
    wire::OutputStream,
};

/// Pieces that wait to be written; with frames of 32 KiB at most 256 KiB.
const WAITING: usize = 8;

#[derive(Debug)]
enum Piece {
    Output(OutputStream, Bytes),
    Size(Size),
}

#[derive(Debug)]
pub struct Output {
    pieces: mpsc::Sender<Piece>,
    thread: JoinHandle<Result<(), Error>>,
}

impl Output {
    pub fn start(recorder: Option<Recorder>) -> Self {
        Self::to(io::stdout(), io::stderr(), recorder)
    }

    pub fn to(
        stdout: impl Write + Send + 'static,
        stderr: impl Write + Send + 'static,
        recorder: Option<Recorder>,
    ) -> Self {
        let (pieces, waiting) = mpsc::channel(WAITING);
        let thread = thread::spawn(move || write(waiting, stdout, stderr, recorder));
        Self { pieces, thread }
    }

    /// Waits for room, then has the thread write it; `false` if nothing can be written any more, as after `| head`.
    pub async fn write(&self, stream: OutputStream, bytes: Bytes) -> bool {
        self.pieces.send(Piece::Output(stream, bytes)).await.is_ok()
    }

    pub async fn resized(&self, size: Size) {
        // If the thread has ended, `finish` says why.
        drop(self.pieces.send(Piece::Size(size)).await);
    }

    /// Waits until everything is written. A closed pipe is not an error.
    pub async fn finish(self) -> Result<(), Error> {
        drop(self.pieces);
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        match joined {
            Ok(Ok(written)) => written,
            Ok(Err(_)) | Err(_) => Err(Error::output("the writing thread has panicked")),
        }
    }
}

fn write(
    mut waiting: mpsc::Receiver<Piece>,
    mut stdout: impl Write,
    mut stderr: impl Write,
    mut recorder: Option<Recorder>,
) -> Result<(), Error> {
    let mut copy = || -> Result<(), Error> {
        while let Some(piece) = waiting.blocking_recv() {
            let open = match &piece {
                Piece::Output(OutputStream::Stdout, bytes) => print::write(&mut stdout, bytes)?,
                Piece::Output(OutputStream::Stderr, bytes) => print::write(&mut stderr, bytes)?,
                Piece::Size(_) => true,
            };
            if !open {
                break;
            }
            match (&mut recorder, piece) {
                (Some(recorder), Piece::Output(stream, bytes)) => recorder.output(stream, &bytes)?,
                (Some(recorder), Piece::Size(size)) => recorder.resize(size)?,
                (None, _) => {}
            }
        }
        Ok(())
    };
    copy().and(recorder.map_or(Ok(()), |mut recorder| recorder.finish()))
}
