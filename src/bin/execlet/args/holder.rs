//! What the holder takes.

use std::path::PathBuf;

use execlet::infra::telemetry::LogFormat;

#[derive(Debug, clap::Args)]
pub struct HolderArgs {
    /// Name of this holder, the same as the --holder of its agent: the UID of their pod.
    #[arg(long, env = "EXECLET_HOLDER")]
    pub name: String,

    /// The agent's directory of FIFOs, in which the holder has its socket.
    #[arg(long, env = "EXECLET_RUN_DIR", default_value = "/run/execlet")]
    pub run_dir: PathBuf,

    /// Format of log lines.
    #[arg(long, env = "EXECLET_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Log level: error, warn, info, debug or trace; or a filter such as info,execlet=debug.
    #[arg(long, env = "EXECLET_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}
