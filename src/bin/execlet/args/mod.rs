//! The command line, parsed once into plain structs.

#![allow(clippy::doc_markdown, reason = "the comments are what `--help` prints, which knows no Markdown")]

mod agent;
mod common;
mod holder;
mod manager;

use clap::{Parser, Subcommand, ValueEnum};

pub use self::{
    agent::AgentArgs,
    common::{AccountsArgs, Admission, Common},
    holder::HolderArgs,
    manager::ManagerArgs,
};
use super::{audit::AuditCommand, probe::ProbeArgs};

/// kubectl exec as a resource: runs the commands of ExecRequests, each at most once.
#[derive(Debug, Parser)]
#[command(name = "execlet", version, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the requests bound to this node. One agent per node.
    Agent(AgentArgs),
    /// Bind requests to nodes. Run a few replicas; one of them leads.
    Manager(ManagerArgs),
    /// Keep the commands' output pipes open, beside an agent, so that what is in them outlives it. Only needed with containerd.
    Holder(HolderArgs),
    /// Read audit logs.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Print a CustomResourceDefinition as YAML.
    Crds(CrdsArgs),
    /// Print the admission policies and their bindings as YAML. Apply them before the definitions.
    Policies(PoliciesArgs),
    /// Ask a health endpoint over plain HTTP; exits with 0 if it answers 200.
    Probe(ProbeArgs),
}

#[derive(Debug, clap::Args)]
pub struct CrdsArgs {
    /// Of which kind. Nothing acts on execbatches yet: do not install them.
    #[arg(value_enum, default_value_t = Kind::Execrequests)]
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Execrequests,
    Execbatches,
}

#[derive(Debug, clap::Args)]
pub struct PoliciesArgs {
    /// Which of them.
    #[arg(long, value_enum, default_value_t = Admission::Stamped)]
    pub admission: Admission,

    #[command(flatten)]
    pub accounts: AccountsArgs,
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
}
