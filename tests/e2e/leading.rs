//! Which manager leads, and where it runs.

use execlet::api::names;

use crate::{
    engines,
    lab::{NAMESPACE, kubectl_raw, text, tool},
};

/// The pod of the manager that leads, if one does.
pub fn leader() -> Option<String> {
    let path = "jsonpath={.spec.holderIdentity}";
    let lease = kubectl_raw(&["get", "lease", names::LEADER_LEASE, "-n", NAMESPACE, "-o", path]);
    Some(text(&lease.stdout).trim().to_owned()).filter(|holder| !holder.is_empty())
}

/// The node and the container of the manager of a pod, if it runs.
pub fn container(manager: &str) -> Option<(String, String)> {
    let labels = [("io.kubernetes.pod.name", manager), ("io.kubernetes.container.name", "manager")];
    tool(&["nodes"]).split_whitespace().find_map(|node| {
        let found = engines::running(node, &labels);
        found.into_iter().next().map(|id| (node.to_owned(), id))
    })
}
