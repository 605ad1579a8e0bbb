//! Admission to the stream server: the manager's service account, by a token for the agent of this node. What the
//! manager's users may do is for the manager to decide.

use std::{collections::HashMap, time::Duration};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use crate::{
    api::names,
    core::{admission::ServiceAccount, ids::NodeName},
};

/// How long a review of a token counts. A revoked token works for that long.
const ADMITTED_FOR: Duration = Duration::from_secs(60);
const REFUSED_FOR: Duration = Duration::from_secs(10);
const REMEMBERED: usize = 256;
const ASKED_AT_ONCE: usize = 8;
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// A service account's token has about 1 KB.
const TOKEN_BYTES: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotAdmitted {
    #[error("a bearer token with the audience of this node's agent is needed")]
    NoToken,
    /// 401: unknown to the API server, or for another audience.
    #[error("the token is not valid for the audience of this node's agent")]
    Invalid,
    /// 403: the token's user.
    #[error("{0} is not the manager: attach through the API server")]
    NotTheManager(String),
    /// 503: it could not be reviewed.
    #[error("the token could not be reviewed by the API server: {0}")]
    Unknown(String),
}

type Remembered = HashMap<[u8; 32], (Result<(), NotAdmitted>, Instant)>;

pub struct Admission {
    reviews: Api<TokenReview>,
    manager: String,
    audience: String,
    remembered: Mutex<Remembered>,
    asking: Semaphore,
}

impl Admission {
    pub fn new(client: Client, manager: &ServiceAccount, node: &NodeName) -> Self {
        Self {
            reviews: Api::all(client),
            manager: manager.username(),
            audience: names::stream_audience(node.as_str()),
            remembered: Mutex::default(),
            asking: Semaphore::new(ASKED_AT_ONCE),
        }
    }

    /// Admits whoever has this `Authorization` header, or says why not.
    pub async fn admit(&self, authorization: Option<&str>) -> Result<(), NotAdmitted> {
        let token = authorization.and_then(|header| header.strip_prefix("Bearer ")).unwrap_or_default();
        if token.is_empty() || token.len() > TOKEN_BYTES {
            return Err(NotAdmitted::NoToken);
        }
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some(answer) = self.remembered(&key) {
            return answer;
        }
        let answer = match timeout(ASK_TIMEOUT, self.ask(token)).await {
            Ok(answer) => answer,
            Err(_) => Err(NotAdmitted::Unknown(format!("no answer within {ASK_TIMEOUT:?}"))),
        };
        let lifetime = match &answer {
            Ok(()) => ADMITTED_FOR,
            Err(NotAdmitted::Invalid | NotAdmitted::NotTheManager(_) | NotAdmitted::NoToken) => REFUSED_FOR,
            Err(NotAdmitted::Unknown(_)) => return answer,
        };
        self.remember(key, answer.clone(), Instant::now() + lifetime);
        answer
    }

