//! Opening an attach, as often as it takes.

use std::time::Duration;

use kube::client::Connection;
use tokio::time::{Instant, timeout};

use super::{
    attempts::Attempts,
    input::Input,
    session::{self, Wanted},
    watched::Watched,
};
use crate::{
    cli::{
        cluster::connection::Cluster,
        error::{self, Error},
        request::is_finished,
    },
    wire::words::InputError,
};

/// How long to wait for input that another client holds. A lost connection of ours is noticed after 70 s.
const HELD: Duration = Duration::from_secs(90);
/// How long the watch may be behind.
const SEEN: Duration = Duration::from_secs(2);

pub enum Attempt {
    Opened(Box<Connection>),
    Gone,
    /// There is no stream any more: why.
    NoStream(String),
}

/// Opens a connection; without input, where the command takes none any more. `input` is what an earlier
/// connection had.
pub async fn open(
    cluster: &Cluster,
    watched: &mut Watched,
    wanted: &mut Wanted,
    mut input: Option<&mut Input>,
) -> Result<Attempt, Error> {
    let mut attempts = Attempts::default();
    let mut since_held = None;
    let name = watched.name();
    let refused = |source| Error::Call { what: format!("attaching to {name}"), source: Box::new(source) };
    loop {
        if watched.is_gone() {
            return Ok(Attempt::Gone);
        }
        let source = match session::open(cluster, &name, *wanted).await {
            Ok(connection) => return Ok(Attempt::Opened(Box::new(connection))),
            Err(source) => source,
        };
        let why = error::explain(&source);
        match error::answer(&source) {
            // It ended before it began, which the watch may tell a moment later.
            Some(400) if ends_soon(watched).await? => return Ok(Attempt::NoStream(why)),
            Some(409) if wanted.stdin => {
                let held_for = since_held.get_or_insert_with(Instant::now).elapsed();
                match missing_input(no_input(&source), input.as_deref(), held_for) {
                    Without::Wait => {}
                    Without::Watch(sentence) => {
                        // Once it has finished, nobody expects to send input.
                        if let Some(sentence) = sentence.filter(|_| !is_finished(&watched.last())) {
                            watched.speech.say(&format!("{name}: {why}. {sentence}"));
                        }
                        wanted.stdin = false;
                        if let Some(input) = &mut input {
                            input.refused = true;
                        }
                        continue;
                    }
                    // A request that has ended still has output to show.
                    Without::Refuse if ends_soon(watched).await? => {
                        wanted.stdin = false;
                        continue;
                    }
                    Without::Refuse => return Err(refused(source)),
                }
            }
            Some(400 | 401 | 403 | 405 | 409 | 422) => return Err(refused(source)),
            Some(410) => return Ok(Attempt::NoStream(why)),
            Some(_) | None => {}
        }
        if !attempts.go_on(watched, &source).await? {
            return Ok(Attempt::NoStream(why));
        }
    }
}

/// Whether the request has finished, or is about to be seen so.
async fn ends_soon(watched: &mut Watched) -> Result<bool, Error> {
    let waited = timeout(SEEN, watched.until(is_finished)).await;
    waited.map_or(Ok(false), |reached| reached.map(|_| true))
}

/// Why the input is refused; `None` if the refusal is about something else.
fn no_input(refusal: &kube::Error) -> Option<InputError> {
    InputError::read(&error::explain(refusal)).filter(|_| error::answer(refusal) == Some(409))
}

#[derive(Debug, PartialEq, Eq)]
enum Without {
    /// Try again: it may be a connection of our own that still has it.
    Wait,
    /// Attach without input, and say this.
    Watch(Option<&'static str>),
    /// Leave it to the user, of whose input nothing was read yet.
    Refuse,
}

/// `ours` is the input that an earlier connection had; `held_for` counts from the first refusal.
fn missing_input(why: Option<InputError>, ours: Option<&Input>, held_for: Duration) -> Without {
    let (Some(why), Some(input)) = (why, ours) else { return Without::Refuse };
    match why {
        InputError::Held(_) if held_for < HELD => Without::Wait,
        InputError::Held(_) => Without::Watch(Some(
            "Only watching from now on; to send input, have the other client leave, then attach again with -i",
        )),
        // All of it has arrived, also its end: only output is left.
        InputError::Ended | InputError::Lost if input.ended => Without::Watch(None),
        InputError::Ended | InputError::Lost => {
            Without::Watch(Some("Only watching from now on; what you type is ignored"))
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
    use serde_json::json;

    use super::*;
    use crate::cli::{
        follow::scripted::{self, Kept},
        say::speech::Speech,
    };

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_is_gone_is_given_up_and_told_of() {
        let (cluster, _) = scripted::cluster(|_| None);
        let heard = Kept::default();
        let request = scripted::request(json!({"phase": "Running", "nodeName": "n1"}));
        let mut watched = Watched::new(&cluster, request, &Speech::to(false, heard.clone()));
        let mut wanted = Wanted { stdin: false, tty: false };
        let opened =
            tokio::time::timeout(Duration::from_secs(3600), open(&cluster, &mut watched, &mut wanted, None)).await;
        let error = opened.expect("an end").err().expect("no stream");
        assert!(matches!(&error, Error::Unwatched { name, .. } if name == "r"), "{error}");
        let said = heard.text();
        assert!(
            said.starts_with("execlet: r: its output is not available yet: ") && said.lines().count() == 1,
            "{said}"
        );
    }

    fn held() -> InputError {
        InputError::Held("jane from 10.0.0.7".to_owned())
    }

    #[test]
    fn a_client_without_the_input_waits_watches_or_leaves_it_to_the_user() {
        let (going_on, ended) = (Input::from(&b""[..], None), {
            let mut input = Input::from(&b""[..], None);
            input.ended = true;
            input
        });
        for (why, ours, held_for, expected) in [
            // Nothing of ours was read yet.
            (held(), None, Duration::ZERO, Without::Refuse),
            (InputError::Ended, None, Duration::ZERO, Without::Refuse),
            // The connection that broke may still have it; and the end may not have arrived.
            (held(), Some(&going_on), HELD / 2, Without::Wait),
            (held(), Some(&ended), HELD / 2, Without::Wait),
            (InputError::Ended, Some(&ended), Duration::ZERO, Without::Watch(None)),
        ] {
            assert_eq!(missing_input(Some(why.clone()), ours, held_for), expected, "{why:?} {ours:?}");
        }
        for (why, held_for) in [(held(), HELD), (InputError::Ended, Duration::ZERO)] {
            let then = missing_input(Some(why.clone()), Some(&going_on), held_for);
            assert!(matches!(then, Without::Watch(Some(_))), "{why:?}: {then:?}");
        }
        assert_eq!(missing_input(None, Some(&going_on), HELD), Without::Refuse);
    }

    #[test]
    fn a_refusal_says_whether_to_wait_for_the_input_or_to_do_without() {
        for (code, message, expected) in [
            (409, "the input is held by jane from 10.0.0.7: attach without stdin to watch", Some(held())),
            (409, "the input was ended already: attach without stdin to watch", Some(InputError::Ended)),
            (
                409,
                "the input cannot reach the command any more: the agent was restarted and has lost the connection; attach without stdin to watch",
                Some(InputError::Lost),
            ),
            (409, "the object has been modified", None),
            (429, "the input was ended already", None),
        ] {
            let status = Status { code: Some(code), message: Some(message.to_owned()), ..Status::default() };
            let refusal = kube::Error::Api(serde_json::from_value(serde_json::json!(status)).expect("a Status"));
            assert_eq!(no_input(&refusal), expected, "{code} {message}");
        }
    }
}
