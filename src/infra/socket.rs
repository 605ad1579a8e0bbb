//! TCP below TLS.

use std::{io, time::Duration};

use rustix::net::sockopt;
use tokio::{io::BufReader, net::TcpStream};

/// Read buffers: rustls alone asks the kernel for 4 KiB at a time.
pub const SMALL: usize = 8 * 1024;
/// For the output of commands.
pub const LARGE: usize = 64 * 1024;

/// Silence after which the kernel probes the peer, the pause between probes, and how many may go unanswered: a
/// connection to a peer that has vanished breaks within a minute, also where nothing is to be sent.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

/// Reads are buffered, writes are not.
pub type Buffered = BufReader<TcpStream>;

pub fn prepare(socket: TcpStream, read_buffer: usize) -> io::Result<Buffered> {
    socket.set_nodelay(true)?;
    sockopt::set_tcp_keepidle(&socket, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(&socket, PROBE_EVERY)?;
    // No TCP_USER_TIMEOUT beside it, which would also end the connection of a viewer that pauses.
    sockopt::set_tcp_keepcnt(&socket, PROBES)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    Ok(BufReader::with_capacity(read_buffer, socket))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_whose_other_end_has_vanished_is_found_dead() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let _other = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (socket, _) = listener.accept().await.expect("a connection");
        let socket = prepare(socket, SMALL).expect("prepared").into_inner();
        assert!(sockopt::socket_keepalive(&socket).expect("an option"));
        assert_eq!(sockopt::tcp_keepidle(&socket).expect("an option"), PROBE_AFTER);
        assert_eq!(sockopt::tcp_keepintvl(&socket).expect("an option"), PROBE_EVERY);
    }
}
