//! Calls to the API server, each with a deadline.

use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;

/// The API server did not answer as wanted. Whether a write happened is not known.
#[derive(Debug, Error)]
pub enum ApiError {
    #[error("the API server failed to {call}: {source}")]
    Failed {
        call: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("the API server did not {call} within {} s", .after.as_secs())]
    Timeout { call: String, after: Duration },
}

impl ApiError {
    /// Whether the API server has answered, with something that cannot be read: the next call may be fine.
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Failed { source, .. } if matches!(**source, kube::Error::SerdeError(_)))
    }

    pub fn code(&self) -> Option<u16> {
        self.status().map(|status| status.code)
    }

    pub(crate) fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Failed { source, .. } => match &**source {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Timeout { .. } => None,
        }
    }
}

/// Waits for an answer for `after` at most. `call` says what the API server is asked to do.
pub(crate) async fn within<T>(
    after: Duration,
    call: String,
    future: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApiError> {
    match timeout(after, future).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(ApiError::Failed { call, source: Box::new(source) }),
        Err(_) => Err(ApiError::Timeout { call, after }),
    }
}
