//! Sans-IO codecs: bytes in, values out.

pub mod asciicast;
pub mod cri;
pub mod remotecommand;
pub mod unasked;
pub mod words;

pub(crate) mod base64_text;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// With a terminal: all output.
    Stdout,
    Stderr,
}

impl OutputStream {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}
