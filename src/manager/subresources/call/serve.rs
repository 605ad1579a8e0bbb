//! The two calls: who calls, whether they may, where the request is, and its agent's answer.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Extension, Path, Request, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header},
    middleware::{self, Next},
    routing::get,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Limited};
use hyper::{body::Incoming, upgrade};
use hyper_util::rt::TokioIo;
use kube::Client;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    authorize,
    limits::{Place, StreamLimits},
};
use crate::{
    api::{ExecRequest, Requester},
    core::access::{self, Right},
    infra::{
        clock::Clock,
        query::{self, LogOptions},
        refusal::Refusal,
        retry::WatchPauses,
        websocket::{self, Handshake},
    },
    manager::subresources::{
        agent::{
            connect::{Agents, Call, CallError},
            join::{Carried, Parted, join},
            locate::Locator,
        },
        discovery,
        listen::{
            front_proxy,
            server::{Peer, Seat},
        },
        metrics::Metrics,
        target::Target,
    },
};

const LARGEST_ERROR: usize = 64 << 10;
const ERROR_TIMEOUT: Duration = Duration::from_secs(5);
/// The client's address: the API server adds the last element.
const FORWARDED_FOR: &str = "x-forwarded-for";

#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) client: Client,
    pub(crate) front_proxy: front_proxy::Current,
    pub(crate) locator: Locator,
    pub(crate) agents: Agents,
    pub(crate) streams: StreamLimits,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    pub(crate) wait: Duration,
    pub(crate) idle: Duration,
    pub(crate) joined: TaskTracker,
    pub(crate) cut: CancellationToken,
}

struct Asked {
    target: Target,
    who: Requester,
    client: Option<String>,
}

impl Api {
    /// All paths but health need the front proxy's certificate; only attach and log need rights.
    pub(crate) fn router(self) -> Router {
        let request = "/apis/subresources.execlet.dev/v1alpha1/namespaces/{namespace}/execrequests/{name}";
        let ok = || async { "ok" };
        Router::new()
            .route(&format!("{request}/attach"), get(attach).post(attach))
            .route(&format!("{request}/log"), get(log))
            .route("/apis", get(discovery::groups))
            .route("/apis/subresources.execlet.dev", get(discovery::versions))
            .route("/apis/subresources.execlet.dev/v1alpha1", get(discovery::resources))
            .route("/openapi/v2", get(discovery::openapi_v2))
            .route("/openapi/v3", get(discovery::openapi_v3_index))
            .route(discovery::OPENAPI_V3, get(discovery::openapi_v3))
            .method_not_allowed_fallback(|request: Request| async move {
                Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} is not served at this path", request.method()))
            })
            .fallback(|| async { Refusal::not_found("the server could not find the requested resource") })
            .layer(middleware::from_fn_with_state(self.clone(), authenticate))
            .route("/healthz", get(ok))
            .route("/livez", get(ok))
            .route("/readyz", get(ok))
            .layer(middleware::from_fn_with_state(self.clone(), observe))
            .with_state(self)
    }

    /// Calls the agent of a request. Waits for both, binding and agent, until `until`.
    async fn ask<'c>(
        &self,
        request: ExecRequest,
        call: impl Fn(&str) -> Call<'c>,
        target: &Target,
        until: Instant,
    ) -> Result<Response<Incoming>, Refusal> {
        let (request, node) = self.locator.bound(target, request, until).await?;
        let uid = request.metadata.uid.as_deref().unwrap_or_default();
        let ended = request.status.is_some_and(|status| status.completion_time.is_some());
        let mut pauses = WatchPauses::default();
        loop {
            let refusal = match self.ask_once(&node, &call(uid)).await {
                // The agent may not have heard of the request yet.
                Ok(answer) if answer.status() == StatusCode::NOT_FOUND && !ended && Instant::now() < until => None,
                Ok(answer) => return Ok(answer),
                Err(refusal) if refusal.code == StatusCode::SERVICE_UNAVAILABLE => Some(refusal),
                Err(refusal) => return Err(refusal),
            };
            let pause = pauses.next().unwrap_or_default();
            match refusal {
                Some(refusal) if Instant::now() + pause >= until => return Err(refusal),
                Some(_) | None => sleep(pause).await,
            }
        }
    }

    async fn ask_once(&self, node: &str, call: &Call<'_>) -> Result<Response<Incoming>, Refusal> {
        let endpoint = self.locator.agent(node).await?;
        self.agents.call(&endpoint, call).await.map_err(|error| match error {
            CallError::Connect { .. } | CallError::Answer { .. } => {
                Refusal::unavailable(format!("the execlet agent on node {node} cannot be reached: {error}"))
            }
            CallError::Token { .. } => Refusal::internal(error.to_string()),
        })
    }
}

