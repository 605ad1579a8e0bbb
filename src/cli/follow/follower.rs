//! Following one request to its end: wait until it can be attached to, attach,
//! attach again if the connection breaks, and then wait for the outcome.
//!
//! The outcome is the object's, never the stream's alone.

use std::{sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use tokio::time::Instant;

use super::{
    attempts::Attempts,
    input::Input,
    options::Options,
    output::Output,
    record::Recorder,
    refusal::{NoInput, no_input},
    session::{self, Ended, Ends, Shown, Wanted},
    signals::{self, HeldTerminal, Owned},
    watched::{Reached, Watched, is_finished},
};
use crate::{
    api::{ExecRequest, ExecRequestStatus},
    cli::{
        cluster::connection::Cluster,
        cluster::discovery::Streams,
        error,
        error::Error,
        say::{speech::Speech, tails::tail_bytes, terminal},
    },
    wire::OutputStream,
};

/// How long to wait for input that another has. A connection of ours that is lost is missed after 70 s.
const HELD: Duration = Duration::from_secs(90);
/// How long what has happened may take to be seen here.
const SEEN: Duration = Duration::from_secs(2);
/// How long the outcome may take to reach the object once the stream has told it.
const REPORT: Duration = Duration::from_secs(60);

/// How following ended.
#[derive(Debug)]
pub enum Ending {
    /// The request has finished.
    Finished(Arc<ExecRequest>),
    /// It was deleted before it had, as far as was seen.
    Gone(Arc<ExecRequest>),
    /// The same, but the stream has told the outcome.
    Told(Box<Status>),
    /// The detach keys were pressed.
    Detached,
    /// Nobody reads the output.
    NobodyReads,
    /// The connection is lost, and with it what was on its way: why.
    Lost(String),
}

/// Follows a request. Standard input is touched only once the command can have it.
///
/// # Errors
/// When the plugin cannot go on; the command is not touched by that.
pub async fn follow(
    cluster: &Cluster,
    streams: &Streams,
    watched: &mut Watched,
    speech: &Speech,
    options: Options,
) -> Result<Ending, Error> {
    match streams {
        Streams::Missing(why) if options.stdin => Err(Error::NoStreams(why.clone())),
        Streams::Missing(why) => {
            speech.say(&format!("{why}. The end of its output is shown once the command has ended"));
            by_status(watched, speech, options.recorder).await
        }
        Streams::Served => Follower { cluster, watched, speech }.attached(options).await,
    }
}

struct Follower<'a> {
    cluster: &'a Cluster,
    watched: &'a mut Watched,
    speech: &'a Speech,
}

/// What became of an attempt to attach.
enum Attempt {
    Opened(Box<kube::client::Connection>),
    /// The request is gone.
    Gone,
    /// There is no stream to be had any more; why.
    NoStream(String),
}

