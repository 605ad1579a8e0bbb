//! `status.result`: the `metav1.Status` that `kubectl exec` gets as the last
//! frame of its error channel, field for field.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::message::cut;

/// A `metav1.Status`, as the kubelet sends it at the end of an exec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecResult {
    /// Always empty; present because the kubelet sends it.
    #[serde(default)]
    pub metadata: EmptyMeta,
    /// "Success" or "Failure".
    #[schemars(length(max = 16))]
    pub status: String,
    /// A description for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub message: Option<String>,
    /// "NonZeroExitCode" or "InternalError".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub reason: Option<String>,
    /// The exit code, as a cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<ResultDetails>,
    /// HTTP status code, for errors that are not an exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 999))]
    pub code: Option<i32>,
}

/// The empty `metadata` of a `metav1.Status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct EmptyMeta {}

/// The `details` of a `metav1.Status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ResultDetails {
    /// The causes; for an exit code one cause with reason "ExitCode" and the code as message.
    #[schemars(length(max = 8))]
    pub causes: Vec<ResultCause>,
}

/// One cause in the `details` of a `metav1.Status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ResultCause {
    /// "ExitCode", or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub reason: Option<String>,
    /// The exit code in decimal, or the error's text.
    #[schemars(length(max = 32768))]
    pub message: String,
}

impl ExecResult {
    /// What `kubectl exec` gets for a command that ended with this code. The message is the API server's,
    /// which translates between kubelet and client (since Kubernetes 1.30).
    pub fn of_exit_code(code: i32) -> Self {
        if code == 0 {
            return Self { status: "Success".into(), ..Self::default() };
        }
        Self {
            status: "Failure".into(),
            message: Some(format!(
                "command terminated with non-zero exit code: command terminated with exit code {code}"
            )),
            reason: Some("NonZeroExitCode".into()),
            details: Some(ResultDetails {
                causes: vec![ResultCause { reason: Some("ExitCode".into()), message: code.to_string() }],
            }),
            ..Self::default()
        }
    }

    /// For a viewer that is disconnected. It says nothing about the command, which goes on.
    pub fn of_viewer(message: &str) -> Self {
        Self {
            status: "Failure".into(),
            message: Some(message.into()),
            reason: Some("Expired".into()),
            code: Some(410),
            ..Self::default()
        }
    }

    /// What the kubelet sends when there is no exit code.
    pub fn of_error(message: &str) -> Self {
        let message = cut(message);
        Self {
            status: "Failure".into(),
            message: Some(format!("Internal error occurred: {message}")),
            reason: Some("InternalError".into()),
            details: Some(ResultDetails { causes: vec![ResultCause { reason: None, message }] }),
            code: Some(500),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_the_definition_would_refuse_is_cut() {
        let ExecResult { message, details, .. } = ExecResult::of_error(&"é".repeat(64 * 1024));
        assert!(message.expect("a message").chars().count() < 5000);
        assert!(details.expect("details").causes[0].message.chars().count() < 5000);
    }
}