    async fn ask(&self, token: &str) -> Result<(), NotAdmitted> {
        let unknown = |error: &dyn std::error::Error| NotAdmitted::Unknown(error.to_string());
        let _permit = self.asking.acquire().await.map_err(|error| unknown(&error))?;
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![self.audience.clone()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = self.reviews.create(&PostParams::default(), &review).await.map_err(|error| unknown(&error))?;
        judge(&answer.status.unwrap_or_default(), &self.manager, &self.audience)
    }

    fn remembered(&self, key: &[u8; 32]) -> Option<Result<(), NotAdmitted>> {
        let (answer, until) = self.remembered.lock().get(key).cloned()?;
        (Instant::now() < until).then_some(answer)
    }

    fn remember(&self, key: [u8; 32], answer: Result<(), NotAdmitted>, until: Instant) {
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED {
            let now = Instant::now();
            remembered.retain(|_, (_, until)| *until > now);
        }
        // A flood of wrong tokens does not displace the manager's.
        if remembered.len() >= REMEMBERED {
            remembered.retain(|_, (answer, _)| answer.is_ok());
        }
        if remembered.len() < REMEMBERED {
            remembered.insert(key, (answer, until));
        }
    }
}

fn judge(status: &TokenReviewStatus, manager: &str, audience: &str) -> Result<(), NotAdmitted> {
    // An API server that ignores audiences answers without them, and would accept any valid token.
    let meant = status.audiences.iter().flatten().any(|meant| meant == audience);
    if status.authenticated != Some(true) || !meant {
        return Err(NotAdmitted::Invalid);
    }
    let name = status.user.as_ref().and_then(|user| user.username.as_deref()).unwrap_or_default();
    if name == manager { Ok(()) } else { Err(NotAdmitted::NotTheManager(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use http_body_util::Full;
    use k8s_openapi::api::authentication::v1::UserInfo;
    use serde_json::json;

    use super::*;

    const MANAGER: &str = "system:serviceaccount:execlet:execlet-manager";

    fn answer(authenticated: bool, audiences: Option<&[&str]>, user: &str) -> TokenReviewStatus {
        TokenReviewStatus {
            authenticated: Some(authenticated),
            audiences: audiences.map(|all| all.iter().map(|one| (*one).to_owned()).collect()),
            user: Some(UserInfo { username: Some(user.to_owned()), ..UserInfo::default() }),
            ..TokenReviewStatus::default()
        }
    }

    #[test]
    fn only_the_managers_token_for_the_agent_of_this_node_is_admitted() {
        let other = "system:serviceaccount:shop:web";
        let rows = [
            (answer(true, Some(&["streams.execlet.dev/n1"]), MANAGER), Ok(())),
            (answer(true, Some(&["streams.execlet.dev/n1"]), other), Err(NotAdmitted::NotTheManager(other.to_owned()))),
            (answer(false, Some(&["streams.execlet.dev/n1"]), MANAGER), Err(NotAdmitted::Invalid)),
            // Of the agent of another node, and of one whose name begins like this one's.
            (answer(true, Some(&["streams.execlet.dev/n2"]), MANAGER), Err(NotAdmitted::Invalid)),
            (
                answer(true, Some(&["streams.execlet.dev/n10", "streams.execlet.dev"]), MANAGER),
                Err(NotAdmitted::Invalid),
            ),
            // The token of every pod, and an API server that does not know audiences.
            (answer(true, Some(&["https://kubernetes.default.svc"]), MANAGER), Err(NotAdmitted::Invalid)),
            (answer(true, Some(&[]), MANAGER), Err(NotAdmitted::Invalid)),
            (answer(true, None, MANAGER), Err(NotAdmitted::Invalid)),
            (TokenReviewStatus::default(), Err(NotAdmitted::Invalid)),
        ];
        for (status, expected) in rows {
            assert_eq!(judge(&status, MANAGER, "streams.execlet.dev/n1"), expected, "{status:?}");
        }
    }

    /// An API server that knows one token, and counts how often it is asked.
    fn api_server(asked: Arc<AtomicUsize>) -> Client {
        let answer = move |request: hyper::Request<kube::client::Body>| {
            let asked = Arc::clone(&asked);
            async move {
                asked.fetch_add(1, Ordering::Relaxed);
                let body = request.into_body().collect_bytes().await.expect("a body");
                let review: serde_json::Value = serde_json::from_slice(&body).expect("a review");
                let good = review["spec"]["token"] == "good";
                let answer = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {}, "status": {
                    "authenticated": good, "audiences": review["spec"]["audiences"], "user": {"username": MANAGER},
                }});
                let body = Full::new(bytes::Bytes::from(answer.to_string()));
                Ok::<_, std::convert::Infallible>(hyper::Response::new(body))
            }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    fn admission(asked: &Arc<AtomicUsize>) -> Admission {
        let manager = "execlet:execlet-manager".parse().expect("an account");
        Admission::new(api_server(Arc::clone(asked)), &manager, &"n1".into())
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_believed_for_a_while_and_asked_for_anew_after_it() {
        let asked = Arc::new(AtomicUsize::new(0));
        let admission = admission(&asked);
        for _ in 0..3 {
            assert_eq!(admission.admit(Some("Bearer good")).await, Ok(()));
            assert_eq!(admission.admit(Some("Bearer bad")).await, Err(NotAdmitted::Invalid));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        tokio::time::advance(ADMITTED_FOR).await;
        assert_eq!(admission.admit(Some("Bearer good")).await, Ok(()));
        assert_eq!(asked.load(Ordering::Relaxed), 3);
        for header in [None, Some(""), Some("Bearer "), Some("Basic good"), Some("good")] {
            assert_eq!(admission.admit(header).await, Err(NotAdmitted::NoToken), "{header:?}");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 3, "nobody is asked about no token");
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_tokens_by_the_thousand_neither_grow_memory_nor_displace_the_managers() {
        let asked = Arc::new(AtomicUsize::new(0));
        let admission = admission(&asked);
        assert_eq!(admission.admit(Some("Bearer good")).await, Ok(()));
        for number in 0..2000 {
            assert_eq!(admission.admit(Some(&format!("Bearer {number}"))).await, Err(NotAdmitted::Invalid));
        }
        assert!(admission.remembered.lock().len() <= REMEMBERED);
        assert_eq!(admission.admit(Some("Bearer good")).await, Ok(()));
        assert_eq!(asked.load(Ordering::Relaxed), 2001);
    }
}