impl Follower<'_> {
    async fn attached(&mut self, options: Options) -> Result<Ending, Error> {
        // 1. Until an agent has it, or it has ended without.
        if let Reached::Gone(request) = self.watched.until(self.speech, is_attachable).await? {
            return Ok(Ending::Gone(request));
        }
        if self.never_ran() {
            return Ok(Ending::Finished(self.watched.last()));
        }
        let mut wanted = Wanted { stdin: options.stdin, tty: options.tty };
        // 2. The first connection, before standard input or the terminal are touched.
        let mut next = self.open(&mut wanted, None).await?;
        let (sizes, _resized) = sizes(options.tty)?;
        let mut terminal = None;
        let keys = (options.tty && options.stdin).then_some(options.keys);
        let mut ends = Ends {
            output: Output::start(options.recorder),
            input: None,
            sizes,
            shown: Shown::default(),
            tty: options.tty,
        };
        let ended = loop {
            let connection = match next {
                Attempt::Opened(connection) => connection,
                Attempt::Gone => break Ended::Broken("the request was deleted".to_owned()),
                Attempt::NoStream(why) => {
                    self.remnant(&ends, &why).await?;
                    break Ended::Broken(why);
                }
            };
            self.speech.clear();
            if wanted.stdin && ends.input.is_none() {
                if keys.is_some() {
                    terminal = Some(HeldTerminal::take()?);
                }
                ends.input = Some(Input::start(keys.clone()));
            }
            // 3. Served until it ends, in one way or another.
            let protocol = session::protocol(&connection);
            let ended = session::serve(connection.into_stream(), protocol, &mut ends).await;
            let why = match ended {
                Ended::Broken(why) => why,
                Ended::Cut(why) => {
                    self.speech.say(&format!("there is more output than can be had ({why}); waiting for the end"));
                    break Ended::Cut(why);
                }
                ended @ (Ended::Status(_) | Ended::Detached | Ended::NobodyReads) => break ended,
            };
            // 4. Again, if nothing is lost by it.
            match ends.input.as_mut().map_or(Underway::Nothing, |input| underway(input, options.tty, &why)) {
                Underway::Nothing => {}
                Underway::Typed(sentence) => self.speech.say(&sentence),
                Underway::Piped(why) => {
                    ends.output.finish().await?;
                    return Ok(Ending::Lost(why));
                }
            }
            self.speech.hitch(&format!("the connection broke ({why}): attaching again"));
            let left = ends.input.as_ref().map(|input| input.detached.clone());
            next = tokio::select! {
                attempt = self.open(&mut wanted, ends.input.as_mut()) => attempt?,
                () = async { match &left { Some(left) => left.cancelled().await, None => std::future::pending().await } } => break Ended::Detached,
            };
        };
        drop(terminal);
        // 5. The last byte before the last word.
        ends.output.finish().await?;
        let ending = match ended {
            Ended::Detached => Ending::Detached,
            Ended::NobodyReads => Ending::NobodyReads,
            Ended::Status(status) => self.outcome(status).await?,
            Ended::Broken(_) | Ended::Cut(_) => by_object(self.watched, self.speech).await?,
        };
        if let Ending::Finished(request) = &ending
            && let Some(missing) = unseen(request, ends.shown)
        {
            self.speech.say(&format!("{missing} bytes of its output are missing here: they could not be had any more"));
        }
        Ok(ending)
    }

    /// Opens a connection, as often as it takes and makes sense; `input` is what an earlier one had. Where
    /// there is no input to be had, without.
    async fn open(&mut self, wanted: &mut Wanted, mut input: Option<&mut Input>) -> Result<Attempt, Error> {
        let mut attempts = Attempts::default();
        let mut since_held = None;
        loop {
            let request = self.watched.last();
            if self.watched.is_gone() {
                return Ok(Attempt::Gone);
            }
            let name = request.metadata.name.clone().unwrap_or_default();
            let source = match session::open(self.cluster, session::attach_request(self.cluster, &name, *wanted)).await
            {
                Ok(connection) => return Ok(Attempt::Opened(Box::new(connection))),
                Err(source) => source,
            };
            let why = error::explain(&source);
            match error::answer(&source) {
                // It ended before it had begun, which the watch may tell a moment later.
                Some(400) if self.ends_soon().await? => return Ok(Attempt::NoStream(why)),
                Some(409) if wanted.stdin => {
                    let held_for = since_held.get_or_insert_with(Instant::now).elapsed();
                    match without_input(no_input(&source), input.as_deref(), held_for) {
                        Without::Wait => {}
                        Without::Watch(sentence) => {
                            // Of one that has finished that is no news.
                            if let Some(sentence) = sentence.filter(|_| !is_finished(&request)) {
                                self.speech.say(&format!("{name}: {why}. {sentence}"));
                            }
                            wanted.stdin = false;
                            if let Some(input) = &mut input {
                                input.refused = true;
                            }
                            continue;
                        }
                        // Of a request that has ended there is still the output.
                        Without::Refuse if self.ends_soon().await? => {
                            wanted.stdin = false;
                            continue;
                        }
                        Without::Refuse => return Err(refused(&name, source)),
                    }
                }
                Some(400 | 401 | 403 | 405 | 409 | 422) => {
                    return Err(refused(&name, source));
                }
                Some(410) => return Ok(Attempt::NoStream(why)),
                Some(_) | None => {}
            }
            if !attempts.go_on(self.watched, self.speech, &source).await? {
                return Ok(Attempt::NoStream(why));
            }
        }
    }

    /// Whether it has finished, or is about to be seen so.
    async fn ends_soon(&mut self) -> Result<bool, Error> {
        let waited = tokio::time::timeout(SEEN, self.watched.until(self.speech, is_finished)).await;
        waited.map_or(Ok(false), |reached| reached.map(|_| true))
    }

    /// Whether there is no output to be had, because there is none.
    fn never_ran(&self) -> bool {
        let request = self.watched.last();
        is_finished(&request) && request.status.as_ref().is_some_and(|status| status.start_time.is_none())
    }

    /// What the object kept of the output, where the stream is not to be had.
    async fn remnant(&mut self, ends: &Ends, why: &str) -> Result<(), Error> {
        if let Reached::Here(request) = self.watched.until(self.speech, is_finished).await?
            && ends.shown.is_nothing()
        {
            self.speech.say(&format!("its log cannot be read ({why}): this is what its status has of it"));
            write_tails(&ends.output, &request, self.speech).await;
        }
        Ok(())
    }

    async fn outcome(&mut self, told: Box<Status>) -> Result<Ending, Error> {
        match tokio::time::timeout(REPORT, by_object(self.watched, self.speech)).await {
            Ok(Ok(Ending::Gone(_))) => Ok(Ending::Told(told)),
            Ok(ending) => ending,
            Err(_) => Ok(Ending::Lost("the stream has ended, but the request has no outcome yet".to_owned())),
        }
    }
}

