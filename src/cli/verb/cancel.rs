//! `cancel`: ends a command, or keeps it from starting.

use crate::cli::{
    cluster::connection::Cluster,
    error::Error,
    exit::Exit,
    say::{page::Page, print, speech::Speech},
    typed::request_name,
};

/// End the command of a request and everything that it started, or keep it from starting.
#[derive(Clone, Debug, clap::Args)]
pub struct CancelArgs {
    /// Names of the requests.
    #[arg(value_name = "NAME", required = true, value_parser = request_name)]
    pub names: Vec<String>,
}

pub async fn run(cluster: &Cluster, args: CancelArgs) -> Result<Exit, Error> {
    let speech = Speech::new(true);
    let mut exit = Exit::SUCCESS;
    for name in &args.names {
        match cluster.cancel(name).await {
            Ok(request) => {
                print::out(&Page::default().line(&format!("{} canceled", print::full_name(&request))))?;
            }
            Err(error) => {
                speech.say(&error.to_string());
                exit = Exit::FAILED;
            }
        }
    }
    Ok(exit)
}
