//! How far the streams of a command have come, for the agent that goes on with them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    digest::{OutputDigest, SavedDigest},
    input::InputState,
};
use crate::{api::OutputLimits, core::output::LogState};

/// What was received of a command's output, in a form that can be put down.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SavedOutput {
    streams: SavedDigest,
    log: LogState,
    /// How much of the output is in the log's file; an older agent does not say.
    #[serde(default)]
    kept: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct OutputState {
    pub(crate) streams: OutputDigest,
    pub(crate) log: LogState,
    /// How much of it is in the log's file.
    pub(crate) kept: u64,
}

impl SavedOutput {
    pub(crate) fn of(streams: &mut OutputDigest, log: LogState, kept: u64) -> Self {
        Self { streams: streams.save(), log, kept: Some(kept) }
    }
}

impl OutputState {
    /// Nothing was received yet.
    pub(crate) fn new(limits: &OutputLimits) -> Self {
        Self { streams: OutputDigest::new(limits), log: LogState::Whole, kept: 0 }
    }

    pub(crate) fn save(&mut self) -> SavedOutput {
        SavedOutput::of(&mut self.streams, self.log, self.kept)
    }

    pub(crate) fn restore(saved: SavedOutput, limits: &OutputLimits) -> Option<Self> {
        let streams = OutputDigest::restore(saved.streams, limits)?;
        let kept = saved.kept.unwrap_or_else(|| streams.total());
        Some(Self { streams, log: saved.log, kept })
    }
}

/// What is known of a stream that goes from one agent to the next.
#[derive(Debug)]
pub(crate) struct StreamState {
    /// What came before; nothing, if somebody else may have read a part of it.
    pub(crate) received: Option<OutputState>,
    pub(crate) fed: InputState,
    /// When nobody read any more, as time since boot.
    pub(crate) given: Duration,
}
