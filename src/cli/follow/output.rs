//! Where the command's output goes: our own standard streams, and a recording.
//!
//! A thread writes, so that a reader who stalls holds up the stream, but neither
//! signals nor the detach keys.

use std::{
    borrow::Cow,
    io::{self, IsTerminal as _, Write},
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::record::Recorder;
use crate::{
    cli::{
        error::Error,
        say::{
            print,
            terminal::{self, Size},
        },
    },
    wire::{OutputStream, unasked::Unasked},
};

/// Pieces that wait to be written; with frames of 32 KiB at most 256 KiB.
const WAITING: usize = 8;

/// Who hears what our terminal answers to output with a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    ByCommand,
    /// It has asked before, or has not our input: the terminal is not to be asked.
    ByNobody,
}

#[derive(Debug)]
enum Piece {
    Output(OutputStream, Bytes, Heard),
    Size(Size),
}

#[derive(Debug)]
pub struct Output {
    pieces: mpsc::Sender<Piece>,
    thread: JoinHandle<Result<(), Error>>,
}

impl Output {
    pub fn start(recorder: Option<Recorder>) -> Self {
        let screens = Screens::of(io::stdout().is_terminal(), io::stderr().is_terminal(), terminal::is_shared());
        Self::on(io::stdout(), io::stderr(), screens, recorder)
    }

    /// To something that is no terminal.
    #[cfg(test)]
    pub fn to(
        stdout: impl Write + Send + 'static,
        stderr: impl Write + Send + 'static,
        recorder: Option<Recorder>,
    ) -> Self {
        Self::on(stdout, stderr, Screens::default(), recorder)
    }

    pub(super) fn on(
        stdout: impl Write + Send + 'static,
        stderr: impl Write + Send + 'static,
        screens: Screens,
        recorder: Option<Recorder>,
    ) -> Self {
        let (pieces, waiting) = mpsc::channel(WAITING);
        let thread = thread::spawn(move || write(waiting, stdout, stderr, screens, recorder));
        Self { pieces, thread }
    }

    /// Waits for room, then has the thread write it; `false` if nothing can be written any more, as after `| head`.
    pub async fn write(&self, stream: OutputStream, bytes: Bytes, heard: Heard) -> bool {
        self.pieces.send(Piece::Output(stream, bytes, heard)).await.is_ok()
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
    mut screens: Screens,
    mut recorder: Option<Recorder>,
) -> Result<(), Error> {
    let mut copy = || -> Result<(), Error> {
        while let Some(piece) = waiting.blocking_recv() {
            let open = match &piece {
                Piece::Output(stream, bytes, heard) => {
                    let shown = screens.shown(*stream, bytes, *heard);
                    match stream {
                        OutputStream::Stdout => print::write(&mut stdout, &shown)?,
                        OutputStream::Stderr => print::write(&mut stderr, &shown)?,
                    }
                }
                Piece::Size(_) => true,
            };
            if !open {
                break;
            }
            match (&mut recorder, piece) {
                (Some(recorder), Piece::Output(stream, bytes, _)) => recorder.output(stream, &bytes)?,
                (Some(recorder), Piece::Size(size)) => recorder.resize(size)?,
                (None, _) => {}
            }
        }
        Ok(())
    };
    copy().and(recorder.map_or(Ok(()), |mut recorder| recorder.finish()))
}

/// The terminals among our standard streams, and how far each is in what it must not be asked.
#[derive(Debug, Default)]
pub(super) struct Screens {
    stdout: Option<Unasked>,
    stderr: Option<Unasked>,
    /// Both streams are one terminal, which is `stdout`'s.
    shared: bool,
}

impl Screens {
    pub(super) fn of(stdout: bool, stderr: bool, shared: bool) -> Self {
        let screen = |is: bool| is.then(Unasked::default);
        Self { stdout: screen(stdout), stderr: screen(stderr), shared: shared && stdout && stderr }
    }

    fn shown<'a>(&mut self, stream: OutputStream, bytes: &'a [u8], heard: Heard) -> Cow<'a, [u8]> {
        let screen = match stream {
            OutputStream::Stderr if !self.shared => &mut self.stderr,
            OutputStream::Stdout | OutputStream::Stderr => &mut self.stdout,
        };
        match (screen, heard) {
            (None, _) => bytes.into(),
            (Some(screen), Heard::ByNobody) => screen.pass(bytes).into(),
            (Some(screen), Heard::ByCommand) => match screen.end() {
                held if held.is_empty() => bytes.into(),
                held => [&held, bytes].concat().into(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_asked_only_what_the_command_hears() {
        let (out, err) = (OutputStream::Stdout, OutputStream::Stderr);
        let mut screens = Screens::of(true, true, true);
        let mut shown = |stream, bytes: &[u8], heard| screens.shown(stream, bytes, heard).escape_ascii().to_string();
        assert_eq!(shown(out, b"/ # \x1b[6n\x1b[?1003h", Heard::ByNobody), "/ # ");
        // One terminal, whichever stream it comes from.
        assert_eq!(shown(out, b"a\x1b[", Heard::ByNobody), "a");
        assert_eq!(shown(err, b"6nb", Heard::ByNobody), "b");
        assert_eq!(shown(out, b"\x1b[6n", Heard::ByCommand), r"\x1b[?1003h\x1b[6n");
        assert_eq!(shown(out, b"\x1b[6n", Heard::ByCommand), r"\x1b[6n");
        // What is no terminal gets all of it.
        let mut screens = Screens::of(false, true, false);
        assert_eq!(screens.shown(out, b"\x1b[6n", Heard::ByNobody), &b"\x1b[6n"[..]);
        assert_eq!(screens.shown(err, b"\x1b[6n", Heard::ByNobody), &b""[..]);
    }
}
