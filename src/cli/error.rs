//! What keeps a verb from being done, in words for the one who typed it.

use std::{io, path::PathBuf, time::Duration};

use kube::config::{KubeconfigError, NamedContext};
use thiserror::Error;

use super::exit::Exit;

/// Why a verb could not be done.
#[derive(Debug, Error)]
pub enum Error {
    /// The kubeconfig cannot be read, or names what it does not have.
    #[error("the kubeconfig: {0}")]
    Kubeconfig(#[source] Box<KubeconfigError>),
    /// There is no way to an API server at all.
    #[error("no way to an API server: give --kubeconfig or --server, or set KUBECONFIG")]
    NoCluster,
    /// The connection cannot be made of what was given.
    #[error("cannot connect to the API server: {0}")]
    Client(String),
    /// The API server refuses or fails.
    #[error("{}: {}", .what, explain(.source))]
    Call {
        /// What was asked.
        what: String,
        /// What went wrong.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server cannot be reached.
    #[error("{what}: cannot reach the API server at {server}: {why}")]
    Unreachable {
        /// What was asked.
        what: String,
        /// Its address.
        server: String,
        /// What went wrong.
        why: String,
    },
    /// No answer in time.
    #[error("{what}: the API server did not answer within {} s", .within.as_secs_f32())]
    Timeout {
        /// What was asked.
        what: String,
        /// The patience.
        within: Duration,
    },
    /// A request cannot be watched any longer. Its command does not care.
    #[error("cannot watch {name}: {why}; its command is not touched by that")]
    Unwatched {
        /// The request.
        name: String,
        /// Why.
        why: String,
    },
    /// The plugin goes, and a request is left that may go on.
    #[error("{source}; {left}")]
    Left {
        /// Why it goes.
        #[source]
        source: Box<Error>,
        /// What is left, and what to do about it.
        left: String,
    },
    /// What was typed makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The cluster serves no streams.
    #[error("{0}")]
    NoStreams(String),
    /// A file.
    #[error("{}: {}", .path.display(), .source)]
    File {
        /// Its path.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// A file that holds something else.
    #[error("{}: line {}: {}", .path.display(), .line, .why)]
    Content {
        /// Its path.
        path: PathBuf,
        /// Where.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// The terminal, or another of our own ends.
    #[error("{what}: {source}")]
    Local {
        /// What was tried.
        what: &'static str,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// What is to be shown cannot be written.
    #[error("cannot show it: {0}")]
    Show(String),
}

impl Error {
    /// An error of one of our own ends.
    pub(super) fn local(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Local { what, source }
    }

    /// How the plugin ends by it.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Unwatched { .. } | Self::Left { .. } => Exit::LEFT,
            Self::Kubeconfig(_)
            | Self::NoCluster
            | Self::Client(_)
            | Self::Call { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Usage(_)
            | Self::NoStreams(_)
            | Self::File { .. }
            | Self::Content { .. }
            | Self::Local { .. }
            | Self::Show(_) => Exit::FAILED,
        }
    }

    /// The same, where a request is left that may go on.
    pub(super) fn leaves(self, left: impl Into<String>) -> Self {
        Self::Left { source: Box::new(self), left: left.into() }
    }

    /// The HTTP status that the API server answered with.
    pub fn answer(&self) -> Option<u16> {
        match self {
            Self::Call { source, .. } => answer(source),
            _ => None,
        }
    }
}

/// The HTTP status that the API server answered with.
pub(super) fn answer(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        kube::Error::UpgradeConnection(kube::client::UpgradeConnectionError::ProtocolSwitch(code)) => {
            Some(code.as_u16())
        }
        _ => None,
    }
}

/// The API server's own words where it has some, else the innermost cause.
pub(super) fn explain(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return match (status.message.as_str(), status.code) {
            ("", code) => format!("the API server answered {code} {}", status.reason),
            (message, _) => message.to_owned(),
        };
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    let (outer, inner) = (error.to_string(), innermost.to_string());
    if outer.contains(&inner) { outer } else { format!("{outer}: {inner}") }
}

/// Why there was no answer at all; `None` if there was one.
pub(super) fn unreachable(error: &kube::Error) -> Option<String> {
    match error {
        kube::Error::Service(_) | kube::Error::HyperError(_) => {
            let mut innermost: &dyn std::error::Error = error;
            while let Some(cause) = innermost.source() {
                innermost = cause;
            }
            Some(innermost.to_string())
        }
        _ => None,
    }
}

/// The names of contexts, for a message.
pub(super) fn names(contexts: &[NamedContext]) -> String {
    contexts.iter().map(|context| context.name.as_str()).collect::<Vec<_>>().join(", ")
}
