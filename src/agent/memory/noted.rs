//! How far an agent has come with the output of a command, for the next one in case it crashes.

use serde::{Deserialize, Serialize};

use crate::{
    agent::streams::{
        input::InputState,
        state::{OutputState, SavedOutput},
    },
    api::OutputLimits,
    core::ids::{ExecId, ExecRef},
};

#[derive(Debug)]
pub(crate) struct Noted {
    pub(crate) output: OutputState,
    /// Bytes of the log's file that hold what is in it of this.
    pub(crate) file: u64,
    pub(crate) input: InputState,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Saved {
    exec: ExecId,
    output: SavedOutput,
    file: u64,
    input: InputState,
}

pub(crate) fn encode(exec: &ExecRef, output: SavedOutput, file: u64, input: &InputState) -> Option<Vec<u8>> {
    serde_json::to_vec(&Saved { exec: exec.id.clone(), output, file, input: input.clone() }).ok()
}

/// `None`: of another exec, or written by an agent of another version.
pub(crate) fn decode(text: &[u8], exec: &ExecRef, limits: &OutputLimits) -> Option<Noted> {
    let saved: Saved = serde_json::from_slice(text).ok()?;
    if saved.exec != exec.id {
        return None;
    }
    let output = OutputState::restore(saved.output, limits)?;
    Some(Noted { output, file: saved.file, input: saved.input })
}
