//! Standard input on its way to the command, and how much of it is known to have arrived.

use std::{
    io::{self, IsTerminal as _, Read},
    thread,
};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::detach::{DetachKeys, Scanner};
use crate::cli::say::terminal;

/// Bytes of one read: as much as client-go sends in one frame.
const PIECE: usize = 32 * 1024;
/// Reads that may wait to be sent.
const WAITING: usize = 4;

#[derive(Debug)]
pub struct Input {
    pieces: mpsc::Receiver<Bytes>,
    /// Cancelled when the detach keys were pressed.
    pub detached: CancellationToken,
    pub sent: u64,
    /// Bytes that the other end has read, by its pongs.
    pub arrived: u64,
    pub ended: bool,
    /// It comes from a terminal, which answers when it is asked.
    pub typed: bool,
    /// The command takes no more: what is read from now on is dropped, except for the detach keys.
    pub refused: bool,
}

impl Input {
    /// Reads our own standard input from now on; `keys` detach.
    pub fn start(keys: Option<DetachKeys>) -> Self {
        terminal::take();
        Self { typed: io::stdin().is_terminal(), ..Self::from(io::stdin(), keys) }
    }

    pub fn from(source: impl Read + Send + 'static, keys: Option<DetachKeys>) -> Self {
        let (sender, pieces) = mpsc::channel(WAITING);
        let detached = CancellationToken::new();
        let token = detached.clone();
        // A read cannot be cancelled: the thread ends with the program.
        thread::spawn(move || read(source, keys.map(Scanner::new), &sender, &token));
        Self { pieces, detached, sent: 0, arrived: 0, ended: false, typed: false, refused: false }
    }

    /// The next bytes; `None` at the end, once. Detaching does not end the input.
    pub async fn next(&mut self) -> Option<Bytes> {
        let next = self.pieces.recv().await;
        if next.is_none() {
            if self.ended || self.detached.is_cancelled() {
                return std::future::pending().await;
            }
            self.ended = true;
        }
        next
    }

    /// Whether everything that was sent is known to have arrived, or does not matter any more.
    pub fn all_arrived(&self) -> bool {
        self.sent == self.arrived || self.refused
    }
}

fn read(
    mut source: impl Read,
    mut scanner: Option<Scanner>,
    sender: &mpsc::Sender<Bytes>,
    detached: &CancellationToken,
) {
    let mut buffer = vec![0; PIECE];
    loop {
        let typed = match source.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => &buffer[..length],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // A terminal that is gone, or a file that cannot be read further: the end.
            Err(_) => return,
        };
        let (bytes, detach) = match &mut scanner {
            Some(scanner) => scanner.scan(typed),
            None => (typed.to_vec(), false),
        };
        if !bytes.is_empty() && sender.blocking_send(bytes.into()).is_err() {
            return;
        }
        if detach {
            return detached.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn input_comes_whole_and_ends() {
        let mut input = Input::from(&b"one two"[..], None);
        assert_eq!(input.next().await.as_deref(), Some(&b"one two"[..]));
        assert!(!input.ended);
        assert_eq!(input.next().await, None);
        assert!(input.ended && !input.detached.is_cancelled());
    }

    #[tokio::test]
    async fn the_keys_leave_without_ending_the_input() {
        let keys = "ctrl-p,ctrl-q".parse().expect("keys");
        let mut input = Input::from(&b"ls\n\x10\x11exit\n"[..], Some(keys));
        assert_eq!(input.next().await.as_deref(), Some(&b"ls\n"[..]));
        input.detached.cancelled().await;
        let more = tokio::time::timeout(std::time::Duration::from_millis(20), input.next()).await;
        assert!(more.is_err(), "neither bytes nor an end: {more:?}");
    }
}
