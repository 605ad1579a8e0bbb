//! What lies below TLS. By itself it asks the kernel for 4 KiB at a time.

use tokio::{io::BufReader, net::TcpStream};

/// Bytes asked of the kernel at once by whoever hears little.
pub const SMALL: usize = 8 * 1024;
/// And by whoever hears the output of commands.
pub const LARGE: usize = 64 * 1024;

/// A connection that is read in pieces of this size. What is written goes through as it is.
pub type Buffered = BufReader<TcpStream>;

/// Of a connection.
pub fn buffered(connection: TcpStream, bytes: usize) -> Buffered {
    BufReader::with_capacity(bytes, connection)
}
