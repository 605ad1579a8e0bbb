//! What a client is told that does not get what it asked for: a `metav1.Status`, as from any API
//! server, so that every client knows how to show it.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;
use thiserror::Error;

/// Why a call is not answered as asked. The text is for the user.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    /// It did not come through the API server, or says not of whom.
    #[error("{0}")]
    Unauthenticated(String),
    /// Who asks lacks a right, or a web page asks in their name.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such request, or no such path.
    #[error("{0}")]
    NotFound(String),
    /// What was asked makes no sense, or cannot be had of this request.
    #[error("{0}")]
    BadRequest(String),
    /// The path is there, the method is not.
    #[error("{0}")]
    MethodNotAllowed(String),
    /// A limit is reached; it may be free later.
    #[error("{0}")]
    TooMany(String),
    /// The request was not ready in the time that a call may wait.
    #[error("{0}")]
    NotYet(String),
    /// The agent cannot be reached, or this replica is about to end.
    #[error("{0}")]
    Unavailable(String),
    /// Something between us, the API server and the agent is not as it must be.
    #[error("Internal error occurred: {0}")]
    Internal(String),
    /// What an agent says.
    #[error("{message}")]
    Agent {
        /// Of an error.
        code: StatusCode,
        /// As Kubernetes has it.
        reason: String,
        message: String,
    },
}

impl Refusal {
    pub(crate) fn code(&self) -> StatusCode {
        self.code_and_reason().0
    }

    /// The HTTP code, and the `reason` that Kubernetes has for it.
    fn code_and_reason(&self) -> (StatusCode, &str) {
        match self {
            Self::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, "Unauthorized"),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "Forbidden"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "NotFound"),
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "BadRequest"),
            Self::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
            Self::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
            Self::NotYet(_) => (StatusCode::GATEWAY_TIMEOUT, "Timeout"),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
            Self::Agent { code, reason, .. } => (*code, reason),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (code, reason) = self.code_and_reason();
        let status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.to_string(),
            "reason": reason,
            "code": code.as_u16(),
        });
        let mut response = (code, Json(status)).into_response();
        // For the one log line that is written of it.
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::Value;

    use super::*;

    #[tokio::test]
    async fn a_refusal_is_a_status_with_the_code_of_the_answer() {
        let response = Refusal::TooMany("as many as may be".into()).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()["content-type"], "application/json");
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let status: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(
            status,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "as many as may be", "reason": "TooManyRequests", "code": 429})
        );
    }
}
