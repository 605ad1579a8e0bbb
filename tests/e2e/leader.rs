//! The manager that leads: killed, stopped in the middle of what it does, or deposed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, park_timeout},
    time::Duration,
};

use execlet::api::names;
use k8s_openapi::jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    agents::kill_container,
    engines::pid,
    lab::{NAMESPACE, kubectl_raw, wait_for},
    leading::{container, leader},
    measured,
};

/// Nobody's pod.
const NOBODY: &str = "nobody";
/// Well within the time for which the Lease is held.
const HELD_AGAIN: Duration = Duration::from_secs(2);

/// Kills the manager that leads, if one does.
pub fn kill() {
    if let Some((node, id)) = leader().and_then(|leader| container(&leader)) {
        kill_container(&node, &id);
    }
}

/// Whoever has the Lease has given it back, as far as others can tell: one of them takes it.
pub fn give_back() {
    hold(&json!({"holderIdentity": null, "acquireTime": null, "renewTime": null, "leaseDurationSeconds": null}));
}

fn hold(spec: &Value) {
    let patch = json!({"spec": spec}).to_string();
    kubectl_raw(&["patch", "lease", names::LEADER_LEASE, "-n", NAMESPACE, "--type=merge", "-p", &patch]);
}

/// The leader is stopped, in the middle of whatever it does, until this is dropped.
pub struct Stopped {
    pub pod: String,
    process: Pid,
}

impl Stopped {
    pub fn leader() -> Self {
        let pod = leader().expect("a leader");
        let (node, id) = container(&pod).expect("its container");
        let process = pid(&node, &id).parse().ok().and_then(Pid::from_raw).expect("its process");
        let it = Self { pod, process };
        kill_process(process, Signal::STOP).expect("stopped");
        it
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // The kubelet kills one that does not answer for long.
        kill_process(self.process, Signal::CONT).ok();
    }
}

/// All managers run, and none of them leads, until this is dropped.
pub struct NoLeader {
    ends: Arc<AtomicBool>,
    holder: Option<JoinHandle<()>>,
}

impl NoLeader {
    pub async fn new() -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ends);
        let holder = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let now = format!("{:.6}", Timestamp::now());
                hold(&json!({"holderIdentity": NOBODY, "renewTime": now, "leaseDurationSeconds": 60}));
                park_timeout(HELD_AGAIN);
            }
            give_back();
        });
        let it = Self { ends, holder: Some(holder) };
        // The one that led finds out when it wants to renew its hold.
        wait_for("no manager to lead", async || {
            let leads = measured::each("manager", "execlet_leader")?;
            (leads.len() == 2 && leads.iter().all(|leads| *leads == 0)).then_some(())
        })
        .await;
        it
    }
}

impl Drop for NoLeader {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(holder) = self.holder.take() {
            holder.thread().unpark();
            // It only calls kubectl.
            holder.join().ok();
        }
    }
}
