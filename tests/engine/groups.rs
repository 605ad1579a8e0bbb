//! Which container a process is in, as its control groups tell.

use std::{
    env,
    path::Path,
    process::{self as program, Command},
};

use execlet::{
    core::ids::ContainerId,
    infra::{
        kernel::{Kernel as _, Linux},
        process,
    },
};

use crate::{executed::control_group, lab::Lab, not_shown::not_shown};

/// Two containers, each as its ID and the PID of its main process, for this program as it is run by itself in the first.
const SEEN: &str = "EXECLET_TEST_CONTAINERS_SEEN";
const THIS: &str = "groups::every_container_is_recognised_but_from_a_namespace_in_it_ones_own";

#[tokio::test]
async fn every_container_is_recognised_but_from_a_namespace_in_it_ones_own() {
    if let Ok(seen) = env::var(SEEN) {
        let words: Vec<&str> = seen.split(' ').collect();
        let [own, own_main, other, other_main] = words[..] else { panic!("{seen}") };
        look_from_inside((&own.into(), own_main.parse().unwrap()), (&other.into(), other_main.parse().unwrap()));
        return;
    }
    let lab = Lab::open().await;
    let (own, other) = (lab.container().await, lab.container().await);
    let (own_main, other_main) = (lab.main_pid(&own).await, lab.main_pid(&other).await);
    for (container, main) in [(&own, own_main), (&other, other_main)] {
        assert!(Linux.recognises(main, &container.id));
        assert_eq!(process::container_of(process::find(main).expect("a process")).as_ref(), Some(&container.id));
    }
    assert!(!Linux.recognises(own_main, &other.id) && !process::is_in(other_main, &own.id));
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        not_shown(
            "what an agent sees from a cgroup namespace of its own: this machine has cgroup v1, where it has none",
        );
        return;
    }
    // In the container's control group, as an agent is in that of its own.
    let script = r#"echo $$ > "$1"; shift; exec unshare --cgroup "$@""#;
    let seen = [own.id(), &own_main.to_string(), other.id(), &other_main.to_string()].join(" ");
    let mut inside = Command::new("sh");
    inside.args(["-c", script, "sh"]).arg(control_group(own_main)).arg(env::current_exe().unwrap());
    let output = inside.args(["--exact", THIS]).env(SEEN, seen).output().expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn look_from_inside((own, own_main): (&ContainerId, u32), (other, other_main): (&ContainerId, u32)) {
    assert!(Linux.own_container_is_hidden());
    for pid in [own_main, program::id()] {
        assert!(!Linux.recognises(pid, own), "so no command is started there");
        assert_eq!(process::container_of(process::find(pid).expect("a process")), None);
    }
    assert!(Linux.recognises(other_main, other) && !Linux.recognises(other_main, own));
    assert_eq!(process::container_of(process::find(other_main).expect("a process")).as_ref(), Some(other));
}
