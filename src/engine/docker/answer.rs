//! What the engine's answers mean that are not what was asked for.

use std::path::Path;

use crate::engine::EngineError;

pub(super) fn refused(status: u16, message: String, missing: fn(String) -> EngineError) -> EngineError {
    match status {
        404 => missing(message),
        409 => EngineError::ContainerNotRunning(message),
        400..500 => EngineError::Invalid(message),
        _ => EngineError::Failed(message),
    }
}

/// Says what was tried, what went wrong, and why.
pub(super) fn unreachable(socket: &Path, call: &str, error: &dyn std::error::Error) -> EngineError {
    let mut message = format!("{call}: {error}");
    for cause in std::iter::successors(error.source(), |cause| cause.source()) {
        message.push_str(": ");
        message.push_str(&cause.to_string());
    }
    EngineError::Unreachable { socket: socket.display().to_string(), message }
}
