//! Log: a command's output as text, as `kubectl logs` reads a container's.

use std::{io, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Path, Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::Stream;
use http::{StatusCode, header};
use tokio::{sync::mpsc, time::timeout};

use super::{
    lines::{Choice, Lines},
    subject::{ServerState, StreamServer, Subject},
};
use crate::{
    agent::streams::{
        hub::Hub,
        ring::Written,
        view::{Sight, View},
    },
    api::ExecRequestStatus,
    infra::{metrics::Metrics, query::LogOptions, refusal::Refusal, requests::Requests},
};

pub(super) async fn log<R: Requests>(
    State(shared): State<Arc<ServerState<R>>>,
    path: Path<(String, String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let LogOptions { follow, tail_lines, since, timestamps, limit_bytes: limit, stream: only } =
        LogOptions::parse(request.uri().query().unwrap_or_default())?;
    let since = since.map(|since| since.time(shared.streams.clock.now()));
    let subject = shared.find(path, request.headers()).await?;
    let hub = match &subject.request.status {
        // The agent has not taken it up yet: there is what the one before it has written.
        Some(ExecRequestStatus { exec_id: Some(_), .. }) if !follow && subject.hub.is_waiting() => {
            Hub::logged(shared.streams.spool.size(&subject.key), Written::NOTHING)
        }
        Some(_) | None => Arc::clone(&subject.hub),
    };
    let mut view = View::new(&hub, &shared.streams.spool.log_path(&subject.key), &shared.readers);
    // Whoever follows and comes again after a crash finds the same text.
    view = if follow { view.settled() } else { view.until_now() };
    if let Some(lines) = tail_lines {
        view = view.tail(lines, only).await.map_err(|error| {
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the log cannot be read: {error}"))
        })?;
    }
    tracing::info!(request = %subject.key, uid = %subject.key.uid, viewer = subject.viewer(), "log");
    let (sender, receiver) = mpsc::channel(1);
    let sending =
        send(Arc::clone(&shared), subject, follow, view, Lines::new(Choice { only, since, timestamps, limit }), sender);
    shared.tasks.spawn(sending);
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(body(receiver))).into_response())
}

/// Sends a log, unless the client leaves or the agent ends first.
async fn send<R: Requests>(
    shared: Arc<ServerState<R>>,
    subject: Subject,
    follow: bool,
    view: View,
    lines: Lines,
    to: mpsc::Sender<Part>,
) {
    let StreamServer { metrics, shutdown, pace, .. } = &shared.streams;
    metrics.viewers.inc();
    let sending = Sending { hub: &subject.hub, follow, to: &to, metrics, stall: pace.stall };
    let sent = tokio::select! {
        biased;
        () = shutdown.cancelled() => Err(Stop::Cut("the agent is being restarted")),
        () = to.closed() => Err(Stop::Left),
        sent = sending.send(view, lines) => sent,
    };
    if let Err(Stop::Cut(why)) = sent {
        metrics.viewers_cut.inc();
        tracing::info!(request = %subject.key, uid = %subject.key.uid, viewer = subject.viewer(), why, "a reader of the log was cut");
    }
    metrics.viewers.dec();
}

enum Part {
    Bytes(Bytes),
    /// The log is whole.
    End,
}

/// The log as it arrives. Its end is an error unless it was said to be whole, whatever became of the sender.
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

enum Stop {
    Left,
    Cut(&'static str),
}

struct Sending<'a> {
    hub: &'a Hub,
    follow: bool,
    to: &'a mpsc::Sender<Part>,
    metrics: &'a Metrics,
    stall: Duration,
}

impl Sending<'_> {
    /// Sends it, and then that it is whole. Cancel safe.
    async fn send(&self, mut view: View, mut lines: Lines) -> Result<(), Stop> {
        while !lines.is_full() {
            let mut out = Vec::new();
            match view.next().await {
                Ok(Sight::Pieces(pieces)) => pieces.iter().for_each(|piece| lines.write(piece, &mut out)),
                Ok(Sight::Gap(missing)) if !view.is_live() => lines.gap(missing, &mut out),
                Ok(Sight::Gap(_)) => return Err(Stop::Cut("too slow: output that was not taken is not kept")),
                Ok(Sight::Now) => {}
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

    /// Waits for the end of the command, if that is asked for: a command whose stream was lost may go on.
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
