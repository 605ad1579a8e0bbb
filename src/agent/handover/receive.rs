//! The side of the agent that waits for the journal.

use std::{
    collections::VecDeque,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::{task::JoinHandle, time::timeout};

use super::message::{HandedOver, LONGEST, decode, socket};

/// Most that is read at once, in bytes.
const READ: usize = 64 * 1024;
/// How long the successor waits for the last message, once it has the lock.
const LAST_MESSAGE: Duration = Duration::from_secs(2);

pub struct Receiver {
    path: PathBuf,
    receiving: Option<JoinHandle<HandedOver>>,
    handed_over: HandedOver,
}

impl Receiver {
    pub fn new(state: &Path) -> Self {
        Self { path: socket(state), receiving: None, handed_over: HandedOver::new() }
    }

    /// Connects to the other agent unless that is done; whether it is.
    pub fn connect(&mut self) -> bool {
        if self.receiving.is_some() {
            return true;
        }
        let Ok(socket) = UnixStream::connect(&self.path) else { return false };
        self.receiving = Some(tokio::task::spawn_blocking(move || receive(&socket)));
        true
    }

    /// Waits until the other agent has closed the connection, and keeps what it has handed over.
    pub async fn predecessor_gone(&mut self) {
        let Some(receiving) = &mut self.receiving else { return std::future::pending().await };
        if let Ok(handed_over) = receiving.await {
            self.handed_over.extend(handed_over);
        }
        self.receiving = None;
    }

    pub async fn handed_over(mut self) -> HandedOver {
        if self.receiving.is_some() && timeout(LAST_MESSAGE, self.predecessor_gone()).await.is_err() {
            tracing::warn!("the handover was not finished: what was not handed over is adopted");
        }
        self.handed_over
    }
}

fn receive(socket: &UnixStream) -> HandedOver {
    let mut handed_over = HandedOver::new();
    let (mut lines, mut descriptors) = (Lines::default(), VecDeque::new());
    loop {
        match receive_some(socket, &mut lines, &mut descriptors) {
            Ok(0) => return handed_over,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the handover broke off");
                return handed_over;
            }
        }
        while let Some(line) = lines.next() {
            let Some(connection) = descriptors.pop_front() else { continue };
            if let Some((uid, stream)) = line.ok().and_then(|line| decode(&line, connection)) {
                tracing::info!(%uid, exec = %stream.exec, "a connection was handed over");
                handed_over.insert(uid, stream);
            } else {
                tracing::warn!("a connection was handed over with a message that cannot be read: it is closed");
            }
        }
    }
}

struct TooLong;

/// Cuts what comes into lines. Nothing is kept of a line that is longer than [`LONGEST`].
#[derive(Default)]
struct Lines {
    text: Vec<u8>,
    skipping: bool,
}

impl Lines {
    /// The next line that has ended, unless it was too long.
    fn next(&mut self) -> Option<Result<Vec<u8>, TooLong>> {
        if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.text.drain(..=end).collect();
            let too_long = std::mem::take(&mut self.skipping) || line.len() > LONGEST;
            return Some(if too_long { Err(TooLong) } else { Ok(line) });
        }
        if self.text.len() > LONGEST {
            self.text.clear();
            self.skipping = true;
        }
        None
    }
}

fn receive_some(socket: &UnixStream, lines: &mut Lines, descriptors: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut buffer = vec![0; READ];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    lines.text.extend_from_slice(&buffer[..received.bytes]);
    Ok(received.bytes)
}
