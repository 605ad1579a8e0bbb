//! What the pods of the installation say of themselves.

use crate::lab::{NAMESPACE, kubectl};

/// The pods of a component.
pub fn pods(component: &str) -> Vec<String> {
    let selector = format!("app.kubernetes.io/component={component}");
    let names = kubectl(&["get", "pods", "-n", NAMESPACE, "-l", &selector, "-o", "jsonpath={.items[*].metadata.name}"]);
    names.split_whitespace().map(str::to_owned).collect()
}

/// A page of its health and metrics.
pub fn get(pod: &str, path: &str) -> String {
    kubectl(&["get", "--raw", &format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:9090/proxy/{path}")])
}

/// A metric without labels, of all pods of a component together.
pub fn sum(component: &str, metric: &str) -> u64 {
    let of = |page: String| {
        let value = page.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' ')?.parse::<u64>().ok());
        value.unwrap_or_else(|| panic!("{metric} is not in\n{page}"))
    };
    pods(component).iter().map(|pod| of(get(pod, "metrics"))).sum()
}
