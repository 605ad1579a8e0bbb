//! What a watch has told of the unfinished children of all batches: where each stands, and not what it holds. Of one that has
//! ended, or is gone, nothing is kept: a look tells which.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use super::{sweep::batch_of, world::Plans};
use crate::{
    api::ExecRequest,
    core::{
        batch::seen::{Children, Seen},
        ids::BatchKey,
    },
};

#[derive(Clone, Debug, Default)]
pub struct Cache(Arc<Mutex<BTreeMap<BatchKey, Plans>>>);

impl Cache {
    /// Whose batch it was.
    pub fn note(&self, child: &ExecRequest) -> Option<BatchKey> {
        let (key, plan, index) = place_of(child)?;
        let mut all = self.0.lock();
        all.entry(key.clone()).or_default().entry(plan).or_default().insert(index, Seen::of(child));
        Some(key)
    }

    /// A filtered watch tells of one that has ended as of one that is gone. Of an older one nothing is forgotten that has
    /// its name now.
    pub fn forget(&self, child: &ExecRequest) -> Option<BatchKey> {
        let (key, plan, index) = place_of(child)?;
        let mut all = self.0.lock();
        if let Some(plans) = all.get_mut(&key) {
            if let Some(children) = plans.get_mut(&plan)
                && children.get(&index).is_some_and(|seen| Some(&seen.uid) == child.metadata.uid.as_ref())
            {
                children.remove(&index);
            }
            plans.retain(|_, children| !children.is_empty());
            if plans.is_empty() {
                all.remove(&key);
            }
        }
        Some(key)
    }

    /// A watch begins anew, with a list of all.
    pub fn replace(&self, with: &Self) {
        let with = std::mem::take(&mut *with.0.lock());
        *self.0.lock() = with;
    }

    pub fn all(&self) -> BTreeMap<BatchKey, Plans> {
        self.0.lock().clone()
    }

    pub fn children(&self, key: &BatchKey, plan: i64) -> Children {
        self.0.lock().get(key).and_then(|plans| plans.get(&plan)).cloned().unwrap_or_default()
    }
}

fn place_of(child: &ExecRequest) -> Option<(BatchKey, i64, u16)> {
    let place = child.spec.batch.as_ref()?;
    Some((batch_of(child)?, place.plan, u16::try_from(place.index).ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn child(uid: &str, plan: i64, index: i32) -> ExecRequest {
        serde_json::from_value(json!({
            "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
            "metadata": {"name": format!("b-x-{index}"), "namespace": "shop", "uid": uid},
            "spec": {"target": {"podName": "web"}, "command": ["true"],
                "batch": {"name": "b", "uid": "batch-1", "plan": plan, "index": index}},
        }))
        .expect("a request")
    }

    #[test]
    fn the_children_of_a_plan_are_known_until_they_are_gone() {
        let cache = Cache::default();
        let key = cache.note(&child("one", 1, 0)).expect("a batch");
        cache.note(&child("two", 1, 3));
        cache.note(&child("older", 0, 0));
        assert_eq!(cache.children(&key, 1).keys().copied().collect::<Vec<_>>(), [0, 3]);
        cache.forget(&child("an-older-one-of-this-name", 1, 0));
        assert_eq!(cache.children(&key, 1).len(), 2);
        cache.forget(&child("one", 1, 0));
        assert_eq!(cache.children(&key, 1).keys().copied().collect::<Vec<_>>(), [3]);
        let listed = Cache::default();
        listed.note(&child("three", 2, 7));
        cache.replace(&listed);
        assert_eq!((cache.children(&key, 1).len(), cache.children(&key, 2).len()), (0, 1));
        cache.forget(&child("three", 2, 7));
        assert!(cache.0.lock().is_empty(), "nothing is kept of a batch without children");
    }

    #[test]
    fn a_request_without_a_batch_is_nobodys_child() {
        let mut single = child("one", 1, 0);
        single.spec.batch = None;
        assert_eq!(Cache::default().note(&single), None);
    }
}
