//! Rights: what a requester must be allowed for a request to run.
//!
//! Which rights a request takes is said here once; the policy `execlet-create` asks for the same
//! ones at creation. Who is asked, and how, is not known here.

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
    /// What `kubectl exec` takes.
    #[must_use]
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

    /// What it takes to run as `user` and not as the container's own user.
    #[must_use]
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

/// As in "alice cannot create pods/exec of web in namespace shop".
impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, group, resource, subresource, namespace, name } = self;
        write!(f, "{verb} {resource}")?;
        if !group.is_empty() {
            write!(f, ".{group}")?;
        }
        if !subresource.is_empty() {
            write!(f, "/{subresource}")?;
        }
        write!(f, " of {name} in namespace {namespace}")
    }
}

/// The rights that a request takes.
#[must_use]
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
        assert_eq!(in_words(&spec), ["create pods/exec of web in namespace shop"]);
    }

    #[test]
    fn another_user_takes_one_right_more() {
        let spec = json!({"target": {"podName": "web"}, "command": ["true"], "user": "0:0"});
        let both = ["create pods/exec of web in namespace shop", "use execusers.execlet.dev of 0:0 in namespace shop"];
        assert_eq!(in_words(&spec), both);
    }
}
