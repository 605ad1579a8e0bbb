//! The mounts that a process sees, without a question to any of their file systems.

use std::{fs, io};

/// File systems that this kernel keeps itself: none waits for another machine or process, none tells another time.
const OWN: [&str; 8] = ["overlay", "ext4", "ext3", "ext2", "xfs", "btrfs", "f2fs", "tmpfs"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    point: String,
    /// What of the file system is mounted.
    root: String,
    kind: String,
    pub(super) noexec: bool,
}

impl Mount {
    pub(super) fn is_own(&self) -> bool {
        OWN.contains(&self.kind.as_str())
    }
}

pub(super) struct Mounts(Vec<Mount>);

impl Mounts {
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        Ok(Self(fs::read_to_string(format!("/proc/{pid}/mountinfo"))?.lines().filter_map(mount).collect()))
    }

    /// What is mounted at this very path.
    pub(super) fn at(&self, path: &str) -> Option<&Mount> {
        self.0.iter().rev().find(|mount| mount.point == path)
    }

    /// The root, if it is a container's own: nobody in it can have made another, neither by `chroot` nor by a volume.
    pub(super) fn root(&self) -> Option<&Mount> {
        self.at("/").filter(|mount| mount.kind == "overlay" && mount.root == "/")
    }
}

/// One line of mountinfo.
fn mount(line: &str) -> Option<Mount> {
    let (fixed, rest) = line.split_once(" - ")?;
    let fields: Vec<&str> = fixed.split(' ').collect();
    Some(Mount {
        point: unescaped(fields.get(4)?),
        root: unescaped(fields.get(3)?),
        kind: rest.split(' ').next()?.to_owned(),
        noexec: fields.get(5)?.split(',').any(|option| option == "noexec"),
    })
}

/// Blanks and backslashes are written as three octal digits.
fn unescaped(text: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(text.to_owned(), |text, (escape, character)| text.replace(escape, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "\
605 567 0:52 / / rw,relatime master:1 - overlay overlay rw,lowerdir=/a,upperdir=/b
606 605 0:53 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
610 605 254:0 /pods/u/volumes/data /da\\040ta rw,noexec,relatime - ext4 /dev/vda rw
611 610 0:60 / /da\\040ta rw,relatime - fuse.sshfs host: rw";

    #[test]
    fn the_last_mount_at_a_path_is_the_one_that_is_seen() {
        let mounts = Mounts(LINES.lines().filter_map(mount).collect());
        assert!(mounts.root().is_some_and(|root| root.is_own() && !root.noexec));
        assert!(mounts.at("/proc").is_some_and(|proc| !proc.is_own() && proc.noexec));
        assert!(mounts.at("/da ta").is_some_and(|data| data.kind == "fuse.sshfs" && !data.is_own()));
        assert_eq!(mounts.at("/data"), None);
    }

    #[test]
    fn a_root_that_is_a_volume_is_no_containers() {
        let of = |line: &str| Mounts(mount(line).into_iter().collect()).root().is_some();
        assert!(!of("610 605 254:0 /pods/u/volumes/jail / rw - ext4 /dev/vda rw"));
        assert!(!of("610 605 0:52 /jail / rw - overlay overlay rw"));
        assert!(!of("610 605 0:52 /jail /jail rw - overlay overlay rw"), "no root at all");
    }
}