fn refused(name: &str, source: kube::Error) -> Error {
    Error::Call { what: format!("attaching to {name}"), source: Box::new(source) }
}

/// What was on its way to the command when a connection broke.
#[derive(Debug, PartialEq, Eq)]
enum Underway {
    /// Nothing that matters.
    Nothing,
    /// Keys, which whoever types them can type again: what to say of it.
    Typed(String),
    /// What cannot be sent again, because a part may have arrived: why it ends here.
    Piped(String),
}

fn underway(input: &mut Input, tty: bool, why: &str) -> Underway {
    if input.all_arrived() {
        return Underway::Nothing;
    }
    let bytes = input.sent - input.arrived;
    if !tty {
        let sentence =
            format!("the connection broke ({why}) while up to {bytes} bytes of standard input were on their way");
        return Underway::Piped(sentence);
    }
    // They are told of once.
    input.arrived = input.sent;
    Underway::Typed(format!(
        "the connection broke ({why}) while up to {bytes} bytes of what was typed were on their way: look what has arrived before you type it again"
    ))
}

/// What to do where a command's input cannot be had.
#[derive(Debug, PartialEq, Eq)]
enum Without {
    /// Try again: it may be a connection of our own that still has it.
    Wait,
    /// Attach without; with a word to the user, if there is something to say.
    Watch(Option<&'static str>),
    /// Let the user decide, of whose input nothing was read yet.
    Refuse,
}

/// `ours`: the input that an earlier connection had. `held_for`: since it was first refused.
fn without_input(why: Option<NoInput>, ours: Option<&Input>, held_for: Duration) -> Without {
    match (why, ours) {
        (None, _) | (Some(NoInput::Held | NoInput::Over), None) => Without::Refuse,
        // All of it has arrived, its end too: what is left is to watch.
        (Some(NoInput::Over), Some(input)) if input.ended => Without::Watch(None),
        (Some(NoInput::Over), Some(_)) => Without::Watch(Some("It is shown to its end; what is typed goes nowhere")),
        (Some(NoInput::Held), Some(_)) if held_for < HELD => Without::Wait,
        (Some(NoInput::Held), Some(_)) => Without::Watch(Some(
            "It is shown to its end; to give it input again, have the other leave, and then attach anew with -i",
        )),
    }
}

/// How many bytes of a finished request's output were not shown, where some were.
fn unseen(request: &ExecRequest, shown: Shown) -> Option<u64> {
    let output = request.status.as_ref()?.output.as_ref()?;
    let all = [&output.stdout, &output.stderr].iter().map(|of| u64::try_from(of.bytes).unwrap_or(0)).sum::<u64>();
    // What is missing before that was told where it is missing.
    let missing = all.saturating_sub(shown.up_to);
    (missing > 0 && !shown.is_nothing()).then_some(missing)
}

/// Waits for the end that the object tells.
async fn by_object(watched: &mut Watched, speech: &Speech) -> Result<Ending, Error> {
    Ok(match watched.until(speech, is_finished).await? {
        Reached::Here(request) => Ending::Finished(request),
        Reached::Gone(request) => Ending::Gone(request),
    })
}

/// Without streams: waits for the end, and shows what the status has of the output.
async fn by_status(watched: &mut Watched, speech: &Speech, recorder: Option<Recorder>) -> Result<Ending, Error> {
    let request = match watched.until(speech, is_finished).await? {
        Reached::Here(request) => request,
        Reached::Gone(request) => return Ok(Ending::Gone(request)),
    };
    let output = Output::start(recorder);
    write_tails(&output, &request, speech).await;
    output.finish().await?;
    Ok(Ending::Finished(request))
}

async fn write_tails(output: &Output, request: &ExecRequest, speech: &Speech) {
    let empty = ExecRequestStatus::default();
    let Some(kept) = request.status.as_ref().unwrap_or(&empty).output.as_ref() else { return };
    for (stream, name, tail) in
        [(OutputStream::Stdout, "output", &kept.stdout), (OutputStream::Stderr, "errors", &kept.stderr)]
    {
        let bytes = tail_bytes(tail);
        if tail.truncated {
            let (kept, all) = (bytes.len(), tail.bytes);
            speech.say(&format!("these are the last {kept} of {all} bytes of its standard {name}"));
        }
        if !bytes.is_empty() && output.write(stream, bytes.into()).await.is_err() {
            return;
        }
    }
}

/// Whether an agent has it, or it has ended without.
pub fn is_attachable(request: &ExecRequest) -> bool {
    is_finished(request) || request.status.as_ref().is_some_and(|status| status.node_name.is_some())
}

type Sizes = tokio::sync::watch::Receiver<Option<terminal::Size>>;

fn sizes(tty: bool) -> Result<(Option<Sizes>, Option<Owned>), Error> {
    if !tty || terminal::size().is_none() {
        return Ok((None, None));
    }
    let (sizes, task) = signals::sizes()?;
    Ok((Some(sizes), Some(task)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::{
        cluster::requests::Requests,
        follow::scripted::{self, Kept},
    };

    #[test]
    fn keys_that_may_be_lost_are_told_of_once_and_other_input_ends_it() {
        let mut input = Input::from(&b""[..], None);
        (input.sent, input.arrived) = (7, 4);
        let Underway::Piped(why) = underway(&mut input, false, "reset") else { panic!("it goes on") };
        assert_eq!(why, "the connection broke (reset) while up to 3 bytes of standard input were on their way");
        let Underway::Typed(sentence) = underway(&mut input, true, "reset") else { panic!("nothing is said") };
        assert!(sentence.contains("up to 3 bytes of what was typed"), "{sentence}");
        assert_eq!(underway(&mut input, true, "reset"), Underway::Nothing);
    }

    fn watched(cluster: &Cluster, status: Value) -> Watched {
        Watched::new(&Requests::new(cluster), scripted::request(status))
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_is_gone_is_given_up_and_told_of() {
        let (cluster, _) = scripted::cluster(|_| None);
        let mut watched = watched(&cluster, json!({"phase": "Running", "nodeName": "n1"}));
        let heard = Kept::default();
        let speech = Speech::to(false, heard.clone());
        let mut follower = Follower { cluster: &cluster, watched: &mut watched, speech: &speech };
        let mut wanted = Wanted { stdin: false, tty: false };
        let opened = tokio::time::timeout(Duration::from_secs(3600), follower.open(&mut wanted, None)).await;
        let error = opened.expect("an end").err().expect("no stream");
        assert!(matches!(&error, Error::Unwatched { name, .. } if name == "r"), "{error}");
        let said = heard.text();
        assert!(said.starts_with("execlet: r: its output cannot be had yet: ") && said.lines().count() == 1, "{said}");
    }

    #[tokio::test]
    async fn where_no_stream_is_served_it_is_said_why_there_is_only_the_end_of_the_output() {
        let (cluster, _) = scripted::cluster(|_| None);
        let mut watched = watched(&cluster, scripted::never_ran());
        let heard = Kept::default();
        let options = Options { stdin: false, tty: false, keys: "".parse().expect("keys"), recorder: None };
        let streams = Streams::Missing("this cluster serves none".to_owned());
        let ending = follow(&cluster, &streams, &mut watched, &Speech::to(false, heard.clone()), options).await;
        assert!(matches!(ending, Ok(Ending::Finished(_))), "{ending:?}");
        assert!(heard.text().starts_with("execlet: this cluster serves none. "));
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
            (NoInput::Held, None, Duration::ZERO, Without::Refuse),
            (NoInput::Over, None, Duration::ZERO, Without::Refuse),
            // The connection that broke may still have it; and the end may not have arrived.
            (NoInput::Held, Some(&going_on), HELD / 2, Without::Wait),
            (NoInput::Held, Some(&ended), HELD / 2, Without::Wait),
            (NoInput::Over, Some(&ended), Duration::ZERO, Without::Watch(None)),
        ] {
            assert_eq!(without_input(Some(why), ours, held_for), expected, "{why:?} {ours:?}");
        }
        for (why, held_for) in [(NoInput::Held, HELD), (NoInput::Over, Duration::ZERO)] {
            let then = without_input(Some(why), Some(&going_on), held_for);
            assert!(matches!(then, Without::Watch(Some(_))), "{why:?}: {then:?}");
        }
        assert_eq!(without_input(None, Some(&going_on), HELD), Without::Refuse);
    }

    #[test]
    fn output_that_was_not_shown_is_counted_at_the_end() {
        let request = json!({
            "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest", "metadata": {"name": "r"},
            "spec": {"target": {"podName": "web"}, "command": ["true"]},
            "status": {"phase": "Succeeded", "output": {
                "stdout": {"bytes": 90, "truncated": false}, "stderr": {"bytes": 10, "truncated": false}, "complete": true,
            }},
        });
        let request = serde_json::from_value(request).expect("a request");
        for (up_to, missing, expected) in [(100, 0, None), (70, 0, Some(30)), (70, 5, Some(30)), (0, 0, None)] {
            assert_eq!(unseen(&request, Shown { up_to, missing }), expected, "{up_to} {missing}");
        }
    }
}
