//! Following with an ear for signals, and the last word: what became of it, and
//! the exit code that says the same.

use std::convert::Infallible;

use tokio::{pin, sync::Notify};

use super::{
    follower::{self, Ending},
    options::Options,
    signals::{Stop, Stops},
    watched::Watched,
};
use crate::{
    api::{ExecRequest, ExecRequestStatus, Phase},
    cli::{
        cluster::connection::Cluster,
        cluster::{discovery::Streams, requests::Requests},
        error::Error,
        exit::Exit,
        say::{speech::Speech, words},
    },
};

/// What the first Ctrl-C does, where it does not go to a command's terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnInterrupt {
    /// Cancels the request; a second one leaves.
    Cancel,
    /// Leaves it as it is.
    Leave,
}

/// Follows a request to its end or to ours.
///
/// # Errors
/// When the plugin cannot go on; the command is not touched by that.
pub async fn conclude(
    cluster: &Cluster,
    streams: &Streams,
    mut watched: Watched,
    speech: &Speech,
    options: Options,
    on_interrupt: OnInterrupt,
) -> Result<Exit, Error> {
    let mut stops = Stops::listen()?;
    let requests = Requests::new(cluster);
    let request = watched.last();
    let name = request.metadata.name.clone().unwrap_or_default();
    let following = Box::pin(follower::follow(cluster, streams, &mut watched, speech, options));
    let canceling = Box::pin(cancel(&requests, &name, speech));
    let ending = match heard(following, async || stops.next().await, on_interrupt, canceling).await {
        Heard::Ending(ending) => ending?,
        Heard::Stop(stop) => {
            speech.say(&left(cluster, &name));
            return Ok(if stop == Stop::Interrupt { Exit::LEFT } else { Exit(stop.exit_code()) });
        }
    };
    Ok(match ending {
        Ending::Finished(request) => last_word(&request, speech),
        Ending::Gone(request) => gone(&request, speech),
        Ending::Told(status) => {
            speech.say(&format!("{name} was deleted; its stream told the outcome"));
            Exit::told(&status)
        }
        Ending::Detached => {
            let back = cluster.plugin(&format!("attach -i {name}"));
            speech.say(&format!("detached; back to it with: {back}"));
            Exit::SUCCESS
        }
        Ending::NobodyReads => {
            speech.say(&format!("nobody reads the output any longer; {}", left(cluster, &name)));
            Exit::LEFT
        }
        Ending::Lost(why) => {
            speech.say(&format!("{why}; {}", left(cluster, &name)));
            Exit::LEFT
        }
    })
}

/// What is heard first.
#[derive(Debug)]
enum Heard {
    Ending(Result<Ending, Error>),
    Stop(Stop),
}

/// Follows until that ends, or until somebody wants us to go. Neither is kept waiting while a cancel is under way.
async fn heard(
    following: impl Future<Output = Result<Ending, Error>>,
    mut next: impl AsyncFnMut() -> Stop,
    on_interrupt: OnInterrupt,
    cancel: impl Future<Output = ()>,
) -> Heard {
    let (wanted, mut asked) = (Notify::new(), on_interrupt == OnInterrupt::Leave);
    let canceling = async {
        wanted.notified().await;
        cancel.await;
        std::future::pending::<Infallible>().await
    };
    pin!(following, canceling);
    loop {
        tokio::select! {
            ending = &mut following => return Heard::Ending(ending),
            never = &mut canceling => match never {},
            stop = next() => {
                if stop != Stop::Interrupt || std::mem::replace(&mut asked, true) {
                    return Heard::Stop(stop);
                }
                wanted.notify_one();
            }
        }
    }
}

async fn cancel(requests: &Requests, name: &str, speech: &Speech) {
    match requests.cancel(name).await {
        Ok(_) => speech.say(&format!("canceling {name}; Ctrl-C again leaves without waiting for its end")),
        // It had finished: the outcome is about to be told.
        Err(error) if error.answer() == Some(422) => {}
        Err(error) => speech.say(&format!("{error}; Ctrl-C again leaves it running")),
    }
}

/// What to do about a request that the plugin follows no longer.
pub fn left(cluster: &Cluster, name: &str) -> String {
    let attach = cluster.plugin(&format!("attach {name}"));
    format!("{name} may go on: {attach}, wait {name} or cancel {name}")
}

/// Says of a request that it was deleted, and gives the exit code.
pub fn gone(request: &ExecRequest, speech: &Speech) -> Exit {
    let name = request.metadata.name.as_deref().unwrap_or_default();
    let ran = request.status.as_ref().is_some_and(|status| status.start_time.is_some());
    let (then, exit) = if ran {
        (": its command is ended by that", Exit::UNKNOWN)
    } else {
        (": nothing ran, and nothing will", Exit::NEVER_RAN)
    };
    speech.say(&format!("{name} was deleted before it had finished{then}"));
    exit
}

