//! Which rights it takes to create a request, to attach to it and to read its log.
//!
//! The policy `execlet-create` requires the same at creation.

use std::fmt;

use crate::api::{ExecRequest, names};

/// One right in one namespace, in the terms of RBAC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    pub verb: &'static str,
    /// Empty for the core group.
    pub group: &'static str,
    pub resource: &'static str,
    pub subresource: &'static str,
    pub namespace: String,
    /// Empty for all of them.
    pub name: String,
}

impl Right {
    /// What `kubectl exec` needs. Input to a command needs it too: it is a command as well.
    pub fn exec(namespace: &str, pod: &str) -> Self {
        Self::new("create", "", "pods", "exec", namespace, pod)
    }

    /// For a WebSocket the API server itself asks only for `get`: read access must not be enough to attach.
    pub fn attach(namespace: &str, request: &str) -> Self {
        Self::new("create", names::SUBRESOURCES_GROUP, "execrequests", "attach", namespace, request)
    }

    pub fn log(namespace: &str, request: &str) -> Self {
        Self::new("get", names::SUBRESOURCES_GROUP, "execrequests", "log", namespace, request)
    }

    /// To run as `user` instead of the container's own user.
    pub fn run_as(namespace: &str, user: &str) -> Self {
        Self::new("use", names::GROUP, names::EXEC_USERS, "", namespace, user)
    }

    /// To see which pods there are.
    pub fn list_pods(namespace: &str) -> Self {
        Self::new("list", "", "pods", "", namespace, "")
    }

    pub fn get(group: &'static str, resource: &'static str, namespace: &str, name: &str) -> Self {
        Self::new("get", group, resource, "", namespace, name)
    }

    fn new(
        verb: &'static str,
        group: &'static str,
        resource: &'static str,
        subresource: &'static str,
        namespace: &str,
        name: &str,
    ) -> Self {
        Self { verb, group, resource, subresource, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// As the API server words it.
impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, group, resource, subresource, namespace, name } = self;
        let slash = if subresource.is_empty() { "" } else { "/" };
        write!(
            f,
            r#"{verb} resource "{resource}{slash}{subresource}" in API group "{group}" in the namespace "{namespace}""#
        )?;
        if self.name.is_empty() { Ok(()) } else { write!(f, r#" for "{name}""#) }
    }
}

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
