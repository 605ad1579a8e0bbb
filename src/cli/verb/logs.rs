//! `logs`: what a request has written, like `kubectl logs` for pods; or all those of a batch.

use std::{
    io::{self, Write},
    time::Duration,
};

use futures::{AsyncRead, AsyncReadExt as _};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::sleep;

use crate::cli::{
    batch::merged,
    cluster::{
        connection::{Cluster, OPENING, open_in_time},
        discovery::missing_streams,
    },
    error::{self, Error},
    exit::Exit,
    follow::{attempts::Attempts, passed::Passed, signals::Stops, watched::Watched},
    request::is_attachable,
    say::{duration, print, screen::Screen, speech::Speech},
    typed::{Name, object_name},
};

/// Bytes of one read.
const PIECE: usize = 64 * 1024;

/// Print what a request has written; of a batch what all its commands have, each line after the name of its pod.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct LogsArgs {
    /// Name of the request, or xb/NAME of a batch.
    #[arg(value_name = "NAME", value_parser = object_name)]
    pub name: Name,

    /// Follow the output until the command has ended.
    #[arg(long, short = 'f')]
    pub follow: bool,

    /// Only the last lines; -1 for all.
    #[arg(long, value_name = "LINES", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..=i64::from(u32::MAX)))]
    pub tail: Option<i64>,

    /// Only output that is newer than this, as 5s, 2m or 3h.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, conflicts_with = "since_time")]
    pub since: Option<Duration>,

    /// Only output from after this time, as 2026-01-02T03:04:05Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since_time: Option<Timestamp>,

    /// Begin each line with its time.
    #[arg(long)]
    pub timestamps: bool,

    /// Which of the two streams.
    #[arg(long, value_name = "STREAM", value_enum, default_value_t = Which::All)]
    pub stream: Which,

    /// At most this many bytes.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    /// Both.
    #[default]
    All,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| format!("{text:?} is not a time: use 2026-01-02T03:04:05Z"))
}

pub async fn run(cluster: &Cluster, args: LogsArgs) -> Result<Exit, Error> {
    let batch = if let Name::Batch(name) = &args.name { Some(name.clone()) } else { None };
    if let Some(name) = batch.as_ref().filter(|_| args.follow) {
        let attach = cluster.plugin(&format!("attach xb/{name}"));
        return Err(Error::Message(format!("-f follows one log, and xb/{name} has many: {attach}")));
    }
    let typed = batch.as_ref().map_or_else(|| args.name.as_str().to_owned(), |name| format!("xb/{name}"));
    let describe = cluster.plugin(&format!("describe {typed}"));
    let instead = |why: String| Error::Message(format!("{why}. The end of its output is in its status: {describe}"));
    if let Some(why) = missing_streams(cluster).await? {
        return Err(instead(why));
    }
    let mut stops = Stops::listen()?;
    let speech = Speech::new(false);
    let merged = async {
        match &batch {
            Some(name) => merged::show(cluster, name, &call(&args), &speech, io::stdout()).await,
            None => std::future::pending().await,
        }
    };
    let printed = tokio::select! {
        printed = merged => printed,
        printed = print(cluster, args.clone(), &speech, Screen::of_the_past(io::stdout())), if batch.is_none() => printed,
        signal = stops.next() => Ok(Exit::of_signal(signal)),
    };
    speech.clear();
    printed.map_err(|error| if error.answer() == Some(503) { instead(error.to_string()) } else { error })
}

