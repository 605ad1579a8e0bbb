//! Following a request while listening for signals, and the last word: the outcome, and
//! the exit code that says the same.

use std::convert::Infallible;

use kube::ResourceExt as _;
use tokio::{pin, signal::unix::SignalKind, sync::Notify};

use super::{
    follower::{self, Ending},
    options::Options,
    signals::Stops,
    watched::{Reached, Watched},
};
use crate::{
    api::{ExecRequestStatus, Phase},
    cli::{
        cluster::connection::Cluster,
        error::Error,
        exit::Exit,
        request::may_have_run,
        say::{speech::Speech, words},
    },
};

/// What the first Ctrl-C does, where it does not go to the command's terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnInterrupt {
    /// Cancels the request; a second one leaves.
    Cancel,
    Leave,
}

/// Follows a request until it ends, or the plugin does; `missing_streams` is why there is nothing to attach to.
/// Errors do not affect the command.
pub async fn conclude(
    cluster: &Cluster,
    missing_streams: Option<&str>,
    mut watched: Watched,
    options: Options,
    on_interrupt: OnInterrupt,
) -> Result<Exit, Error> {
    let mut stops = Stops::listen()?;
    let (name, speech) = (watched.name(), watched.speech.clone());
    let following = Box::pin(follower::follow(cluster, missing_streams, &mut watched, options));
    let canceling = Box::pin(cancel(cluster, &name, &speech));
    let ending = match heard(following, async || stops.next().await, on_interrupt, canceling).await {
        Heard::Ending(ending) => ending?,
        Heard::Signal(signal) => {
            speech.say(&left(cluster, &name));
            return Ok(if signal == SignalKind::interrupt() { Exit::LEFT } else { Exit::of_signal(signal) });
        }
    };
    let leave = |why: &str| {
        speech.say(&format!("{why}; {}", left(cluster, &name)));
        Exit::LEFT
    };
    Ok(match ending {
        Ending::Object(reached) => last_word(&reached, &speech),
        Ending::Stream(status) => {
            speech.say(&format!("{name} was deleted; the outcome is from its stream"));
            Exit::of_stream(&status)
        }
        Ending::Detached => {
            let attach = cluster.plugin(&format!("attach -i {name}"));
            speech.say(&format!("detached; to attach again: {attach}"));
            Exit::SUCCESS
        }
        Ending::OutputClosed => leave("the output was closed"),
        Ending::Lost(why) => leave(&why),
    })
}

#[derive(Debug)]
enum Heard {
    Ending(Result<Ending, Error>),
    Signal(SignalKind),
}

/// Follows until that ends, or a signal ends the plugin. A cancel that is under way holds up neither.
async fn heard(
    following: impl Future<Output = Result<Ending, Error>>,
    mut next: impl AsyncFnMut() -> SignalKind,
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
            signal = next() => {
                if signal != SignalKind::interrupt() || std::mem::replace(&mut asked, true) {
                    return Heard::Signal(signal);
                }
                wanted.notify_one();
            }
        }
    }
}

async fn cancel(cluster: &Cluster, name: &str, speech: &Speech) {
    match cluster.cancel(name).await {
        Ok(_) => speech.say(&format!("canceling {name}; press Ctrl-C again to leave without waiting for its end")),
        // It had finished: the outcome comes in a moment.
        Err(error) if error.answer() == Some(422) => {}
        Err(error) => speech.say(&format!("{error}; press Ctrl-C again to leave it running")),
    }
}

/// What to do about a request that the plugin follows no longer.
pub fn left(cluster: &Cluster, name: &str) -> String {
    let attach = cluster.plugin(&format!("attach {name}"));
    format!("{name} may still be running: {attach}, wait {name} or cancel {name}")
}

