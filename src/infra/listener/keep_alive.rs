//! Finds out that the other side is gone, also where nothing is to be sent.

use std::{io, os::fd::AsFd, time::Duration};

use rustix::net::sockopt;

/// Silence after which the kernel asks whether the other side is there, and between two questions.
const ASK_AFTER: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_secs(10);
/// Questions without an answer after which the connection is broken: it takes a minute in all.
const QUESTIONS: u32 = 3;

/// Lets the kernel ask.
pub(crate) fn keep_alive(socket: impl AsFd) -> io::Result<()> {
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, ASK_AFTER)?;
    sockopt::set_tcp_keepintvl(&socket, ASK_EVERY)?;
    // No user timeout beside it: that would also end the connection of a viewer who takes a pause.
    sockopt::set_tcp_keepcnt(&socket, QUESTIONS)?;
    Ok(())
}
