//! Desk: the requests of this node that are in hand, and which of them runs when.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt as _};
use k8s_openapi::jiff::Timestamp;
use kube::{Resource as _, core::error_boundary::InvalidObject, runtime::watcher};
use tokio::{
    sync::watch,
    task::{Id, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{refuse::refuse_unreadable, watch::Event};
use crate::{
    agent::{
        command::running::News,
        memory::{exec_exits::AwaitedExit, record::Record},
        node::{Node, World},
        request::work::Work,
    },
    api::ExecRequest,
    core::{
        entry::Entry,
        ids::{RequestKey, RequestUid},
        queue::{FairQueue, Full, Limits, Place, Ticket},
        request::{is_wanted, key_of, starting_deadline},
    },
    infra::health::Readiness,
};

/// Name in `/readyz`.
pub const CHECK: &str = "watch";
/// How many requests are remembered after their end: a late event of one is checked before it is believed.
const REMEMBERED: usize = 4096;
/// How many that passed their deadline in the queue are dealt with at a time, beyond the limits.
const EXPIRED_AT_ONCE: usize = 16;

/// How long it waits for an event at most before it looks at the deadlines again.
const IDLE: Duration = Duration::from_secs(60);

/// How often an agent that stops looks whether its successor is there.
const LOOK_FOR_SUCCESSOR: Duration = Duration::from_millis(50);
/// How long commands whose output has all come may take to report it before the others are handed over.
const LAST_REPORTS: Duration = Duration::from_secs(3);
/// How long the rest may take once all streams are handed over: nobody reads them until this agent has ended.
const HANDED_OVER: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug)]
pub struct Intake {
    pub limits: Limits,
    /// How long, once told to stop, it goes on with what runs.
    pub drain: Duration,
}

struct Desk<W: World> {
    node: Arc<Node<W>>,
    queue: FairQueue<Waiting>,
    /// Those that wait for a client with their input: not for a turn yet.
    parked: FairQueue<Waiting>,
    /// Each returns the resource versions whose watch events are to be ignored.
    tasks: JoinSet<Vec<String>>,
    running: HashMap<Id, Running>,
    known: BTreeMap<RequestUid, Known>,
    ended: Ended,
    expired: usize,
    /// Records that the journal had at the start, and that nobody has taken up yet. What runs is taken up at once: the API
    /// server may be away.
    remembered: BTreeMap<String, Record>,
    /// Waits for the exits of their execs, which would be forgotten until then.
    exec_exits: Vec<AwaitedExit>,
    /// The requests in the list that is being read, after the watch broke.
    listed: Option<HashSet<RequestUid>>,
}

/// A request that waits. Its object is read when its turn comes: ten thousand that wait take little memory.
struct Waiting {
    key: RequestKey,
    ticket: Ticket,
    /// The object, if its turn may come at once. It is large, and most that wait have none.
    seen: Option<Box<ExecRequest>>,
}

/// Why one runs.
enum Turn {
    /// Its turn came, or it needs none.
    Came,
    /// Its deadline has passed, and perhaps something was full.
    Missed(Option<Full>),
}

struct Running {
    key: RequestKey,
    place: Place,
    expired: bool,
}

enum Known {
    Waiting(Ticket),
    Running(watch::Sender<News>),
}

#[derive(Default)]
struct Ended {
    order: VecDeque<RequestUid>,
    all: HashSet<RequestUid>,
}

