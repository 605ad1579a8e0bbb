//! `cancel`: ends a command, or keeps it from starting.

use super::get;
use crate::cli::{
    cluster::connection::Cluster,
    cluster::requests::Requests,
    error::Error,
    exit::Exit,
    say::{print, speech::Speech},
};

/// End the command of a request, with all that it has started, or keep it from starting.
#[derive(Clone, Debug, clap::Args)]
pub struct CancelArgs {
    /// Names of the requests.
    #[arg(value_name = "NAME", required = true, value_parser = get::request_name)]
    pub names: Vec<String>,
}

/// Cancels.
///
/// # Errors
/// When the output cannot be written.
pub async fn run(cluster: &Cluster, args: CancelArgs) -> Result<Exit, Error> {
    let speech = Speech::new(true);
    let requests = Requests::new(cluster);
    let mut exit = Exit::SUCCESS;
    for name in &args.names {
        match requests.cancel(name).await {
            Ok(request) => print::out(&format!("{} canceled\n", print::full_name(&request)))?,
            Err(error) => {
                speech.say(&error.to_string());
                exit = Exit::FAILED;
            }
        }
    }
    Ok(exit)
}
