//! Rights, and which of them it takes to create a request, to attach to it and to read its log.
//!
//! The policy `execlet-create` asks for the same ones at creation. Who is asked, and how, is not
//! known here.

use std::fmt;

use crate::api::{ExecRequest, names};

/// One right in one namespace, as RBAC speaks of rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// For example `create`.
    pub verb: &'static str,
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Resource, in the plural.
    pub resource: &'static str,
    /// Subresource; empty for none.
    pub subresource: &'static str,
    /// Namespace.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
}

impl Right {
    /// What `kubectl exec` takes, and what input to a command takes, which is a command as well.
    pub fn exec(namespace: &str, pod: &str) -> Self {
        Self {
            verb: "create",
            group: "",
            resource: "pods",
            subresource: "exec",
            namespace: namespace.to_owned(),
            name: pod.to_owned(),
        }
    }

    /// To attach. The API server itself asks only `get` for a WebSocket: who may read shall not command.
    pub fn attach(namespace: &str, request: &str) -> Self {
        Self::on_stream("create", "attach", namespace, request)
    }

    /// To read the log.
    pub fn log(namespace: &str, request: &str) -> Self {
        Self::on_stream("get", "log", namespace, request)
    }

    fn on_stream(verb: &'static str, subresource: &'static str, namespace: &str, request: &str) -> Self {
        Self {
            verb,
            group: names::SUBRESOURCES_GROUP,
            resource: "execrequests",
            subresource,
            namespace: namespace.to_owned(),
            name: request.to_owned(),
        }
    }

    /// What it takes to run as `user` and not as the container's own user.
    pub fn run_as(namespace: &str, user: &str) -> Self {
        Self {
            verb: "use",
            group: names::GROUP,
            resource: names::EXEC_USERS,
            subresource: "",
            namespace: namespace.to_owned(),
            name: user.to_owned(),
        }
    }
}

/// In Kubernetes' own words.
impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, group, resource, subresource, namespace, name } = self;
        let slash = if subresource.is_empty() { "" } else { "/" };
        write!(
            f,
            r#"{verb} resource "{resource}{slash}{subresource}" in API group "{group}" in the namespace "{namespace}" for "{name}""#
        )
    }
}

/// The rights that a request takes.
pub fn rights(request: &ExecRequest) -> Vec<Right> {
    let namespace = request.metadata.namespace.as_deref().unwrap_or_default();
    let exec = Right::exec(namespace, &request.spec.target.pod_name);
    let run_as = request.spec.user.as_deref().map(|user| Right::run_as(namespace, user));
    std::iter::once(exec).chain(run_as).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(spec: &serde_json::Value) -> ExecRequest {
        serde_json::from_value(json!({
            "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
            "metadata": {"name": "r", "namespace": "shop"}, "spec": spec,
        }))
        .expect("a request")
    }

    fn in_words(spec: &serde_json::Value) -> Vec<String> {
        rights(&request(spec)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_request_takes_what_kubectl_exec_takes() {
        let spec = json!({"target": {"podName": "web"}, "command": ["true"]});
        let words = r#"create resource "pods/exec" in API group "" in the namespace "shop" for "web""#;
        assert_eq!(in_words(&spec), [words]);
    }

    #[test]
    fn another_user_takes_one_right_more() {
        let spec = json!({"target": {"podName": "web"}, "command": ["true"], "user": "0:0"});
        let both = [
            r#"create resource "pods/exec" in API group "" in the namespace "shop" for "web""#,
            r#"use resource "execusers" in API group "execlet.dev" in the namespace "shop" for "0:0""#,
        ];
        assert_eq!(in_words(&spec), both);
    }
}
