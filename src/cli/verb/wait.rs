//! `wait`: until a request has finished, then its outcome as an exit code.

use std::time::Duration;

use super::get;
use crate::cli::{
    cluster::connection::Cluster,
    cluster::requests::Requests,
    error::Error,
    exit::Exit,
    follow::{
        conclude::{gone, last_word},
        signals::Stops,
        watched::{Reached, Watched, is_finished},
    },
    say::{duration, speech::Speech},
};

/// Wait for the end of a request, without its output, and end as its command did.
#[derive(Clone, Debug, clap::Args)]
pub struct WaitArgs {
    /// Name of the request.
    #[arg(value_name = "NAME", value_parser = get::request_name)]
    pub name: String,

    /// How long to wait (for ever by default); then the exit code is 122, and the command goes on.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub timeout: Option<Duration>,

    /// Show no progress.
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

/// Waits.
///
/// # Errors
/// When it cannot be waited for.
pub async fn run(cluster: &Cluster, args: WaitArgs) -> Result<Exit, Error> {
    let speech = Speech::new(args.quiet);
    let requests = Requests::new(cluster);
    let mut stops = Stops::listen()?;
    let mut watched = Watched::new(&requests, requests.get(&args.name).await?);
    let over = async {
        match args.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let reached = tokio::select! {
        reached = watched.until(&speech, is_finished) => reached?,
        () = over => {
            let state = crate::cli::say::words::state(&watched.last());
            speech.say(&format!("{} has not finished in time: {state}", args.name));
            return Ok(Exit::LEFT);
        }
        stop = stops.next() => {
            speech.clear();
            return Ok(Exit(stop.exit_code()));
        }
    };
    Ok(match reached {
        Reached::Here(request) => last_word(&request, &speech),
        Reached::Gone(request) => gone(&request, &speech),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::follow::scripted;

    #[tokio::test]
    async fn what_is_deleted_before_it_ran_ends_a_wait_as_it_ends_a_run() {
        let list = json!({"kind": "ExecRequestList", "apiVersion": "execlet.dev/v1alpha1", "metadata": {"resourceVersion": "2"}, "items": []});
        let (cluster, _) = scripted::cluster(move |call| match call {
            call if call.contains("execrequests/r") => Some((200, scripted::object(json!({"phase": "Pending"})))),
            call if call.contains("watch=true") => scripted::status(500, "not now"),
            _ => Some((200, list.clone())),
        });
        let exit = run(&cluster, WaitArgs { name: "r".into(), timeout: None, quiet: true }).await;
        assert_eq!(exit.expect("an exit code"), Exit::NEVER_RAN);
    }
}
