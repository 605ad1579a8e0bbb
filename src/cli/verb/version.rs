//! `version`.

use crate::cli::{Cluster, Error, Exit, say::print};

/// Print the version of the plugin and of the API server.
#[derive(Clone, Debug, clap::Args)]
pub struct VersionArgs {
    /// Ask no API server.
    #[arg(long)]
    pub client: bool,
}

/// This plugin's version.
pub fn own() -> String {
    format!("kubectl-execlet {}", env!("CARGO_PKG_VERSION"))
}

/// Prints them.
///
/// # Errors
/// When the API server does not answer.
pub async fn of_server(cluster: &Cluster) -> Result<Exit, Error> {
    let info = cluster.call("asking for the version", cluster.client.apiserver_version()).await?;
    print::out(&format!("Kubernetes {}\n", info.git_version))?;
    Ok(Exit::SUCCESS)
}
