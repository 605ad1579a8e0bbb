//! `logs`: what a request has written, like `kubectl logs` for pods; or all those of a batch.

use std::{io, time::Duration};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::cli::{
    batch::{merged, merged_live},
    cluster::{connection::Cluster, discovery::missing_streams},
    error::Error,
    exit::Exit,
    follow::{
        log::{Asked, print},
        signals::Stops,
    },
    say::{duration, screen::Screen, speech::Speech},
    typed::{Name, object_name},
};

/// Print what a request has written; of a batch what all its commands have, each line after the name of its pod.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct LogsArgs {
    /// Name of the request, or xb/NAME of a batch.
    #[arg(value_name = "NAME", value_parser = object_name)]
    pub name: Name,

    /// Follow the output until the command has ended; of a batch until all have.
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

pub async fn run(cluster: &Cluster, mut args: LogsArgs) -> Result<Exit, Error> {
    let typed = match &args.name {
        Name::Batch(name) => format!("xb/{name}"),
        Name::Request(name) => name.clone(),
    };
    let describe = cluster.plugin(&format!("describe {typed}"));
    let instead = |why: String| Error::Message(format!("{why}. The end of its output is in its status: {describe}"));
    if let Some(why) = missing_streams(cluster).await? {
        return Err(instead(why));
    }
    if args.follow {
        args.fix_since(Timestamp::now());
    }
    let mut stops = Stops::listen()?;
    let speech = Speech::new(false);
    let printed = tokio::select! {
        printed = print_all(cluster, &args, &speech) => printed,
        signal = stops.next() => Ok(Exit::of_signal(signal)),
    };
    speech.clear();
    printed.map_err(|error| if error.answer() == Some(503) { instead(error.to_string()) } else { error })
}

async fn print_all(cluster: &Cluster, args: &LogsArgs, speech: &Speech) -> Result<Exit, Error> {
    let (call, is_whole) = (call(args), args.last().is_none());
    match &args.name {
        Name::Batch(name) if args.follow => {
            merged_live::follow(cluster, name, (&call, is_whole), speech, io::stdout()).await
        }
        Name::Batch(name) => merged::show(cluster, name, &call, speech, io::stdout()).await,
        Name::Request(name) => {
            let asked = Asked { name, call: &call, follow: args.follow, is_whole };
            print(cluster, &asked, speech, Screen::of_the_past(io::stdout())).await
        }
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
    use super::*;
    use crate::cli::follow::scripted;

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
