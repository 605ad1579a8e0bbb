//! Who runs next: round robin over namespaces, oldest first within one, up to the
//! limits of the node, of each namespace and of each container.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

/// How many requests may run at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub node: usize,
    /// In one namespace.
    pub namespace: usize,
    /// In one container.
    pub container: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    pub namespace: String,
    /// The pod's UID and the container's name.
    pub container: String,
    pub created: Timestamp,
    /// The request's UID: orders those created at the same time.
    pub uid: String,
    /// By when it must have started.
    pub deadline: Timestamp,
}

/// The namespace with the fewest running comes first, then the one served longest
/// ago: a namespace that fills the queue delays only itself, and so does a container
/// within its namespace.
#[derive(Debug)]
pub struct FairQueue<T> {
    limits: Limits,
    namespaces: BTreeMap<String, Lane<T>>,
    deadlines: BTreeSet<(Timestamp, Ticket)>,
    running: usize,
    waiting: usize,
    turn: u64,
}

#[derive(Debug)]
struct Lane<T> {
    containers: BTreeMap<String, Container<T>>,
    running: usize,
    last_turn: u64,
}

/// The requests of one container, oldest first.
#[derive(Debug)]
struct Container<T> {
    /// By creation time and UID.
    waiting: BTreeMap<(Timestamp, String), (Ticket, T)>,
    running: usize,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { containers: BTreeMap::new(), running: 0, last_turn: 0 }
    }
}

impl<T> Default for Container<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), running: 0 }
    }
}

impl<T> Lane<T> {
    /// The oldest of those that may run.
    fn next(&self, limits: Limits) -> Option<&Ticket> {
        if self.running >= limits.namespace {
            return None;
        }
        let free = self.containers.values().filter(|container| container.running < limits.container);
        let oldest = free.filter_map(|container| container.waiting.first_key_value());
        oldest.min_by_key(|(key, _)| *key).map(|(_, (ticket, _))| ticket)
    }
}

impl<T> FairQueue<T> {
    pub fn new(limits: Limits) -> Self {
        Self { limits, namespaces: BTreeMap::new(), deadlines: BTreeSet::new(), running: 0, waiting: 0, turn: 0 }
    }

    /// Adds a request; the same one twice counts once.
    pub fn push(&mut self, ticket: &Ticket, item: T) {
        let lane = self.namespaces.entry(ticket.namespace.clone()).or_default();
        let container = lane.containers.entry(ticket.container.clone()).or_default();
        let key = (ticket.created, ticket.uid.clone());
        match container.waiting.insert(key, (ticket.clone(), item)) {
            Some((before, _)) => drop(self.deadlines.remove(&(before.deadline, before))),
            None => self.waiting += 1,
        }
        self.deadlines.insert((ticket.deadline, ticket.clone()));
    }

    /// The next to run, if there is room for it. Call [`FairQueue::done`] when it has ended.
    pub fn pop(&mut self) -> Option<T> {
        if self.running >= self.limits.node {
            return None;
        }
        let ready = self.namespaces.values().filter_map(|lane| Some((lane, lane.next(self.limits)?)));
        let (_, ticket) = ready.min_by_key(|(lane, _)| (lane.running, lane.last_turn))?;
        let ticket = ticket.clone();
        self.turn += 1;
        if let Some(lane) = self.namespaces.get_mut(&ticket.namespace) {
            lane.last_turn = self.turn;
        }
        self.take(&ticket)
    }

    /// One whose deadline has passed while it waited. It counts as running even beyond the limits:
    /// all that is left to do is to report it.
    pub fn pop_expired(&mut self, now: Timestamp) -> Option<T> {
        let (deadline, ticket) = self.deadlines.first()?;
        if *deadline > now {
            return None;
        }
        let ticket = ticket.clone();
        self.take(&ticket)
    }

