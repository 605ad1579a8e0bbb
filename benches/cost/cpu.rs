//! Who had the processors while the bytes came, by the kernel's own accounts.

use std::{
    array, fs,
    ops::{Div, Sub},
    process,
};

use anyhow::Context as _;

/// Accounts are kept in hundredths of a second, whatever the kernel counts in.
const TICKS: f64 = 100.0;

/// Whose time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The command, with all that brings its output to the engine's socket.
    Engine,
    /// With the holder beside it.
    Agent,
    Manager,
    ApiServer,
    /// What `kubectl exec` needs beside the engine and the API server; of containerd it is a part of the engine.
    Kubelet,
    /// This program, and `kubectl`.
    Reader,
    /// Whatever has no account of its own.
    Others,
    Idle,
}

impl Who {
    pub const ALL: [Self; 8] = [
        Self::Engine,
        Self::Agent,
        Self::Manager,
        Self::ApiServer,
        Self::Kubelet,
        Self::Reader,
        Self::Others,
        Self::Idle,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Agent => "agent",
            Self::Manager => "manager",
            Self::ApiServer => "API server",
            Self::Kubelet => "kubelet",
            Self::Reader => "reader",
            Self::Others => "others",
            Self::Idle => "idle",
        }
    }

    /// Of a process; `None`: it is among the others.
    fn of(pid: u32, comm: &str, arguments: &str) -> Option<Self> {
        match comm {
            _ if pid == process::id() => Some(Self::Reader),
            "dockerd" | "containerd" | "containerd-shim" | "dd" => Some(Self::Engine),
            "execlet" if ["\0agent\0", "\0holder\0"].iter().any(|part| arguments.contains(part)) => Some(Self::Agent),
            "execlet" => Some(Self::Manager),
            "kube-apiserver" => Some(Self::ApiServer),
            "kubelet" | "cri-dockerd" => Some(Self::Kubelet),
            _ => None,
        }
    }
}

/// Seconds of each, since the machine is up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times([f64; Who::ALL.len()]);

impl Times {
    pub fn now() -> anyhow::Result<Self> {
        let mut times = Self::default();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // One that has ended meanwhile is in its parent's account.
            let Some((comm, taken)) = account(pid) else { continue };
            let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if let Some(who) = Who::of(pid, &comm, &arguments) {
                times.0[who as usize] += taken;
            }
        }
        let known: f64 = times.0.iter().sum();
        let (busy, idle) = machine()?;
        times.0[Who::Others as usize] = busy - known;
        times.0[Who::Idle as usize] = idle;
        Ok(times)
    }

    pub const fn of(&self, who: Who) -> f64 {
        self.0[who as usize]
    }
}

impl Sub for Times {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self(array::from_fn(|who| self.0[who] - before.0[who]))
    }
}

impl Div<f64> for Times {
    type Output = Self;

    fn div(self, by: f64) -> Self {
        Self(self.0.map(|time| time / by))
    }
}

/// A process's name, and what it and those of its children that have ended have taken.
fn account(pid: u32) -> Option<(String, f64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, rest) = stat.rsplit_once(')')?;
    let (_, comm) = head.split_once('(')?;
    // Fields 14 to 17 of all.
    let ticks: f64 = rest.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum();
    Some((comm.to_owned(), ticks / TICKS))
}

/// How long all processors were busy, and idle.
fn machine() -> anyhow::Result<(f64, f64)> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<f64> = line.split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect();
    let [user, nice, system, idle, iowait, irq, softirq, steal] = ticks[..] else {
        anyhow::bail!("/proc/stat: {line}")
    };
    Ok(((user + nice + system + irq + softirq + steal) / TICKS, (idle + iowait) / TICKS))
}
