//! Standard output for what was written before, and by somebody who does not hear what a terminal answers.

use std::io::{self, IsTerminal, Write};

use crate::wire::unasked::Unasked;

/// Writes everything as it is, but asks a terminal nothing.
#[derive(Debug)]
pub struct Screen<W> {
    to: W,
    /// Where it is a terminal.
    unasked: Option<Unasked>,
}

impl<W: Write + IsTerminal> Screen<W> {
    pub fn of_the_past(to: W) -> Self {
        Self { unasked: to.is_terminal().then(Unasked::default), to }
    }
}

impl<W: Write> Write for Screen<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.unasked {
            Some(unasked) => self.to.write_all(&unasked.pass(bytes))?,
            None => self.to.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
