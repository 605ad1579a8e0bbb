//! Why a verb failed, in words for whoever typed it.

use std::{io, path::PathBuf, time::Duration};

use kube::{client::UpgradeConnectionError, config::KubeconfigError};
use thiserror::Error;

use super::exit::Exit;

#[derive(Debug, Error)]
pub enum Error {
    #[error("the kubeconfig: {0}")]
    Kubeconfig(#[source] Box<KubeconfigError>),
    #[error("no API server to connect to: give --kubeconfig or --server, or set KUBECONFIG")]
    NoCluster,
    #[error("cannot connect to the API server: {0}")]
    Client(String),
    #[error("{what}: {}", explain(.source))]
    Call { what: String, source: Box<kube::Error> },
    #[error("{what}: cannot reach the API server at {server}: {why}")]
    Unreachable { what: String, server: String, why: String },
    #[error("{what}: the API server did not answer within {} s (--request-timeout)", .within.as_secs_f32())]
    Timeout { what: String, within: Duration },
    #[error("cannot watch {name}: {why}; its command is not affected")]
    Unwatched { name: String, why: String },
    /// The plugin ends, and leaves a request that may still run.
    #[error("{source}; {left}")]
    Left { source: Box<Error>, left: String },
    /// Said in full by whoever noticed it.
    #[error("{0}")]
    Message(String),
    #[error("{}: {}", .path.display(), .source)]
    File { path: PathBuf, source: io::Error },
    #[error("{}: line {}: {}", .path.display(), .line, .why)]
    Content { path: PathBuf, line: usize, why: String },
    #[error("{what}: {source}")]
    Local { what: &'static str, source: io::Error },
    #[error("cannot write the output: {0}")]
    Output(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    pub fn local(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Local { what, source }
    }

    pub fn output(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Output(error.into())
    }

    pub const fn exit(&self) -> Exit {
        if matches!(self, Self::Unwatched { .. } | Self::Left { .. }) { Exit::LEFT } else { Exit::FAILED }
    }

    /// The same error, with what is left behind and what to do about it.
    #[must_use]
    pub fn leaves(self, left: impl Into<String>) -> Self {
        Self::Left { source: Box::new(self), left: left.into() }
    }

    pub fn answer(&self) -> Option<u16> {
        match self {
            Self::Call { source, .. } => answer(source),
            _ => None,
        }
    }
}

pub fn answer(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(code)) => Some(code.as_u16()),
        _ => None,
    }
}

/// The API server's own message if there is one, else the innermost cause.
pub fn explain(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return match (status.message.as_str(), status.code) {
            ("", code) => format!("the API server answered {code} {}", status.reason),
            (message, _) => message.to_owned(),
        };
    }
    let (outer, inner) = (error.to_string(), innermost(error));
    if outer.contains(&inner) { outer } else { format!("{outer}: {inner}") }
}

/// Why there was no answer at all; `None` if there was one.
pub fn unreachable(error: &kube::Error) -> Option<String> {
    matches!(error, kube::Error::Service(_) | kube::Error::HyperError(_)).then(|| innermost(error))
}

fn innermost(error: &kube::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
