//! Log: a command's output as text, as `kubectl logs` reads a container's.

use std::{io, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Path, Query, Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::Stream;
use http::{StatusCode, header};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};

use super::{
    ServerState, find, limits,
    lines::{Choice, Lines},
    refuse::Refused,
};
use crate::{
    agent::streams::{
        hub::Hub,
        ring::Written,
        view::{Sight, View},
    },
    api::ExecRequestStatus,
    infra::{metrics::Metrics, requests::Requests},
    wire::OutputStream,
};

/// `PodLogOptions`, as far as they make sense here.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Options {
    follow: Option<String>,
    tail_lines: Option<String>,
    since_seconds: Option<String>,
    since_time: Option<String>,
    timestamps: Option<String>,
    limit_bytes: Option<String>,
    stream: Option<String>,
}

/// The same, understood.
#[derive(Debug)]
struct Wanted {
    follow: bool,
    tail: Option<u64>,
    choice: Choice,
}

impl Options {
    fn understand(&self, now: Timestamp) -> Result<Wanted, Refused> {
        let only = match self.stream.as_deref() {
            None | Some("" | "All") => None,
            Some("Stdout") => Some(OutputStream::Stdout),
            Some("Stderr") => Some(OutputStream::Stderr),
            Some(other) => return Err(bad(&format!("stream is {other:?}: it is All, Stdout or Stderr"))),
        };
        let seconds = number("sinceSeconds", self.since_seconds.as_deref())?;
        let since = match (seconds, self.since_time.as_deref().filter(|time| !time.is_empty())) {
            (Some(_), Some(_)) => return Err(bad("sinceSeconds and sinceTime exclude each other")),
            (Some(seconds), None) => {
                let ago = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
                Some(now.checked_sub(ago).unwrap_or(Timestamp::MIN))
            }
            (None, Some(time)) => {
                let time = time.parse().map_err(|error| bad(&format!("sinceTime is not RFC 3339: {error}")))?;
                Some(time)
            }
            (None, None) => None,
        };
        let choice = Choice {
            only,
            since,
            timestamps: flag("timestamps", self.timestamps.as_deref())?,
            limit: number("limitBytes", self.limit_bytes.as_deref())?,
        };
        if choice.limit == Some(0) {
            return Err(bad("limitBytes is 0: leave it out, or give 1 or more"));
        }
        let tail = number("tailLines", self.tail_lines.as_deref())?;
        if tail.is_some_and(|tail| tail > limits::TAIL_LINES) {
            let most = limits::TAIL_LINES;
            return Err(bad(&format!("tailLines is more than {most}: leave it out for the whole log")));
        }
        Ok(Wanted { follow: flag("follow", self.follow.as_deref())?, tail, choice })
    }
}

fn bad(message: &str) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, message)
}

fn flag(name: &str, text: Option<&str>) -> Result<bool, Refused> {
    match text {
        None | Some("" | "false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(other) => Err(bad(&format!("{name} is {other:?}: it is true or false"))),
    }
}

fn number(name: &str, text: Option<&str>) -> Result<Option<u64>, Refused> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| bad(&format!("{name} is {text:?}: it is a whole number, 0 or more")))
}

