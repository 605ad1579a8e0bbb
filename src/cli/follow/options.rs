//! How to follow a request, and the flags that say so.

use std::{path::PathBuf, str::FromStr};

use kube::ResourceExt as _;

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
    /// Keys that detach from a terminal: the command goes on, and the exit code is 0. Empty: none.
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
    pub fn recording(&self) -> Result<Option<Recording>, Error> {
        self.record.as_deref().map(Recording::create).transpose()
    }

    /// How to follow this request. Begins the recording.
    pub fn options(
        self,
        request: &ExecRequest,
        stdin: bool,
        tty: bool,
        recording: Option<Recording>,
    ) -> Result<Options, Error> {
        let command = shell_words(&request.spec.command);
        let begin = |to| Recorder::begin(to, &request.name_any(), &command, terminal::size(), tty);
        Ok(Options { stdin, tty, keys: self.detach_keys, recorder: recording.map(begin).transpose()? })
    }
}

#[derive(Debug)]
pub struct Options {
    /// Our standard input is the command's.
    pub stdin: bool,
    pub tty: bool,
    pub keys: DetachKeys,
    pub recorder: Option<Recorder>,
}