/// Says what the exit code alone does not, and gives the exit code.
pub fn last_word(reached: &Reached, speech: &Speech) -> Exit {
    match reached {
        Reached::Here(request) => {
            let empty = ExecRequestStatus::default();
            let status = request.status.as_ref().unwrap_or(&empty);
            for sentence in sentences(&request.name_any(), status) {
                speech.say(&sentence);
            }
            Exit::of(status).unwrap_or(Exit::LEFT)
        }
        Reached::Deleted(request) => {
            let (then, exit) = if may_have_run(request) {
                ("that ends its command", Exit::UNKNOWN)
            } else {
                ("nothing ran, and nothing will", Exit::NEVER_RAN)
            };
            speech.say(&format!("{} was deleted before it finished: {then}", request.name_any()));
            exit
        }
        Reached::Vanished(request) => {
            speech.say(&format!(
                "{} is gone, and how it ended was not seen: it was deleted while the API server was not heard from. \
                 Its command may have run, partly or completely: check before you run it again",
                request.name_any()
            ));
            Exit::UNKNOWN
        }
    }
}

fn sentences(name: &str, status: &ExecRequestStatus) -> Vec<String> {
    let mut all = Vec::new();
    match status.phase {
        Phase::Succeeded => {}
        Phase::Unknown => all.push(format!(
            "{name}: OUTCOME UNKNOWN: {}. The command may have run, partly or completely: check before you run it again",
            words::outcome(status).trim_end_matches('.')
        )),
        Phase::Failed | Phase::Pending | Phase::Bound | Phase::Running => {
            all.push(format!("{name}: {}", words::outcome(status)));
        }
    }
    if let Some(output) = status.output.as_ref().filter(|output| !output.complete && status.start_time.is_some()) {
        let why = output.incomplete_reason.as_deref().unwrap_or("not known");
        all.push(format!("{name}: the output may be incomplete: {why}"));
    }
    all
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
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
            SignalKind::interrupt()
        };
        let patience = std::time::Duration::from_secs(10);
        let heard = tokio::time::timeout(patience, heard(pending(), next, OnInterrupt::Cancel, cancel)).await;
        assert!(matches!(heard, Ok(Heard::Signal(told)) if told == SignalKind::interrupt()), "{heard:?}");
        // Any other does not cancel, nor does the first where it is to leave.
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        for (signal, on_interrupt) in [(terminate, OnInterrupt::Cancel), (interrupt, OnInterrupt::Leave)] {
            let heard = super::heard(pending(), async || signal, on_interrupt, ready(())).await;
            assert!(matches!(heard, Heard::Signal(told) if told == signal), "{heard:?}");
        }
    }

    #[test]
    fn what_was_deleted_before_it_ran_is_told_from_what_may_have_run() {
        let started = json!({"phase": "Running", "startTime": "2026-01-02T03:04:05.000000Z"});
        for (status, exit) in [(json!({"phase": "Bound"}), Exit::NEVER_RAN), (started, Exit::UNKNOWN)] {
            let heard = Kept::default();
            let request = Arc::new(scripted::request(status));
            let reached = Reached::Deleted(Arc::clone(&request));
            assert_eq!(last_word(&reached, &Speech::to(false, heard.clone())), exit);
            assert!(heard.text().starts_with("execlet: r was deleted before it finished: "));
            // Of what nobody saw nothing is known.
            let reached = Reached::Vanished(request);
            assert_eq!(last_word(&reached, &Speech::to(false, heard.clone())), Exit::UNKNOWN);
            assert!(heard.text().starts_with("execlet: r is gone, and how it ended was not seen: "));
        }
    }

    #[test]
    fn what_is_left_is_said_with_commands_that_reach_it() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let _inside = runtime.enter();
        let (cluster, _) = scripted::cluster(|_| None);
        let text = left(&cluster, "r");
        assert_eq!(text, "r may still be running: kubectl execlet -n shop attach r, wait r or cancel r");
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
                "r: OUTCOME UNKNOWN: OutcomeLost: the engine was restarted. The command may have run, partly or completely: check before you run it again",
                "r: the output may be incomplete: StreamLost",
            ]
        );
    }
}
