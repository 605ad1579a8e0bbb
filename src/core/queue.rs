//! Who runs next: in turn over namespaces, oldest first within one.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

/// Requests that wait for a free place on this node.
///
/// The namespace with the fewest running comes first, then the one that was
/// served longest ago; so a namespace that fills the queue delays only itself.
#[derive(Debug)]
pub struct FairQueue<T> {
    limit: usize,
    namespaces: BTreeMap<String, Lane<T>>,
    running: usize,
    turn: u64,
}

#[derive(Debug)]
struct Lane<T> {
    waiting: BTreeMap<(Timestamp, String), T>,
    running: usize,
    last_turn: u64,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), running: 0, last_turn: 0 }
    }
}

impl<T> FairQueue<T> {
    /// At most `limit` run at a time.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, namespaces: BTreeMap::new(), running: 0, turn: 0 }
    }

    /// Adds one, in its place by creation time, then UID. The same one twice is one.
    pub fn push(&mut self, namespace: &str, created: Timestamp, uid: &str, item: T) {
        self.namespaces.entry(namespace.to_owned()).or_default().waiting.insert((created, uid.to_owned()), item);
    }

    /// The next to run, if there is a free place. Say [`FairQueue::done`] when it has ended.
    pub fn pop(&mut self) -> Option<T> {
        if self.running >= self.limit {
            return None;
        }
        let lane = self
            .namespaces
            .values_mut()
            .filter(|lane| !lane.waiting.is_empty())
            .min_by_key(|lane| (lane.running, lane.last_turn))?;
        let (_, item) = lane.waiting.pop_first()?;
        self.turn += 1;
        lane.last_turn = self.turn;
        lane.running += 1;
        self.running += 1;
        Some(item)
    }

    /// One that runs already takes a place, whether one is free or not.
    pub fn admit(&mut self, namespace: &str) {
        self.namespaces.entry(namespace.to_owned()).or_default().running += 1;
        self.running += 1;
    }

    /// One of this namespace has ended.
    pub fn done(&mut self, namespace: &str) {
        self.running = self.running.saturating_sub(1);
        if let Some(lane) = self.namespaces.get_mut(namespace) {
            lane.running = lane.running.saturating_sub(1);
            if lane.running == 0 && lane.waiting.is_empty() {
                self.namespaces.remove(namespace);
            }
        }
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.namespaces.values().map(|lane| lane.waiting.len()).sum()
    }

    /// How many run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_flood_in_one_namespace_delays_only_itself() {
        let mut queue = FairQueue::new(2);
        for n in 0..100 {
            queue.push("flood", at(n), &format!("f{n}"), format!("flood-{n}"));
        }
        queue.push("quiet", at(1000), "q", "quiet-0".to_owned());
        assert_eq!(queue.pop().as_deref(), Some("flood-0"));
        assert_eq!(queue.pop().as_deref(), Some("quiet-0"));
    }

    #[test]
    fn within_a_namespace_the_oldest_is_first() {
        let mut queue = FairQueue::new(10);
        queue.push("a", at(2), "x", 2);
        queue.push("a", at(1), "y", 1);
        queue.push("a", at(2), "w", 3);
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some(1), Some(3), Some(2)]);
    }

    #[test]
    fn no_more_run_than_the_limit() {
        let mut queue = FairQueue::new(1);
        queue.push("a", at(1), "x", 1);
        queue.push("b", at(1), "y", 2);
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(queue.pop(), None);
        queue.done("a");
        assert_eq!(queue.pop(), Some(2));
        assert_eq!((queue.running(), queue.waiting()), (1, 0));
    }

    #[test]
    fn namespaces_take_turns() {
        let mut queue = FairQueue::new(1);
        for n in 0..2 {
            queue.push("a", at(n), &format!("a{n}"), "a");
            queue.push("b", at(n), &format!("b{n}"), "b");
        }
        let mut order = Vec::new();
        while let Some(namespace) = queue.pop() {
            order.push(namespace);
            queue.done(namespace);
        }
        assert_eq!(order, ["a", "b", "a", "b"]);
    }

    #[test]
    fn the_namespace_with_the_fewest_running_comes_first() {
        let mut queue = FairQueue::new(3);
        for n in 0..2 {
            queue.push("long", at(n), &format!("l{n}"), "long");
            queue.push("short", at(n), &format!("s{n}"), "short");
        }
        assert_eq!([queue.pop(), queue.pop()], [Some("long"), Some("short")]);
        queue.done("short");
        assert_eq!(queue.pop(), Some("short"), "though it was served last");
    }

    #[test]
    fn one_that_runs_already_takes_a_place_beyond_the_limit() {
        let mut queue = FairQueue::new(1);
        queue.admit("a");
        queue.admit("a");
        queue.push("b", at(1), "x", ());
        assert_eq!((queue.pop(), queue.running()), (None, 2));
        queue.done("a");
        assert_eq!(queue.pop(), None);
        queue.done("a");
        assert_eq!(queue.pop(), Some(()));
    }

    #[test]
    fn the_same_request_twice_is_one() {
        let mut queue = FairQueue::new(10);
        queue.push("a", at(1), "x", 1);
        queue.push("a", at(1), "x", 1);
        assert_eq!(queue.waiting(), 1);
    }
}
