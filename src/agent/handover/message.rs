//! What one agent tells the next of a stream that it hands over: a line of JSON beside the connection's descriptor.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    agent::streams::{
        digest::{HEAD_BYTES, TAIL_BYTES},
        input::{InputState, MESSAGE_BYTES, PENDING_BYTES},
        state::{OutputState, SavedOutput, StreamState},
    },
    api::OutputLimits,
    core::ids::{ExecId, RequestUid},
    engine::{Engine, ExecStream, Parts, REST_BYTES},
    wire::base64_text,
};

/// Version of the messages. Counts up when they change, or the form in which `sha2` writes its state.
const FORMAT: u32 = 1;
/// Longest message, in bytes: two tails, the head and what was not yet decoded or delivered, in base64; and the rest.
pub(super) const LONGEST: usize =
    2 * in_base64(TAIL_BYTES) + in_base64(HEAD_BYTES) + in_base64(REST_BYTES) + in_base64(PENDING_BYTES) + FIELDS;
/// Names, numbers and the states of the hashes, in bytes.
const FIELDS: usize = 8 * 1024;
const _: () = assert!(LONGEST > 3 * in_base64(MESSAGE_BYTES), "three messages of a client fit");
const _: () = assert!(LONGEST < 4 << 20, "the successor has one of them in memory");

const fn in_base64(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    format: u32,
    uid: RequestUid,
    exec: ExecId,
    tty: bool,
    /// What was read and not decoded.
    #[serde(with = "base64_text")]
    rest: Vec<u8>,
    /// When nobody read any more, as time since boot.
    given: Duration,
    /// [`SavedOutput`]; nothing, if somebody else may have read a part of the output.
    received: Option<Value>,
    /// An agent that knew of no input says nothing, and has delivered none.
    #[serde(default)]
    fed: Option<InputState>,
}

#[derive(Debug)]
pub struct HandedOverStream {
    pub(super) exec: ExecId,
    parts: Parts,
    given: Duration,
    received: Option<SavedOutput>,
    pub(super) fed: InputState,
}

pub type HandedOver = HashMap<RequestUid, HandedOverStream>;

impl HandedOverStream {
    /// The stream, if it is of this exec, and what came before.
    pub(crate) fn open<E: Engine>(
        self,
        engine: &E,
        exec: &ExecId,
        limits: &OutputLimits,
    ) -> Option<(ExecStream, StreamState)> {
        if self.exec != *exec {
            return None;
        }
        let received = self.received.and_then(|saved| OutputState::restore(saved, limits));
        let stream = engine.take_over(self.parts).ok()?;
        Some((stream, StreamState { received, fed: self.fed, given: self.given }))
    }
}

pub(super) fn encode(
    uid: &RequestUid,
    exec: &ExecId,
    parts: &Parts,
    state: &mut StreamState,
) -> serde_json::Result<Vec<u8>> {
    let message = Message {
        format: FORMAT,
        uid: uid.clone(),
        exec: exec.clone(),
        tty: parts.tty,
        rest: parts.rest.clone(),
        given: state.given,
        received: state.received.as_mut().map(|output| serde_json::to_value(output.save())).transpose()?,
        fed: Some(state.fed.clone()),
    };
    let mut text = serde_json::to_vec(&message)?;
    text.push(b'\n');
    Ok(text)
}

/// A connection from a predecessor whose format differs is taken all the same: it must be read, though what came before
/// is not known.
pub(super) fn decode(line: &[u8], connection: OwnedFd) -> Option<(RequestUid, HandedOverStream)> {
    let Message { format, uid, exec, tty, rest, given, received, fed } = serde_json::from_slice(line).ok()?;
    let parts = Parts { connection, rest, tty };
    let received = received.filter(|_| format == FORMAT).and_then(|saved| serde_json::from_value(saved).ok());
    Some((uid, HandedOverStream { exec, parts, given, received, fed: fed.unwrap_or_default() }))
}

pub(super) fn socket(state: &Path) -> PathBuf {
    state.join("handover.sock")
}
