//! The leading manager, and how much memory it takes, as the kernel tells.

use std::{fs, path::PathBuf};

use execlet::api::names;

use crate::{
    NODES,
    lab::{NAMESPACE, cluster, kubectl, text},
};

#[derive(Debug, PartialEq, Eq)]
pub struct Leader {
    pod: String,
    /// Of its process, in `/proc`.
    folder: PathBuf,
}

impl Leader {
    pub fn find() -> Self {
        let path = "jsonpath={.spec.holderIdentity}";
        let pod = kubectl(&["get", "lease", names::LEADER_LEASE, "-n", NAMESPACE, "-o", path]);
        let label = format!("label=io.kubernetes.pod.name={pod}");
        let pid = NODES.into_iter().find_map(|node| {
            let name = "label=io.kubernetes.container.name=manager";
            let found = cluster(&["docker", node, "ps", "--quiet", "--filter", &label, "--filter", name]);
            let id = text(&found.stdout).split_whitespace().next()?.to_owned();
            let pid = cluster(&["docker", node, "inspect", "--format", "{{.State.Pid}}", &id]);
            text(&pid.stdout).trim().parse::<u32>().ok()
        });
        let folder = PathBuf::from(format!("/proc/{}", pid.expect("the process of the leading manager")));
        Self { pod, folder }
    }

    /// KiB of memory that it has now.
    pub fn resident(&self) -> u64 {
        self.field("VmRSS:")
    }

    /// The most KiB that it had since [`Self::forget_most`].
    pub fn most(&self) -> u64 {
        self.field("VmHWM:")
    }

    pub fn forget_most(&self) {
        fs::write(self.folder.join("clear_refs"), "5").expect("the kernel counts anew");
    }

    fn field(&self, name: &str) -> u64 {
        let status = fs::read_to_string(self.folder.join("status")).expect("the manager lives");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of it");
        line.trim().strip_suffix(" kB").and_then(|number| number.parse().ok()).expect("a number")
    }
}