async fn attach(
    State(api): State<Api>,
    path: Result<Path<(String, String)>, PathRejection>,
    Extension(who): Extension<Requester>,
    Extension(seat): Extension<Seat>,
    mut request: Request,
) -> Result<axum::response::Response, Refusal> {
    let asked = Asked::of(path, who, request.headers())?;
    websocket::check_origin(request.headers())?;
    let handshake = Handshake::of(request.method(), request.headers())?;
    let streams = query::attach(request.uri().query().unwrap_or_default())?;
    authorize::check(&api.client, &asked.who, &Right::attach(&asked.target.namespace, &asked.target.name)).await?;
    let until = Instant::now() + api.wait;
    let object = api.locator.request(&asked.target).await?;
    if streams.stdin {
        // Input runs commands too, so it takes the rights that the request itself took.
        for right in access::rights(&object) {
            authorize::check(&api.client, &asked.who, &right).await?;
        }
    }
    let place = api.streams.take(&asked.who.username)?;
    seat.leave();
    let call = |uid: &str| asked.call(uid, "attach", query::of_attach(streams), handshake.request());
    let mut answer = api.ask(object, call, &asked.target, until).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(error_of(answer).await);
    }
    let headers = handshake
        .accept(answer.status(), answer.headers())
        .map_err(|why| Refusal::internal(format!("the agent did not accept the handshake: {why}")))?;
    let ours = (upgrade::on(&mut request), upgrade::on(&mut answer));
    let user = asked.who.username.clone();
    tracing::info!(request = %asked.target, user, client = asked.client, stdin = streams.stdin, "attached");
    let cut = api.cut.clone();
    api.joined.clone().spawn(async move {
        if cut.run_until_cancelled(carry(ours, &api, &asked, place)).await.is_none() {
            tracing::info!(request = %asked.target, user, "detached: this manager is stopping");
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().extend(headers);
    Ok(response)
}

async fn carry((client, agent): (upgrade::OnUpgrade, upgrade::OnUpgrade), api: &Api, asked: &Asked, _place: Place) {
    let (request, user) = (&asked.target, &asked.who.username);
    let (client, agent) = match tokio::try_join!(client, agent) {
        Ok(both) => both,
        Err(error) => {
            tracing::info!(%request, user, %error, "detached: the client left before it was attached");
            return;
        }
    };
    let (carried, ended) = join(TokioIo::new(client), TokioIo::new(agent), api.idle).await;
    api.metrics.carried(carried);
    let (upstream, downstream) = (carried.upstream, carried.downstream);
    match ended {
        Ok(()) => tracing::info!(%request, user, upstream, downstream, "detached"),
        Err(why @ (Parted::Idle(_) | Parted::Broken(_))) => {
            tracing::info!(%request, user, upstream, downstream, %why, "detached");
        }
    }
}

async fn log(
    State(api): State<Api>,
    path: Result<Path<(String, String)>, PathRejection>,
    Extension(who): Extension<Requester>,
    Extension(seat): Extension<Seat>,
    request: Request,
) -> Result<axum::response::Response, Refusal> {
    let asked = Asked::of(path, who, request.headers())?;
    websocket::check_origin(request.headers())?;
    let options = LogOptions::parse(request.uri().query().unwrap_or_default())?;
    authorize::check(&api.client, &asked.who, &Right::log(&asked.target.namespace, &asked.target.name)).await?;
    // Without follow, what there is now is wanted.
    let until = Instant::now() + if options.follow { api.wait } else { Duration::ZERO };
    let object = api.locator.request(&asked.target).await?;
    let place = api.streams.take(&asked.who.username)?;
    seat.leave();
    let call = |uid: &str| asked.call(uid, "log", options.query(), Vec::new());
    let answer = api.ask(object, call, &asked.target, until).await?;
    if answer.status() != StatusCode::OK {
        return Err(error_of(answer).await);
    }
    let content_type = answer.headers().get(header::CONTENT_TYPE).cloned();
    let metrics = api.metrics.clone();
    let body = answer.into_body().map_frame(move |frame| {
        // Held for as long as the body lasts.
        let _place = &place;
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        metrics.carried(Carried { upstream: 0, downstream: bytes as u64 });
        frame
    });
    let mut response = Response::new(Body::new(body));
    let content_type = content_type.unwrap_or(HeaderValue::from_static("text/plain"));
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    // A browser must not take output for anything but text.
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

impl Asked {
    fn of(
        path: Result<Path<(String, String)>, PathRejection>,
        who: Requester,
        headers: &HeaderMap,
    ) -> Result<Self, Refusal> {
        let Path((namespace, name)) = path.map_err(|error| Refusal::bad_request(error.body_text()))?;
        // The client may have made up all but the last element.
        let forwarded = headers.get_all(FORWARDED_FOR).iter().next_back().map(HeaderValue::as_bytes);
        let last = forwarded.and_then(|list| list.rsplit(|byte| *byte == b',').next());
        let client = last.and_then(|last| str::from_utf8(last).ok()).map(|last| last.trim().to_owned());
        Ok(Self { target: Target::new(namespace, name)?, who, client })
    }

    fn call(
        &self,
        uid: &str,
        subresource: &'static str,
        query: String,
        upgrade: Vec<(HeaderName, HeaderValue)>,
    ) -> Call<'_> {
        Call {
            target: &self.target,
            uid: uid.to_owned(),
            subresource,
            query,
            who: &self.who,
            client: self.client.as_deref(),
            upgrade,
        }
    }
}

/// An agent's error. Redirects are never followed, and an agent that does not admit the manager is an internal error.
async fn error_of(answer: Response<Incoming>) -> Refusal {
    let code = answer.status();
    if !(code.is_client_error() || code.is_server_error())
        || matches!(code, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
    {
        return Refusal::internal(format!("the agent answers {code} to the manager"));
    }
    let body = timeout(ERROR_TIMEOUT, Limited::new(answer.into_body(), LARGEST_ERROR).collect()).await;
    let body = body.ok().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default();
    let status: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |key: &str| status.get(key).and_then(Value::as_str).map(str::to_owned);
    let message = text("message").filter(|_| text("kind").is_some_and(|kind| kind == "Status"));
    let message = message.unwrap_or_else(|| format!("the agent answers {code}"));
    Refusal::passed_on(code, text("reason").unwrap_or_default(), message)
}

async fn authenticate(
    State(api): State<Api>,
    mut request: Request,
    next: Next,
) -> Result<axum::response::Response, Refusal> {
    let front_proxy = api.front_proxy.borrow().clone();
    let chain = request.extensions().get::<Peer>().map(|peer| Arc::clone(&peer.chain)).unwrap_or_default();
    let Some(front_proxy) = front_proxy else {
        let message = "the certificate authority of the API server is not known yet";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, message));
    };
    let who = front_proxy.authenticate(&chain, request.headers(), api.clock.now())?;
    let user = User(who.username.clone());
    request.extensions_mut().insert(who);
    let mut response = next.run(request).await;
    response.extensions_mut().insert(user);
    Ok(response)
}

/// For the access log.
#[derive(Clone)]
struct User(String);

async fn observe(State(api): State<Api>, request: Request, next: Next) -> axum::response::Response {
    let path = request.uri().path();
    let call = match path.rsplit('/').next() {
        Some("attach") => "attach",
        Some("log") => "log",
        Some("healthz" | "livez" | "readyz") => "health",
        Some(_) | None => "discovery",
    };
    let path = path.to_owned();
    let peer = request.extensions().get::<Peer>().map(|peer| peer.address);
    let response = next.run(request).await;
    api.metrics.call(call, response.status().as_u16());
    if let Some(refusal) = response.extensions().get::<Refusal>() {
        let user = response.extensions().get::<User>().map(|user| user.0.as_str());
        tracing::info!(path, user, peer = ?peer, code = refusal.code.as_u16(), why = %refusal, "refused");
    }
    response
}
