//! The agents of the installation, as their engines and the API server show them.

use crate::lab::{NAMESPACE, docker, kubectl, text, wait_for};

/// The engine's IDs of the agents' containers that run on a node.
pub fn containers(node: &str) -> Vec<String> {
    containers_of("agent", node)
}

/// The engine's IDs of a component's containers that run on a node.
pub fn containers_of(component: &str, node: &str) -> Vec<String> {
    let label = format!("label=io.kubernetes.container.name={component}");
    let found = text(&docker(node, &["ps", "--quiet", "--filter", &label]));
    found.split_whitespace().map(str::to_owned).collect()
}

/// The process of a container, as the host numbers it.
pub fn pid(node: &str, container: &str) -> String {
    text(&docker(node, &["inspect", "--format", "{{.State.Pid}}", container])).trim().to_owned()
}

/// Kills what runs of them on a node. Gives what that was.
pub fn kill(node: &str) -> Vec<String> {
    let running = containers(node);
    for id in &running {
        docker(node, &["kill", id]);
    }
    running
}

/// Kills the agent of a node, and waits until another one is ready.
pub async fn restart(node: &str) {
    let killed = kill(node);
    wait_for("another agent", async || {
        let now = containers(node);
        (!now.is_empty() && now.iter().all(|id| !killed.contains(id))).then_some(())
    })
    .await;
    rolled_out();
}

/// Replaces all agents, as an update does, and waits until those of a node before it are gone.
pub async fn update(node: &str) {
    let before = containers(node);
    kubectl(&["rollout", "restart", "daemonset/execlet-agent", "-n", NAMESPACE]);
    rolled_out();
    wait_for("the old agent to be gone", async || containers(node).iter().all(|id| !before.contains(id)).then_some(()))
        .await;
}

/// Every node has the agent that it should have.
pub fn rolled_out() {
    kubectl(&["rollout", "status", "daemonset/execlet-agent", "-n", NAMESPACE, "--timeout=90s"]);
}
