//! Handover: an agent that stops gives the engine's open connections to its successor, so that an
//! update loses no output.
//!
//! The successor waits beside it for the journal's lock, connected to a socket in
//! the state folder. Told to stop, the old one sends each connection as a file descriptor, with what
//! it has read and not yet decoded. What it has decoded is in the spool, from
//! which the successor takes counts, digests and tails.

use std::{
    collections::HashMap,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    core::ids::{ExecId, RequestUid},
    engine::{ExecStream, Parts},
};

const SOCKET: &str = "handover.sock";
/// How long one message may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// Most that is read at once, in bytes.
const READ: usize = 64 * 1024;
/// How long the successor waits for the last message, once it has the lock.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Between two looks whether a successor is there.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// One connection, as it goes over the socket beside its descriptor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    uid: RequestUid,
    exec: ExecId,
    tty: bool,
    /// What was read and not decoded, in base64.
    rest: String,
}

/// The side of the agent that has the journal.
#[derive(Debug, Default)]
pub struct Heirs {
    /// The successor, once there is one.
    heir: Mutex<Option<UnixStream>>,
    begun: CancellationToken,
}

/// What a predecessor has left, by request.
pub type Estate = HashMap<RequestUid, (ExecId, Parts)>;

impl Heirs {
    /// Waits for successors until `shutdown`, and then tells all who stream to hand over, if there is one.
    pub async fn expect(&self, state: &Path, shutdown: CancellationToken) -> io::Result<()> {
        let path = socket(state);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        let mut last = false;
        loop {
            match listener.accept() {
                Ok((heir, _)) => {
                    heir.set_nonblocking(false)?;
                    heir.set_write_timeout(Some(SEND_TIMEOUT))?;
                    tracing::info!("a successor waits for the journal");
                    *self.heir.lock().unwrap_or_else(PoisonError::into_inner) = Some(heir);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if last {
                break;
            }
            // One that has just come is looked for once more.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => last = true,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        if self.heir.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            self.begun.cancel();
        }
        Ok(())
    }

    /// Waits until it is time to hand over.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Gives a stream to the successor, or back if it cannot be given.
    ///
    /// # Errors
    /// With the stream, as it was.
    pub fn give(&self, uid: &RequestUid, exec: &ExecId, stream: ExecStream) -> Result<(), ExecStream> {
        let parts = stream.into_parts()?;
        let rest = STANDARD.encode(&parts.rest);
        let message = Message { uid: uid.clone(), exec: exec.clone(), tty: parts.tty, rest };
        match self.send(&message, &parts) {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::warn!(%uid, %error, "a connection could not be handed over, it is drained here");
                ExecStream::from_parts(parts)
                    .map_err(|_| ExecStream::new(tokio::io::empty(), message.tty))
                    .and_then(Err)
            }
        }
    }

    fn send(&self, message: &Message, parts: &Parts) -> io::Result<()> {
        let mut heir = self.heir.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = heir.as_mut().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        let mut text = serde_json::to_vec(message)?;
        text.push(b'\n');
        let descriptors = [parts.connection.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let sent = sendmsg(&*socket, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)?;
        // The descriptor has gone with the first bytes; the others follow.
        io::Write::write_all(socket, &text[sent..])
    }
}

/// The side of the agent that waits for the journal.
pub struct Heir {
    path: PathBuf,
    receiving: Option<JoinHandle<Estate>>,
}

impl Heir {
    /// Of the agent that has this state folder.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self { path: socket(state), receiving: None }
    }

    /// Connects to the one that has the journal, if it is not yet. Whether it is.
    pub fn connect(&mut self) -> bool {
        if self.receiving.as_ref().is_some_and(|receiving| !receiving.is_finished()) {
            return true;
        }
        let Ok(socket) = UnixStream::connect(&self.path) else { return false };
        self.receiving = Some(tokio::task::spawn_blocking(move || receive(&socket)));
        true
    }

    /// Everything that was handed over, once the predecessor has gone.
    pub async fn estate(self) -> Estate {
        let Some(receiving) = self.receiving else { return Estate::new() };
        match timeout(LAST_WORDS, receiving).await {
            Ok(Ok(estate)) => estate,
            Ok(Err(_)) | Err(_) => Estate::new(),
        }
    }
}

fn socket(state: &Path) -> PathBuf {
    state.join(SOCKET)
}

/// Receives until the other side closes.
fn receive(socket: &UnixStream) -> Estate {
    let mut estate = Estate::new();
    let (mut text, mut descriptors) = (Vec::new(), Vec::new());
    loop {
        match receive_some(socket, &mut text, &mut descriptors) {
            Ok(0) => return estate,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the handover broke off");
                return estate;
            }
        }
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            if descriptors.is_empty() {
                continue;
            }
            let connection = descriptors.remove(0);
            let message = serde_json::from_slice::<Message>(&line).ok();
            let Some(Message { uid, exec, tty, rest }) = message else { continue };
            let Ok(rest) = STANDARD.decode(rest) else { continue };
            tracing::info!(%uid, %exec, "a connection was handed over");
            estate.insert(uid, (exec, Parts { connection, rest, tty }));
        }
    }
}

