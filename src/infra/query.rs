//! The queries of attach and log: read by the manager from a client, passed on, and read by the agent.
//!
//! As everywhere in Kubernetes, unknown parameters are ignored. They are not passed on.

use form_urlencoded::{Serializer, parse};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::refusal::Refusal;
use crate::wire::{OutputStream, remotecommand::Streams};

pub(crate) const TAIL_LINES: u64 = 1_000_000;

pub(crate) fn attach(query: &str) -> Result<Streams, Refusal> {
    let mut streams = Streams { stdin: false, stdout: false, stderr: false, tty: false };
    for (name, value) in parse(query.as_bytes()) {
        let stream = match &*name {
            "stdin" => &mut streams.stdin,
            "stdout" => &mut streams.stdout,
            "stderr" => &mut streams.stderr,
            "tty" => &mut streams.tty,
            _ => continue,
        };
        *stream = boolean(&name, &value)?;
    }
    streams.validate().map_err(|error| Refusal::bad_request(error.to_string()))
}

/// The same, as a query.
pub(crate) fn of_attach(streams: Streams) -> String {
    let Streams { stdin, stdout, stderr, tty } = streams;
    format!("stdin={stdin}&stdout={stdout}&stderr={stderr}&tty={tty}")
}

/// `PodLogOptions`, as far as they make sense for a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogOptions {
    pub(crate) follow: bool,
    pub(crate) tail_lines: Option<u64>,
    pub(crate) since: Option<Since>,
    pub(crate) timestamps: bool,
    pub(crate) limit_bytes: Option<u64>,
    /// None: both streams.
    pub(crate) stream: Option<OutputStream>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    Seconds(u64),
    Time(Timestamp),
}

impl Since {
    pub(crate) fn time(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Seconds(seconds) => {
                let ago = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
                now.checked_sub(ago).unwrap_or(Timestamp::MIN)
            }
            Self::Time(time) => time,
        }
    }
}

impl LogOptions {
    pub(crate) fn parse(query: &str) -> Result<Self, Refusal> {
        let mut options = Self::default();
        let mut seen = Vec::new();
        for (name, value) in parse(query.as_bytes()) {
            match &*name {
                "follow" => options.follow = boolean(&name, &value)?,
                "timestamps" => options.timestamps = boolean(&name, &value)?,
                "tailLines" => options.tail_lines = Some(number(&name, &value, 0)?),
                "limitBytes" => options.limit_bytes = Some(number(&name, &value, 1)?),
                "sinceSeconds" => options.since = Some(Since::Seconds(number(&name, &value, 1)?)),
                "sinceTime" => match value.parse() {
                    Ok(time) => options.since = Some(Since::Time(time)),
                    Err(_) => return bad(format!("sinceTime={value}: not a time as in RFC 3339")),
                },
                "stream" => {
                    options.stream = match &*value {
                        "All" => None,
                        "Stdout" => Some(OutputStream::Stdout),
                        "Stderr" => Some(OutputStream::Stderr),
                        _ => return bad(format!("stream={value}: give All, Stdout or Stderr")),
                    }
                }
                _ => continue,
            }
            if seen.contains(&name) {
                return bad(format!("{name} is given twice"));
            }
            seen.push(name);
        }
        if seen.iter().filter(|name| name.starts_with("since")).count() > 1 {
            return bad("sinceSeconds and sinceTime exclude each other");
        }
        if options.tail_lines > Some(TAIL_LINES) {
            return bad(format!("tailLines is more than {TAIL_LINES}: leave it out for the whole log"));
        }
        Ok(options)
    }

    /// The same, as a query. What is not said is left out.
    pub(crate) fn query(&self) -> String {
        let mut query = Serializer::new(String::new());
        for (name, value) in [("follow", self.follow), ("timestamps", self.timestamps)] {
            if value {
                query.append_pair(name, "true");
            }
        }
        for (name, value) in [("tailLines", self.tail_lines), ("limitBytes", self.limit_bytes)] {
            if let Some(value) = value {
                query.append_pair(name, &value.to_string());
            }
        }
        match self.since {
            Some(Since::Seconds(seconds)) => drop(query.append_pair("sinceSeconds", &seconds.to_string())),
            Some(Since::Time(time)) => drop(query.append_pair("sinceTime", &time.to_string())),
            None => {}
        }
        match self.stream {
            Some(OutputStream::Stdout) => drop(query.append_pair("stream", "Stdout")),
            Some(OutputStream::Stderr) => drop(query.append_pair("stream", "Stderr")),
            None => {}
        }
        query.finish()
    }
}

/// As the API server reads it: a parameter without a value is true.
fn boolean(name: &str, value: &str) -> Result<bool, Refusal> {
    match value.to_ascii_lowercase().as_str() {
        "" | "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => bad(format!("{name}={value}: give true or false")),
    }
}

fn number(name: &str, value: &str, least: u64) -> Result<u64, Refusal> {
    match value.parse() {
        Ok(number) if number >= least => Ok(number),
        _ => bad(format!("{name}={value}: give a whole number, at least {least}")),
    }
}

fn bad<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::bad_request(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attach_options_are_read_as_the_api_server_reads_them() {
        let streams = attach("stdin=true&stdout=1&stderr=false&tty&container=x").expect("options");
        let query = "stdin=true&stdout=true&stderr=false&tty=true";
        assert_eq!(of_attach(streams), query);
        assert_eq!(attach(query).expect("the same again"), streams);
        for wrong in ["", "tty=true", "stdout=yes", "stdout=true&stderr=true&tty=true"] {
            assert!(attach(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn log_options_are_checked_and_nothing_else_is_passed_on() {
        let query = "follow=1&tailLines=0&sinceTime=2026-01-02T03%3A04%3A05%2B01%3A00&stream=Stdout&token=secret&timestamps=false";
        let options = LogOptions::parse(query).expect("options");
        let passed_on = "follow=true&tailLines=0&sinceTime=2026-01-02T02%3A04%3A05Z&stream=Stdout";
        assert_eq!(options.query(), passed_on);
        let all = "follow=true&timestamps=true&tailLines=1000000&limitBytes=1&sinceSeconds=7&stream=Stderr";
        for (query, passed_on) in [(passed_on, passed_on), (all, all), ("", ""), ("stream=All&follow=false", "")] {
            assert_eq!(LogOptions::parse(query).expect("options").query(), passed_on);
        }
        for wrong in [
            "tailLines=-1",
            "tailLines=many",
            "tailLines=1000001",
            "tailLines=1&tailLines=2",
            "sinceSeconds=0",
            "limitBytes=0",
            "limitBytes=99999999999999999999",
            "sinceTime=yesterday",
            "sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z",
            "stream=stdout",
            "follow=maybe",
        ] {
            assert!(LogOptions::parse(wrong).is_err(), "{wrong}");
        }
    }
}
