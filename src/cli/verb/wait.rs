//! `wait`: until a request or a batch has finished, then its outcome as an exit code.

use std::time::Duration;

use crate::{
    api::ExecBatch,
    cli::{
        batch::{follow::gone, report::next},
        cluster::connection::Cluster,
        error::Error,
        exit::{Exit, HELP},
        follow::{
            conclude::last_word,
            followed::Followed,
            signals::Stops,
            watched::{Reached, Watched},
        },
        say::{duration, speech::Speech},
        typed::{Name, object_name},
    },
};

/// Wait until a request has finished, without its output, and exit as its command did; or until a batch has.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct WaitArgs {
    /// Name of the request, or xb/NAME of a batch.
    #[arg(value_name = "NAME", value_parser = object_name)]
    pub name: Name,

    /// How long to wait (default: no limit). After that the exit code is 122, and the command goes on.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub timeout: Option<Duration>,

    /// Show no progress.
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

pub async fn run(cluster: &Cluster, args: WaitArgs) -> Result<Exit, Error> {
    let speech = Speech::new(args.quiet);
    match &args.name {
        Name::Request(name) => {
            let request = cluster.get(name).await?;
            until_finished(Watched::new(cluster, request, &speech), &args, |reached| last_word(reached, &speech)).await
        }
        Name::Batch(name) => {
            let watched = Watched::new(cluster, cluster.batch(name).await?, &speech);
            until_finished(watched, &args, |reached| outcome(cluster, reached, &speech)).await
        }
    }
}

/// Says how a batch has ended, and gives the exit code.
fn outcome(cluster: &Cluster, reached: &Reached<ExecBatch>, speech: &Speech) -> Exit {
    if let Some((sentence, exit)) = gone(reached) {
        speech.say(&sentence);
        return exit;
    }
    let (Reached::Here(batch) | Reached::Deleted(batch) | Reached::Vanished(batch)) = reached;
    let exit = batch.status.as_ref().and_then(Exit::of_batch).unwrap_or(Exit::LEFT);
    if exit != Exit::SUCCESS {
        speech.say(&format!("{}: {}", batch.name(), batch.in_words()));
        speech.say(&next(batch, |command| cluster.plugin(command)));
    }
    exit
}

async fn until_finished<K: Followed>(
    mut watched: Watched<K>,
    args: &WaitArgs,
    outcome: impl Fn(&Reached<K>) -> Exit,
) -> Result<Exit, Error> {
    let speech = watched.speech.clone();
    let mut stops = Stops::listen()?;
    // Without a limit it never comes.
    let timeout = tokio::time::sleep(args.timeout.unwrap_or(Duration::MAX));
    tokio::select! {
        reached = watched.until(K::has_finished) => Ok(outcome(&reached?)),
        () = timeout => {
            speech.say(&format!("{} has not finished in time: {}", watched.name(), watched.last().in_words()));
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
    use serde_json::{Value, json};
    use tokio::time::Instant;

    use super::*;
    use crate::cli::follow::scripted::{self, Answer, event, none_there};

    /// Waits for a request that is pending at first; each watch is answered by `watch`, with the number of those before.
    async fn waits(watch: impl Fn(usize) -> Answer + Send + Sync + 'static, list: Answer) -> (Exit, Vec<String>) {
        let watches = std::sync::atomic::AtomicUsize::new(0);
        let (cluster, calls) = scripted::cluster(move |call| match call {
            call if call.contains("execrequests/r") => Some((200, scripted::object(json!({"phase": "Pending"})))),
            call if call.contains("watch=true") => watch(watches.fetch_add(1, std::sync::atomic::Ordering::Relaxed)),
            _ => list.clone(),
        });
        let exit = run(&cluster, WaitArgs { name: "r".into(), timeout: None, quiet: true }).await;
        let calls = calls.lock().clone();
        (exit.expect("an exit code"), calls)
    }

    #[tokio::test]
    async fn what_is_deleted_before_it_ran_ends_a_wait_as_it_ends_a_run() {
        let running = json!({"phase": "Running", "startTime": "2026-01-02T03:04:06.000000Z"});
        for (last, exit) in [(json!({"phase": "Bound"}), Exit::NEVER_RAN), (running, Exit::UNKNOWN)] {
            let (ended, calls) = waits(move |_| event("DELETED", last.clone()), None).await;
            assert_eq!(ended, exit);
            // From the version that was read: nothing between the two is missed.
            assert!(calls[1].contains("watch=true") && calls[1].contains("resourceVersion=1"), "{calls:?}");
        }
        let (ended, _) = waits(|_| event("DELETED", scripted::never_ran()), None).await;
        assert_eq!(ended, Exit::NEVER_RAN, "it had finished before it was deleted");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_gone_when_the_api_server_is_back_may_have_run() {
        let gone = scripted::status(410, "too old resource version");
        let error: Answer = Some((200, json!({"type": "ERROR", "object": gone.clone().expect("a Status").1})));
        for answers in [[None, gone.clone()], [gone.clone(), gone], [error.clone(), error]] {
            let (ended, _) = waits(move |at| answers[at.min(1)].clone(), none_there()).await;
            assert_eq!(ended, Exit::UNKNOWN);
        }
        // Nor is another request that has its name by now the one that was waited for.
        let mut other = scripted::object(json!({"phase": "Bound"}));
        other["metadata"]["uid"] = json!("v");
        let (ended, _) = waits(move |_| Some((200, json!({"type": "ADDED", "object": other.clone()}))), None).await;
        assert_eq!(ended, Exit::UNKNOWN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nothing_comes_is_replaced_after_16_seconds() {
        for (code, body) in [(scripted::SILENT, Value::Null), (scripted::NEVER, Value::Null)] {
            let begun = Instant::now();
            let (ended, _) = waits(
                move |at| if at == 0 { Some((code, body.clone())) } else { event("MODIFIED", scripted::never_ran()) },
                None,
            )
            .await;
            assert_eq!(ended, Exit::NEVER_RAN);
            let took = begun.elapsed().as_secs();
            assert!((16..18).contains(&took), "{code}: {took} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_goes_on_saying_nothing_is_given_up() {
        let (cluster, _) = scripted::cluster(|call| match call {
            call if call.contains("execrequests/r") => Some((200, scripted::object(json!({"phase": "Pending"})))),
            _ => Some((scripted::SILENT, Value::Null)),
        });
        let begun = Instant::now();
        let error = run(&cluster, WaitArgs { name: "r".into(), timeout: None, quiet: true }).await;
        let error = error.expect_err("no outcome");
        assert_eq!((error.exit(), begun.elapsed().as_secs() / 60), (Exit::LEFT, 5), "{error}");
    }
}
