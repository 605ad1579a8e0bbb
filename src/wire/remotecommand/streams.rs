//! Which streams of a command a client asks for.

use thiserror::Error;

use crate::wire::OutputStream;

/// Which channels a client asks for: `PodAttachOptions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    clippy::struct_field_names,
    reason = "the four options of the API, by its names"
)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// The client has a terminal and sends its size.
    pub tty: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StreamsError {
    #[error("at least one of stdin, stdout and stderr must be true")]
    None,
    #[error("tty and stderr cannot both be true: a terminal has one output, which is stdout")]
    TtyAndStderr,
}

impl Streams {
    /// Checks the combination as the kubelet does.
    pub fn validate(self) -> Result<Self, StreamsError> {
        match self {
            Self { stdin: false, stdout: false, stderr: false, .. } => Err(StreamsError::None),
            Self { stderr: true, tty: true, .. } => Err(StreamsError::TtyAndStderr),
            streams => Ok(streams),
        }
    }

    pub(super) fn wants(self, stream: OutputStream) -> bool {
        match stream {
            OutputStream::Stdout => self.stdout,
            OutputStream::Stderr => self.stderr,
        }
    }
}
