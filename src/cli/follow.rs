//! Following one request to its end: wait until it can be attached to, attach,
//! attach again if the connection breaks, and then wait for the outcome.
//!
//! The outcome is the object's, never the stream's alone.

use std::{sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use tokio::time::{Instant, sleep};

use super::{
    Cluster, Error,
    detach::DetachKeys,
    discovery::Streams,
    error,
    input::Input,
    output::Output,
    record::Recorder,
    session::{self, Ended, Ends, Wanted},
    signals::{self, HeldTerminal, Owned},
    speech::Speech,
    terminal,
    watched::{Reached, Watched, is_finished},
};
use crate::{
    api::{ExecRequest, ExecRequestStatus, StreamStatus},
    wire::OutputStream,
};

/// Pauses between two attempts to attach.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long to try to get the output of a request that has finished.
const AFTER_THE_END: Duration = Duration::from_secs(10);
/// How long what has happened may take to be seen here.
const SEEN: Duration = Duration::from_secs(2);
/// How long the outcome may take to reach the object once the stream has told it.
const REPORT: Duration = Duration::from_secs(60);

/// What is wanted of following.
#[derive(Debug)]
pub struct Options {
    /// Our standard input is the command's.
    pub stdin: bool,
    /// The command has a terminal.
    pub tty: bool,
    /// What leaves a terminal.
    pub keys: DetachKeys,
    /// A recording.
    pub recorder: Option<Recorder>,
}

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
        Streams::Missing(_) => by_status(watched, speech, options.recorder).await,
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
        let mut ends =
            Ends { output: Output::start(options.recorder), input: None, sizes, shown: [0, 0], tty: options.tty };
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
            if options.stdin && ends.input.is_none() {
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
            if let Some(input) = ends.input.as_ref().filter(|input| !options.tty && !input.all_arrived()) {
                let lost = input.sent - input.arrived;
                ends.output.finish().await?;
                return Ok(Ending::Lost(format!(
                    "the connection broke ({why}) while up to {lost} bytes of standard input were on their way"
                )));
            }
            self.speech.progress(&format!("the connection broke ({why}): attaching again"));
            let left = ends.input.as_ref().map(|input| input.detached.clone());
            next = tokio::select! {
                attempt = self.open(&mut wanted, ends.input.as_ref()) => attempt?,
                () = async { match &left { Some(left) => left.cancelled().await, None => std::future::pending().await } } => break Ended::Detached,
            };
        };
        drop(terminal);
        // 5. The last byte before the last word.
        ends.output.finish().await?;
        match ended {
            Ended::Detached => Ok(Ending::Detached),
            Ended::NobodyReads => Ok(Ending::NobodyReads),
            Ended::Status(status) => self.outcome(status).await,
            Ended::Broken(_) | Ended::Cut(_) => by_object(self.watched, self.speech).await,
        }
    }

    /// Opens a connection, as often as it takes and makes sense; `input` is what an earlier one had.
    async fn open(&mut self, wanted: &mut Wanted, input: Option<&Input>) -> Result<Attempt, Error> {
        let mut pause = FIRST_PAUSE;
        let mut since_the_end = None;
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
                // The input of ours has arrived to its end: what is left is to watch.
                Some(409) if wanted.stdin && input.is_some_and(|input| input.ended) => wanted.stdin = false,
                // Our own lost connection still holds it, until it is missed.
                Some(409) if input.is_some() => {}
                Some(400 | 401 | 403 | 405 | 409 | 422) => {
                    return Err(Error::Call { what: format!("attaching to {name}"), source: Box::new(source) });
                }
                Some(410) => return Ok(Attempt::NoStream(why)),
                Some(_) | None => {}
            }
            if is_finished(&request) {
                let since: Instant = *since_the_end.get_or_insert_with(Instant::now);
                if since.elapsed() > AFTER_THE_END || error::answer(&source) == Some(404) {
                    return Ok(Attempt::NoStream(why));
                }
            }
            self.speech.progress(&format!("{name}: cannot attach yet: {why}"));
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
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
            && ends.shown == [0, 0]
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

/// The end of a stream, as the status keeps it.
pub fn tail_bytes(stream: &StreamStatus) -> Vec<u8> {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    match (&stream.tail, &stream.tail_base64) {
        (Some(text), _) => text.clone().into_bytes(),
        // The API server holds it to be base64; if it is none, there is nothing to show.
        (None, Some(base64)) => BASE64_STANDARD.decode(base64).unwrap_or_default(),
        (None, None) => Vec::new(),
    }
}

fn is_attachable(request: &ExecRequest) -> bool {
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
