//! Log: a command's output as text, as `kubectl logs` reads a container's.

use std::{io, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Path, Query, Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{StatusCode, header};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared, find,
    lines::{Choice, Lines},
    refuse::Refused,
};
use crate::{
    agent::view::{Sight, View},
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
    State(shared): State<Arc<Shared<R>>>,
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
    let mut view = View::new(&subject.hub, &shared.streams.spool.log_path(&subject.key));
    if let Some(lines) = wanted.tail {
        view = match view.tail(lines, wanted.choice.only).await {
            Ok(view) => view,
            Err(error) => {
                let message = format!("the log cannot be read: {error}");
                return Refused::new(StatusCode::INTERNAL_SERVER_ERROR, message).into_response();
            }
        };
    }
    if !wanted.follow {
        view = view.until_now();
    }
    tracing::info!(request = %subject.key, uid = %subject.key.uid, viewer = subject.viewer(), "log");
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(1);
    let (metrics, shutdown) = (shared.streams.metrics.clone(), shared.streams.shutdown.clone());
    let stall = shared.streams.pace.stall;
    shared.tasks.spawn(async move {
        let _connection = connection;
        metrics.viewers.inc();
        let why = match send(view, Lines::new(wanted.choice), &sender, &metrics, stall, &shutdown).await {
            Ok(()) | Err(Stop::Left) => None,
            Err(Stop::Cut(why)) => Some(why),
        };
        if let Some(why) = why {
            metrics.viewer_cut();
            tracing::info!(request = %subject.key, uid = %subject.key.uid, viewer = subject.viewer(), why, "a reader of the log was cut");
            // The body then ends as one that is not whole.
            sender.try_send(Err(io::Error::other(why))).unwrap_or_default();
        }
        metrics.viewers.dec();
        drop(subject);
    });
    let body = futures::stream::unfold(receiver, async |mut receiver| {
        let next = receiver.recv().await?;
        Some((next, receiver))
    });
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(body)).into_response()
}

/// Why the rest is not sent.
enum Stop {
    Left,
    Cut(&'static str),
}

async fn send(
    mut view: View,
    mut lines: Lines,
    to: &mpsc::Sender<io::Result<Bytes>>,
    metrics: &Metrics,
    stall: Duration,
    shutdown: &CancellationToken,
) -> Result<(), Stop> {
    while !lines.is_full() {
        let sight = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Err(Stop::Cut("the agent is being restarted")),
            () = to.closed() => return Err(Stop::Left),
            sight = view.next() => sight,
        };
        let pieces = match sight {
            Ok(Sight::Pieces(pieces)) => pieces,
            Ok(Sight::Gap(_)) if !view.is_live() => continue,
            Ok(Sight::Gap(_)) => return Err(Stop::Cut("too slow: output that was not taken is not kept")),
            Ok(Sight::End) => return Ok(()),
            Err(_) => return Err(Stop::Cut("the log cannot be read")),
        };
        let mut out = Vec::new();
        for piece in &pieces {
            lines.write(piece, &mut out);
        }
        if out.is_empty() {
            continue;
        }
        metrics.viewer_bytes.inc_by(out.len() as u64);
        match timeout(stall, to.send(Ok(out.into()))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Stop::Left),
            Err(_) => return Err(Stop::Cut("too slow: nothing was taken")),
        }
    }
    Ok(())
}
