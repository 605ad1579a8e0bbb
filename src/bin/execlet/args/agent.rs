//! What the agent takes.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use super::{
    super::engine::Setting,
    common::{AuditSettings, Common, RulesArgs, at_least_one, percent},
};

#[derive(Debug, clap::Args)]
pub struct AgentArgs {
    /// Name of the node that this agent serves.
    #[arg(long, env = "EXECLET_NODE_NAME")]
    pub node_name: String,

    /// Namespace of the agent's Lease.
    #[arg(long, env = "EXECLET_NAMESPACE")]
    pub namespace: String,

    /// Which engine runs the containers of the node. auto: as the Node says, which takes the right to get it.
    #[arg(long, env = "EXECLET_ENGINE", value_enum, default_value_t = Setting::Auto)]
    pub engine: Setting,

    /// Path of the Docker Engine's socket.
    #[arg(long, env = "EXECLET_ENGINE_SOCKET", default_value = "/run/docker.sock")]
    pub engine_socket: PathBuf,

    /// Path of containerd's socket. Its folder must be that of containerd's state.
    #[arg(long, env = "EXECLET_CONTAINERD_SOCKET", default_value = "/run/containerd/containerd.sock")]
    pub containerd_socket: PathBuf,

    /// Directory of the commands' FIFOs and of output that is not in the log yet, for containerd. On a tmpfs of the node, and
    /// at the same path there.
    #[arg(long, env = "EXECLET_RUN_DIR", default_value = "/run/execlet")]
    pub run_dir: PathBuf,

    /// Name of the holder beside this agent, for containerd (execlet holder). Without one, what a command writes just before
    /// its end can be lost when the agent is killed.
    #[arg(long, env = "EXECLET_HOLDER")]
    pub holder: Option<String>,

    /// Directory of the journal. Must outlive the pod.
    #[arg(long, env = "EXECLET_STATE_DIR", default_value = "/var/lib/execlet")]
    pub state_dir: PathBuf,

    /// Directory of the commands' output in CRI log format, one subdirectory per request.
    #[arg(long, env = "EXECLET_LOG_DIR", default_value = "/var/log/execlet")]
    pub log_dir: PathBuf,

    /// How many requests may run at the same time; further ones wait their turn.
    #[arg(long, env = "EXECLET_MAX_CONCURRENT", default_value_t = 64, value_parser = at_least_one)]
    pub max_concurrent: usize,

    /// How many requests of one namespace may run at the same time [default: as many as on the node]
    #[arg(long, env = "EXECLET_MAX_CONCURRENT_PER_NAMESPACE", value_parser = at_least_one)]
    pub max_concurrent_per_namespace: Option<usize>,

    /// How many requests may run at the same time in one container. The engine starts and ends the
    /// commands of a container one after another, about 11 a second.
    #[arg(long, env = "EXECLET_MAX_CONCURRENT_PER_CONTAINER", default_value_t = 32, value_parser = at_least_one)]
    pub max_concurrent_per_container: usize,

    /// Percent of what the others leave that nobody takes: of the node no namespace, and of a namespace and a container no
    /// requester. It is kept for whoever comes next. 0 keeps nothing.
    #[arg(long, env = "EXECLET_RESERVED_PERCENT", default_value_t = 25, value_parser = percent)]
    pub reserved_percent: usize,

    /// How many bytes the output of all requests may take on this node. The output of the request that
    /// finished first is deleted first.
    #[arg(long, env = "EXECLET_SPOOL_TOTAL_BYTES", default_value_t = 10 << 30)]
    pub spool_total_bytes: u64,

    /// How long running commands may go on after the agent is told to stop. Keep it below the pod's
    /// grace period.
    #[arg(long, env = "EXECLET_DRAIN_TIMEOUT_SECONDS", default_value_t = 105)]
    pub drain_timeout_seconds: u64,

    /// Directory of the audit log.
    #[arg(long, env = "EXECLET_AUDIT_DIR", default_value = "/var/log/execlet-audit")]
    pub audit_dir: PathBuf,

    #[command(flatten)]
    pub audit: AuditSettings,

    /// Address for attach and log over HTTPS, which only the manager may call [default: not served]
    #[arg(long, env = "EXECLET_STREAM_ADDR", requires = "pod_ip")]
    pub stream_addr: Option<SocketAddr>,

    /// IP address at which the manager reaches this agent.
    #[arg(long, env = "EXECLET_POD_IP")]
    pub pod_ip: Option<IpAddr>,

    #[command(flatten)]
    pub rules: RulesArgs,

    #[command(flatten)]
    pub common: Common,
}
