//! What is wanted of following a request, and the flags that say so.

use std::{path::PathBuf, str::FromStr};

use super::{
    detach::{self, DetachKeys},
    record::{Recorder, Recording},
};
use crate::{
    api::ExecRequest,
    cli::{
        error::Error,
        say::{shell::shell_words, terminal},
    },
};

/// The flags of every verb that follows a request.
#[derive(Clone, Debug, clap::Args)]
pub struct FollowArgs {
    /// Keys that leave the terminal and let the command go on; empty for none.
    #[arg(long, value_name = "KEYS", default_value = detach::DEFAULT, value_parser = DetachKeys::from_str)]
    pub detach_keys: DetachKeys,

    /// Record the output to a file, as asciicast v2.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,

    /// Show no progress.
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

impl FollowArgs {
    /// The file to record to, if one is wanted.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn recording(&self) -> Result<Option<Recording>, Error> {
        self.record.as_deref().map(Recording::create).transpose()
    }

    /// What is wanted of this request. Begins the recording.
    ///
    /// # Errors
    /// When the recording cannot be made.
    pub fn options(
        self,
        request: &ExecRequest,
        stdin: bool,
        tty: bool,
        recording: Option<Recording>,
    ) -> Result<Options, Error> {
        let title = request.metadata.name.as_deref().unwrap_or_default();
        let command = shell_words(&request.spec.command);
        let begin = |to| Recorder::begin(to, title, &command, terminal::size(), tty);
        let recorder = recording.map(begin).transpose()?;
        Ok(Options { stdin, tty, keys: self.detach_keys, recorder })
    }
}

/// What is wanted of following.
#[derive(Debug)]
pub struct Options {
    /// Our standard input is the command's.
    pub stdin: bool,
    /// The command has a terminal.
    pub tty: bool,
    /// What leaves a terminal.
    pub keys: DetachKeys,
    /// A recording.
    pub recorder: Option<Recorder>,
}
