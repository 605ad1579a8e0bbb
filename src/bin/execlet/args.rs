//! The command line, parsed once into plain structs.

#![allow(clippy::doc_markdown, reason = "the comments are what `--help` prints, which knows no Markdown")]

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Parser, Subcommand, ValueEnum};
use execlet::{
    core::{
        admission::{self, Accounts, Mode, ServiceAccount, Unreadable},
        audit::{chain::Head, redact::CommandDetail},
    },
    infra::{
        audit::{Policy, file::Retention},
        policies::Rules,
        telemetry::LogFormat,
    },
};

/// kubectl exec as a resource: runs the commands of ExecRequests, at most once each.
#[derive(Debug, Parser)]
#[command(name = "execlet", version, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the requests that are bound to this node (one on each node).
    Agent(AgentArgs),
    /// Bind requests to nodes (a few in the cluster, one of them leads).
    Manager(ManagerArgs),
    /// Read audit logs.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Print the CustomResourceDefinitions as YAML.
    Crds,
    /// Print the admission policies and their bindings as YAML, to apply before the definitions.
    Policies(PoliciesArgs),
    /// Ask a health endpoint over plain HTTP; exit code 0 if it answers 200.
    Probe(ProbeArgs),
}

#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// Where to serve /livez, /readyz and /metrics.
    #[arg(long, env = "EXECLET_HTTP_ADDR", default_value = "0.0.0.0:9090")]
    pub http_addr: SocketAddr,

    /// How log lines look.
    #[arg(long, env = "EXECLET_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// What to log: error, warn, info, debug, trace, or a filter such as info,execlet=debug.
    #[arg(long, env = "EXECLET_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

#[derive(Debug, clap::Args)]
pub struct AgentArgs {
    /// Name of the node that this agent serves.
    #[arg(long, env = "EXECLET_NODE_NAME")]
    pub node_name: String,

    /// Namespace of the agent's Lease.
    #[arg(long, env = "EXECLET_NAMESPACE")]
    pub namespace: String,

    /// The Docker Engine's socket.
    #[arg(long, env = "EXECLET_ENGINE_SOCKET", default_value = "/run/docker.sock")]
    pub engine_socket: PathBuf,

    /// Folder of the journal; must outlive the pod.
    #[arg(long, env = "EXECLET_STATE_DIR", default_value = "/var/lib/execlet")]
    pub state_dir: PathBuf,

    /// Folder of the commands' output, one folder a request, in CRI log format.
    #[arg(long, env = "EXECLET_LOG_DIR", default_value = "/var/log/execlet")]
    pub log_dir: PathBuf,

    /// Most requests to run at a time; further ones wait in turn.
    #[arg(long, env = "EXECLET_MAX_CONCURRENT", default_value_t = 64, value_parser = at_least_one)]
    pub max_concurrent: usize,

    /// Most requests of one namespace to run at a time. Default: as many as on the node.
    #[arg(long, env = "EXECLET_MAX_CONCURRENT_PER_NAMESPACE", value_parser = at_least_one)]
    pub max_concurrent_per_namespace: Option<usize>,

    /// Most requests to run at a time in one container. The engine starts and ends those of one
    /// container one after another, about 11 a second.
    #[arg(long, env = "EXECLET_MAX_CONCURRENT_PER_CONTAINER", default_value_t = 32, value_parser = at_least_one)]
    pub max_concurrent_per_container: usize,

    /// Most bytes that the output of all requests may take on this node; the oldest finished goes first.
    #[arg(long, env = "EXECLET_SPOOL_TOTAL_BYTES", default_value_t = 10 << 30)]
    pub spool_total_bytes: u64,

    /// How long to go on with running commands once told to stop; keep it below the pod's grace period.
    #[arg(long, env = "EXECLET_DRAIN_TIMEOUT_SECONDS", default_value_t = 105)]
    pub drain_timeout_seconds: u64,

    /// Folder of the audit log.
    #[arg(long, env = "EXECLET_AUDIT_DIR", default_value = "/var/log/execlet-audit")]
    pub audit_dir: PathBuf,

    #[command(flatten)]
    pub audit: AuditSettings,

    /// Where to serve attach and log over HTTPS, to the manager alone. Default: nowhere.
    #[arg(long, env = "EXECLET_STREAM_ADDR", requires = "pod_ip")]
    pub stream_addr: Option<SocketAddr>,

    /// The address under which the manager reaches this agent.
    #[arg(long, env = "EXECLET_POD_IP")]
    pub pod_ip: Option<IpAddr>,

    #[command(flatten)]
    pub rules: RulesArgs,

    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, clap::Args)]
pub struct ManagerArgs {
    /// Namespace of the Leases of leader and agents.
    #[arg(long, env = "EXECLET_NAMESPACE")]
    pub namespace: String,

    /// Name of this replica, unlike every other's; its pod's name.
    #[arg(long, env = "EXECLET_IDENTITY")]
    pub identity: String,

