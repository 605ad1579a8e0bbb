//! `logs`: what a request has written, as `kubectl logs` has it for pods.

use std::{io::Write as _, time::Duration};

use futures::AsyncReadExt as _;
use hyper::Request;
use k8s_openapi::jiff::Timestamp;

use super::{
    Cluster, Error, Exit,
    discovery::{self, SUBRESOURCES, SUBRESOURCES_VERSION, Streams},
    duration, get,
    signals::Stops,
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

    /// Only the last lines.
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u32>,

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
    if let Streams::Missing(why) = discovery::streams(cluster).await? {
        return Err(Error::NoStreams(format!(
            "{why}. The end of its output is in its status: kubectl execlet describe {}",
            args.name
        )));
    }
    let mut stops = Stops::listen()?;
    let mut request = Request::new(Vec::new());
    *request.uri_mut() = path(&cluster.namespace, &args).parse().unwrap_or_default();
    let what = format!("reading the log of {}", args.name);
    let opened = cluster.client.request_stream(request);
    let mut stream = Box::pin(cluster.call(what.clone(), opened).await?);
    let mut buffer = vec![0; PIECE];
    loop {
        let length = tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(0) => return Ok(Exit::SUCCESS),
                Ok(length) => length,
                Err(error) => return Err(Error::Show(format!("{what}: the connection broke: {error}"))),
            },
            stop = stops.next() => return Ok(Exit(stop.exit_code())),
        };
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(&buffer[..length]).and_then(|()| stdout.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(Exit::SUCCESS),
            Err(error) => return Err(Error::Show(error.to_string())),
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
    if let Some(lines) = args.tail {
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
    use super::*;

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
