//! Who runs next, and how much room is left for others.
//!
//! Namespaces take turns, and within each the requesters: whoever has the fewest running comes first, then whoever was
//! served longest ago. Of a requester the oldest request comes first that finds room in its container.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use k8s_openapi::jiff::Timestamp;

/// How many requests may run at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub node: usize,
    /// In one namespace.
    pub namespace: usize,
    /// In one container.
    pub container: usize,
    /// Percent of what the others leave that nobody takes: of the node's places no namespace, and of a namespace's and a
    /// container's no requester. So whoever comes next finds some, however long the others run.
    pub reserved_percent: usize,
}

impl Limits {
    /// How many of these places one may have of whose neighbours so many run: one at least, if there is one.
    fn share(self, places: usize, of_others: usize) -> usize {
        let left = places.saturating_sub(of_others);
        let reserved = (left * self.reserved_percent.min(100)).div_ceil(100);
        (left - reserved).max(left.min(1))
    }
}

/// Where a request runs, and whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub namespace: String,
    /// The pod's UID and the container's name.
    pub container: String,
    /// Name of the user.
    pub requester: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    pub place: Place,
    pub created: Timestamp,
    /// The request's UID: orders those created at the same time.
    pub uid: String,
    /// By when it must have started.
    pub deadline: Timestamp,
}

/// What a request waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Full {
    Node { most: usize },
    Namespace { name: String, running: usize, most: usize },
    RequesterInNamespace { name: String, running: usize, most: usize },
    Container { most: usize },
    RequesterInContainer { name: String, running: usize, most: usize },
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { most } => write!(f, "{most} commands run there, and no more may (--max-concurrent)"),
            Self::Namespace { name, running, most } => write!(
                f,
                "namespace {name} has {running} commands running there, and may have {most} (--max-concurrent-per-namespace, --reserved-percent)"
            ),
            Self::RequesterInNamespace { name, running, most } => {
                write!(
                    f,
                    "user {name} has {running} commands running there in this namespace, and may have {most} (--reserved-percent)"
                )
            }
            Self::Container { most } => {
                write!(f, "{most} commands run in its container, and no more may (--max-concurrent-per-container)")
            }
            Self::RequesterInContainer { name, running, most } => {
                write!(
                    f,
                    "user {name} has {running} commands running in its container, and may have {most} (--reserved-percent)"
                )
            }
        }
    }
}

#[derive(Debug)]
pub struct FairQueue<T> {
    limits: Limits,
    namespaces: BTreeMap<String, Lane<T>>,
    deadlines: BTreeSet<(Timestamp, Ticket)>,
    running: usize,
    waiting: usize,
    turn: u64,
}

/// One namespace.
#[derive(Debug)]
struct Lane<T> {
    requesters: BTreeMap<String, Line<T>>,
    /// How many run, by container and requester.
    containers: BTreeMap<String, BTreeMap<String, usize>>,
    running: usize,
    last_turn: u64,
}

/// By creation time and UID.
type Waiting<T> = BTreeMap<(Timestamp, String), (Ticket, T)>;

/// One requester in it.
#[derive(Debug)]
struct Line<T> {
    /// By container.
    waiting: BTreeMap<String, Waiting<T>>,
    running: usize,
    last_turn: u64,
}

impl<T> Lane<T> {
    /// Whoever comes anew comes after all that wait: else one that comes again and again would be first each time.
    fn new(last_turn: u64) -> Self {
        Self { requesters: BTreeMap::new(), containers: BTreeMap::new(), running: 0, last_turn }
    }

    fn line(&mut self, requester: &str, last_turn: u64) -> &mut Line<T> {
        let new = || Line { waiting: BTreeMap::new(), running: 0, last_turn };
        self.requesters.entry(requester.to_owned()).or_insert_with(new)
    }
}

impl<T> FairQueue<T> {
    pub fn new(limits: Limits) -> Self {
        Self { limits, namespaces: BTreeMap::new(), deadlines: BTreeSet::new(), running: 0, waiting: 0, turn: 0 }
    }

    fn lane(&mut self, namespace: &str) -> &mut Lane<T> {
        let turn = self.turn;
        self.namespaces.entry(namespace.to_owned()).or_insert_with(|| Lane::new(turn))
    }

