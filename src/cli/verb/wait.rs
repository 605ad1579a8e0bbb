//! `wait`: until a request has finished, then its outcome as an exit code.

use std::time::Duration;

use crate::cli::{
    cluster::connection::Cluster,
    error::Error,
    exit::Exit,
    follow::{conclude::last_word, signals::Stops, watched::Watched},
    request::is_finished,
    say::{duration, speech::Speech, words},
    typed::request_name,
};

/// Wait until a request has finished, without its output, and exit as its command did.
#[derive(Clone, Debug, clap::Args)]
pub struct WaitArgs {
    /// Name of the request.
    #[arg(value_name = "NAME", value_parser = request_name)]
    pub name: String,

    /// How long to wait (default: no limit). After that the exit code is 122, and the command goes on.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub timeout: Option<Duration>,

    /// Show no progress.
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

pub async fn run(cluster: &Cluster, args: WaitArgs) -> Result<Exit, Error> {
    let speech = Speech::new(args.quiet);
    let mut stops = Stops::listen()?;
    let mut watched = Watched::new(cluster, cluster.get(&args.name).await?, &speech);
    // Without a limit it never comes.
    let timeout = tokio::time::sleep(args.timeout.unwrap_or(Duration::MAX));
    tokio::select! {
        reached = watched.until(is_finished) => Ok(last_word(&reached?, &speech)),
        () = timeout => {
            speech.say(&format!("{} has not finished in time: {}", args.name, words::state(&watched.last())));
            Ok(Exit::LEFT)
        }
        signal = stops.next() => {
            speech.clear();
            Ok(Exit::of_signal(signal))
        }
    }
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
