//! Small disks under the agent of a node, to fill them.

use crate::{
    agents,
    lab::{cluster, text},
};

const NODE: &str = "n2";

fn node(script: &str) {
    let output = cluster(&["exec", NODE, "sh", "-euc", script]);
    assert!(output.status.success(), "on {NODE}: {script}: {}", text(&output.stderr));
}

/// A folder of node n2 on a small disk of its own, with an agent that was started on it.
pub struct SmallDisk {
    path: &'static str,
    /// What is in the folder is on the disk, and what is on the disk at the end is in the folder.
    keeps: bool,
}

impl SmallDisk {
    /// An empty one.
    pub async fn on(path: &'static str) -> Self {
        node(&format!("mkdir -p {path}; mount -t tmpfs -o size=1m tmpfs {path}"));
        Self::begun(Self { path, keeps: false }).await
    }

    /// One with what the folder has, and room for a little more.
    pub async fn under(path: &'static str) -> Self {
        node(&format!(
            "mkdir -p /run/aside; size=$(($(du -sk {path} | cut -f1) + 1024)); \
             mount -t tmpfs -o size=${{size}}k tmpfs /run/aside; cp -a {path}/. /run/aside/; \
             mount --bind /run/aside {path}; umount /run/aside"
        ));
        Self::begun(Self { path, keeps: true }).await
    }

    async fn begun(it: Self) -> Self {
        agents::restart(NODE).await;
        it
    }

    pub fn fill(&self) {
        let script = format!("cat /dev/zero > {0}/filler 2>/dev/null; ! echo x > {0}/more 2>/dev/null", self.path);
        cluster(&["exec", NODE, "sh", "-c", &script]);
    }

    pub fn empty(&self) {
        node(&format!("rm -f {0}/filler {0}/more", self.path));
    }

    pub async fn end(self) {
        drop(self);
        agents::restart(NODE).await;
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let path = self.path;
        let keep = format!(
            "rm -f {path}/filler {path}/more; mkdir -p /run/under; mount --bind $(dirname {path}) /run/under; \
             cp -a {path}/. /run/under/$(basename {path})/; umount /run/under; "
        );
        let keep = if self.keeps { keep.as_str() } else { "" };
        cluster(&["exec", NODE, "sh", "-c", &format!("{keep}umount -l {path}")]);
    }
}
