//! Which manager leads, and where it runs.

use execlet::api::names;

use crate::{
    lab::{NAMESPACE, kubectl, kubectl_raw, text, tool},
    node,
};

/// The pod of the manager that leads, if one does.
pub fn leader() -> Option<String> {
    let path = "jsonpath={.spec.holderIdentity}";
    let lease = kubectl_raw(&["get", "lease", names::LEADER_LEASE, "-n", NAMESPACE, "-o", path]);
    Some(text(&lease.stdout).trim().to_owned()).filter(|holder| !holder.is_empty())
}

/// The node and the container of the manager of a pod, if it runs.
pub fn container(manager: &str) -> Option<(String, String)> {
    let labels = [(node::POD_NAME, manager), (node::CONTAINER_NAME, "manager")];
    tool(&["nodes"]).split_whitespace().find_map(|node| {
        let found = node::containers(node, &labels).into_iter().next();
        found.map(|id| (node.to_owned(), id))
    })
}

/// Every manager is there that should be.
pub fn managers_rolled_out() {
    kubectl(&["rollout", "status", "deployment/execlet-manager", "-n", NAMESPACE, "--timeout=180s"]);
}
