//! Calls to the API server, each with a deadline.

use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;

/// The API server did not answer as wanted. Whether a write happened is not known.
#[derive(Debug, Error)]
pub enum ApiError {
    #[error("the API server failed to {call}: {}", words(.source))]
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

/// The API server's own words, where it has answered.
pub fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        error => error.to_string(),
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

/// What an API server says that refuses a call with this code, for tests.
#[cfg(test)]
pub(crate) fn refused(code: u16) -> kube::Error {
    kube::Error::Api(kube::core::Status::failure("", "").with_code(code).boxed())
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn the_api_servers_own_words_are_told_and_nothing_of_how_they_are_kept() {
        let failed = |message: &str| {
            let source = Box::new(kube::Error::Api(Status::failure(message, "Forbidden").with_code(403).boxed()));
            ApiError::Failed { call: "create a request".to_owned(), source }.to_string()
        };
        assert_eq!(failed("exceeded quota: few"), "the API server failed to create a request: exceeded quota: few");
        assert!(failed("").contains("Forbidden"), "{}", failed(""));
    }
}