fn receive_some(socket: &UnixStream, text: &mut Vec<u8>, descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut buffer = vec![0; READ];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    text.extend_from_slice(&buffer[..received.bytes]);
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::wire::OutputStream;

    #[tokio::test]
    async fn a_stream_goes_on_in_the_successor_where_it_stopped() {
        let state = tempfile::tempdir().expect("a folder");
        let heirs = Arc::new(Heirs::default());
        let shutdown = CancellationToken::new();
        let expecting = tokio::spawn({
            let (heirs, path, shutdown) = (Arc::clone(&heirs), state.path().to_owned(), shutdown.clone());
            async move { heirs.expect(&path, shutdown).await }
        });
        let mut heir = Heir::new(state.path());
        timeout(Duration::from_secs(10), async {
            while !heir.connect() || heirs.heir.lock().expect("a lock").is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("connected");
        let (mut engine, ours) = tokio::net::UnixStream::pair().expect("a pair");
        // A frame of ten bytes, of which the first agent sees four.
        engine.write_all(b"\x01\0\0\0\0\0\0\x0aabcd").await.expect("written");
        let mut stream = ExecStream::over(ours, bytes::BytesMut::new(), false);
        let chunk = stream.next().await.expect("a stream").expect("a chunk");
        assert_eq!(&chunk.bytes[..], b"abcd");
        shutdown.cancel();
        heirs.begun().await;
        expecting.await.expect("a task").expect("no error");
        assert!(heirs.give(&"u".into(), &"e".into(), stream).is_ok());
        drop(heirs);
        let (exec, parts) = heir.estate().await.remove(&"u".into()).expect("it was handed over");
        assert_eq!(exec.as_str(), "e");
        let mut stream = ExecStream::from_parts(parts).map_err(|_| ()).expect("a stream");
        engine.write_all(b"efghij\x02\0\0\0\0\0\0\x01!").await.expect("written");
        drop(engine);
        let mut all = Vec::new();
        while let Some(chunk) = stream.next().await.expect("a stream") {
            all.push((chunk.stream, chunk.bytes.to_vec()));
        }
        assert_eq!(all, [(OutputStream::Stdout, b"efghij".to_vec()), (OutputStream::Stderr, b"!".to_vec())]);
    }

    #[tokio::test]
    async fn without_a_successor_nothing_is_handed_over() {
        let state = tempfile::tempdir().expect("a folder");
        assert!(!Heir::new(state.path()).connect());
        let heirs = Heirs::default();
        let (_engine, ours) = tokio::net::UnixStream::pair().expect("a pair");
        let stream = ExecStream::over(ours, bytes::BytesMut::new(), true);
        assert!(heirs.give(&"u".into(), &"e".into(), stream).is_err(), "the stream comes back");
    }
}
