//! `logs`: what a request has written, as `kubectl logs` has it for pods.

use std::{
    io::{self, Write},
    time::Duration,
};

use futures::{AsyncRead, AsyncReadExt as _};
use hyper::Request;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::get;
use crate::cli::{
    cluster::connection::Cluster,
    cluster::{
        discovery::{self, SUBRESOURCES, SUBRESOURCES_VERSION, Streams},
        requests::Requests,
    },
    error,
    error::Error,
    exit::Exit,
    follow::{attempts::Attempts, follower::is_attachable, passed::Passed, session, signals::Stops, watched::Watched},
    say::{duration, speech::Speech},
};

/// Bytes of one read.
const PIECE: usize = 64 * 1024;

/// Print what a request has written.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct LogsArgs {
    /// Name of the request.
    #[arg(value_name = "NAME", value_parser = get::request_name)]
    pub name: String,

    /// Go on until the command has ended.
    #[arg(long, short = 'f')]
    pub follow: bool,

    /// Only the last lines; -1 for all.
    #[arg(long, value_name = "LINES", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..=i64::from(u32::MAX)))]
    pub tail: Option<i64>,

    /// Only what is younger than that.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, conflicts_with = "since_time")]
    pub since: Option<Duration>,

    /// Only what was written after that time, as 2026-01-02T03:04:05Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since_time: Option<Timestamp>,

    /// Begin each line with the time.
    #[arg(long)]
    pub timestamps: bool,

    /// Which of the two streams.
    #[arg(long, value_name = "STREAM", value_enum, default_value_t = Which::All)]
    pub stream: Which,

    /// Not more bytes than that.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit_bytes: Option<u64>,
}

/// Which streams.
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
    text.parse().map_err(|_| format!("{text:?} is no time: write 2026-01-02T03:04:05Z"))
}

/// Prints it.
///
/// # Errors
/// When it cannot be read.
pub async fn run(cluster: &Cluster, args: LogsArgs) -> Result<Exit, Error> {
    let describe = cluster.plugin(&format!("describe {}", args.name));
    if let Streams::Missing(why) = discovery::streams(cluster).await? {
        return Err(Error::NoStreams(format!("{why}. The end of its output is in its status: {describe}")));
    }
    let mut stops = Stops::listen()?;
    let speech = Speech::new(false);
    let printed = tokio::select! {
        printed = print(cluster, args, &speech, io::stdout()) => printed,
        stop = stops.next() => Ok(Exit(stop.exit_code())),
    };
    speech.clear();
    printed.map_err(|error| match error.answer() {
        Some(503) => Error::NoStreams(format!("{error}. The end of its output is in its status: {describe}")),
        Some(_) | None => error,
    })
}

async fn print(cluster: &Cluster, mut args: LogsArgs, speech: &Speech, out: impl Write) -> Result<Exit, Error> {
    let what = format!("reading the log of {}", args.name);
    let mut watched = None;
    if args.follow {
        args.fix(Timestamp::now());
        let requests = Requests::new(cluster);
        let mut request = Watched::new(&requests, requests.get(&args.name).await?);
        request.until(speech, is_attachable).await?;
        watched = Some(request);
    }
    let mut attempts = Attempts::default();
    let open = async |broke: Option<Broke>| {
        if let Some(Broke { why, moved }) = broke {
            if moved {
                attempts = Attempts::default();
            }
            let cut = Error::Show(format!("{what}: the connection broke: {why}"));
            // The last lines are others by then.
            let again = watched.as_ref().filter(|_| args.last().is_none()).ok_or(cut)?;
            let source = kube::Error::Service(why.into());
            if !attempts.go_on(again, speech, &source).await? {
                return Err(cluster.failed(&what, source));
            }
        }
        open_log(cluster, &args, &what, watched.as_ref(), speech, &mut attempts).await
    };
    copy(open, out).await
}

/// A connection that broke.
struct Broke {
    why: io::Error,
    /// It has brought something new.
    moved: bool,
}

/// Opens the log; one that is watched, as often as it takes and makes sense.
async fn open_log(
    cluster: &Cluster,
    args: &LogsArgs,
    what: &str,
    watched: Option<&Watched>,
    speech: &Speech,
    attempts: &mut Attempts,
) -> Result<impl AsyncRead + Unpin + use<>, Error> {
    loop {
        let mut request = Request::new(Vec::new());
        *request.uri_mut() = path(&cluster.namespace, args).parse().unwrap_or_default();
        let source = match session::in_time(cluster.client.request_stream(request)).await {
            Ok(stream) => {
                attempts.opened();
                speech.clear();
                return Ok(Box::pin(stream));
            }
            Err(source) => source,
        };
        let refused = matches!(error::answer(&source), Some(400 | 401 | 403 | 405 | 410 | 422));
        let again = match watched {
            Some(watched) if !refused => attempts.go_on(watched, speech, &source).await?,
            Some(_) | None => false,
        };
        if !again {
            return Err(cluster.failed(what, source));
        }
    }
}