/// Says what the exit code alone does not, and gives the exit code.
pub fn last_word(request: &ExecRequest, speech: &Speech) -> Exit {
    let empty = ExecRequestStatus::default();
    let status = request.status.as_ref().unwrap_or(&empty);
    let name = request.metadata.name.as_deref().unwrap_or_default();
    for sentence in sentences(name, status) {
        speech.say(&sentence);
    }
    Exit::of(status).unwrap_or(Exit::LEFT)
}

fn sentences(name: &str, status: &ExecRequestStatus) -> Vec<String> {
    let mut all = Vec::new();
    match status.phase {
        Phase::Succeeded => {}
        Phase::Unknown => all.push(format!(
            "{name}: OUTCOME UNKNOWN: {}. The command may have run, in part or to its end; look before you run it again",
            words::outcome(status).trim_end_matches('.')
        )),
        Phase::Failed | Phase::Pending | Phase::Bound | Phase::Running => {
            all.push(format!("{name}: {}", words::outcome(status)));
        }
    }
    if let Some(output) = status.output.as_ref().filter(|output| !output.complete && status.start_time.is_some()) {
        let why = output.incomplete_reason.as_deref().unwrap_or("not known");
        all.push(format!("{name}: the output may not be all of it: {why}"));
    }
    all
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        sync::atomic::{AtomicBool, Ordering},
    };

    use serde_json::json;

    use super::*;
    use crate::cli::follow::scripted::{self, Kept};

    #[tokio::test]
    async fn a_second_ctrl_c_is_heard_while_the_first_one_cancels() {
        let canceling = AtomicBool::new(false);
        let cancel = async {
            canceling.store(true, Ordering::Relaxed);
            pending::<()>().await;
        };
        // The second comes when the first has its cancel under way.
        let mut pressed = 0;
        let next = async || {
            pressed += 1;
            while pressed > 1 && !canceling.load(Ordering::Relaxed) {
                tokio::task::yield_now().await;
            }
            Stop::Interrupt
        };
        let patience = std::time::Duration::from_secs(10);
        let heard = tokio::time::timeout(patience, heard(pending(), next, OnInterrupt::Cancel, cancel)).await;
        assert!(matches!(heard, Ok(Heard::Stop(Stop::Interrupt))), "{heard:?}");
        // Any other does not cancel, nor does the first where it is to leave.
        for (stop, on_interrupt) in [(Stop::Terminate, OnInterrupt::Cancel), (Stop::Interrupt, OnInterrupt::Leave)] {
            let heard = super::heard(pending(), async || stop, on_interrupt, ready(())).await;
            assert!(matches!(heard, Heard::Stop(told) if told == stop), "{heard:?}");
        }
    }

    #[test]
    fn what_was_deleted_before_it_ran_is_told_from_what_may_have_run() {
        let started = json!({"phase": "Running", "startTime": "2026-01-02T03:04:05.000000Z"});
        for (status, exit) in [(json!({"phase": "Bound"}), Exit::NEVER_RAN), (started, Exit::UNKNOWN)] {
            let heard = Kept::default();
            assert_eq!(gone(&scripted::request(status), &Speech::to(false, heard.clone())), exit);
            assert!(heard.text().starts_with("execlet: r was deleted before it had finished: "));
        }
    }

    #[test]
    fn what_is_left_is_said_with_commands_that_reach_it() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let _inside = runtime.enter();
        let (cluster, _) = scripted::cluster(|_| None);
        let text = left(&cluster, "r");
        assert_eq!(text, "r may go on: kubectl execlet -n shop attach r, wait r or cancel r");
    }

    fn said(phase: &str, reason: &str, message: &str, output: serde_json::Value) -> Vec<String> {
        let condition = json!({"type": "Finished", "status": "True", "reason": reason, "message": message, "lastTransitionTime": "1970-01-01T00:00:00Z"});
        let status = json!({"phase": phase, "conditions": [condition], "startTime": "2026-01-02T03:04:05.000000Z", "output": output});
        sentences("r", &serde_json::from_value(status).expect("a status"))
    }

    #[test]
    fn success_needs_no_word() {
        assert!(said("Succeeded", "Completed", "", json!({"complete": true})).is_empty());
    }

    #[test]
    fn a_failure_is_told_with_its_reason() {
        let all = said("Failed", "NonZeroExitCode", "the command ended with exit code 3", json!({"complete": true}));
        assert_eq!(all, ["r: NonZeroExitCode: the command ended with exit code 3"]);
    }

    #[test]
    fn an_unknown_outcome_is_said_plainly() {
        let all = said(
            "Unknown",
            "OutcomeLost",
            "the engine was restarted.",
            json!({"complete": false, "incompleteReason": "StreamLost"}),
        );
        assert_eq!(
            all,
            [
                "r: OUTCOME UNKNOWN: OutcomeLost: the engine was restarted. The command may have run, in part or to its end; look before you run it again",
                "r: the output may not be all of it: StreamLost",
            ]
        );
    }
}
