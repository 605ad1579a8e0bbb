//! Watch: the requests that are bound to this node and not finished, and who of
//! them runs when.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client,
    core::{DeserializeGuard, error_boundary::InvalidObject},
    runtime::{WatchStreamExt, watcher},
};
use tokio::{
    task::{Id, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{journal::Record, node::Node, work::Work};
use crate::{
    api::{ExecRequest, ExecRequestStatus, Reason},
    core::{
        ids::{RequestKey, RequestUid},
        outcome::Outcome,
        queue::FairQueue,
        request::key_of,
        transition::Write,
    },
    engine::Engine,
    infra::health::Readiness,
};

/// Name in `/readyz`.
pub(super) const CHECK: &str = "watch";
/// How many requests are remembered after their end, so that late news of them starts nothing.
const REMEMBERED: usize = 4096;

/// Everything that is in hand.
struct Desk<E> {
    node: Arc<Node<E>>,
    queue: FairQueue<Work<E>>,
    tasks: JoinSet<()>,
    /// What each task works on.
    running: HashMap<Id, RequestKey>,
    /// Waiting or running.
    known: HashSet<RequestUid>,
    ended: VecDeque<RequestUid>,
    /// What the journal held at the start and nobody has taken up yet.
    remembered: HashMap<RequestUid, Record>,
}

/// Watches and works until told to stop, then goes on with what runs for at most `drain`.
pub(super) async fn run<E: Engine>(
    node: Arc<Node<E>>,
    client: Client,
    max_concurrent: usize,
    records: Vec<Record>,
    readiness: Readiness,
    shutdown: CancellationToken,
    drain: Duration,
) {
    let fields = format!("status.nodeName={},status.completionTime=", node.name);
    let config = watcher::Config::default().fields(&fields);
    let api: Api<DeserializeGuard<ExecRequest>> = Api::all(client);
    let mut news = watcher(api, config).default_backoff().map_err(|error| error.to_string()).boxed();
    let mut desk = Desk {
        node,
        queue: FairQueue::new(max_concurrent),
        tasks: JoinSet::new(),
        running: HashMap::new(),
        known: HashSet::new(),
        ended: VecDeque::new(),
        remembered: records.into_iter().map(|record| (record.request.uid.clone(), record)).collect(),
    };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(done) = desk.tasks.join_next_with_id() => desk.done(done),
            event = news.next() => match event {
                Some(Ok(event)) => {
                    readiness.ready(CHECK);
                    desk.hear(event);
                }
                Some(Err(error)) => {
                    // Whether the API server answers is the Lease's to say: a watch that works is silent.
                    tracing::warn!(error, "the watch of requests broke off, it is opened again");
                }
                None => break,
            },
        }
        desk.start_next();
    }
    tracing::info!(running = desk.running.len(), waiting = desk.queue.waiting(), "no new work is taken");
    let drained = timeout(drain, async {
        while let Some(done) = desk.tasks.join_next_with_id().await {
            desk.done(done);
        }
    });
    if drained.await.is_err() {
        tracing::warn!(
            running = desk.running.len(),
            "stopping; the next agent adopts what still runs, its output from now on is lost"
        );
    }
}

impl<E: Engine> Desk<E> {
    fn hear(&mut self, event: watcher::Event<DeserializeGuard<ExecRequest>>) {
        match event {
            watcher::Event::Apply(guard) | watcher::Event::InitApply(guard) => match guard.0 {
                Ok(request) => self.take(request),
                Err(invalid) => self.refuse(invalid),
            },
            watcher::Event::InitDone => self.take_up_remembered(),
            // Left the selection or was deleted: whoever works on it reads it again.
            watcher::Event::Delete(_) | watcher::Event::Init => {}
        }
    }

