//! Attach: who asks to view a command is let in, or told why not. What it then sees is the viewer's.

use std::sync::Arc;

use axum::{
    extract::{Path, Query, Request, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{sync::oneshot, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{
    Shared, Subject, find,
    limits::{self, Share},
    refuse::Refused,
    viewer::{End, Viewer},
};
use crate::{
    agent::streams::{input::Input, view::View},
    api::ExecRequestSpec,
    core::audit::event::Client,
    infra::{listener::seats::Seat, requests::Requests},
    wire::{
        remotecommand::{PROTOCOL_HEADER, Protocol, Streams},
        words::InputError,
    },
};

/// `PodAttachOptions`. The API server's clients write `true`, `1` or nothing at all.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Options {
    stdin: Option<String>,
    stdout: Option<String>,
    stderr: Option<String>,
    tty: Option<String>,
}

impl Options {
    fn streams(&self) -> Streams {
        let is = |option: &Option<String>| option.as_deref().is_some_and(|text| matches!(text, "true" | "1" | "True"));
        Streams { stdin: is(&self.stdin), stdout: is(&self.stdout), stderr: is(&self.stderr), tty: is(&self.tty) }
    }
}

/// Lets a viewer in, or says why not.
pub(super) async fn attach<R: Requests>(
    State(shared): State<Arc<Shared<R>>>,
    path: Path<(String, String, String)>,
    Query(options): Query<Options>,
    mut request: Request,
) -> Response {
    let upgrade = match handshake(request.headers()) {
        Ok(upgrade) => upgrade,
        Err(refused) => return refused.into_response(),
    };
    let Some(upgraded) = request.extensions_mut().remove::<OnUpgrade>() else {
        return Refused::new(StatusCode::BAD_REQUEST, "this connection cannot be upgraded").into_response();
    };
    let seat = request.extensions().get::<Arc<Seat>>().cloned();
    let share = request.extensions().get::<Share>().copied().unwrap_or(Share::among(0));
    let subject = match find(&shared, path, request.headers()).await {
        Ok(subject) => subject,
        Err(refused) => return refused.into_response(),
    };
    let streams = match allowed(options.streams(), &subject.request.spec) {
        Ok(streams) => streams,
        Err(refused) => return refused.into_response(),
    };
    // Whoever asks in vain leaves no record.
    if streams.stdin
        && let Err(error) = subject.hub.input.is_free()
    {
        return in_use(&error).into_response();
    }
    let protocol = upgrade.protocol;
    let (tell, told) = oneshot::channel();
    // A task of its own from the first record on, because nobody may be left to wait for this answer.
    let tasks = shared.tasks.clone();
    tasks.spawn(async move {
        // Counted until the last byte.
        let _seat = seat;
        let audit = &shared.streams.audit;
        let client = Client { address: subject.address.clone(), stdin: streams.stdin };
        let known = audit.subject(&subject.request).unwrap_or_else(|_| audit.unread(&subject.key));
        let session = match audit.attached(known, &subject.by, client).await {
            Ok(session) => session,
            Err(error) => {
                return drop(tell.send(Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))));
            }
        };
        connected(&shared, &subject, (protocol, streams), (upgraded, share), tell).await;
        audit.detached(session).await;
    });
    match told.await {
        Ok(Ok(())) => upgrade.accept(),
        Ok(Err(refused)) => refused.into_response(),
        Err(_) => Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "the viewer's task has ended").into_response(),
    }
}

fn in_use(error: &InputError) -> Refused {
    Refused::new(StatusCode::CONFLICT, error.to_string())
}

/// Lets a viewer in that is on record, and serves it to the end.
async fn connected<R: Requests>(
    shared: &Shared<R>,
    subject: &Subject,
    (protocol, streams): (Protocol, Streams),
    (upgraded, share): (OnUpgrade, Share),
    tell: oneshot::Sender<Result<(), Refused>>,
) {
    let Subject { key, hub, .. } = subject;
    let viewer = subject.viewer();
    let hold = match streams.stdin.then(|| Input::hold(hub, &viewer)).transpose() {
        Ok(hold) => hold,
        // Another one was faster.
        Err(error) => return drop(tell.send(Err(in_use(&error)))),
    };
    let view = View::new(hub, &shared.streams.spool.log_path(key), &shared.readers).by(share.message);
    if tell.send(Ok(())).is_err() {
        return;
    }
    let Ok(Ok(upgraded)) = timeout(limits::HANDSHAKE_TIMEOUT, upgraded).await else { return };
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

/// A handshake that is one.
struct Upgrade {
    accept: String,
    protocol: Protocol,
}

impl Upgrade {
    fn accept(self) -> Response {
        let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(PROTOCOL_HEADER, HeaderValue::from_static(self.protocol.name()));
        if let Ok(accept) = HeaderValue::from_str(&self.accept) {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        response
    }
}

/// RFC 6455, section 4.2.1.
fn handshake(headers: &HeaderMap) -> Result<Upgrade, Refused> {
    let bad = |message: &str| Err(Refused::new(StatusCode::BAD_REQUEST, message));
    let has = |name: header::HeaderName, word: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case(word))
    };
    // The manager is no web page, and has nothing to do with one.
    if headers.contains_key(header::ORIGIN) {
        return Err(Refused::new(StatusCode::FORBIDDEN, "no web page may attach"));
    }
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return bad("attach is a WebSocket: send Connection: Upgrade and Upgrade: websocket");
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        return bad("the WebSocket version must be 13");
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else { return bad("Sec-WebSocket-Key is missing") };
    let offered = headers.get_all(PROTOCOL_HEADER).into_iter().filter_map(|value| value.to_str().ok());
    let Some(protocol) = Protocol::negotiate(offered) else {
        return bad("none of the offered protocols is spoken here: offer v5.channel.k8s.io or v4.channel.k8s.io");
    };
    Ok(Upgrade { accept: derive_accept_key(key.as_bytes()), protocol })
}

/// Whether the command has what is asked for.
fn allowed(streams: Streams, spec: &ExecRequestSpec) -> Result<Streams, Refused> {
    let bad = |message: String| Err(Refused::new(StatusCode::BAD_REQUEST, message));
    if let Err(error) = streams.validate() {
        return bad(error.to_string());
    }
    if streams.tty && !spec.tty {
        return bad("the command has no terminal: attach with tty=false".to_owned());
    }
    let takes_input = spec.stdin.as_ref().is_some_and(|stdin| stdin.attach.is_some());
    if streams.stdin && !takes_input {
        return bad(
            "the command takes no input from a client, because spec.stdin.attach is not set: attach with stdin=false"
                .to_owned(),
        );
    }
    Ok(streams)
}
