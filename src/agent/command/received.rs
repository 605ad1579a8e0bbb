//! What was received of a command, and what that is worth.

use std::time::Duration;

use crate::{
    agent::streams::{
        input::InputState,
        state::{OutputState, StreamState},
    },
    api::OutputStatus,
    core::{execution::Heard, outcome::StreamEnd},
};

/// The stream broke, or the engine went away at its end.
pub(crate) const STREAM_BROKEN: &str = "StreamBroken";
/// The engine has ended it while somebody still held it.
pub(crate) const FORCED_END: &str = "ForcedEnd";

#[derive(Debug)]
pub(crate) enum Origin {
    /// Of a start that nobody can have made before.
    Sole,
    /// From the agent before this one, which has handed it over.
    HandedOver(Box<StreamState>),
    /// Opened again where the agent before this one was when it last noted it.
    Reopened { state: Box<StreamState>, input_lost: bool },
    /// Of a start that somebody may have made before.
    Shared,
}

pub(crate) struct Beginning {
    /// Nobody else has read a part of it.
    pub(crate) sole: bool,
    pub(crate) before: OutputState,
    /// What was fed before, if it goes on.
    pub(crate) fed: Option<InputState>,
    /// For how long nobody has read.
    pub(crate) unread: Duration,
    pub(crate) input_lost: bool,
}

impl Origin {
    /// At `now`, as time since boot.
    pub(crate) fn begin(self, now: Duration, fresh: impl Fn() -> OutputState) -> Beginning {
        let (sole, received, fed, unread, input_lost) = match self {
            Self::Sole => (true, None, None, Duration::ZERO, false),
            Self::Shared => (false, None, None, Duration::ZERO, true),
            Self::HandedOver(state) => {
                let StreamState { received, fed, given } = *state;
                (received.is_some(), received, Some(fed), now.saturating_sub(given), false)
            }
            // The engine has kept what nobody read.
            Self::Reopened { state, input_lost } => {
                let StreamState { received, fed, .. } = *state;
                (true, received, Some(fed), Duration::ZERO, input_lost)
            }
        };
        Beginning { sole, before: received.unwrap_or_else(fresh), fed, unread, input_lost }
    }
}

pub(crate) struct Received {
    pub(crate) end: StreamEnd,
    pub(crate) output: OutputStatus,
    /// The beginning of standard output: some engines say there why a start has failed.
    pub(crate) head: String,
    /// All that was written, if that is known.
    pub(crate) heard: Option<Heard>,
    pub(crate) input: InputEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InputEnd {
    /// All of it was delivered, or there was none.
    Whole,
    /// The command ended before it had all.
    Open,
    Lost,
}

impl InputEnd {
    pub(crate) fn of(delivered: bool, connected_to_the_end: bool) -> Self {
        match (delivered, connected_to_the_end) {
            (true, _) => Self::Whole,
            (false, true) => Self::Open,
            (false, false) => Self::Lost,
        }
    }
}