/// Works on what the events tell of until told to stop, then goes on with what runs for at most `intake.drain`.
pub async fn run<W: World>(
    node: Arc<Node<W>>,
    mut events: impl Stream<Item = Result<Event, String>> + Send + Unpin,
    intake: Intake,
    records: Vec<Record>,
    readiness: Readiness,
    shutdown: CancellationToken,
) {
    let hubs = Arc::clone(&node.hubs);
    let execs = records.iter().filter_map(|record| record.entry.exec.as_ref());
    let exec_exits = execs.map(|exec| node.exec_exits.of(&exec.id)).collect();
    let mut desk = Desk {
        node,
        exec_exits,
        queue: FairQueue::new(intake.limits),
        parked: FairQueue::new(Limits { node: 0, namespace: 0, container: 0, reserved_percent: 0 }),
        tasks: JoinSet::new(),
        running: HashMap::new(),
        known: BTreeMap::new(),
        ended: Ended::default(),
        expired: 0,
        remembered: records.into_iter().map(|record| (record.request.uid.to_string(), record)).collect(),
        listed: None,
    };
    desk.take_up(Entry::needs_looking_after);
    loop {
        let until_deadline = desk.until_deadline();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(done) = desk.tasks.join_next_with_id() => desk.done(done),
            event = events.next() => match event {
                Some(Ok(event)) => {
                    readiness.ready(CHECK);
                    desk.hear(event);
                }
                Some(Err(error)) => {
                    // Whether the API server answers, the Lease tells: a watch that works may be silent.
                    tracing::warn!(error, "the watch of requests broke off; it is opened again");
                }
                None => break,
            },
            arrived = hubs.arrivals() => desk.unpark(&arrived),
            () = sleep(until_deadline) => {}
        }
        desk.start_next();
    }
    tracing::info!(running = desk.running.len(), waiting = desk.queue.waiting(), "no new work is taken");
    if timeout(intake.drain, desk.drain()).await.is_err() || !desk.running.is_empty() {
        tracing::warn!(
            running = desk.running.len(),
            "stopping; the next agent adopts what still runs, but its output from now on is lost"
        );
    }
}

impl<W: World> Desk<W> {
    /// Goes on with what runs to its end, or until a successor has taken it over.
    async fn drain(&mut self) {
        let handover = Arc::clone(&self.node.handover);
        let mut there_since = None;
        let mut begun_at: Option<Instant> = None;
        loop {
            if begun_at.is_none() && handover.has_successor() {
                let since = *there_since.get_or_insert_with(Instant::now);
                // Commands whose output has all come are reported here first; meanwhile the others are read.
                if handover.open_streams() == self.tasks.len() || since.elapsed() >= LAST_REPORTS {
                    tracing::info!(streams = handover.open_streams(), "handing over to the successor");
                    begun_at = Some(Instant::now());
                    handover.begin();
                }
            }
            if begun_at.is_some_and(|at| at.elapsed() >= HANDED_OVER) && handover.open_streams() == 0 {
                return;
            }
            tokio::select! {
                biased;
                done = self.tasks.join_next_with_id() => match done {
                    Some(done) => self.done(done),
                    None => return,
                },
                () = sleep(LOOK_FOR_SUCCESSOR) => {}
            }
        }
    }

    fn hear(&mut self, event: Event) {
        if let (watcher::Event::InitApply(guard), Some(listed)) = (&event, &mut self.listed) {
            listed.extend(guard.meta().uid.as_deref().map(RequestUid::from));
        }
        match event {
            watcher::Event::Apply(guard) | watcher::Event::InitApply(guard) => match guard.0 {
                Ok(request) => self.take(request),
                Err(invalid) => self.refuse(invalid),
            },
            watcher::Event::InitDone => {
                self.miss();
                // Finished or deleted meanwhile.
                self.take_up(|_| true);
                self.exec_exits.clear();
            }
            // It left the selection or was deleted: whoever works on it reads it again.
            watcher::Event::Delete(guard) => {
                if let Some(uid) = &guard.meta().uid {
                    self.tell(&uid.as_str().into(), News::Left);
                }
            }
            watcher::Event::Init => self.listed = Some(HashSet::new()),
        }
    }

    /// Requests in hand that are not in the list left while the watch was broken.
    fn miss(&mut self) {
        let Some(listed) = self.listed.take() else { return };
        let missed: Vec<RequestUid> = self.known.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
        for uid in missed {
            self.tell(&uid, News::Left);
        }
    }

    /// Tells whoever works on the request. One that waits and is canceled or deleted waits no longer.
    fn tell(&mut self, uid: &RequestUid, news: News) {
        match self.known.get(uid) {
            Some(Known::Running(teller)) => {
                teller.send_replace(news);
            }
            Some(Known::Waiting(ticket)) => {
                let wanted = match &news {
                    News::Changed(request) => is_wanted(request),
                    News::Left => false,
                    News::None => true,
                };
                let ticket = ticket.clone();
                let parked = |desk: &mut Self| desk.parked.take(&ticket).map(|waiting| desk.admit_parked(waiting));
                if !wanted && let Some(waiting) = self.queue.take(&ticket).or_else(|| parked(self)) {
                    self.spawn(Waiting { seen: None, ..waiting }, Turn::Came);
                }
            }
            None => {}
        }
    }