    /// Takes one out of turn. It counts as running even beyond the limits.
    pub fn take(&mut self, ticket: &Ticket) -> Option<T> {
        let lane = self.namespaces.get_mut(&ticket.namespace)?;
        let container = lane.containers.get_mut(&ticket.container)?;
        let (ticket, item) = container.waiting.remove(&(ticket.created, ticket.uid.clone()))?;
        self.waiting -= 1;
        self.admit(&ticket.namespace, &ticket.container);
        self.deadlines.remove(&(ticket.deadline, ticket));
        Some(item)
    }

    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(deadline, ..)| *deadline)
    }

    /// Counts one that runs already, even beyond the limits.
    pub fn admit(&mut self, namespace: &str, container: &str) {
        let lane = self.namespaces.entry(namespace.to_owned()).or_default();
        lane.running += 1;
        lane.containers.entry(container.to_owned()).or_default().running += 1;
        self.running += 1;
    }

    /// Call when one has ended.
    pub fn done(&mut self, namespace: &str, container: &str) {
        self.running = self.running.saturating_sub(1);
        let Some(lane) = self.namespaces.get_mut(namespace) else { return };
        lane.running = lane.running.saturating_sub(1);
        if let Some(place) = lane.containers.get_mut(container) {
            place.running = place.running.saturating_sub(1);
            if place.running == 0 && place.waiting.is_empty() {
                lane.containers.remove(container);
            }
        }
        if lane.running == 0 && lane.containers.values().all(|place| place.waiting.is_empty()) {
            self.namespaces.remove(namespace);
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn running(&self) -> usize {
        self.running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LIMITS: Limits = Limits { node: 1000, namespace: 1000, container: 1000 };

    fn node(limit: usize) -> Limits {
        Limits { node: limit, ..NO_LIMITS }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    fn ticket(namespace: &str, container: &str, second: i64, uid: &str) -> Ticket {
        Ticket {
            namespace: namespace.to_owned(),
            container: container.to_owned(),
            created: at(second),
            uid: uid.to_owned(),
            deadline: at(second + 60),
        }
    }

    fn push<T>(queue: &mut FairQueue<T>, namespace: &str, second: i64, uid: &str, item: T) {
        queue.push(&ticket(namespace, "c", second, uid), item);
    }

    #[test]
    fn a_flood_in_one_namespace_delays_only_itself() {
        let mut queue = FairQueue::new(node(2));
        for n in 0..100 {
            push(&mut queue, "flood", n, &format!("f{n}"), format!("flood-{n}"));
        }
        push(&mut queue, "quiet", 1000, "q", "quiet-0".to_owned());
        assert_eq!(queue.pop().as_deref(), Some("flood-0"));
        assert_eq!(queue.pop().as_deref(), Some("quiet-0"));
    }

    #[test]
    fn within_a_namespace_the_oldest_is_first() {
        let mut queue = FairQueue::new(NO_LIMITS);
        push(&mut queue, "a", 2, "x", 2);
        push(&mut queue, "a", 1, "y", 1);
        push(&mut queue, "a", 2, "w", 3);
        queue.push(&ticket("a", "other", 0, "z"), 0);
        assert_eq!([queue.pop(), queue.pop(), queue.pop(), queue.pop()], [Some(0), Some(1), Some(3), Some(2)]);
    }

    #[test]
    fn no_more_run_than_the_limit() {
        let mut queue = FairQueue::new(node(1));
        push(&mut queue, "a", 1, "x", 1);
        push(&mut queue, "b", 1, "y", 2);
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(queue.pop(), None);
        queue.done("a", "c");
        assert_eq!(queue.pop(), Some(2));
        assert_eq!((queue.running(), queue.waiting()), (1, 0));
    }

    #[test]
    fn no_more_of_a_namespace_run_than_its_limit_and_the_others_go_on() {
        let mut queue = FairQueue::new(Limits { namespace: 1, ..NO_LIMITS });
        push(&mut queue, "a", 1, "x", 1);
        push(&mut queue, "a", 2, "y", 2);
        push(&mut queue, "b", 3, "z", 3);
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some(1), Some(3), None]);
        queue.done("a", "c");
        assert_eq!(queue.pop(), Some(2));
    }

    #[test]
    fn a_busy_container_does_not_hold_up_the_others_of_its_namespace() {
        let mut queue = FairQueue::new(Limits { container: 1, ..NO_LIMITS });
        for n in 0..3 {
            queue.push(&ticket("a", "busy", n, &format!("b{n}")), n);
        }
        queue.push(&ticket("a", "quiet", 10, "q"), 10);
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some(0), Some(10), None]);
        queue.done("a", "busy");
        assert_eq!(queue.pop(), Some(1));
    }

    #[test]
    fn namespaces_take_turns() {
        let mut queue = FairQueue::new(node(1));
        for n in 0..2 {
            push(&mut queue, "a", n, &format!("a{n}"), "a");
            push(&mut queue, "b", n, &format!("b{n}"), "b");
        }
        let mut order = Vec::new();
        while let Some(namespace) = queue.pop() {
            order.push(namespace);
            queue.done(namespace, "c");
        }
        assert_eq!(order, ["a", "b", "a", "b"]);
    }

    #[test]
    fn the_namespace_with_the_fewest_running_comes_first() {
        let mut queue = FairQueue::new(node(3));
        for n in 0..2 {
            push(&mut queue, "long", n, &format!("l{n}"), "long");
            push(&mut queue, "short", n, &format!("s{n}"), "short");
        }
        assert_eq!([queue.pop(), queue.pop()], [Some("long"), Some("short")]);
        queue.done("short", "c");
        assert_eq!(queue.pop(), Some("short"), "though it was served last");
    }

    #[test]
    fn one_that_runs_already_takes_a_place_beyond_the_limit() {
        let mut queue = FairQueue::new(node(1));
        queue.admit("a", "c");
        queue.admit("a", "c");
        push(&mut queue, "b", 1, "x", ());
        assert_eq!((queue.pop(), queue.running()), (None, 2));
        queue.done("a", "c");
        assert_eq!(queue.pop(), None);
        queue.done("a", "c");
        assert_eq!(queue.pop(), Some(()));
    }

    #[test]
    fn the_same_request_twice_is_one() {
        let mut queue = FairQueue::new(NO_LIMITS);
        push(&mut queue, "a", 1, "x", 1);
        push(&mut queue, "a", 1, "x", 1);
        assert_eq!(queue.waiting(), 1);
    }

    #[test]
    fn one_that_waits_past_its_deadline_is_given_out_though_no_place_is_free() {
        let mut queue = FairQueue::new(node(0));
        push(&mut queue, "a", 1, "x", 1);
        push(&mut queue, "a", 0, "y", 0);
        assert_eq!(queue.next_deadline(), Some(at(60)));
        assert_eq!(queue.pop_expired(at(59)), None);
        assert_eq!([queue.pop_expired(at(60)), queue.pop_expired(at(60))], [Some(0), None]);
        assert_eq!((queue.waiting(), queue.running()), (1, 1));
    }

    #[test]
    fn one_that_is_canceled_need_not_wait_for_its_turn() {
        let mut queue = FairQueue::new(node(0));
        push(&mut queue, "a", 1, "x", 1);
        assert_eq!(queue.take(&ticket("a", "c", 1, "x")), Some(1));
        assert_eq!(queue.take(&ticket("a", "c", 1, "x")), None);
        assert_eq!((queue.waiting(), queue.next_deadline()), (0, None));
    }
}
