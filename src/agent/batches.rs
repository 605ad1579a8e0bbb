//! The batches of requests that are to be prepared, each read anew.
//!
//! A node may prepare many requests of one batch at once: they share one read of it, which began after each of them asked.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    api::{BatchReference, ExecBatch, Requester},
    core::access::Right,
    infra::batches,
};

/// Namespace, name and UID.
type Key = [String; 3];
/// The batch, if there is one. Or why it is not known.
type Found = Result<Option<Arc<ExecBatch>>, String>;
/// When the last read began, and what it found. Locked during a read.
type Last = tokio::sync::Mutex<Option<(Instant, Found)>>;

pub struct Batches<B> {
    edge: B,
    /// Those that somebody waits for now.
    reads: Mutex<HashMap<Key, Arc<Last>>>,
}

impl<B: batches::Batches> Batches<B> {
    pub fn new(edge: B) -> Self {
        Self { edge, reads: Mutex::default() }
    }

    /// The batch that has the name now, whichever UID it has.
    pub(super) async fn read(&self, namespace: &str, place: &BatchReference) -> Found {
        let asked = Instant::now();
        let key = [namespace, &place.name, &place.uid].map(str::to_owned);
        let last = Arc::clone(self.reads.lock().entry(key.clone()).or_default());
        let found = {
            let mut last = last.lock().await;
            if let Some((_, found)) = last.as_ref().filter(|(begun, _)| *begun >= asked) {
                found.clone()
            } else {
                let begun = Instant::now();
                let found = self.edge.get(namespace, &place.name).await;
                let found = found.map(|batch| batch.map(Arc::new)).map_err(|error| error.to_string());
                last.insert((begun, found)).1.clone()
            }
        };
        let mut reads = self.reads.lock();
        // The map's and this one's: nobody else waits.
        if Arc::strong_count(&last) == 2 {
            reads.remove(&key);
        }
        found
    }

    pub(super) async fn lacks(&self, who: &Requester, rights: &[Right]) -> Result<Option<Right>, String> {
        self.edge.lacks(who, rights).await.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use tokio::time::sleep;

    use super::*;
    use crate::infra::call::ApiError;

    /// Answers after a while, and fails on the second read.
    #[derive(Default)]
    struct Slow(AtomicUsize);

    impl batches::Batches for Slow {
        async fn get(&self, _: &str, name: &str) -> Result<Option<ExecBatch>, ApiError> {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_secs(1)).await;
            let after = Duration::from_secs(1);
            if number == 1 { Err(ApiError::Timeout { call: format!("get {name}"), after }) } else { Ok(None) }
        }

        async fn lacks(&self, _: &Requester, _: &[Right]) -> Result<Option<Right>, ApiError> {
            Ok(None)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_while_a_batch_is_read_waits_for_the_next_read_and_shares_it() {
        let batches = Batches::new(Slow::default());
        let place = BatchReference { name: "b".to_owned(), uid: "u".to_owned(), plan: 1, index: 0 };
        let other = BatchReference { name: "c".to_owned(), ..place.clone() };
        let later = async |place: &BatchReference| {
            sleep(Duration::from_millis(500)).await;
            batches.read("shop", place).await
        };
        let all = tokio::join!(batches.read("shop", &place), later(&place), later(&place), later(&place));
        assert!(all.0.is_ok() && [all.1, all.2, all.3].iter().all(Result::is_err), "one failed for all that shared it");
        assert_eq!(batches.edge.0.load(Ordering::Relaxed), 2);
        assert!(batches.read("shop", &other).await.is_ok());
        assert!(batches.reads.lock().is_empty(), "nothing is kept");
    }
}
