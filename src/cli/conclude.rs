//! Following with an ear for signals, and the last word: what became of it, and
//! the exit code that says the same.

use super::{
    Cluster, Error, Exit,
    discovery::Streams,
    follow::{self, Ending},
    options::Options,
    requests::Requests,
    signals::{Stop, Stops},
    speech::Speech,
    watched::Watched,
    words,
};
use crate::api::{ExecRequest, ExecRequestStatus, Phase};

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
    let ending = {
        let following = follow::follow(cluster, streams, &mut watched, speech, options);
        tokio::pin!(following);
        let mut canceling = false;
        loop {
            tokio::select! {
                ending = &mut following => break ending?,
                stop = stops.next() => {
                    if stop == Stop::Interrupt && on_interrupt == OnInterrupt::Cancel && !canceling {
                        canceling = true;
                        cancel(&requests, &name, speech).await;
                        continue;
                    }
                    speech.say(&left(&name));
                    return Ok(if stop == Stop::Interrupt { Exit::LEFT } else { Exit(stop.exit_code()) });
                }
            }
        }
    };
    Ok(match ending {
        Ending::Finished(request) => last_word(&request, speech),
        Ending::Gone(request) => {
            let ran = request.status.as_ref().is_some_and(|status| status.start_time.is_some());
            speech.say(&format!(
                "{name} was deleted before it had finished{}",
                if ran { ": its command is ended by that" } else { "" }
            ));
            if ran { Exit::UNKNOWN } else { Exit::NEVER_RAN }
        }
        Ending::Told(status) => {
            speech.say(&format!("{name} was deleted; its stream told the outcome"));
            Exit::told(&status)
        }
        Ending::Detached => {
            speech.say(&format!("detached; back to it with: kubectl execlet attach -i {name}"));
            Exit::SUCCESS
        }
        Ending::NobodyReads => {
            speech.say(&format!("nobody reads the output any longer; {}", left(&name)));
            Exit::LEFT
        }
        Ending::Lost(why) => {
            speech.say(&format!("{why}; {}", left(&name)));
            Exit::LEFT
        }
    })
}

async fn cancel(requests: &Requests, name: &str, speech: &Speech) {
    match requests.cancel(name).await {
        Ok(_) => speech.say(&format!("canceling {name}; Ctrl-C again leaves without waiting for its end")),
        // It had finished: the outcome is about to be told.
        Err(error) if error.answer() == Some(422) => {}
        Err(error) => speech.say(&format!("{error}; Ctrl-C again leaves it running")),
    }
}

fn left(name: &str) -> String {
    format!("{name} may go on: kubectl execlet attach {name}, wait {name} or cancel {name}")
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
    use serde_json::json;

    use super::*;

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