    /// How long an agent may not renew its Lease before it is taken for dead. Agents renew every 10 s.
    #[arg(long, env = "EXECLET_AGENT_TIMEOUT_SECONDS", default_value_t = 40, value_parser = clap::value_parser!(u64).range(20..))]
    pub agent_timeout_seconds: u64,

    /// How long an agent may be silent before the commands that it runs are given up, with reason
    /// NodeLost and outcome Unknown. Longer than a node takes to be mended: nothing undoes it.
    #[arg(long, env = "EXECLET_NODE_LOST_SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(40..))]
    pub node_lost_seconds: u64,

    #[command(flatten)]
    pub rules: RulesArgs,

    /// Folder of the audit logs, one folder a replica. Default: the records go to standard output.
    #[arg(long, env = "EXECLET_AUDIT_DIR")]
    pub audit_dir: Option<PathBuf>,

    #[command(flatten)]
    pub audit: AuditSettings,

    #[command(flatten)]
    pub subresources: SubresourcesArgs,

    #[command(flatten)]
    pub common: Common,
}

/// The aggregated API: attach and log.
#[derive(Clone, Debug, clap::Args)]
pub struct SubresourcesArgs {
    /// Where to serve the aggregated API, subresources.execlet.dev, over HTTPS. Default: it is not served.
    #[arg(long = "subresources-addr", env = "EXECLET_SUBRESOURCES_ADDR")]
    pub addr: Option<SocketAddr>,

    /// Name of the Service that leads to it; the certificate is made for it.
    #[arg(long = "subresources-service", env = "EXECLET_SUBRESOURCES_SERVICE", default_value = "execlet-subresources")]
    pub service: String,

    /// Name of the Secret that holds the certificate, which all replicas share. It must exist; its
    /// contents are made.
    #[arg(long = "subresources-secret", env = "EXECLET_SUBRESOURCES_SECRET", default_value = "execlet-subresources")]
    pub secret: String,

    /// How long a certificate lives. The next one is made when a third of that is left.
    #[arg(long = "subresources-certificate-seconds", env = "EXECLET_SUBRESOURCES_CERTIFICATE_SECONDS", default_value_t = 90 * 24 * 3600, value_parser = clap::value_parser!(u64).range(30..))]
    pub certificate_seconds: u64,

    /// Folder with tls.crt and tls.key, made and renewed by somebody else. Then no certificate is made,
    /// and the APIService's caBundle is theirs to set.
    #[arg(long = "subresources-certificate-dir", env = "EXECLET_SUBRESOURCES_CERTIFICATE_DIR")]
    pub certificate_dir: Option<PathBuf>,

    /// How long a call waits for its request to be bound to a node, and for the agent there.
    #[arg(long = "subresources-wait-seconds", env = "EXECLET_SUBRESOURCES_WAIT_SECONDS", default_value_t = 30)]
    pub wait_seconds: u64,

    /// Most attached clients and logs at a time.
    #[arg(long = "subresources-max-streams", env = "EXECLET_SUBRESOURCES_MAX_STREAMS", default_value_t = 1000, value_parser = at_least_one)]
    pub max_streams: usize,

    /// Most of them of one user.
    #[arg(long = "subresources-max-streams-per-user", env = "EXECLET_SUBRESOURCES_MAX_STREAMS_PER_USER", default_value_t = 500, value_parser = at_least_one)]
    pub max_streams_per_user: usize,

    /// How long an attached client and its command may both be silent.
    #[arg(long = "subresources-idle-timeout-seconds", env = "EXECLET_SUBRESOURCES_IDLE_TIMEOUT_SECONDS", default_value_t = 4 * 3600, value_parser = clap::value_parser!(u64).range(10..))]
    pub idle_timeout_seconds: u64,

    /// How long to go on with what is attached once told to stop; keep it below the pod's grace period.
    #[arg(
        long = "subresources-drain-timeout-seconds",
        env = "EXECLET_SUBRESOURCES_DRAIN_TIMEOUT_SECONDS",
        default_value_t = 50
    )]
    pub drain_timeout_seconds: u64,
}

/// Which admission policies there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Admission {
    /// All of them.
    Stamped,
    /// All but the stamp, where the API server has no MutatingAdmissionPolicy.
    Guarded,
    /// None.
    Off,
}

impl From<Admission> for Mode {
    fn from(admission: Admission) -> Self {
        match admission {
            Admission::Stamped => Self::Stamped,
            Admission::Guarded => Self::Guarded,
            Admission::Off => Self::Off,
        }
    }
}

/// What the admission policies must be.
#[derive(Clone, Debug, clap::Args)]
pub struct RulesArgs {
    /// Which admission policies the installation has. Nothing is bound or started while one is missing
    /// or altered. With `off`, nobody checks who asks for what.
    #[arg(long, env = "EXECLET_ADMISSION", value_enum, default_value_t = Admission::Stamped)]
    pub admission: Admission,

    /// Requests that were created before the policies have stood for so long are refused. Longer
    /// than a policy takes to reach every API server, and than their clocks differ.
    #[arg(long, env = "EXECLET_ADMISSION_MARGIN_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub admission_margin_seconds: u64,

