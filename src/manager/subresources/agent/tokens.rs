//! The tokens by which agents know the manager. Each is for the agent of one node: an agent that was taken over cannot
//! use it at another.

use std::{collections::HashMap, time::Duration};

use axum::http::HeaderValue;
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount as Account,
};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use crate::{api::names, core::admission::ServiceAccount};

/// How long a token lives. The API server issues none for less.
const LIFE: Duration = Duration::from_secs(600);
/// How long it is used, by this process's clock.
const USED_FOR: Duration = Duration::from_secs(480);
const _: () = assert!(USED_FOR.as_secs() + 60 < LIFE.as_secs(), "a call must come through before the token expires");
/// Tokens that are kept, of about 1 KB each.
const KEPT: usize = 1024;
const ASKED_AT_ONCE: usize = 8;
/// How long one may take, with the wait for its turn.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

struct Kept {
    token: HeaderValue,
    until: Instant,
}

pub(crate) struct Tokens {
    accounts: Api<Account>,
    account: String,
    /// Tokens end with it.
    pod: String,
    kept: Mutex<HashMap<String, Kept>>,
    asking: Semaphore,
}

impl Tokens {
    pub(crate) fn new(client: Client, account: &ServiceAccount, pod: &str) -> Self {
        Self {
            accounts: Api::namespaced(client, &account.namespace),
            account: account.name.clone(),
            pod: pod.to_owned(),
            kept: Mutex::default(),
            asking: Semaphore::new(ASKED_AT_ONCE),
        }
    }

    /// The `Authorization` header for the agent on `node`, or why there is none.
    pub(crate) async fn of(&self, node: &str) -> Result<HeaderValue, String> {
        if let Some(token) = self.kept(node) {
            return Ok(token);
        }
        match timeout(ASK_TIMEOUT, self.ask(node)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", ASK_TIMEOUT.as_secs())),
        }
    }

    pub(crate) fn forget(&self, node: &str, token: &HeaderValue) {
        let mut kept = self.kept.lock();
        if kept.get(node).is_some_and(|kept| kept.token == *token) {
            kept.remove(node);
        }
    }

    async fn ask(&self, node: &str) -> Result<HeaderValue, String> {
        let _turn = self.asking.acquire().await.map_err(|error| error.to_string())?;
        // The task before this one may have asked for the same token.
        if let Some(token) = self.kept(node) {
            return Ok(token);
        }
        let asked = Instant::now();
        let (params, request) = (PostParams::default(), self.request(node));
        let answer = self.accounts.create_token_request(&self.account, &params, &request).await;
        let given = answer.map_err(|error| error.to_string())?.status.ok_or("the answer has none")?;
        let mut token = HeaderValue::try_from(format!("Bearer {}", given.token)).map_err(|error| error.to_string())?;
        token.set_sensitive(true);
        self.keep(node, Kept { token: token.clone(), until: asked + USED_FOR });
        Ok(token)
    }

    fn request(&self, node: &str) -> TokenRequest {
        let pod = BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(self.pod.clone()),
            uid: None,
        };
        let spec = TokenRequestSpec {
            audiences: vec![names::stream_audience(node)],
            bound_object_ref: Some(pod),
            expiration_seconds: i64::try_from(LIFE.as_secs()).ok(),
        };
        TokenRequest { spec, ..TokenRequest::default() }
    }

    fn kept(&self, node: &str) -> Option<HeaderValue> {
        let kept = self.kept.lock();
        kept.get(node).filter(|kept| Instant::now() < kept.until).map(|kept| kept.token.clone())
    }

    /// If there are too many, the one that expires first goes.
    fn keep(&self, node: &str, token: Kept) {
        let mut kept = self.kept.lock();
        kept.insert(node.to_owned(), token);
        if kept.len() > KEPT
            && let Some(first) = kept.iter().min_by_key(|(_, kept)| kept.until).map(|(node, _)| node.clone())
        {
            kept.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::future::join_all;
    use http_body_util::Full;
    use serde_json::{Value, json};

    use super::*;

    /// An API server that gives tokens, each unlike every other, and remembers for what.
    fn api_server(asked: Arc<Mutex<Vec<Value>>>) -> Client {
        let answer = move |request: axum::http::Request<kube::client::Body>| {
            let asked = Arc::clone(&asked);
            async move {
                assert_eq!(request.uri().path(), "/api/v1/namespaces/execlet/serviceaccounts/execlet-manager/token");
                let body = request.into_body().collect_bytes().await.expect("a body");
                let request: Value = serde_json::from_slice(&body).expect("a request");
                let number = {
                    let mut asked = asked.lock();
                    asked.push(request["spec"].clone());
                    asked.len()
                };
                let answer = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
                    "spec": request["spec"], "status": {"token": number.to_string(), "expirationTimestamp": "2026-01-02T03:04:05Z"}});
                let body = Full::new(bytes::Bytes::from(answer.to_string()));
                Ok::<_, std::convert::Infallible>(axum::http::Response::new(body))
            }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    fn tokens() -> (Tokens, Arc<Mutex<Vec<Value>>>) {
        let asked = Arc::default();
        let account = "execlet:execlet-manager".parse().expect("an account");
        (Tokens::new(api_server(Arc::clone(&asked)), &account, "execlet-manager-1"), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn each_node_has_a_token_of_its_own_that_is_renewed_before_it_expires() {
        let (tokens, asked) = tokens();
        for node in ["n1", "n2", "n1"] {
            tokens.of(node).await.expect("a token");
        }
        let spec = |audience| {
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "name": "execlet-manager-1"});
            json!({"audiences": [audience], "expirationSeconds": 600, "boundObjectRef": pod})
        };
        let expected = [spec("streams.execlet.dev/n1"), spec("streams.execlet.dev/n2")];
        assert_eq!(*asked.lock(), expected);
        let before = tokens.of("n1").await.expect("a token");
        assert!(before.is_sensitive() && before != tokens.of("n2").await.expect("a token"));
        tokio::time::advance(USED_FOR).await;
        assert_ne!(tokens.of("n1").await.expect("a token"), before);
        assert_eq!(asked.lock().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_was_refused_is_forgotten_and_a_newer_one_is_not() {
        let (tokens, asked) = tokens();
        let first = tokens.of("n1").await.expect("a token");
        tokens.forget("n1", &first);
        let second = tokens.of("n1").await.expect("a token");
        assert_ne!(first, second);
        tokens.forget("n1", &first);
        assert_eq!(tokens.of("n1").await.expect("a token"), second);
        assert_eq!(asked.lock().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_by_the_hundred_ask_a_few_times_and_nodes_by_the_thousand_do_not_grow_memory() {
        let (tokens, asked) = tokens();
        join_all((0..500).map(|_| tokens.of("n1"))).await;
        let few = asked.lock().len();
        assert!(few <= ASKED_AT_ONCE, "{few}");
        for node in 0..KEPT + 100 {
            tokio::time::advance(Duration::from_millis(1)).await;
            tokens.of(&format!("m{node}")).await.expect("a token");
        }
        assert_eq!(tokens.kept.lock().len(), KEPT);
        assert!(tokens.kept("n1").is_none() && tokens.kept(&format!("m{}", KEPT + 99)).is_some(), "the oldest go");
    }
}
