//! Which engine: by what the command line says, else by what the Node does.

use clap::ValueEnum;
use execlet::{
    core::runtime::Runtime,
    engine::{containerd, docker},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Setting {
    /// As the Node says.
    Auto,
    Docker,
    Containerd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    Docker,
    Containerd,
}

impl Setting {
    /// `None`: the Node says.
    pub const fn told(self) -> Option<Chosen> {
        match self {
            Self::Auto => None,
            Self::Docker => Some(Chosen::Docker),
            Self::Containerd => Some(Chosen::Containerd),
        }
    }
}

/// By its name alone: whether its version is one to work with, the engine itself says. An error goes on from "node N runs its
/// containers in".
pub fn choose(runtime: &Runtime) -> Result<Chosen, String> {
    match runtime.name.as_str() {
        docker::NAME => Ok(Chosen::Docker),
        containerd::NAME => Ok(Chosen::Containerd),
        name => Err(format!(
            "{name} {}, with which no agent works; wanted is {} or {}: keep the agents off such nodes (agent.nodeSelector \
             of the chart), and use kubectl exec there",
            runtime.version,
            docker::WANTED,
            containerd::WANTED
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(runtime: &str) -> Result<Chosen, String> {
        choose(&runtime.parse().expect("a runtime"))
    }

    #[test]
    fn the_node_names_the_engine_whatever_its_version() {
        for (runtime, expected) in [
            ("docker://20.10.24", Chosen::Docker),
            ("docker://27.3.1", Chosen::Docker),
            ("containerd://2.4.2", Chosen::Containerd),
            ("containerd://1.6.20~ds1", Chosen::Containerd),
            ("containerd://1.7.27-k3s1", Chosen::Containerd),
        ] {
            assert_eq!(chosen(runtime), Ok(expected), "{runtime}");
        }
    }

    #[test]
    fn another_engine_is_refused_with_what_was_found_what_is_wanted_and_what_to_do() {
        for runtime in ["cri-o://1.30.0", "podman://5.0", "dockerd://1", "container://1"] {
            let why = chosen(runtime).expect_err("refused");
            let (name, version) = runtime.split_once("://").expect("both");
            for said in [name, version, "Docker Engine 20.10", "containerd 1.7", "agent.nodeSelector"] {
                assert!(why.contains(said), "{runtime}: {why}");
            }
        }
    }

    #[test]
    fn what_the_command_line_says_needs_no_node() {
        assert_eq!(Setting::Auto.told(), None);
        assert_eq!(Setting::Docker.told(), Some(Chosen::Docker));
        assert_eq!(Setting::Containerd.told(), Some(Chosen::Containerd));
    }
}
