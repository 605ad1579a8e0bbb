//! Containers that outlive their node's engine: those of containerd do always, those of Docker with live-restore.

use std::{fs, path::PathBuf};

use crate::{
    lab::{cluster, tool, var_lib},
    node::{Kind, kind},
};

/// Is on until dropped.
#[expect(dead_code, reason = "the settings are held, not read")]
pub struct LiveRestore(Option<Settings>);

/// Of a Docker Engine, as they were before.
struct Settings {
    node: &'static str,
    path: PathBuf,
    before: String,
}

impl LiveRestore {
    pub fn on(node: &'static str) -> Self {
        if kind(node) == Kind::Containerd {
            return Self(None);
        }
        let path = var_lib(node).join("docker-daemon.json");
        let before = fs::read_to_string(&path).expect("the engine's settings");
        fs::write(&path, before.replace("\"live-restore\": false", "\"live-restore\": true")).expect("written");
        tool(&["kill", node, "dockerd", "HUP"]);
        Self(Some(Settings { node, path, before }))
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        fs::write(&self.path, &self.before).expect("written");
        cluster(&["kill", self.node, "dockerd", "HUP"]);
    }
}