    fn take(&mut self, mut request: ExecRequest) {
        let Ok(key) = key_of(&request.metadata) else { return };
        if self.known.contains_key(&key.uid) {
            self.count(&key.uid, &request);
            self.tell(&key.uid, News::Changed(Box::new(request)));
            return;
        }
        let created = request.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        let deadline = starting_deadline(&request).unwrap_or(Timestamp::MAX);
        let place = place_of(&key, &request);
        let ticket = Ticket { place, created, uid: key.uid.to_string(), deadline };
        request.metadata.managed_fields = None;
        // A late event of a request that has ended is stale, unless an older state was restored.
        let fresh = !self.ended.all.contains(&key.uid);
        let runs = request.status.as_ref().is_some_and(|status| status.exec_id.is_some());
        let record = self.remembered.remove(key.uid.as_str());
        if runs || record.is_some() || !is_wanted(&request) {
            // It may run already: nobody would watch it while it waits. What was taken back needs no turn.
            self.queue.admit(&ticket.place);
            let entry = record.map(|record| record.entry);
            self.work(key, ticket.place, created, Some(request).filter(|_| fresh), entry, Turn::Came);
            return;
        }
        self.known.insert(key.uid.clone(), Known::Waiting(ticket.clone()));
        let from_client = request.spec.input_from_client().is_some();
        if from_client && !self.node.hubs.of(&key.uid).input.is_held() {
            self.parked.push(&ticket.clone(), Waiting { key, ticket, seen: None });
            return;
        }
        let seen = Some(Box::new(request)).filter(|_| fresh && self.queue.waiting() == 0);
        self.queue.push(&ticket.clone(), Waiting { key, ticket, seen });
    }

    /// Clients have come with the input of these requests: now they wait for their turn.
    fn unpark(&mut self, arrived: &HashSet<RequestUid>) {
        for uid in arrived {
            let Some(Known::Waiting(ticket)) = self.known.get(uid) else { continue };
            let ticket = ticket.clone();
            if let Some(waiting) = self.parked.take(&ticket) {
                self.parked.done(&ticket.place);
                self.queue.push(&ticket, waiting);
            }
        }
    }

    /// A request that waits for a client no longer counts as running, free slot or not.
    fn admit_parked(&mut self, waiting: Waiting) -> Waiting {
        self.parked.done(&waiting.ticket.place);
        self.queue.admit(&waiting.ticket.place);
        waiting
    }

    /// Takes up what the journal knows, and the watch has not shown yet.
    fn take_up(&mut self, these: impl Fn(&Entry) -> bool) {
        let all = std::mem::take(&mut self.remembered);
        let (now, later): (BTreeMap<_, _>, _) = all.into_iter().partition(|(_, record)| these(&record.entry));
        self.remembered = later;
        for (_, Record { request: key, created, entry, .. }) in now {
            let container = entry.exec.as_ref().map(|exec| exec.container.id.to_string()).unwrap_or_default();
            // Whose it was, the journal does not know.
            let place = Place { namespace: key.namespace.clone(), container, requester: String::new() };
            self.queue.admit(&place);
            self.work(key, place, created, None, Some(entry), Turn::Came);
        }
    }

    /// What the journal names by its container counts as the request has it, once that is seen.
    fn count(&mut self, uid: &RequestUid, request: &ExecRequest) {
        let Some(running) = self.running.values_mut().find(|running| running.key.uid == *uid) else { return };
        let place = place_of(&running.key, request);
        if running.place != place {
            self.queue.done(&running.place);
            self.queue.admit(&place);
            running.place = place;
        }
    }

    fn until_deadline(&self) -> Duration {
        let deadlines = self.queue.next_deadline().into_iter().chain(self.parked.next_deadline());
        match deadlines.min() {
            Some(deadline) if self.expired < EXPIRED_AT_ONCE => {
                let left = Duration::try_from(self.node.clock.now().duration_until(deadline)).unwrap_or_default();
                // Slack for coarse clocks.
                (left + Duration::from_millis(2)).min(IDLE)
            }
            Some(_) | None => IDLE,
        }
    }

