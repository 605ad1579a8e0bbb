//! Live-restore of a node's engine: its containers outlive it.

use std::{fs, path::PathBuf};

use crate::lab::{cluster, tool, var_lib};

/// Is on until dropped.
pub struct LiveRestore {
    node: &'static str,
    path: PathBuf,
    before: String,
}

impl LiveRestore {
    pub fn on(node: &'static str) -> Self {
        let path = var_lib(node).join("docker-daemon.json");
        let before = fs::read_to_string(&path).expect("the engine's settings");
        fs::write(&path, before.replace("\"live-restore\": false", "\"live-restore\": true")).expect("written");
        tool(&["kill", node, "dockerd", "HUP"]);
        Self { node, path, before }
    }
}

impl Drop for LiveRestore {
    fn drop(&mut self) {
        fs::write(&self.path, &self.before).expect("written");
        cluster(&["kill", self.node, "dockerd", "HUP"]);
    }
}
