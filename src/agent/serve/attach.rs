//! Attach: lets a viewer in, or refuses it. What it then sees is `viewer`'s.

use std::sync::Arc;

use axum::{
    extract::{Path, Request, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, Method, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{sync::oneshot, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{Role, WebSocketConfig},
};

use super::{
    connection::Connection,
    limits::{self, Share},
    subject::{ServerState, Subject},
    viewer::{End, Viewer},
};
use crate::{
    agent::streams::view::View,
    api::ExecRequestSpec,
    core::audit::subject::Client,
    infra::{listener::HANDSHAKE_TIMEOUT, query, refusal::Refusal, requests::Requests, websocket::Handshake},
    wire::{
        remotecommand::{Protocol, Streams},
        words::InputError,
    },
};

pub(super) async fn attach<R: Requests>(
    State(shared): State<Arc<ServerState<R>>>,
    path: Path<(String, String, String)>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let (handshake, protocol) = handshake(request.method(), request.headers())?;
    let Some(upgraded) = request.extensions_mut().remove::<OnUpgrade>() else {
        return Err(Refusal::bad_request("this connection cannot be upgraded"));
    };
    let connection = request.extensions().get::<Connection>().cloned();
    let share = connection.as_ref().map_or(Share::among(0), |connection| connection.share);
    let streams = query::attach(request.uri().query().unwrap_or_default())?;
    let subject = shared.find(path, request.headers()).await?;
    check(streams, &subject.request.spec)?;
    // Whoever asks in vain leaves no record.
    if streams.stdin
        && let Err(error) = subject.hub.input.is_free()
    {
        return Err(in_use(&error));
    }
    let (tell, told) = oneshot::channel();
    // A task of its own, because the client may go away while its coming is recorded.
    let tasks = shared.tasks.clone();
    tasks.spawn(async move {
        // Its seat is taken until the last byte.
        let _connection = connection;
        let audit = &shared.streams.audit;
        let client = Client { address: subject.address.clone(), stdin: streams.stdin };
        let known = audit.subject(&subject.request).unwrap_or_else(|_| audit.unread(&subject.key));
        let session = match audit.attached(known, &subject.by, client).await {
            Ok(session) => session,
            Err(error) => {
                return drop(tell.send(Err(Refusal::unavailable(error.to_string()))));
            }
        };
        connected(&shared, &subject, (protocol, streams), (upgraded, share), tell).await;
        audit.detached(session).await;
    });
    told.await
        .unwrap_or_else(|_| Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the viewer's task has ended")))?;
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    response.headers_mut().extend(handshake.answer(Some(protocol.name())));
    Ok(response)
}

fn in_use(error: &InputError) -> Refusal {
    Refusal::new(StatusCode::CONFLICT, error.to_string())
}

/// Lets a viewer in whose coming is recorded, and serves it to the end.
async fn connected<R: Requests>(
    shared: &ServerState<R>,
    subject: &Subject,
    (protocol, streams): (Protocol, Streams),
    (upgraded, share): (OnUpgrade, Share),
    tell: oneshot::Sender<Result<(), Refusal>>,
) {
    let Subject { key, hub, .. } = subject;
    let viewer = subject.viewer();
    let hold = match streams.stdin.then(|| hub.input.hold(&viewer)).transpose() {
        Ok(hold) => hold,
        // Another one was faster.
        Err(error) => return drop(tell.send(Err(in_use(&error)))),
    };
    let view = View::new(hub, &shared.streams.spool.log_path(key), &shared.readers).by(share.message).telling_now();
    if tell.send(Ok(())).is_err() {
        return;
    }
    let Ok(Ok(upgraded)) = timeout(HANDSHAKE_TIMEOUT, upgraded).await else { return };
    let config = WebSocketConfig::default()
        .read_buffer_size(if streams.stdin { limits::LISTEN_BYTES } else { limits::WATCH_BYTES })
        .write_buffer_size(0)
        .max_write_buffer_size(8 * share.message)
        .max_message_size(Some(limits::MESSAGE_BYTES))
        .max_frame_size(Some(limits::MESSAGE_BYTES));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let metrics = &shared.streams.metrics;
    metrics.viewers.inc();
    tracing::info!(request = %key, uid = %key.uid, viewer, stdin = streams.stdin, "attached");
    let (pace, shutdown) = (shared.streams.pace, &shared.streams.shutdown);
    let end = Viewer::new(hub, (protocol, streams), pace, metrics, shutdown).serve(socket, view, hold).await;
    metrics.viewers.dec();
    if let End::Cut { .. } | End::Lost { .. } = end {
        metrics.viewers_cut.inc();
    }
    tracing::info!(request = %key, uid = %key.uid, viewer, ?end, "detached");
}

fn handshake(method: &Method, headers: &HeaderMap) -> Result<(Handshake, Protocol), Refusal> {
    // The manager is no browser.
    if headers.contains_key(header::ORIGIN) {
        return Err(Refusal::forbidden("a web page may not attach"));
    }
    let handshake = Handshake::of(method, headers)?;
    let Some(protocol) = Protocol::negotiate(handshake.protocols()) else {
        let message = "none of the offered protocols is supported: offer v5.channel.k8s.io or v4.channel.k8s.io";
        return Err(Refusal::bad_request(message));
    };
    Ok((handshake, protocol))
}

/// Refuses what the command does not have.
fn check(streams: Streams, spec: &ExecRequestSpec) -> Result<(), Refusal> {
    if streams.tty && !spec.tty {
        return Err(Refusal::bad_request("the command has no terminal: attach with tty=false"));
    }
    if streams.stdin && spec.input_from_client().is_none() {
        let message =
            "the command takes no input from a client, because spec.stdin.attach is not set: attach with stdin=false";
        return Err(Refusal::bad_request(message));
    }
    Ok(())
}