async fn print(cluster: &Cluster, mut args: LogsArgs, speech: &Speech, out: impl Write) -> Result<Exit, Error> {
    let what = format!("reading the log of {}", args.name.as_str());
    let mut watched = None;
    if args.follow {
        args.fix_since(Timestamp::now());
        let mut request = Watched::new(cluster, cluster.get(args.name.as_str()).await?, speech);
        request.until(is_attachable).await?;
        watched = Some(request);
    }
    let mut attempts = Attempts::default();
    let open = async |broke: Option<Broke>| {
        if let Some(Broke { why, moved }) = broke {
            if moved {
                attempts = Attempts::default();
            }
            let broken = Error::Message(format!("{what}: the connection broke: {why}"));
            // By then the last lines are others.
            let again = watched.as_ref().filter(|_| args.last().is_none()).ok_or(broken)?;
            let source = kube::Error::Service(why.into());
            if !attempts.go_on(again, &source).await? {
                return Err(cluster.failed(&what, source));
            }
        }
        open_log(cluster, &args, &what, watched.as_ref(), &mut attempts).await
    };
    let unheard = async || {
        if let Some(watched) = &watched {
            return watched.unheard(args.last().is_none()).await;
        }
        sleep(OPENING).await;
        format!("nothing received for {} s", OPENING.as_secs())
    };
    copy(open, unheard, out).await
}

/// A connection that broke.
struct Broke {
    why: io::Error,
    /// It has brought new output.
    moved: bool,
}

/// Opens the log; while it is followed, as often as it takes.
async fn open_log(
    cluster: &Cluster,
    args: &LogsArgs,
    what: &str,
    watched: Option<&Watched>,
    attempts: &mut Attempts,
) -> Result<impl AsyncRead + Unpin + use<>, Error> {
    loop {
        let request = cluster.subresource(args.name.as_str(), &call(args));
        let source = match open_in_time(cluster.client.request_stream(request)).await {
            Ok(stream) => {
                attempts.opened();
                if let Some(watched) = watched {
                    watched.speech.clear();
                }
                return Ok(Box::pin(stream));
            }
            Err(source) => source,
        };
        let refused = matches!(error::answer(&source), Some(400 | 401 | 403 | 405 | 410 | 422));
        let again = match watched {
            Some(watched) if !refused => attempts.go_on(watched, &source).await?,
            Some(_) | None => false,
        };
        if !again {
            return Err(cluster.failed(what, source));
        }
    }
}

/// Copies the log to its end. `open` is told why the last connection broke, and may open another one; `unheard` tells
/// when one on which nothing comes has broken.
async fn copy<S: AsyncRead + Unpin>(
    mut open: impl AsyncFnMut(Option<Broke>) -> Result<S, Error>,
    unheard: impl AsyncFn() -> String,
    mut out: impl Write,
) -> Result<Exit, Error> {
    let (mut passed, mut broke) = (Passed::default(), None);
    let mut buffer = vec![0; PIECE];
    loop {
        let mut stream = open(broke.take()).await?;
        let mut moved = false;
        passed.again();
        let why = loop {
            let read = tokio::select! {
                biased;
                read = stream.read(&mut buffer) => read,
                why = unheard() => Err(io::Error::other(why)),
            };
            let (fresh, ended) = match read {
                Ok(0) => (passed.end(), true),
                Ok(length) => (passed.fresh(&buffer[..length]), false),
                Err(why) => break why,
            };
            moved |= !fresh.is_empty();
            if !print::write(&mut out, &fresh)? || ended {
                return Ok(Exit::SUCCESS);
            }
        };
        broke = Some(Broke { why, moved });
    }
}

impl LogsArgs {
    /// How many of the last lines, if not all.
    fn last(&self) -> Option<i64> {
        self.tail.filter(|lines| *lines >= 0)
    }

    /// Turns `--since` into a time, which stays the same over several connections.
    fn fix_since(&mut self, now: Timestamp) {
        if let Some(since) = self.since.take() {
            let ago = SignedDuration::try_from(since).unwrap_or(SignedDuration::MAX);
            self.since_time = Some(now.checked_sub(ago).unwrap_or(Timestamp::MIN));
        }
    }
}

