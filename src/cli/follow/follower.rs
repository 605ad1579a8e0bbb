//! Following one request to its end: wait until it can be attached to, attach,
//! attach again if the connection breaks, and then wait for the outcome.
//!
//! The outcome comes from the object, never from the stream alone.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use tokio::time::timeout;

use super::{
    detach::DetachKeys,
    input::Input,
    kept,
    open::{Attempt, open},
    options::Options,
    output::Output,
    session::{self, Ended, LocalIo, Wanted},
    shown::Shown,
    signals::{self, HeldTerminal},
    watched::{Reached, Watched},
};
use crate::cli::{
    cluster::connection::Cluster,
    error::Error,
    request::{is_attachable, is_finished, may_have_run},
};

/// How long the outcome may take to reach the object once the stream has told it.
const REPORT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub enum Ending {
    /// The request has finished, or was deleted before that was seen.
    Object(Reached),
    /// The request was deleted, but the stream has told the outcome.
    Stream(Box<Status>),
    Detached,
    OutputClosed,
    /// The connection is lost, and input with it: why.
    Lost(String),
}

/// Follows a request. Standard input is only touched once the command can have it.
pub async fn follow(
    cluster: &Cluster,
    missing_streams: Option<&str>,
    watched: &mut Watched,
    options: Options,
) -> Result<Ending, Error> {
    match missing_streams {
        Some(why) if options.stdin => Err(Error::Message(why.to_owned())),
        Some(why) => {
            watched.speech.say(&format!("{why}. Only the end of its output is shown, once the command has ended"));
            let output = Output::start(options.recorder);
            let reached = kept::show(watched, &output, None).await?;
            output.finish().await?;
            Ok(Ending::Object(reached))
        }
        None => attached(cluster, watched, options).await,
    }
}

async fn attached(cluster: &Cluster, watched: &mut Watched, options: Options) -> Result<Ending, Error> {
    // 1. Wait until an agent has the request, or it has ended without one.
    let reached = watched.until(is_attachable).await?;
    if !matches!(&reached, Reached::Here(request) if !is_finished(request) || may_have_run(request)) {
        return Ok(Ending::Object(reached));
    }
    // 2. Open the first connection before standard input or the terminal are touched.
    let mut wanted = Wanted { stdin: options.stdin, tty: options.tty };
    let first = open(cluster, watched, &mut wanted, None).await?;
    let (sizes, _resized) = signals::sizes(options.tty)?;
    let mut local = LocalIo {
        output: Output::start(options.recorder),
        input: None,
        sizes,
        shown: Shown::default(),
        tty: options.tty,
    };
    // 3. Serve it, and the next ones if it breaks.
    let keys = (options.tty && options.stdin).then_some(options.keys);
    let ending = connections(cluster, watched, first, wanted, keys, &mut local).await?;
    // 4. Write the last byte before the last word.
    local.output.finish().await?;
    let ending = match ending {
        Some(Ending::Stream(status)) => outcome(watched, status).await?,
        Some(ending) => ending,
        None => Ending::Object(watched.until(is_finished).await?),
    };
    if let Ending::Object(Reached::Here(request)) = &ending
        && let Some(missing) = local.shown.unseen(request)
    {
        watched.speech.say(&format!("{missing} bytes of its output are missing here: they are no longer available"));
    }
    Ok(ending)
}

