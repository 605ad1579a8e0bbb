//! Calls to the API server, on connections that are kept.

use std::{
    future::Future,
    sync::{LazyLock, mpsc::sync_channel},
};

use http::{HeaderMap, Method, Request, header};
use http_body_util::BodyExt as _;
use kube::{Client, Config, client::Body, config::AuthInfo};
use serde_json::Value;
use tokio::{runtime::Runtime, sync::OnceCell};

/// Each test has a runtime of its own, which ends with it; connections are for all of them.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
});
/// With the administrator's certificate.
static ADMIN: OnceCell<Client> = OnceCell::const_new();
/// Without one: beside it, a token would not be looked at.
static ANYBODY: OnceCell<Client> = OnceCell::const_new();

/// Waits for something that another thread does. The test itself stands still meanwhile, as it does for a program.
pub fn wait_on<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let (done, outcome) = sync_channel(1);
    RUNTIME.spawn(async move { done.send(work.await).ok() });
    outcome.recv().expect("it has said why it panicked")
}

/// Who asks: the administrator, somebody in whose name the administrator asks, or whoever holds a token.
#[derive(Clone, Debug, Default)]
pub struct Who {
    pub token: Option<String>,
    pub headers: Vec<(&'static str, String)>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,
    /// With its query.
    pub path: String,
    /// The media type of the body.
    pub media: &'static str,
    pub body: String,
}

impl Call {
    pub const fn get(path: String) -> Self {
        Self { method: Method::GET, path, media: JSON, body: String::new() }
    }

    pub fn with(method: Method, path: String, body: &Value) -> Self {
        Self { method, path, media: JSON, body: body.to_string() }
    }
}

pub const JSON: &str = "application/json";

/// What it answers.
pub struct Answer {
    pub body: String,
    /// A line for each, as kubectl prints them.
    pub warnings: String,
}

/// Why it does not do it.
#[derive(Debug)]
pub struct Refusal {
    pub reason: String,
    pub message: String,
}

impl Refusal {
    fn unreachable(error: &dyn std::fmt::Display) -> Self {
        Self { reason: "Unreachable".to_owned(), message: error.to_string() }
    }

    pub fn is_not_found(&self) -> bool {
        self.reason == "NotFound"
    }

    /// As kubectl says it; with what it was about, for objects from a file.
    pub fn printed(&self, about: &str) -> String {
        match self.reason.as_str() {
            "Unauthorized" => format!("error: You must be logged in to the server ({})", self.message),
            reason => format!("Error from server ({reason}): {about}{}", self.message),
        }
    }
}

/// The administrator's client, for what is done in `wait_on`.
pub async fn admin() -> Client {
    Who::default().client().await.expect("the administrator's kubeconfig").clone()
}

impl Who {
    async fn client(&self) -> Result<&'static Client, Refusal> {
        let door = if self.token.is_some() { &ANYBODY } else { &ADMIN };
        let is_anybody = self.token.is_some();
        let open = async || {
            let mut config = Config::infer().await.map_err(|error| Refusal::unreachable(&error))?;
            // An answer is an answer, whatever it is.
            config.default_retry = false;
            if is_anybody {
                config.auth_info = AuthInfo::default();
            }
            Client::try_from(config).map_err(|error| Refusal::unreachable(&error))
        };
        door.get_or_try_init(open).await
    }

    pub async fn call(&self, call: &Call) -> Result<Answer, Refusal> {
        let mut request = Request::builder().method(&call.method).uri(&call.path).header(header::ACCEPT, "*/*");
        if !call.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, call.media);
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Body::from(call.body.clone().into_bytes())).expect("a request");
        let response = self.client().await?.send(request).await.map_err(|error| Refusal::unreachable(&error))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| Refusal::unreachable(&error))?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        if head.status.is_success() {
            return Ok(Answer { body, warnings: warnings(&head.headers) });
        }
        let status: Value = serde_json::from_str(&body).unwrap_or_default();
        let word = |field: &str| status[field].as_str().filter(|word| !word.is_empty()).map(str::to_owned);
        let reason = word("reason").unwrap_or_else(|| head.status.canonical_reason().unwrap_or("").replace(' ', ""));
        Err(Refusal { reason, message: word("message").unwrap_or(body) })
    }
}

/// `299 - "…"`
fn warnings(headers: &HeaderMap) -> String {
    let words = headers.get_all(header::WARNING).iter().filter_map(|value| value.to_str().ok());
    let words = words.filter_map(|value| value.split_once('"')?.1.rsplit_once('"'));
    words.map(|(words, _)| ["Warning: ", &words.replace("\\\"", "\""), "\n"].concat()).collect()
}