    fn take(&mut self, request: ExecRequest) {
        let Ok(key) = key_of(&request.metadata) else { return };
        if self.known.contains(&key.uid) || self.ended.contains(&key.uid) {
            return;
        }
        let created = request.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        let entry = self.remembered.remove(&key.uid).map(|record| record.entry);
        self.add(key, created, entry.is_some(), |node, key| Work::new(node, key, created, request, entry));
    }

    /// What the journal knows and the watch does not show: finished or deleted meanwhile.
    fn take_up_remembered(&mut self) {
        for (_, record) in std::mem::take(&mut self.remembered) {
            self.add(record.request.clone(), record.created, true, |node, _| Work::remembered(node, record));
        }
    }

    fn add(
        &mut self,
        key: RequestKey,
        created: Timestamp,
        at_once: bool,
        work: impl FnOnce(Arc<Node<E>>, RequestKey) -> Work<E>,
    ) {
        self.known.insert(key.uid.clone());
        let work = work(Arc::clone(&self.node), key.clone());
        if at_once {
            // It may run already: waiting for a free place would only leave it unwatched.
            self.queue.admit(&key.namespace);
            self.spawn(key, work);
        } else {
            let (namespace, uid) = (key.namespace.clone(), key.uid.to_string());
            self.queue.push(&namespace, created, &uid, work);
        }
    }

    fn start_next(&mut self) {
        while let Some(work) = self.queue.pop() {
            self.spawn(work.key().clone(), work);
        }
        self.node.metrics.waiting.set(i64::try_from(self.queue.waiting()).unwrap_or(i64::MAX));
    }

    fn spawn(&mut self, key: RequestKey, work: Work<E>) {
        let task = self.tasks.spawn(work.run());
        self.running.insert(task.id(), key);
    }

    fn done(&mut self, done: Result<(Id, ()), tokio::task::JoinError>) {
        let (id, failed) = match done {
            Ok((id, ())) => (id, false),
            Err(error) => {
                tracing::error!(request = ?self.running.get(&error.id()), %error, "a request's task failed; it is taken up again with the next news of it");
                (error.id(), true)
            }
        };
        let Some(key) = self.running.remove(&id) else { return };
        self.queue.done(&key.namespace);
        self.known.remove(&key.uid);
        if failed {
            return;
        }
        self.ended.push_back(key.uid);
        if self.ended.len() > REMEMBERED {
            self.ended.pop_front();
        }
    }

    /// An object that cannot be read is refused, unless something of it may run.
    fn refuse(&mut self, invalid: InvalidObject) {
        let Ok(key) = key_of(&invalid.metadata) else { return };
        if self.known.contains(&key.uid) || self.ended.contains(&key.uid) || self.remembered.contains_key(&key.uid) {
            return;
        }
        self.node.metrics.unreadable.inc();
        self.known.insert(key.uid.clone());
        self.queue.admit(&key.namespace);
        let task = self.tasks.spawn(refuse_unreadable(Arc::clone(&self.node), key.clone(), invalid));
        self.running.insert(task.id(), key);
    }
}

async fn refuse_unreadable<E: Engine>(node: Arc<Node<E>>, key: RequestKey, invalid: InvalidObject) {
    let message = format!("this object cannot be read as an ExecRequest: {}", invalid.error);
    tracing::error!(request = %key, uid = %key.uid, why = message, "refused");
    let now = node.clock.now();
    let outcome = Outcome::refused(Reason::InvalidRequest, message, now);
    let from = ExecRequestStatus { node_name: Some(node.name.to_string()), ..ExecRequestStatus::default() };
    let status = Write { from: &from, generation: invalid.metadata.generation, at: now }.finished(&outcome);
    match node.requests.write_status_of_unreadable(&invalid.metadata, &status).await {
        Ok(()) => {
            node.metrics.finished(outcome.reason);
            node.events.publish(&key, "Exec", outcome.reason, &outcome.message).await;
        }
        Err(error) => tracing::error!(request = %key, %error, "an unreadable object could not be refused"),
    }
}