/// Serves one connection after the other; `None` if the outcome is to be taken from the object.
async fn connections(
    cluster: &Cluster,
    watched: &mut Watched,
    mut next: Attempt,
    mut wanted: Wanted,
    keys: Option<DetachKeys>,
    local: &mut LocalIo,
) -> Result<Option<Ending>, Error> {
    let mut _terminal = None;
    loop {
        let connection = match next {
            Attempt::Opened(connection) => connection,
            Attempt::Gone => return Ok(None),
            Attempt::NoStream(why) => {
                if local.shown.is_nothing() {
                    kept::show(watched, &local.output, Some(&why)).await?;
                }
                return Ok(None);
            }
        };
        watched.speech.clear();
        if wanted.stdin && local.input.is_none() {
            if keys.is_some() {
                _terminal = Some(HeldTerminal::take()?);
            }
            local.input = Some(Input::start(keys.clone()));
        }
        let protocol = session::protocol(&connection);
        let why = match session::serve(connection.into_stream(), protocol, local).await {
            Ended::Broken(why) => why,
            Ended::Cut(why) => {
                watched.speech.say(&format!("no more output is available ({why}): waiting for the end"));
                return Ok(None);
            }
            Ended::Status(status) => return Ok(Some(Ending::Stream(status))),
            Ended::Detached => return Ok(Some(Ending::Detached)),
            Ended::OutputClosed => return Ok(Some(Ending::OutputClosed)),
        };
        match local.input.as_mut().map_or(InFlight::Nothing, |input| in_flight(input, local.tty, &why)) {
            InFlight::Nothing => {}
            InFlight::Typed(sentence) => watched.speech.say(&sentence),
            InFlight::Piped(why) => return Ok(Some(Ending::Lost(why))),
        }
        watched.speech.trouble(&format!("the connection broke ({why}): attaching again"));
        let detached = local.input.as_ref().map(|input| input.detached.clone()).unwrap_or_default();
        next = tokio::select! {
            attempt = open(cluster, watched, &mut wanted, local.input.as_mut()) => attempt?,
            () = detached.cancelled() => return Ok(Some(Ending::Detached)),
        };
    }
}

async fn outcome(watched: &mut Watched, told: Box<Status>) -> Result<Ending, Error> {
    Ok(match timeout(REPORT, watched.until(is_finished)).await {
        Ok(Ok(Reached::Deleted(_) | Reached::Vanished(_))) => Ending::Stream(told),
        Ok(reached) => Ending::Object(reached?),
        Err(_) => Ending::Lost("the stream has ended, but the request has no outcome yet".to_owned()),
    })
}

/// Input that was on its way when a connection broke.
#[derive(Debug, PartialEq, Eq)]
enum InFlight {
    Nothing,
    /// Keys, which can be typed again: what to say.
    Typed(String),
    /// What cannot be sent again, because a part may have arrived: why it ends here.
    Piped(String),
}

fn in_flight(input: &mut Input, tty: bool, why: &str) -> InFlight {
    if input.all_arrived() {
        return InFlight::Nothing;
    }
    let bytes = input.sent - input.arrived;
    if !tty {
        return InFlight::Piped(format!(
            "the connection broke ({why}); up to {bytes} bytes of standard input may not have arrived, and are not sent twice"
        ));
    }
    // Said once.
    input.arrived = input.sent;
    InFlight::Typed(format!(
        "the connection broke ({why}); up to {bytes} bytes of what you typed may not have arrived: check before you type it again"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{
        follow::scripted::{self, Kept},
        say::speech::Speech,
    };

    #[test]
    fn keys_that_may_be_lost_are_told_of_once_and_other_input_ends_it() {
        let mut input = Input::from(&b""[..], None);
        (input.sent, input.arrived) = (7, 4);
        let InFlight::Piped(why) = in_flight(&mut input, false, "reset") else { panic!("it goes on") };
        assert_eq!(
            why,
            "the connection broke (reset); up to 3 bytes of standard input may not have arrived, and are not sent twice"
        );
        let InFlight::Typed(sentence) = in_flight(&mut input, true, "reset") else { panic!("nothing is said") };
        assert!(sentence.contains("up to 3 bytes of what you typed"), "{sentence}");
        assert_eq!(in_flight(&mut input, true, "reset"), InFlight::Nothing);
    }

    #[tokio::test]
    async fn where_no_stream_is_served_it_is_said_why_there_is_only_the_end_of_the_output() {
        let (cluster, _) = scripted::cluster(|_| None);
        let (heard, request) = (Kept::default(), scripted::request(scripted::never_ran()));
        let mut watched = Watched::new(&cluster, request, &Speech::to(false, heard.clone()));
        let options = Options { stdin: false, tty: false, keys: "".parse().expect("keys"), recorder: None };
        let ending = follow(&cluster, Some("this cluster serves none"), &mut watched, options).await;
        assert!(matches!(ending, Ok(Ending::Object(Reached::Here(_)))), "{ending:?}");
        assert!(heard.text().starts_with("execlet: this cluster serves none. "));
    }
}
