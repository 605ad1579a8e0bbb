//! A command that runs, and what those share that stay with it.

use std::sync::Arc;

use crate::{
    agent::{
        memory::request::Memory,
        node::{Node, World},
        streams::hub::Hub,
    },
    api::ExecRequest,
    core::{decide::RequestView, family::Member, ids::ExecRef, kill::Cause, outcome::Outcome},
};

pub(crate) struct RunningCommand<'a, W: World> {
    pub(crate) node: &'a Node<W>,
    /// What was read last of its request.
    pub(crate) wanted: RequestView<'a>,
    pub(crate) exec: &'a ExecRef,
    pub(crate) memory: &'a Memory<W>,
    pub(crate) hub: &'a Arc<Hub>,
}

impl<W: World> Clone for RunningCommand<'_, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W: World> Copy for RunningCommand<'_, W> {}

#[allow(clippy::large_enum_variant, reason = "one for each request in hand")]
pub(crate) enum WatchEnd {
    Ended(Outcome),
    /// The agent stops: the next one goes on.
    Left,
}

/// What the watch of the API server has told last of a request.
#[derive(Clone, Debug, Default)]
pub enum News {
    #[default]
    None,
    Changed(Box<ExecRequest>),
    /// It left the selection: finished by somebody, or deleted.
    Left,
}

pub(crate) struct Survivors {
    pub(crate) cause: Cause,
    pub(crate) living: Vec<Member>,
}
