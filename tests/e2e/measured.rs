//! What the pods of the installation say of themselves.

use serde_json::Value;

use crate::lab::{NAMESPACE, kubectl, kubectl_raw, text};

/// The pods of a component that are not on their way out.
pub fn living(component: &str) -> Vec<Value> {
    let selector = format!("app.kubernetes.io/component={component}");
    let list = kubectl(&["get", "pods", "-n", NAMESPACE, "-l", &selector, "-o", "json"]);
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let living = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] == "Running";
    list["items"].as_array().expect("a list").iter().filter(living).cloned().collect()
}

/// Their names.
pub fn pods(component: &str) -> Vec<String> {
    living(component).iter().map(|pod| pod["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}

/// A page of a pod's health and metrics.
pub fn get(pod: &str, path: &str) -> String {
    kubectl(&["get", "--raw", &page(pod, path)])
}

/// A metric without labels, of all pods of a component together, if each of them answers.
pub fn sum(component: &str, metric: &str) -> Option<u64> {
    each(component, metric).map(|values| values.into_iter().sum())
}

/// A metric without labels, of each pod of a component, if each of them answers.
pub fn each(component: &str, metric: &str) -> Option<Vec<u64>> {
    let of = |pod: String| {
        let answer = kubectl_raw(&["get", "--raw", &page(&pod, "metrics")]);
        answer.status.success().then(|| {
            let page = text(&answer.stdout);
            let value = page.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' ')?.parse::<u64>().ok());
            value.unwrap_or_else(|| panic!("{metric} is not in\n{page}"))
        })
    };
    pods(component).into_iter().map(of).collect()
}

fn page(pod: &str, path: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:9090/proxy/{path}")
}
