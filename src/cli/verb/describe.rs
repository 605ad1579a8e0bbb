//! `describe`: one request in words.

use k8s_openapi::jiff::Timestamp;

use super::get;
use crate::cli::{
    cluster::connection::Cluster,
    cluster::requests::Requests,
    error::Error,
    exit::Exit,
    say::{print, speech, summary::summary},
};

/// Tell of a request: who, what, where, when, why, what became of it, and what to do next.
#[derive(Clone, Debug, clap::Args)]
pub struct DescribeArgs {
    /// Names of the requests.
    #[arg(value_name = "NAME", required = true, value_parser = get::request_name)]
    pub names: Vec<String>,
}

/// Tells of them.
///
/// # Errors
/// When one cannot be read.
pub async fn run(cluster: &Cluster, args: DescribeArgs) -> Result<Exit, Error> {
    let requests = Requests::new(cluster);
    for (at, name) in args.names.iter().enumerate() {
        let request = requests.get(name).await?;
        let text = summary(&request, Timestamp::now(), speech::colours(), |command| cluster.plugin(command));
        print::out(&format!("{}{text}", if at == 0 { "" } else { "\n" }))?;
    }
    Ok(Exit::SUCCESS)
}
