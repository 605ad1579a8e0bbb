//! What the manager takes.

use std::{net::SocketAddr, path::PathBuf};

use super::common::{AuditSettings, Common, RulesArgs, at_least_one};

#[derive(Debug, clap::Args)]
pub struct ManagerArgs {
    /// Namespace of the leader's and the agents' Leases.
    #[arg(long, env = "EXECLET_NAMESPACE")]
    pub namespace: String,

    /// Unique name of this replica: the name of its pod.
    #[arg(long, env = "EXECLET_IDENTITY")]
    pub identity: String,

    /// After how long without a renewal of its Lease an agent counts as dead. Agents renew every 10 s.
    #[arg(long, env = "EXECLET_AGENT_TIMEOUT_SECONDS", default_value_t = 40, value_parser = clap::value_parser!(u64).range(20..))]
    pub agent_timeout_seconds: u64,

    /// After how long without a renewal an agent's running commands are given up, with reason NodeLost
    /// and outcome Unknown. This is final: allow for the time a node takes to be repaired.
    #[arg(long, env = "EXECLET_NODE_LOST_SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(40..))]
    pub node_lost_seconds: u64,

    #[command(flatten)]
    pub rules: RulesArgs,

    /// Directory of the audit logs, one subdirectory per replica [default: records go to standard output]
    #[arg(long, env = "EXECLET_AUDIT_DIR")]
    pub audit_dir: Option<PathBuf>,

    #[command(flatten)]
    pub audit: AuditSettings,

    #[command(flatten)]
    pub subresources: SubresourcesArgs,

    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Debug, clap::Args)]
pub struct SubresourcesArgs {
    /// Address for the aggregated API subresources.execlet.dev over HTTPS [default: not served]
    #[arg(long = "subresources-addr", env = "EXECLET_SUBRESOURCES_ADDR")]
    pub addr: Option<SocketAddr>,

    /// Name of the Service in front of the aggregated API; the certificate is issued for it.
    #[arg(long = "subresources-service", env = "EXECLET_SUBRESOURCES_SERVICE", default_value = "execlet-subresources")]
    pub service: String,

    /// Name of the Secret that holds the certificate, which all replicas share. It must exist; the
    /// manager fills it.
    #[arg(long = "subresources-secret", env = "EXECLET_SUBRESOURCES_SECRET", default_value = "execlet-subresources")]
    pub secret: String,

    /// Lifetime of a certificate. It is renewed when a third of that is left.
    #[arg(long = "subresources-certificate-seconds", env = "EXECLET_SUBRESOURCES_CERTIFICATE_SECONDS", default_value_t = 90 * 24 * 3600, value_parser = clap::value_parser!(u64).range(30..))]
    pub certificate_seconds: u64,

    /// Directory with a tls.crt and tls.key that somebody else issues and renews. The manager then issues
    /// no certificate and does not set the APIService's caBundle.
    #[arg(long = "subresources-certificate-dir", env = "EXECLET_SUBRESOURCES_CERTIFICATE_DIR")]
    pub certificate_dir: Option<PathBuf>,

    /// How long a call waits for its request to be bound to a node, and for the agent there.
    #[arg(long = "subresources-wait-seconds", env = "EXECLET_SUBRESOURCES_WAIT_SECONDS", default_value_t = 30)]
    pub wait_seconds: u64,

    /// How many attach and log connections may be open at the same time.
    #[arg(long = "subresources-max-streams", env = "EXECLET_SUBRESOURCES_MAX_STREAMS", default_value_t = 1000, value_parser = at_least_one)]
    pub max_streams: usize,

    /// How many of them one user may have open.
    #[arg(long = "subresources-max-streams-per-user", env = "EXECLET_SUBRESOURCES_MAX_STREAMS_PER_USER", default_value_t = 500, value_parser = at_least_one)]
    pub max_streams_per_user: usize,

    /// After how long without input or output an attached client is disconnected.
    #[arg(long = "subresources-idle-timeout-seconds", env = "EXECLET_SUBRESOURCES_IDLE_TIMEOUT_SECONDS", default_value_t = 4 * 3600, value_parser = clap::value_parser!(u64).range(10..))]
    pub idle_timeout_seconds: u64,

    /// How long open connections may go on after the manager is told to stop. Keep it below the pod's
    /// grace period.
    #[arg(
        long = "subresources-drain-timeout-seconds",
        env = "EXECLET_SUBRESOURCES_DRAIN_TIMEOUT_SECONDS",
        default_value_t = 50
    )]
    pub drain_timeout_seconds: u64,
}