/// The subresource with its query; no value needs escaping.
fn call(args: &LogsArgs) -> String {
    let is = |flag: bool| flag.then(|| "true".to_owned());
    // As kubectl: rounded up to whole seconds.
    let seconds = |since: Duration| (since.as_secs() + u64::from(since.subsec_nanos() > 0)).max(1).to_string();
    let stream = match args.stream {
        Which::All => None,
        Which::Stdout => Some("Stdout".to_owned()),
        Which::Stderr => Some("Stderr".to_owned()),
    };
    let query = [
        ("follow", is(args.follow)),
        ("tailLines", args.last().map(|lines| lines.to_string())),
        ("sinceSeconds", args.since.map(seconds)),
        ("sinceTime", args.since_time.map(|time| time.to_string())),
        ("timestamps", is(args.timestamps)),
        ("stream", stream),
        ("limitBytes", args.limit_bytes.map(|bytes| bytes.to_string())),
    ];
    let query: Vec<_> = query.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?))).collect();
    if query.is_empty() { "log".to_owned() } else { format!("log?{}", query.join("&")) }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures::TryStreamExt as _;
    use serde_json::json;

    use super::*;
    use crate::cli::follow::scripted::{self, Kept};

    #[tokio::test]
    async fn a_log_that_is_followed_goes_on_where_its_connection_broke() {
        let mut connections = [("one\ntw", false), ("on", false), ("one\ntwo\nthree\n", true)].into_iter();
        let mut moved = Vec::new();
        let open = async |broke: Option<Broke>| {
            moved.extend(broke.map(|broke| broke.moved));
            let (text, whole) = connections.next().expect("one more");
            let cut = (!whole).then(|| Err(io::Error::other("cut")));
            let pieces = std::iter::once(Ok(text.as_bytes())).chain(cut);
            Ok(futures::stream::iter(pieces).into_async_read())
        };
        let out = Kept::default();
        let exit = copy(open, pending, out.clone()).await.expect("all of it");
        assert_eq!((exit, out.text().as_str()), (Exit::SUCCESS, "one\ntwo\nthree\n"));
        assert_eq!(moved, [true, false]);
    }

    /// A log of which each connection breaks, and how often it was asked for.
    async fn broken(args: LogsArgs, status: serde_json::Value) -> (String, usize) {
        let (cluster, calls) = scripted::cluster(move |call| match call {
            call if call.contains("/log") => Some((scripted::CUT, json!("output"))),
            call if call.contains("execrequests/r") => Some((200, scripted::object(status.clone()))),
            _ => scripted::status(500, "not now"),
        });
        let printed = print(&cluster, args, &Speech::to(false, io::sink()), io::sink()).await;
        let calls = calls.lock();
        (printed.expect_err("no end").to_string(), calls.iter().filter(|call| call.contains("/log")).count())
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_whose_connections_all_break_is_given_up_once_nothing_can_follow() {
        let args = LogsArgs { name: "r".into(), follow: true, ..LogsArgs::default() };
        let (error, calls) = broken(args.clone(), scripted::never_ran()).await;
        assert!(error.contains("reading the log of r") && (5..20).contains(&calls), "{calls} {error}");
        // Of the last lines it is not known which they were; what is not followed can be asked for again.
        for args in [LogsArgs { tail: Some(1), ..args.clone() }, LogsArgs { follow: false, ..args }] {
            let (error, calls) = broken(args, scripted::never_ran()).await;
            assert_eq!(calls, 1);
            assert!(error.starts_with("reading the log of r: the connection broke: "), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_of_which_nothing_comes_once_its_request_has_finished_is_read_again() {
        for follow in [true, false] {
            let first = std::sync::atomic::AtomicBool::new(true);
            let (cluster, calls) = scripted::cluster(move |call| match call {
                call if call.contains("/log") && first.swap(false, std::sync::atomic::Ordering::Relaxed) => {
                    Some((scripted::SILENT, json!("out")))
                }
                call if call.contains("/log") => Some((200, json!("output"))),
                call if call.contains("execrequests/r") => Some((200, scripted::object(scripted::never_ran()))),
                _ => scripted::status(500, "not now"),
            });
            let args = LogsArgs { name: "r".into(), follow, ..LogsArgs::default() };
            let out = Kept::default();
            let printed = print(&cluster, args, &Speech::to(false, io::sink()), out.clone()).await;
            let asked = calls.lock().iter().filter(|call| call.contains("/log")).count();
            match printed {
                Ok(exit) => assert_eq!((follow, exit, asked), (true, Exit::SUCCESS, 2)),
                Err(error) => {
                    assert_eq!((follow, asked), (false, 1));
                    assert!(error.to_string().ends_with("nothing received for 60 s"), "{error}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_log_that_is_followed_is_read_when_an_agent_has_it() {
        let list = json!({"kind": "ExecRequestList", "apiVersion": "execlet.dev/v1alpha1", "metadata": {"resourceVersion": "2"},
            "items": [scripted::object(json!({"phase": "Bound", "nodeName": "n1"}))]});
        let (cluster, calls) = scripted::cluster(move |call| match call {
            call if call.contains("/log?") => Some((200, json!("output"))),
            call if call.contains("execrequests/r") => Some((200, scripted::object(json!({"phase": "Pending"})))),
            call if call.contains("watch=true") => scripted::status(500, "not now"),
            _ => Some((200, list.clone())),
        });
        let args = LogsArgs { name: "r".into(), follow: true, ..LogsArgs::default() };
        let out = Kept::default();
        let exit = print(&cluster, args, &Speech::to(false, io::sink()), out.clone()).await.expect("a log");
        assert_eq!((exit, out.text().as_str()), (Exit::SUCCESS, "\"output\""));
        let calls = calls.lock();
        let first = |part: &str| calls.iter().position(|call| call.contains(part));
        assert!(first("fieldSelector").is_some() && first("fieldSelector") < first("/log?"), "{calls:?}");
    }

    #[test]
    fn what_is_followed_begins_at_one_time_on_each_connection() {
        let now = "2026-01-02T03:04:05Z".parse().expect("a time");
        let mut args = LogsArgs { follow: true, since: Some(Duration::from_mins(1)), ..LogsArgs::default() };
        args.fix_since(now);
        assert!(call(&args).ends_with("?follow=true&sinceTime=2026-01-02T03:03:05Z"), "{args:?}");
    }

    #[test]
    fn minus_one_is_all_lines_as_for_kubectl() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            logs: LogsArgs,
        }
        let parse = |tail: &str| <Line as clap::Parser>::try_parse_from(["logs", "r", "--tail", tail]);
        let last = |tail: &str| parse(tail).map(|line| line.logs.last()).map_err(|error| error.kind());
        assert_eq!((last("-1"), last("0"), last("7")), (Ok(None), Ok(Some(0)), Ok(Some(7))));
        assert!(last("-2").is_err());
    }

    #[tokio::test]
    async fn the_query_is_that_of_a_pods_log() {
        let plain = LogsArgs { name: "r".into(), ..LogsArgs::default() };
        let (cluster, _) = scripted::cluster(|_| None);
        let uri = cluster.subresource("r", &call(&plain)).uri().to_string();
        assert_eq!(uri, "/apis/subresources.execlet.dev/v1alpha1/namespaces/shop/execrequests/r/log");
        let all = LogsArgs {
            follow: true,
            tail: Some(0),
            since: Some(Duration::from_millis(1500)),
            timestamps: true,
            stream: Which::Stderr,
            limit_bytes: Some(9),
            ..plain.clone()
        };
        assert_eq!(call(&all), "log?follow=true&tailLines=0&sinceSeconds=2&timestamps=true&stream=Stderr&limitBytes=9");
        let since = LogsArgs { since_time: Some(time("2026-01-02T04:04:05+01:00").expect("a time")), ..plain };
        assert_eq!(call(&since), "log?sinceTime=2026-01-02T03:04:05Z");
        assert!(time("yesterday").is_err());
    }
}