    fn start_next(&mut self) {
        while let Some(waiting) = self.queue.pop() {
            self.spawn(waiting, Turn::Came);
        }
        while self.expired < EXPIRED_AT_ONCE
            && let Some((waiting, full)) = self.pop_expired()
        {
            self.spawn(waiting, Turn::Missed(full));
        }
        self.node.metrics.waiting.set(i64::try_from(self.queue.waiting() + self.parked.waiting()).unwrap_or(i64::MAX));
    }

    /// One whose deadline has passed, and what it waited for, if that is not for a client.
    fn pop_expired(&mut self) -> Option<(Waiting, Option<Full>)> {
        let now = self.node.clock.now();
        let parked =
            |desk: &mut Self| desk.parked.pop_expired(now).map(|(waiting, _)| (desk.admit_parked(waiting), None));
        self.queue.pop_expired(now).or_else(|| parked(self))
    }

    fn spawn(&mut self, waiting: Waiting, turn: Turn) {
        let Waiting { key, ticket, seen } = waiting;
        self.work(key, ticket.place, ticket.created, seen.map(|seen| *seen), None, turn);
    }

    fn work(
        &mut self,
        key: RequestKey,
        place: Place,
        created: Timestamp,
        seen: Option<ExecRequest>,
        entry: Option<Entry>,
        turn: Turn,
    ) {
        let (teller, news) = watch::channel(News::None);
        let (expired, full) = match turn {
            Turn::Came => (false, None),
            Turn::Missed(full) => (true, full),
        };
        let mut work = Work::new(Arc::clone(&self.node), key.clone(), created, seen, entry, news);
        work.full = full;
        self.known.insert(key.uid.clone(), Known::Running(teller));
        let task = self.tasks.spawn(work.run());
        self.expired += usize::from(expired);
        self.running.insert(task.id(), Running { key, place, expired });
    }

    fn done(&mut self, done: Result<(Id, Vec<String>), tokio::task::JoinError>) {
        let (id, versions) = match done {
            Ok((id, versions)) => (id, Some(versions)),
            Err(error) => {
                let key = self.running.get(&error.id()).map(|running| &running.key);
                tracing::error!(request = ?key, %error, "a request's task failed; the next event of the request takes it up again");
                (error.id(), None)
            }
        };
        let Some(Running { key, place, expired }) = self.running.remove(&id) else { return };
        self.expired -= usize::from(expired);
        self.queue.done(&place);
        let known = self.known.remove(&key.uid);
        let Some(versions) = versions else { return };
        self.ended.remember(key.uid);
        // An event that came too late to be looked at: an older state may have been restored.
        if let Some(Known::Running(teller)) = known
            && let News::Changed(request) = &*teller.borrow()
            && !request.metadata.resource_version.as_ref().is_some_and(|version| versions.contains(version))
            && !self.node.stopping.is_cancelled()
        {
            self.take((**request).clone());
        }
    }

    /// Refuses an object that cannot be read, unless a command of it may run.
    fn refuse(&mut self, invalid: InvalidObject) {
        let Ok(key) = key_of(&invalid.metadata) else { return };
        let ended = self.ended.all.contains(&key.uid);
        if ended || self.known.contains_key(&key.uid) || self.remembered.contains_key(key.uid.as_str()) {
            return;
        }
        self.node.metrics.unreadable.inc();
        let place = Place { namespace: key.namespace.clone(), ..Place::default() };
        self.queue.admit(&place);
        self.known.insert(key.uid.clone(), Known::Running(watch::channel(News::None).0));
        let refusing = refuse_unreadable(Arc::clone(&self.node), key.clone(), invalid);
        let task = self.tasks.spawn(async {
            refusing.await;
            Vec::new()
        });
        self.running.insert(task.id(), Running { key, place, expired: false });
    }
}

impl Ended {
    fn remember(&mut self, uid: RequestUid) {
        if self.all.insert(uid.clone()) {
            self.order.push_back(uid);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }
}

/// Where a bound request runs, for the limits.
fn place_of(key: &RequestKey, request: &ExecRequest) -> Place {
    let status = request.status.as_ref();
    let pod = status.and_then(|status| status.pod_uid.as_deref()).unwrap_or_default();
    let container = status.and_then(|status| status.container.as_deref()).unwrap_or_default();
    let requester = request.spec.requested_by.as_ref().map(|by| by.username.clone()).unwrap_or_default();
    Place { namespace: key.namespace.clone(), container: format!("{pod}/{container}"), requester }
}
