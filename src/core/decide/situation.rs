//! What is known of one request when it is decided what is to be done next.

use k8s_openapi::jiff::Timestamp;

use crate::{
    api::Reason,
    core::{
        entry::{Entry, Terms},
        ids::{BootId, ContainerRef, ExecRef},
        request::BoundRequest,
        second::First,
    },
};

/// What the API server says of the request.
#[derive(Clone, Copy, Debug)]
pub enum RequestView<'a> {
    Request(&'a BoundRequest),
    /// It is there and not bound: an older state of the API server was restored. The manager binds it again.
    Unbound,
    /// It is not there any more, or another one has its name. One that was deleted and is held by a finalizer is there.
    Gone,
    /// The API server does not answer. What the journal has of it, if it has that.
    Unread(Option<Terms>),
}

impl<'a> RequestView<'a> {
    pub const fn request(self) -> Option<&'a BoundRequest> {
        match self {
            Self::Request(request) => Some(request),
            Self::Unbound | Self::Gone | Self::Unread(_) => None,
        }
    }

    /// What it asks for, if that is known.
    pub fn terms(self) -> Option<Terms> {
        match self {
            Self::Request(request) => Some(request.terms()),
            Self::Unread(terms) => terms,
            Self::Unbound | Self::Gone => None,
        }
    }
}

/// The bound container, as the engine shows it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerView {
    Running(ContainerRef),
    /// It does not, or is not the one that was bound.
    Unfit(Reason, String),
}

/// The exec of the request, as engine and kernel show it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecView {
    /// The engine does not know it, and its process is not there.
    Absent,
    /// The engine knows it, and that it was never started.
    Untouched,
    /// A start may have run something, and its process is not there.
    Spent,
    /// Its process lives, whatever the engine says.
    Alive,
    /// The engine takes it for ended and its process is gone.
    Ended,
    /// It was made by the engine that ran this node's containers before this one, and its process is not there.
    Foreign,
}

/// What an engine can do that another cannot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineView {
    /// It can take an exec away that was never started, from under a start that is on its way.
    pub fences: bool,
    /// It keeps output and code until both were read; for now, so does a connection that was handed over.
    pub keeps_output: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputView {
    /// It needs none, has it in its request, or a client is attached that sends it.
    There,
    /// It is to come from a client, and none is attached.
    Awaited,
}

#[derive(Clone, Debug)]
pub struct Situation<'a> {
    pub wanted: RequestView<'a>,
    pub entry: Option<&'a Entry>,
    pub container: ContainerView,
    /// Which exec it is about: the committed one, as the journal or, where that is lost, the status knows it; before the
    /// commit the one in the journal.
    pub exec: Option<(ExecRef, ExecView)>,
    pub engine: EngineView,
    pub input: InputView,
    /// Another request that holds its target.
    pub first: Option<&'a First>,
    pub boot: &'a BootId,
    pub now: Timestamp,
}
