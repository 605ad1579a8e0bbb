//! FIFOs whose output nobody wants.

use std::{io, path::Path};

use tokio::{io::AsyncReadExt as _, net::unix::pipe};

const READ_BYTES: usize = 64 * 1024;

/// Reads and throws away what is written to one, until nobody can write to it any more: so many bytes.
pub(super) async fn empty(path: &Path) -> io::Result<u64> {
    let mut fifo = pipe::OpenOptions::new().open_receiver(path)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    loop {
        match fifo.read(&mut buffer).await? {
            0 => return Ok(bytes),
            read => bytes += read as u64,
        }
    }
}
