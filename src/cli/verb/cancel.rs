//! `cancel`: ends a command or a batch of them, or keeps it from starting.

use crate::cli::{
    cluster::connection::Cluster,
    error::Error,
    exit::Exit,
    say::{page::Page, print, speech::Speech},
    typed::{Name, object_name},
};

/// End the command of a request, or all those of a batch, and everything that they started; or keep them from starting.
#[derive(Clone, Debug, clap::Args)]
pub struct CancelArgs {
    /// Names of the requests, or xb/NAME of batches.
    #[arg(value_name = "NAME", required = true, value_parser = object_name)]
    pub names: Vec<Name>,
}

pub async fn run(cluster: &Cluster, args: CancelArgs) -> Result<Exit, Error> {
    let speech = Speech::new(true);
    let mut exit = Exit::SUCCESS;
    for name in &args.names {
        let canceled = match name {
            Name::Request(name) => cluster.cancel(name).await.map(|request| print::full_name(&request)),
            Name::Batch(name) => cluster.cancel_batch(name).await.map(|batch| print::full_name(&batch)),
        };
        match canceled {
            Ok(name) => {
                print::out(&Page::default().line(&format!("{name} canceled")))?;
            }
            Err(error) => {
                speech.say(&error.to_string());
                exit = Exit::FAILED;
            }
        }
    }
    Ok(exit)
}
