//! `describe`: one request in words.

use k8s_openapi::jiff::Timestamp;

use crate::cli::{
    cluster::connection::Cluster,
    error::Error,
    exit::Exit,
    say::{page::Page, print, speech, summary::summary},
    typed::request_name,
};

/// Describe requests: who, what, where, when, why, the outcome, and what to do next.
#[derive(Clone, Debug, clap::Args)]
pub struct DescribeArgs {
    /// Names of the requests.
    #[arg(value_name = "NAME", required = true, value_parser = request_name)]
    pub names: Vec<String>,
}

pub async fn run(cluster: &Cluster, args: DescribeArgs) -> Result<Exit, Error> {
    for (at, name) in args.names.iter().enumerate() {
        let request = cluster.get(name).await?;
        if at > 0 {
            print::out(&Page::ours("\n"))?;
        }
        print::out(&summary(&request, Timestamp::now(), speech::colours(), |command| cluster.plugin(command)))?;
    }
    Ok(Exit::SUCCESS)
}
