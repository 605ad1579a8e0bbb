//! Which container a process is in, by the paths of its control groups.
//!
//! The engine's ID is in the name of a container's group; what is around it is the driver's affair: `/kubepods/podUID/ID` by
//! cgroupfs, `ENGINE-ID.scope` by systemd, and `SLICE:ENGINE:ID` where the kubelet has the one and the engine the other.
//! A container may make groups below its own (`ID/init.scope`), and a node may itself be a container.
//!
//! With cgroup v1 there is a path in each hierarchy, with v2 one. Paths begin at the cgroup namespace of whoever reads them:
//! from a private one, as containers have with v2, `/../ID` is another container, and `/` what the reader is in.

use crate::core::ids::ContainerId;

/// Fewest hexadecimal digits of a container's ID. A UID without its dashes has 32, and so has a transient unit.
const SHORTEST_ID: usize = 40;
/// What the kernel appends to the path of a group that is gone.
const GONE: &str = " (deleted)";
const SCOPE: &str = ".scope";

/// Whether this is the text of `/proc/PID/cgroup` of a process in the container, or in a group below that.
pub(super) fn are_of(groups: &str, container: &ContainerId) -> bool {
    let id = container.as_str();
    !id.is_empty() && paths(groups).any(|path| path.split('/').any(|name| is_named(name, id)))
}

/// The innermost container that these groups are of, by an ID as engines give it. `None` too where hierarchies name two.
pub(super) fn innermost(groups: &str) -> Option<ContainerId> {
    let ids = |path: &str| path.split('/').filter_map(|name| id_in(name).map(str::to_owned)).collect::<Vec<_>>();
    // Not every hierarchy goes down as far.
    let all: Vec<_> = paths(groups).map(ids).collect();
    let depth = all.iter().map(Vec::len).max().filter(|depth| *depth > 0)?;
    let mut deepest = all.iter().filter(|ids| ids.len() == depth).filter_map(|ids| ids.last());
    let first = deepest.next()?;
    deepest.all(|other| other == first).then(|| first.as_str().into())
}

fn paths(groups: &str) -> impl Iterator<Item = &str> {
    groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).map(|path| path.strip_suffix(GONE).unwrap_or(path))
}

fn is_named(name: &str, id: &str) -> bool {
    let (name, mark) = name.strip_suffix(SCOPE).map_or((name, ':'), |scope| (scope, '-'));
    name == id || name.strip_suffix(id).is_some_and(|before| before.ends_with(mark))
}

