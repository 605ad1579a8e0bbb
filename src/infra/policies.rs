//! The admission policies as the API server has them, and since when the manager has seen them stand.

use std::{future::Future, time::Duration};

use futures::future::try_join_all;
use k8s_openapi::{api::coordination::v1::Lease, jiff::SignedDuration};
use kube::{
    Api, Client,
    core::{DynamicObject, ObjectMeta},
};
use tokio::time::{sleep, timeout};

use crate::{
    api::names,
    core::admission::{Admission, Expected, Mode, Record},
    infra::call::words,
};

pub const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before a read is repeated that the API server has refused for now.
const RETRY: Duration = Duration::from_millis(300);

#[derive(Clone, Debug)]
pub struct Rules {
    pub mode: Mode,
    pub expected: Vec<Expected>,
    /// How long they must have stood before they count.
    pub margin: Duration,
}

impl Rules {
    /// Judges by `look`, which gives the record of the policies, or why they do not stand.
    pub async fn judge(&self, look: impl Future<Output = Result<Record, String>>) -> Admission {
        let margin = SignedDuration::try_from(self.margin).unwrap_or(SignedDuration::MAX);
        match timeout(LOOK_TIMEOUT, look).await {
            Ok(Ok(record)) => Admission::since(&record, margin),
            Ok(Err(why)) => Admission::Broken(why),
            Err(_) => Admission::Broken("the API server did not give the admission policies in time".to_owned()),
        }
    }
}

#[derive(Clone)]
pub struct Policies {
    client: Client,
    namespace: String,
}

impl Policies {
    /// `namespace` is that of the manager's Lease.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned() }
    }

    pub async fn stand(&self, expected: &[Expected]) -> Result<Vec<ObjectMeta>, String> {
        try_join_all(expected.iter().map(|expected| self.stands(expected))).await
    }

    async fn stands(&self, expected: &Expected) -> Result<ObjectMeta, String> {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &expected.resource);
        let found = read(|| api.get_opt(&expected.name))
            .await
            .map_err(|error| format!("{expected} cannot be read: {}", words(&error)))?;
        expected.check(found.as_ref())?;
        Ok(found.map(|object| object.metadata).unwrap_or_default())
    }

    /// The record in the manager's Lease. One that cannot be read counts as none.
    pub async fn recorded(&self) -> Result<Option<Record>, String> {
        let leases = self.leases();
        let lease = read(|| leases.get_opt(names::LEADER_LEASE)).await;
        let lease =
            lease.map_err(|error| format!("Lease {} cannot be read: {}", names::LEADER_LEASE, words(&error)))?;
        let text = lease.and_then(|lease| lease.metadata.annotations?.remove(names::POLICIES_ANNOTATION));
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// The record is in one of these.
    pub fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// Repeats a read while the API server is too busy, or is about to start: that says nothing of the policies. Whoever looks
/// does not wait for ever.
async fn read<T, F>(call: impl Fn() -> F) -> Result<T, kube::Error>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    loop {
        match call().await {
            Err(kube::Error::Api(status)) if is_for_now(status.code) => sleep(RETRY).await,
            done => return done,
        }
    }
}

const fn is_for_now(code: u16) -> bool {
    matches!(code, 429 | 500 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use std::{
        future::ready,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::infra::call::refused;

    /// How often it was read until the end was known.
    async fn reads_of(code: u16) -> usize {
        let reads = AtomicUsize::new(0);
        let answer = || {
            ready(match reads.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => Err(refused(code)),
                _ => Ok(()),
            })
        };
        drop(read(answer).await);
        reads.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_for_now_is_read_again_and_what_is_refused_for_good_is_not() {
        for code in [429, 500, 503, 504] {
            assert_eq!(reads_of(code).await, 3, "{code}");
        }
        for code in [401, 403, 404, 422] {
            assert_eq!(reads_of(code).await, 1, "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_at_a_server_that_is_always_too_busy_ends() {
        let rules = Rules { mode: Mode::Guarded, expected: Vec::new(), margin: Duration::ZERO };
        let look = async { read(|| ready(Err::<Record, _>(refused(429)))).await.map_err(|error| error.to_string()) };
        assert!(matches!(rules.judge(look).await, Admission::Broken(why) if why.contains("in time")));
    }
}
