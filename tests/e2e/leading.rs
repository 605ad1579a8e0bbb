//! Which manager leads, and where it runs.

use execlet::api::names;

use crate::lab::{NAMESPACE, docker, kubectl_raw, text, tool};

/// The pod of the manager that leads, if one does.
pub fn leader() -> Option<String> {
    let path = "jsonpath={.spec.holderIdentity}";
    let lease = kubectl_raw(&["get", "lease", names::LEADER_LEASE, "-n", NAMESPACE, "-o", path]);
    Some(text(&lease.stdout).trim().to_owned()).filter(|holder| !holder.is_empty())
}

/// The node and the container of the manager of a pod, if it runs.
pub fn container(manager: &str) -> Option<(String, String)> {
    let label = format!("label=io.kubernetes.pod.name={manager}");
    let component = "label=io.kubernetes.container.name=manager";
    tool(&["nodes"]).split_whitespace().find_map(|node| {
        let found = text(&docker(node, &["ps", "--quiet", "--filter", &label, "--filter", component]));
        found.split_whitespace().next().map(|id| (node.to_owned(), id.to_owned()))
    })
}