fn id_in(name: &str) -> Option<&str> {
    let name = name.strip_suffix(SCOPE).unwrap_or(name);
    let id = name.rsplit(['-', ':']).next()?;
    (id.len() >= SHORTEST_ID && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f1c8a0be2d97f3615c04be9da72381f6b5e0c94a8d1372fe6095bc7a4183d20";
    const NODE: &str = "b7c1e5f2083a9d46178e0bc35fd29a647c81e0f3b5d62a948730fce16b9d52a8";

    /// Paths as engines, drivers and namespaces make them, of a process in container `ID`.
    const FORMS: [&str; 16] = [
        // cgroup v1: Docker, and pods by either driver.
        "12:pids:/docker/ID\n11:memory:/docker/ID\n1:name=systemd:/docker/ID\n0::/\n",
        "12:pids:/kubepods/burstable/pod0f1d7c3a-9b22-4c1e-8f7e-1d2c3b4a5f60/ID\n1:name=systemd:/kubepods/burstable/pod0f1d7c3a-9b22-4c1e-8f7e-1d2c3b4a5f60/ID\n",
        "8:devices:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0f1d7c3a_9b22_4c1e_8f7e_1d2c3b4a5f60.slice/docker-ID.scope\n",
        "8:devices:/kubepods.slice/kubepods-pod0f1d7c3a_9b22.slice/cri-containerd-ID.scope\n0::/system.slice/containerd.service\n",
        "11:cpuset:/execlet0/n1/ID\n",
        // cgroup v2, from the root.
        "0::/docker/ID\n",
        "0::/system.slice/docker-ID.scope\n",
        "0::/kubepods/besteffort/pod0f1d7c3a9b224c1e8f7e1d2c3b4a5f60/ID\n",
        "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod0f1d7c3a_9b22.slice/cri-containerd-ID.scope\n",
        "0::/system.slice/kubepods-besteffort-pod0f1d7c3a_9b22.slice:cri-containerd:ID\n",
        // From a private cgroup namespace.
        "0::/../ID\n",
        "0::/../../pod0f1d7c3a-9b22-4c1e-8f7e-1d2c3b4a5f60/ID\n",
        "0::/../cri-containerd-ID.scope\n",
        // A container that has groups of its own, as one with systemd.
        "0::/system.slice/docker-ID.scope/init.scope\n",
        "0::/../ID/system.slice/cron.service (deleted)\n",
        // A node that is itself a container and has no cgroup namespace of its own: not every hierarchy goes down to the pod.
        "12:pids:/docker/NODE/kubepods/burstable/pod1/ID\n3:rdma:/\n1:name=systemd:/docker/NODE\n0::/docker/NODE\n",
    ];

    fn filled(form: &str) -> String {
        form.replace("NODE", NODE).replace("ID", ID)
    }

    #[test]
    fn a_container_is_known_by_the_name_of_its_group_however_that_is_made() {
        for form in FORMS {
            let groups = filled(form);
            assert!(are_of(&groups, &ID.into()), "{form}");
            assert_eq!(innermost(&groups), Some(ID.into()), "{form}");
            for other in [&ID[..63], &ID[1..], &format!("{ID}0"), "", "pids", "scope", "docker-", ".slice"] {
                assert!(!are_of(&groups, &other.into()), "{form}: {other:?}");
            }
        }
    }

    #[test]
    fn a_process_of_a_pod_is_in_its_node_too_where_that_is_a_container() {
        let groups = filled(FORMS[15]);
        assert!(are_of(&groups, &NODE.into()), "what a command there has put into a container is still its own");
        assert!(!are_of(&filled("0::/docker/NODE/kubepods/pod1\n"), &ID.into()));
    }

    #[test]
    fn a_name_that_is_no_number_is_known_as_a_whole() {
        let container: ContainerId = "execlet-test-container-1-2-3".into();
        assert!(are_of("0::/execlet-test-container-1-2-3\n", &container));
        assert!(!are_of("0::/an-execlet-test-container-1-2-3\n", &container));
        assert!(!are_of("0::/execlet-test-container-1-2-33\n", &container));
        assert!(!are_of("0::/execlet-test-container-1-2-3.slice/other\n", &container));
    }

    #[test]
    fn who_reads_from_a_namespace_of_its_own_does_not_see_what_it_is_in() {
        for groups in ["0::/\n", "0::/init.scope\n", "0::/system.slice/ssh.service\n", "12:pids:/\n0::/\n", "", "x"] {
            assert_eq!(innermost(groups), None, "{groups:?}");
            assert!(!are_of(groups, &ID.into()), "{groups:?}");
        }
    }

    #[test]
    fn a_number_of_something_else_is_no_container() {
        for groups in [
            "0::/kubepods/pod0f1d7c3a9b224c1e8f7e1d2c3b4a5f60\n",
            "0::/system.slice/run-rf3b0c1e2d4a596877f3b0c1e2d4a59687.scope\n",
            "0::/user.slice/user-1000.slice/session-42.scope\n",
        ] {
            assert_eq!(innermost(groups), None, "{groups}");
        }
        assert_eq!(
            innermost(&filled("2:pids:/docker/ID\n1:cpu:/docker/NODE\n")),
            None,
            "two that contradict each other"
        );
    }
}