/// Sends the log, or says why not.
pub(super) async fn log<R: Requests>(
    State(shared): State<Arc<ServerState<R>>>,
    path: Path<(String, String, String)>,
    Query(options): Query<Options>,
    request: Request,
) -> Response {
    let connection = request.extensions().get::<Arc<OwnedSemaphorePermit>>().cloned();
    let wanted = match options.understand(shared.streams.clock.now()) {
        Ok(wanted) => wanted,
        Err(refused) => return refused.into_response(),
    };
    let subject = match find(&shared, path, request.headers()).await {
        Ok(subject) => subject,
        Err(refused) => return refused.into_response(),
    };
    let hub = match &subject.request.status {
        // Whoever takes it up has not come so far yet: what an agent before this one has written is there.
        Some(ExecRequestStatus { exec_id: Some(_), .. }) if !wanted.follow && subject.hub.is_waiting() => {
            Hub::logged(shared.streams.spool.size(&subject.key), Written::NOTHING)
        }
        Some(_) | None => Arc::clone(&subject.hub),
    };
    let mut view = View::new(&hub, &shared.streams.spool.log_path(&subject.key), &shared.readers);
    if !wanted.follow {
        view = view.until_now();
    }
    if let Some(lines) = wanted.tail {
        view = match view.tail(lines, wanted.choice.only).await {
            Ok(view) => view,
            Err(error) => {
                let message = format!("the log cannot be read: {error}");
                return Refused::new(StatusCode::INTERNAL_SERVER_ERROR, message).into_response();
            }
        };
    }
    tracing::info!(request = %subject.key, uid = %subject.key.uid, viewer = subject.viewer(), "log");
    let (sender, receiver) = mpsc::channel(1);
    let streams = &shared.streams;
    let (metrics, shutdown, stall) = (streams.metrics.clone(), streams.shutdown.clone(), streams.pace.stall);
    shared.tasks.spawn(async move {
        let _connection = connection;
        metrics.viewers.inc();
        let sending = Sending { hub: &subject.hub, follow: wanted.follow, to: &sender, metrics: &metrics, stall };
        let sent = tokio::select! {
            biased;
            () = shutdown.cancelled() => Err(Stop::Cut("the agent is being restarted")),
            () = sender.closed() => Err(Stop::Left),
            sent = sending.send(view, Lines::new(wanted.choice)) => sent,
        };
        if let Err(Stop::Cut(why)) = sent {
            metrics.viewers_cut.inc();
            tracing::info!(request = %subject.key, uid = %subject.key.uid, viewer = subject.viewer(), why, "a reader of the log was cut");
        }
        metrics.viewers.dec();
        drop(subject);
    });
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(body(receiver))).into_response()
}

/// A part of the log, on its way.
enum Part {
    Bytes(Bytes),
    /// It is whole.
    End,
}

/// The log as it arrives: whole only if it was said to be, whatever became of who sends it.
fn body(receiver: mpsc::Receiver<Part>) -> impl Stream<Item = io::Result<Bytes>> {
    futures::stream::unfold(Some(receiver), async |receiver| {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Part::Bytes(bytes)) => Some((Ok(bytes), Some(receiver))),
            Some(Part::End) => None,
            None => Some((Err(io::Error::other("the log was cut")), None)),
        }
    })
}

/// Why the rest is not sent.
enum Stop {
    Left,
    Cut(&'static str),
}

/// What it takes to send a log.
struct Sending<'a> {
    hub: &'a Hub,
    follow: bool,
    to: &'a mpsc::Sender<Part>,
    metrics: &'a Metrics,
    stall: Duration,
}

impl Sending<'_> {
    /// Sends it, and that it is whole. May be left at any time: then it is not said to be.
    async fn send(&self, mut view: View, mut lines: Lines) -> Result<(), Stop> {
        while !lines.is_full() {
            let mut out = Vec::new();
            match view.next().await {
                Ok(Sight::Pieces(pieces)) => pieces.iter().for_each(|piece| lines.write(piece, &mut out)),
                Ok(Sight::Gap(missing)) if !view.is_live() => lines.gap(missing, &mut out),
                Ok(Sight::Gap(_)) => return Err(Stop::Cut("too slow: output that was not taken is not kept")),
                Ok(Sight::End) => {
                    self.ended().await?;
                    break;
                }
                Err(_) => return Err(Stop::Cut("the log cannot be read")),
            }
            if !out.is_empty() {
                self.metrics.viewer_bytes.inc_by(out.len() as u64);
                self.part(Part::Bytes(out.into())).await?;
            }
        }
        self.part(Part::End).await
    }

    async fn part(&self, part: Part) -> Result<(), Stop> {
        match timeout(self.stall, self.to.send(part)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Stop::Left),
            Err(_) => Err(Stop::Cut("too slow: nothing was taken")),
        }
    }

    /// Waits for the end of the command, if that is asked for: one that nobody hears may go on.
    async fn ended(&self) -> Result<(), Stop> {
        let mut changes = self.hub.changes();
        while self.follow && self.hub.result().is_none() {
            if self.hub.has_moved() {
                return Err(Stop::Cut("the agent is being restarted"));
            }
            if changes.changed().await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_log_is_whole_only_if_it_is_said_to_be() {
        for whole in [true, false] {
            let (sender, receiver) = mpsc::channel(2);
            sender.send(Part::Bytes("a".into())).await.expect("sent");
            if whole {
                sender.send(Part::End).await.expect("sent");
            }
            drop(sender);
            let parts: Vec<_> = body(receiver).collect().await;
            assert_eq!(parts.len(), if whole { 1 } else { 2 });
            assert_eq!(parts.last().is_some_and(Result::is_ok), whole);
        }
    }
}
