//! What programs print. Printing never panics, whoever has closed the other end, and only [`Out`] prints what it is
//! given as it is.

use std::io::{self, Stdout, Write};

use crate::core::printable::one_line;

/// Says one sentence on standard error. If that is closed or full, there is nobody to tell.
pub fn say(who: &str, sentence: &str) {
    // In one piece: others write there, too.
    drop(io::stderr().write_all(format!("{who}: {}\n", one_line(sentence)).as_bytes()));
}

/// One line, whatever is in the text.
pub fn line(to: &mut impl Write, text: &str) -> io::Result<()> {
    writeln!(to, "{}", one_line(text))
}

/// Standard output. A reader that has left, as `head` does, wants no more: that is no failure.
#[derive(Debug)]
pub struct Out(Stdout);

impl Out {
    pub fn new() -> Self {
        Self(io::stdout())
    }
}

impl Default for Out {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(bytes).or_else(unless_left).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().or_else(unless_left)
    }
}

fn unless_left(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
}

/// Printing into memory, for tests.
#[cfg(test)]
pub(crate) mod kept {
    use std::{
        io::{self, Write},
        sync::Arc,
    };

    use parking_lot::Mutex;

    /// What was written.
    #[derive(Clone, Debug, Default)]
    pub struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Kept {
        /// Takes it.
        pub fn take(&self) -> Vec<u8> {
            std::mem::take(&mut self.0.lock())
        }

        /// Takes it as text.
        pub fn text(&self) -> String {
            String::from_utf8_lossy(&self.take()).into_owned()
        }
    }

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
