//! The agents of the installation, as their engines and the API server show them.

use std::{fs, path::PathBuf};

use execlet::{
    agent::memory::{disk::Folder, journal::Journal, record::Record},
    core::entry::Entry,
};

use crate::{
    lab::{NAMESPACE, cluster, kubectl, kubectl_raw, tool, var_lib, wait_for},
    node,
    subject::agent_pod,
};

/// The engine's IDs of the agents' containers that run on a node.
pub fn containers(node: &str) -> Vec<String> {
    node::containers(node, &[(node::CONTAINER_NAME, "agent")])
}

/// Kills what runs of them on a node. Gives what that was.
pub fn kill(node: &str) -> Vec<String> {
    let running = containers(node);
    for id in &running {
        node::kill(node, id);
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
    ready(node).await;
}

/// Waits until the agent of a node says itself that it is ready: what the API server has of it may be old.
pub async fn ready(node: &str) {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{}:9090/proxy/readyz", agent_pod(node));
    wait_for("the agent to be ready", async || kubectl_raw(&["get", "--raw", &path]).status.success().then_some(()))
        .await;
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
    kubectl(&["rollout", "status", "daemonset/execlet-agent", "-n", NAMESPACE, "--timeout=180s"]);
}

/// The file of a request in the journal of a node.
pub fn record(node: &str, uid: &str) -> PathBuf {
    var_lib(node).join("execlet/journal").join(format!("{uid}.json"))
}

/// What stands in it.
pub fn noted(node: &str, uid: &str) -> String {
    fs::read_to_string(record(node, uid)).unwrap_or_default()
}

/// The agent of a node is killed, and away until this ends or is dropped.
pub struct Away(&'static str);

impl Away {
    pub async fn on(node: &'static str) -> Self {
        // The kubelet would have it back at once.
        tool(&["stop", node, "kubelet"]);
        let it = Self(node);
        assert_ne!(kill(node).len(), 0, "an agent was there");
        wait_for("the agent to be gone", async || containers(node).is_empty().then_some(())).await;
        it
    }

    /// Brings it back, and waits until it is ready.
    pub async fn end(self) {
        let node = self.0;
        drop(self);
        ready(node).await;
    }

    /// Its journal, which is nobody else's meanwhile.
    fn journal(&self) -> (Journal<Folder>, Vec<Record>) {
        let folder = Folder::open(&var_lib(self.0).join("execlet"), "journal", "a test").expect("the lock");
        Journal::open(folder).expect("a journal")
    }

    /// Puts something into it.
    pub async fn write(&self, record: Record) {
        self.journal().0.write(record).await.expect("written");
    }

    /// Changes what it has of a request.
    pub async fn edit(&self, uid: &str, change: impl FnOnce(&mut Entry)) {
        let (journal, records) = self.journal();
        let found = records.into_iter().find(|record| record.request.uid.as_str() == uid);
        let mut record = found.expect("a record of the request");
        change(&mut record.entry);
        journal.write(record).await.expect("written");
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        cluster(&["start", self.0, "kubelet"]);
    }
}
