//! How many there may be of each kind.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;

#[derive(Clone, Debug)]
pub(crate) struct Quota<K> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
    most: usize,
}

/// Counts as one of its kind until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit<K: Hash + Eq> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
    kind: K,
}

impl<K: Hash + Eq + Clone> Quota<K> {
    pub(crate) fn new(most: usize) -> Self {
        Self { counts: Arc::default(), most }
    }

    pub(crate) fn enter(&self, kind: &K) -> Option<Permit<K>> {
        let mut counts = self.counts.lock();
        let count = counts.entry(kind.clone()).or_insert(0);
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Permit { counts: Arc::clone(&self.counts), kind: kind.clone() })
    }

    #[cfg(test)]
    pub(crate) fn kinds(&self) -> usize {
        self.counts.lock().len()
    }
}

impl<K: Hash + Eq> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.kind) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.kind);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_quota_and_is_forgotten_with_its_last() {
        let quota = Quota::new(2);
        let first = quota.enter(&"a");
        let second = quota.enter(&"a");
        assert!(first.is_some() && second.is_some());
        assert!(quota.enter(&"a").is_none());
        assert!(quota.enter(&"b").is_some());
        drop(first);
        assert!(quota.enter(&"a").is_some());
        drop(second);
        assert_eq!(quota.kinds(), 0);
    }
}