    /// Adds a request; the same one twice counts once.
    pub fn push(&mut self, ticket: &Ticket, item: T) {
        let Place { namespace, container, requester } = &ticket.place;
        let turn = self.turn;
        let line = self.lane(namespace).line(requester, turn);
        let waiting = line.waiting.entry(container.clone()).or_default();
        match waiting.insert((ticket.created, ticket.uid.clone()), (ticket.clone(), item)) {
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
        let ready = self.namespaces.iter().filter_map(|(name, lane)| Some((lane, self.next_of(name, lane)?)));
        let (_, ticket) = ready.min_by_key(|(lane, _)| (lane.running, lane.last_turn))?;
        let ticket = ticket.clone();
        self.turn += 1;
        let turn = self.turn;
        let lane = self.lane(&ticket.place.namespace);
        lane.last_turn = turn;
        lane.line(&ticket.place.requester, turn).last_turn = turn;
        self.take(&ticket)
    }

    /// The next of a namespace that finds room.
    fn next_of<'a>(&self, namespace: &str, lane: &'a Lane<T>) -> Option<&'a Ticket> {
        if lane.running >= self.most_of_namespace(lane.running) {
            return None;
        }
        let next = lane.requesters.iter().filter_map(|(requester, line)| {
            let oldest = line.waiting.iter().filter_map(|(container, waiting)| {
                let (key, (ticket, _)) = waiting.first_key_value()?;
                let full = self.full(namespace, container, requester);
                full.is_none().then_some((key, ticket))
            });
            Some((line, oldest.min_by_key(|(key, _)| *key)?.1))
        });
        next.min_by_key(|(line, _)| (line.running, line.last_turn)).map(|(_, ticket)| ticket)
    }

    /// What keeps a request of this place from running, however long it has waited.
    pub fn what_is_full(&self, place: &Place) -> Option<Full> {
        self.full(&place.namespace, &place.container, &place.requester)
    }

    fn full(&self, namespace: &str, container: &str, requester: &str) -> Option<Full> {
        let Limits { node, container: in_container, .. } = self.limits;
        if self.running >= node {
            return Some(Full::Node { most: node });
        }
        let lane = self.namespaces.get(namespace);
        let running = lane.map_or(0, |lane| lane.running);
        let most = self.most_of_namespace(running);
        if running >= most {
            return Some(Full::Namespace { name: namespace.to_owned(), running, most });
        }
        let name = || requester.to_owned();
        let own = lane.and_then(|lane| lane.requesters.get(requester)).map_or(0, |line| line.running);
        let share = self.limits.share(most, running - own);
        if own >= share {
            return Some(Full::RequesterInNamespace { name: name(), running: own, most: share });
        }
        let there = lane.and_then(|lane| lane.containers.get(container));
        let running: usize = there.map_or(0, |there| there.values().sum());
        if running >= in_container {
            return Some(Full::Container { most: in_container });
        }
        let own = there.and_then(|there| there.get(requester)).map_or(0, |own| *own);
        let share = self.limits.share(in_container, running - own);
        (own >= share).then(|| Full::RequesterInContainer { name: name(), running: own, most: share })
    }

    fn most_of_namespace(&self, running: usize) -> usize {
        self.limits.namespace.min(self.limits.share(self.limits.node, self.running.saturating_sub(running)))
    }

    /// One whose deadline has passed while it waited, and what it waited for. It counts as running even beyond the limits:
    /// all that is left to do is to report it.
    pub fn pop_expired(&mut self, now: Timestamp) -> Option<(T, Option<Full>)> {
        let (deadline, ticket) = self.deadlines.first()?;
        if *deadline > now {
            return None;
        }
        let ticket = ticket.clone();
        let full = self.what_is_full(&ticket.place);
        Some((self.take(&ticket)?, full))
    }

    /// Takes one out of turn. It counts as running even beyond the limits.
    pub fn take(&mut self, ticket: &Ticket) -> Option<T> {
        let Place { namespace, container, requester } = &ticket.place;
        let line = self.namespaces.get_mut(namespace)?.requesters.get_mut(requester)?;
        let waiting = line.waiting.get_mut(container)?;
        let (ticket, item) = waiting.remove(&(ticket.created, ticket.uid.clone()))?;
        if waiting.is_empty() {
            line.waiting.remove(container);
        }
        self.waiting -= 1;
        self.admit(&ticket.place);
        self.deadlines.remove(&(ticket.deadline, ticket));
        Some(item)
    }

    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(deadline, ..)| *deadline)
    }

    /// Counts one that runs already, even beyond the limits.
    pub fn admit(&mut self, place: &Place) {
        let turn = self.turn;
        let lane = self.lane(&place.namespace);
        lane.running += 1;
        lane.line(&place.requester, turn).running += 1;
        let there = lane.containers.entry(place.container.clone()).or_default();
        *there.entry(place.requester.clone()).or_default() += 1;
        self.running += 1;
    }

    /// Call when one has ended.
    pub fn done(&mut self, place: &Place) {
        self.running = self.running.saturating_sub(1);
        let Some(lane) = self.namespaces.get_mut(&place.namespace) else { return };
        lane.running = lane.running.saturating_sub(1);
        if let Some(there) = lane.containers.get_mut(&place.container) {
            there.entry(place.requester.clone()).and_modify(|running| *running = running.saturating_sub(1));
            there.retain(|_, running| *running > 0);
            if there.is_empty() {
                lane.containers.remove(&place.container);
            }
        }
        if let Some(line) = lane.requesters.get_mut(&place.requester) {
            line.running = line.running.saturating_sub(1);
            if line.running == 0 && line.waiting.is_empty() {
                lane.requesters.remove(&place.requester);
            }
        }
        if lane.requesters.is_empty() {
            self.namespaces.remove(&place.namespace);
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
#[path = "queue_tests.rs"]
mod tests;
