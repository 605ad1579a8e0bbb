//! What agent and manager both take.

use std::{net::SocketAddr, time::Duration};

use clap::ValueEnum;
use execlet::{
    core::{
        admission::{self, Accounts, Mode, ServiceAccount, Unreadable},
        audit::redact::CommandDetail,
    },
    infra::{
        audit::{Policy, file::Retention},
        policies::Rules,
        telemetry::LogFormat,
    },
};

#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// Address for /livez, /readyz and /metrics.
    #[arg(long, env = "EXECLET_HTTP_ADDR", default_value = "0.0.0.0:9090")]
    pub http_addr: SocketAddr,

    /// Format of log lines.
    #[arg(long, env = "EXECLET_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Log level: error, warn, info, debug or trace; or a filter such as info,execlet=debug.
    #[arg(long, env = "EXECLET_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

/// Which admission policies are installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Admission {
    /// All of them.
    Stamped,
    /// All but the stamp, for an API server without MutatingAdmissionPolicy.
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

#[derive(Clone, Debug, clap::Args)]
pub struct RulesArgs {
    /// Which admission policies are installed. Nothing is bound or started while one of them is missing
    /// or altered. With `off`, nobody checks who requests what.
    #[arg(long, env = "EXECLET_ADMISSION", value_enum, default_value_t = Admission::Stamped)]
    pub admission: Admission,

    /// Refuse requests created earlier than this long after the policies were installed. Must cover the
    /// time a policy takes to reach every API server, and the skew of their clocks.
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

    /// The agents' service account, as NAMESPACE:NAME. Their Leases are in its namespace.
    #[arg(long, env = "EXECLET_AGENT_SERVICE_ACCOUNT")]
    pub agent_service_account: ServiceAccount,
}

impl From<AccountsArgs> for Accounts {
    fn from(args: AccountsArgs) -> Self {
        Self { manager: args.manager_service_account, agent: args.agent_service_account }
    }
}

#[derive(Clone, Debug, clap::Args)]
pub struct AuditSettings {
    /// Bind, start and attach nothing while the audit log cannot be written.
    #[arg(long = "audit-required", env = "EXECLET_AUDIT_REQUIRED")]
    pub required: bool,

    /// What to record of a command: full, program (without its arguments) or digest (its SHA-256).
    #[arg(long = "audit-command", env = "EXECLET_AUDIT_COMMAND", default_value_t)]
    pub command_detail: CommandDetail,

    /// Size in bytes at which a new audit log file is begun.
    #[arg(long = "audit-file-bytes", env = "EXECLET_AUDIT_FILE_BYTES", default_value_t = 16 << 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub file_bytes: u64,

    /// How many audit log files to keep, at least 2.
    #[arg(long = "audit-files", env = "EXECLET_AUDIT_FILES", default_value_t = 20, value_parser = clap::value_parser!(u16).range(2..))]
    pub files: u16,
}

impl AuditSettings {
    pub fn policy(&self) -> Policy {
        Policy { required: self.required, command: self.command_detail }
    }

    pub fn retention(&self) -> Retention {
        Retention { file_bytes: self.file_bytes, files: self.files.into() }
    }
}

pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("not a whole number".to_owned()),
    }
}

/// Less than all: somebody has to run something.
pub fn percent(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number < 100 => Ok(number),
        Ok(_) | Err(_) => Err("not a whole number from 0 to 99".to_owned()),
    }
}

#[test]
fn a_limit_of_zero_is_refused_and_so_is_a_reserve_of_all() {
    assert!(at_least_one("0").is_err());
    assert_eq!(at_least_one("3"), Ok(3));
    assert_eq!((percent("0"), percent("99")), (Ok(0), Ok(99)));
    assert!(percent("100").is_err() && percent("-1").is_err());
}