/// Copies the log to its end. `open` is told why the connection before broke, and may give another one.
async fn copy<S: AsyncRead + Unpin>(
    mut open: impl AsyncFnMut(Option<Broke>) -> Result<S, Error>,
    mut out: impl Write,
) -> Result<Exit, Error> {
    let (mut passed, mut broke) = (Passed::default(), None);
    let mut buffer = vec![0; PIECE];
    loop {
        let mut stream = open(broke.take()).await?;
        let mut moved = false;
        passed.again();
        let why = loop {
            let (fresh, ended) = match stream.read(&mut buffer).await {
                Ok(0) => (passed.end(), true),
                Ok(length) => (passed.fresh(&buffer[..length]), false),
                Err(why) => break why,
            };
            moved |= !fresh.is_empty();
            match out.write_all(&fresh).and_then(|()| out.flush()) {
                Ok(()) if ended => return Ok(Exit::SUCCESS),
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::SUCCESS),
                Err(error) => return Err(Error::Show(error.to_string())),
            }
        };
        broke = Some(Broke { why, moved });
    }
}

impl LogsArgs {
    /// So many lines, if not all are wanted.
    fn last(&self) -> Option<i64> {
        self.tail.filter(|lines| *lines >= 0)
    }

    /// What is younger than so long is what was written after a time, which stays the same.
    fn fix(&mut self, now: Timestamp) {
        if let Some(since) = self.since.take() {
            let ago = SignedDuration::try_from(since).unwrap_or(SignedDuration::MAX);
            self.since_time = Some(now.checked_sub(ago).unwrap_or(Timestamp::MIN));
        }
    }
}

fn path(namespace: &str, args: &LogsArgs) -> String {
    let name = &args.name;
    let mut path =
        format!("/apis/{SUBRESOURCES}/{SUBRESOURCES_VERSION}/namespaces/{namespace}/execrequests/{name}/log");
    let mut parameters = Vec::new();
    let mut with = |name: &str, value: String| parameters.push(format!("{name}={value}"));
    if args.follow {
        with("follow", "true".to_owned());
    }
    if let Some(lines) = args.last() {
        with("tailLines", lines.to_string());
    }
    if let Some(since) = args.since {
        // As kubectl: rounded up to whole seconds.
        with("sinceSeconds", (since.as_secs() + u64::from(since.subsec_nanos() > 0)).max(1).to_string());
    }
    if let Some(time) = args.since_time {
        with("sinceTime", time.to_string());
    }
    if args.timestamps {
        with("timestamps", "true".to_owned());
    }
    match args.stream {
        Which::All => {}
        Which::Stdout => with("stream", "Stdout".to_owned()),
        Which::Stderr => with("stream", "Stderr".to_owned()),
    }
    if let Some(bytes) = args.limit_bytes {
        with("limitBytes", bytes.to_string());
    }
    if !parameters.is_empty() {
        path.push('?');
        path.push_str(&parameters.join("&"));
    }
    path
}

#[cfg(test)]
mod tests {
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
        let exit = copy(open, out.clone()).await.expect("all of it");
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
            assert!(error.starts_with("cannot show it: reading the log of r: the connection broke: "), "{error}");
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
        args.fix(now);
        assert!(path("shop", &args).ends_with("?follow=true&sinceTime=2026-01-02T03:03:05Z"), "{args:?}");
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

    #[test]
    fn the_query_is_that_of_a_pods_log() {
        let plain = LogsArgs { name: "r".into(), ..LogsArgs::default() };
        let base = "/apis/subresources.execlet.dev/v1alpha1/namespaces/shop/execrequests/r/log";
        assert_eq!(path("shop", &plain), base);
        let all = LogsArgs {
            follow: true,
            tail: Some(0),
            since: Some(Duration::from_millis(1500)),
            timestamps: true,
            stream: Which::Stderr,
            limit_bytes: Some(9),
            ..plain.clone()
        };
        assert_eq!(
            path("shop", &all),
            format!("{base}?follow=true&tailLines=0&sinceSeconds=2&timestamps=true&stream=Stderr&limitBytes=9")
        );
        let since = LogsArgs { since_time: Some(time("2026-01-02T04:04:05+01:00").expect("a time")), ..plain };
        assert_eq!(path("shop", &since), format!("{base}?sinceTime=2026-01-02T03:04:05Z"));
        assert!(time("yesterday").is_err());
    }
}
