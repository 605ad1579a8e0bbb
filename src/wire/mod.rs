//! Sans-IO codecs: bytes in, values out. They know no socket and no file.

pub mod asciicast;
pub mod cri;
pub mod remotecommand;
pub mod words;

pub(crate) mod base64_text;

/// Which of a command's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// Standard output, or all output of a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl OutputStream {
    /// The name of the stream in a CRI log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}
