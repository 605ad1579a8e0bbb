//! `version`.

use crate::cli::{
    cluster::connection::Cluster,
    error::Error,
    exit::Exit,
    say::{page::Page, print},
};

/// Print the versions of the plugin and of the API server.
#[derive(Clone, Debug, clap::Args)]
pub struct VersionArgs {
    /// Print the plugin's version only.
    #[arg(long)]
    pub client: bool,
}

/// Prints the versions; connects to `cluster` only to ask for its version.
pub async fn run(args: VersionArgs, cluster: impl Future<Output = Result<Cluster, Error>>) -> Result<Exit, Error> {
    let own = print::out(&Page::ours(concat!("kubectl-execlet ", env!("CARGO_PKG_VERSION"), "\n")))?;
    if args.client {
        return Ok(own);
    }
    let cluster = cluster.await?;
    let info = cluster.call("asking for the version", cluster.client.apiserver_version()).await?;
    print::out(&Page::default().line(&format!("Kubernetes {}", info.git_version)))
}
