//! Packets over a Unix socket, with descriptors beside them.

use std::{
    fs,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::{fs::DirBuilderExt as _, net},
    },
    path::{Path, PathBuf},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, recvmsg, sendmsg,
    socket_with,
};
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
};

use super::message::LONGEST;

/// Most connections that wait to be accepted.
const WAITING: i32 = 128;
/// Most descriptors that come with a packet. What is more is closed by the kernel, which says so.
const DESCRIPTORS: usize = 4;

/// Not a stream, whatever the type says that knows how to wait for it: each packet comes whole.
#[derive(Debug)]
pub(super) struct Socket(UnixStream);

#[derive(Debug)]
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
    /// Neither bytes nor descriptors of it were cut off.
    pub(super) is_whole: bool,
}

fn new() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

impl Socket {
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let socket = new()?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self(UnixStream::from_std(net::UnixStream::from(socket))?))
    }

    pub(super) async fn send(&self, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let descriptors = descriptor.as_slice();
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(descriptors));
            }
            Ok(sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
        };
        // A packet goes whole or not at all.
        self.0.async_io(Interest::WRITABLE, send).await.map(|_| ())
    }

    /// `None`: the other side has gone.
    pub(super) async fn receive(&self) -> io::Result<Option<Packet>> {
        let mut bytes = vec![0; LONGEST];
        let mut descriptors = Vec::new();
        let receive = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut bytes)];
            let received = recvmsg(&self.0, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(those) = message {
                    descriptors.extend(those);
                }
            }
            Ok((received.bytes, received.flags))
        };
        let (length, flags) = self.0.async_io(Interest::READABLE, receive).await?;
        bytes.truncate(length);
        let is_whole = !flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
        Ok((length > 0).then_some(Packet { bytes, descriptors, is_whole }))
    }
}

/// Takes connections. The socket's file goes with it.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// At this path, in place of whoever has listened there.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let socket = new()?;
        // At a socket that is there, somebody listens; so one that does not answer is nobody's any more.
        let unheard = path.with_extension("new");
        match fs::remove_file(&unheard) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        bind(&socket, &SocketAddrUnix::new(&unheard)?)?;
        listen(&socket, WAITING)?;
        fs::rename(&unheard, path)?;
        Ok(Self { socket: UnixListener::from_std(net::UnixListener::from(socket))?, path: path.to_owned() })
    }

    pub(super) async fn accept(&self) -> io::Result<Socket> {
        Ok(Socket(self.socket.accept().await?.0))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // One that stays is removed by whoever finds that nobody listens there.
        fs::remove_file(&self.path).ok();
    }
}
