//! A node's engine and its containers, whichever engine that is.

use std::{process::Output, sync::LazyLock};

use crate::lab::{cluster, text, tool};

/// By which a container is found.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub const POD_NAME: &str = "io.kubernetes.pod.name";

/// A node that has a Docker Engine, whatever the others have.
pub static DOCKER: LazyLock<&'static str> = LazyLock::new(|| one_with(Kind::Docker).expect("a node with Docker"));

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Docker,
    /// Its containers and what runs in them outlive it.
    Containerd,
}

/// A node that has such an engine.
pub fn one_with(engine: Kind) -> Option<&'static str> {
    ["n1", "n2"].into_iter().find(|node| kind(node) == engine)
}

pub fn kind(node: &str) -> Kind {
    match version(node).split_whitespace().next() {
        Some("docker") => Kind::Docker,
        Some("containerd") => Kind::Containerd,
        other => panic!("{node} runs {other:?}"),
    }
}

/// The engine's kind and version, for people.
pub fn version(node: &str) -> String {
    tool(&["engine", node])
}

/// The engine's IDs of the containers with these labels that run.
pub fn containers(node: &str, labels: &[(&str, &str)]) -> Vec<String> {
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    tool(&[&["containers", node], &labels[..]].concat()).split_whitespace().map(str::to_owned).collect()
}

/// The process of a container, as the host numbers it.
pub fn pid(node: &str, container: &str) -> String {
    tool(&["container", node, "pid", container])
}

/// Command lines of the processes in a container.
pub fn processes(node: &str, container: &str) -> Vec<String> {
    let all = tool(&["container", node, "processes", container]);
    all.lines().map(|line| line.trim().split_once(' ').map_or("", |(_, args)| args.trim()).to_owned()).collect()
}

/// What a command writes to standard output, run by the engine alone. It must succeed.
pub fn exec(node: &str, container: &str, command: &[&str]) -> Vec<u8> {
    let output = cluster(&[&["container", node, "exec", container], command].concat());
    assert!(output.status.success(), "{} in {container} on {node}: {}", command.join(" "), text(&output.stderr));
    output.stdout
}

/// Kills a container; it may be gone.
pub fn try_kill(node: &str, container: &str) -> Output {
    cluster(&["container", node, "kill", container])
}

/// Kills a container, unless it ends by itself meanwhile.
#[track_caller]
pub fn kill(node: &str, container: &str) {
    let killed = try_kill(node, container);
    let said = text(&killed.stderr);
    let is_gone = ["is not running", "No such container", "not found"].iter().any(|words| said.contains(words));
    assert!(killed.status.success() || is_gone, "killing {container} on {node}: {said}");
}

/// A container that is frozen until this is dropped.
pub struct Frozen {
    node: &'static str,
    container: String,
}

impl Frozen {
    pub fn new(node: &'static str, container: String) -> Self {
        tool(&["container", node, "pause", &container]);
        Self { node, container }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        tool(&["container", self.node, "resume", &self.container]);
    }
}

/// Kills the engine as a crash would, and starts it again.
pub fn restart_engine(node: &str) {
    tool(&["kill", node, "engine"]);
    tool(&["start", node, "engine"]);
}