    #[command(flatten)]
    pub accounts: AccountsArgs,
}

impl TryFrom<RulesArgs> for Rules {
    type Error = Unreadable;

    fn try_from(args: RulesArgs) -> Result<Self, Unreadable> {
        let mode = args.admission.into();
        let margin = Duration::from_secs(args.admission_margin_seconds);
        Ok(Self { mode, expected: admission::expected(mode, &args.accounts.into())?, margin })
    }
}

#[derive(Clone, Debug, clap::Args)]
pub struct AccountsArgs {
    /// The manager's service account, as NAMESPACE:NAME.
    #[arg(long, env = "EXECLET_MANAGER_SERVICE_ACCOUNT")]
    pub manager_service_account: ServiceAccount,

    /// The agents' service account, as NAMESPACE:NAME; its namespace is that of their Leases.
    #[arg(long, env = "EXECLET_AGENT_SERVICE_ACCOUNT")]
    pub agent_service_account: ServiceAccount,
}

impl From<AccountsArgs> for Accounts {
    fn from(args: AccountsArgs) -> Self {
        Self { manager: args.manager_service_account, agent: args.agent_service_account }
    }
}

#[derive(Debug, clap::Args)]
pub struct PoliciesArgs {
    /// Which of them.
    #[arg(long, value_enum, default_value_t = Admission::Stamped)]
    pub admission: Admission,

    #[command(flatten)]
    pub accounts: AccountsArgs,
}

/// What agent and manager record, and how much of it they keep.
#[derive(Clone, Debug, clap::Args)]
pub struct AuditSettings {
    /// Bind, start and attach nothing while the audit log cannot be written.
    #[arg(long = "audit-required", env = "EXECLET_AUDIT_REQUIRED")]
    pub required: bool,

    /// What of a command is recorded: full, program (without its arguments) or digest (its SHA-256).
    #[arg(long = "audit-command", env = "EXECLET_AUDIT_COMMAND", default_value_t)]
    pub command_detail: CommandDetail,

    /// Bytes from which on a file of the audit log is followed by another.
    #[arg(long = "audit-file-bytes", env = "EXECLET_AUDIT_FILE_BYTES", default_value_t = 16 << 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub file_bytes: u64,

    /// Files of the audit log that are kept, at least 2.
    #[arg(long = "audit-files", env = "EXECLET_AUDIT_FILES", default_value_t = 20, value_parser = clap::value_parser!(u16).range(2..))]
    pub files: u16,
}

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check that no line was changed, dropped, moved, inserted or cut off. Exit code 1 if one was.
    Verify(VerifyArgs),
    /// Print who ran what, where, when, why and with which outcome, one line a request.
    Show(ShowArgs),
}

#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// Files, or folders of files. Those of one folder are one chain, in the order of their names.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,

    /// The head that the chain must have come to, as SEQUENCE:SHA256.
    #[arg(long)]
    pub head: Option<Head>,

    /// Leases with the heads that were published, as `kubectl get lease -o yaml` or `-o json` prints them.
    #[arg(long)]
    pub lease: Vec<PathBuf>,

    /// Check too that each request has all its records; give all chains at once.
    #[arg(long)]
    pub complete: bool,

    /// Requests to hold the records against, as `kubectl get execrequests -A -o json` prints them, or one
    /// in each line. Implies --complete.
    #[arg(long)]
    pub requests: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// Files, or folders of files.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct ProbeArgs {
    /// What to get, for example http://execlet-manager:9090/readyz.
    #[arg(long)]
    pub url: String,

    /// How long to go on trying, in seconds.
    #[arg(long, default_value_t = 30)]
    pub timeout_seconds: u64,
}

impl AuditSettings {
    /// What is recorded, and how strict that is.
    pub fn policy(&self) -> Policy {
        Policy { required: self.required, command: self.command_detail }
    }

    /// How much is kept.
    pub fn retention(&self) -> Retention {
        Retention { file_bytes: self.file_bytes, files: self.files.into() }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("0 would run nothing: give 1 or more".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("not a whole number".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn streams_are_served_only_where_the_manager_can_reach_them() {
        let of = |name: &str, account: &str| format!("--{name}-service-account=execlet:{account}");
        let (manager, agent) = (of("manager", "manager"), of("agent", "agent"));
        let all =
            ["execlet", "agent", "--node-name=n", "--namespace=x", &manager, &agent, "--stream-addr=0.0.0.0:9443"];
        assert!(Args::try_parse_from(all).is_err());
        assert!(Args::try_parse_from(all.into_iter().chain(["--pod-ip=10.0.0.1"])).is_ok());
        let strange = ["--pod-ip=10.0.0.1", "--manager-service-account=manager"];
        assert!(Args::try_parse_from(all.into_iter().chain(strange)).is_err());
    }

    #[test]
    fn no_place_at_all_is_refused() {
        assert!(at_least_one("0").is_err());
        assert_eq!(at_least_one("3"), Ok(3));
    }
}
