//! Bind: give each request a node, a pod and a container, or say why not.
//!
//! 1. dereference: the policies, the requester's rights, the pod, and which agents live;
//! 2. decide: `core::bind`;
//! 3. apply: one compare-and-swap of the status.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api, Client,
    api::ListParams,
    core::{DeserializeGuard, error_boundary::InvalidObject},
    runtime::{
        Controller,
        controller::{self, Action},
    },
};
use thiserror::Error;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{ExecRequest, ExecRequestStatus, Reason},
    core::{
        access,
        bind::{self, BindDecision, Facts},
        ids::RequestKey,
        outcome::Outcome,
        request::{NotBound, key_of, starting_deadline},
        transition::{Binding, Write},
    },
    infra::{
        access::{Access, AccessError},
        audit::{Audit, Unavailable, writer::Log},
        clock::Clock,
        events::{Events, PodRef},
        metrics::{Metrics, Step},
        requests::{ApiError, KubeRequests, Requests, Written},
        retry::{self, WatchPauses},
    },
    manager::{agents::LiveAgents, gate::Gate},
};

/// What is neither running nor finished: unbound, or bound and not yet committed.
const SELECTOR: &str = "status.phase!=Running,status.completionTime=";
/// Requests in hand at a time.
const CONCURRENCY: u16 = 16;
/// How soon a request that waits is looked at again: a tenth of its age, within these.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const LOOK_AGAIN_AT_LAST: Duration = Duration::from_secs(10);
/// How often it is looked for requests whose node is lost.
const LOOK_FOR_LOST: Duration = Duration::from_secs(10);
const RUNNING: &str = "status.phase=Running,status.completionTime=";
/// Requests in one page of a list.
const PAGE: u32 = 200;
/// How soon a failed look is repeated.
const RETRY: Duration = Duration::from_secs(2);
/// How long reading a pod may take.
const POD_TIMEOUT: Duration = Duration::from_secs(10);

type Guarded = DeserializeGuard<ExecRequest>;

/// Everything that binding needs.
#[derive(Clone)]
pub(crate) struct Binder {
    pub(crate) client: Client,
    pub(crate) requests: KubeRequests,
    pub(crate) audit: Audit<Log>,
    pub(crate) events: Events,
    pub(crate) access: Access,
    pub(crate) gate: Gate,
    pub(crate) agents: LiveAgents,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Arc<dyn Clock>,
    /// How long an agent may be silent before what it runs is given up.
    pub(crate) node_lost: Duration,
}

/// A request could not be dealt with now.
#[derive(Debug, Error)]
pub(crate) enum BindError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("the API server failed to get pod {pod}: {source}")]
    Pod {
        pod: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("the API server did not get pod {0} in time")]
    PodTimeout(String),
    #[error(transparent)]
    NoKey(#[from] NotBound),
    #[error(transparent)]
    Audit(#[from] Unavailable),
}

impl Binder {
    /// Binds for as long as it is polled and `term` lasts.
    pub(crate) async fn lead(self, namespace: &str, term: CancellationToken) {
        let (told, mut synced) = watch::channel(false);
        let watching = self.agents.watch(self.client.clone(), namespace, || {
            told.send_replace(true);
        });
        let api: Api<Guarded> = Api::all(self.client.clone());
        let binding = async {
            // Without the Leases every node would look dead.
            if synced.wait_for(|known| *known).await.is_err() {
                return;
            }
            Controller::new(api, retry::watching().fields(SELECTOR))
                .with_config(controller::Config::default().concurrency(CONCURRENCY))
                .trigger_backoff(WatchPauses::default())
                .graceful_shutdown_on(term.cancelled_owned())
                .run(reconcile, on_error, Arc::new(self.clone()))
                .for_each(|result| async {
                    if let Err(error) = result {
                        tracing::debug!(%error, "reconcile");
                    }
                })
                .await;
        };
        tokio::select! {
            () = watching => {}
            () = binding => {}
            () = self.give_up_lost() => {}
        }
    }

    /// Gives up what was committed on nodes that are gone.
    async fn give_up_lost(&self) {
        let watching = Instant::now();
        let mut clock = interval(LOOK_FOR_LOST);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            // Whoever leads for the first time has to listen for as long.
            if watching.elapsed() < self.node_lost {
                continue;
            }
            if let Err(error) = self.look_for_lost(watching).await {
                tracing::warn!(%error, "the requests that run could not be listed");
            }
        }
    }

    async fn look_for_lost(&self, watching: Instant) -> Result<(), kube::Error> {
        let api: Api<Guarded> = Api::all(self.client.clone());
        let mut params = ListParams::default().fields(RUNNING).limit(PAGE);
        loop {
            let list = api.list(&params).await?;
            for request in list.items.iter().filter_map(|guard| guard.0.as_ref().ok()) {
                let node = request.status.as_ref().and_then(|status| status.node_name.as_deref()).unwrap_or_default();
                let silent = self.agents.silent_for(node, watching);
                if let Some((reason, message)) = bind::node_lost(request, silent, self.node_lost) {
                    self.give_up(request, reason, message).await;
                }
            }
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(()),
            }
        }
    }

    async fn give_up(&self, request: &ExecRequest, reason: Reason, message: String) {
        let (Ok(key), Some(from)) = (key_of(&request.metadata), &request.status) else { return };
        let now = self.clock.now();
        let outcome = Outcome { reason, ..Outcome::lost(message, None, now) };
        let next = Write { from, generation: request.metadata.generation, at: now }.finished(&outcome);
        if let Err(error) =
            self.apply(request, &key, next, News::Finished(outcome), bind::was_vouched_for(request)).await
        {
            tracing::warn!(request = %key, %error, "a lost request could not be given up, it will be tried again");
        }
    }

    async fn pod(&self, request: &ExecRequest, key: &RequestKey) -> Result<Option<Pod>, BindError> {
        let name = &request.spec.target.pod_name;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let pod = || format!("{}/{name}", key.namespace);
        match timeout(POD_TIMEOUT, api.get_opt(name)).await {
            Ok(found) => found.map_err(|source| BindError::Pod { pod: pod(), source: Box::new(source) }),
            Err(_) => Err(BindError::PodTimeout(pod())),
        }
    }

    /// Records what is about to be written.
    async fn record(&self, read: &ExecRequest, news: &News, vouched_for: bool) -> Result<(), BindError> {
        let mut subject = self.audit.subject(read)?;
        if vouched_for {
            subject = subject.vouched_for();
        }
        match news {
            News::Bound(binding, image) => self.audit.bound(&subject, binding, image.as_deref()).await?,
            News::Waits(..) => {}
            News::Finished(outcome) => self.audit.ended(&subject, outcome).await,
        }
        Ok(())
    }

    /// Records and writes a status, and says what happened if the write won. `vouched_for`: whether the
    /// admission policies vouch for the requester, as was found out now.
    async fn apply(
        &self,
        read: &ExecRequest,
        key: &RequestKey,
        next: ExecRequestStatus,
        news: News,
        vouched_for: bool,
    ) -> Result<Action, BindError> {
        let changed = read.status.as_ref() != Some(&next);
        if changed {
            self.record(read, &news, vouched_for).await?;
        }
        match self.requests.write_status(read, next).await? {
            Written::Won(_) => {
                if changed {
                    self.say(read, key, &news).await;
                }
                Ok(news.then(read, self.clock.now()))
            }
            // The watch brings the newer object.
            Written::Lost | Written::Gone => Ok(Action::await_change()),
            Written::Refused(message) => {
                tracing::error!(request = %key, uid = %key.uid, why = message, "the API server refuses the status");
                Ok(Action::requeue(RETRY))
            }
        }
    }

    async fn say(&self, read: &ExecRequest, key: &RequestKey, news: &News) {
        match news {
            News::Bound(Binding { node, pod_uid, container, .. }, _) => {
                if let Some(created) = &read.metadata.creation_timestamp {
                    let took = self.clock.now().duration_since(created.0);
                    self.metrics.step(Step::Bind, took.try_into().unwrap_or_default());
                }
                tracing::info!(request = %key, uid = %key.uid, node, "bound");
                self.events.publish(key, "Bind", Reason::Bound, &format!("bound to node {node}")).await;
                let pod = PodRef { name: read.spec.target.pod_name.clone(), uid: pod_uid.clone() };
                let by = read.spec.requested_by.as_ref().map_or("somebody unknown", |by| by.username.as_str());
                let note = format!("ExecRequest {} of {by} is to run a command in container {container}", key.name);
                self.events.publish_on_pod(&pod, key, "Bind", Reason::Bound, &note).await;
            }
            News::Waits(reason, message) => {
                tracing::info!(request = %key, uid = %key.uid, %reason, why = message, "waits");
                self.events.publish(key, "Bind", *reason, message).await;
            }
            News::Finished(Outcome { reason, message, .. }) => {
                tracing::info!(request = %key, uid = %key.uid, %reason, why = message, "finished");
                self.metrics.finished(*reason);
                self.events.publish(key, "Bind", *reason, message).await;
            }
        }
    }

    async fn refuse_unreadable(&self, invalid: &InvalidObject) -> Result<Action, BindError> {
        let key = key_of(&invalid.metadata)?;
        let message = format!("this object cannot be read as an ExecRequest: {}", invalid.error);
        tracing::error!(request = %key, uid = %key.uid, why = message, "refused");
        self.metrics.unreadable.inc();
        let now = self.clock.now();
        let outcome = Outcome::refused(Reason::InvalidRequest, message, now);
        self.audit.ended(&self.audit.unread(&key), &outcome).await;
        let from = ExecRequestStatus::default();
        let status = Write { from: &from, generation: invalid.metadata.generation, at: now }.finished(&outcome);
        self.requests.write_status_of_unreadable(&invalid.metadata, &status).await?;
        self.metrics.finished(outcome.reason);
        self.events.publish(&key, "Bind", outcome.reason, &outcome.message).await;
        Ok(Action::await_change())
    }
}

/// What a status write tells.
enum News {
    /// To what, and the image of the container.
    Bound(Binding, Option<String>),
    Waits(Reason, String),
    Finished(Outcome),
}

impl News {
    fn then(&self, read: &ExecRequest, now: Timestamp) -> Action {
        match self {
            Self::Bound(..) => at_deadline(read, now),
            Self::Waits(..) => Action::requeue(look_again(read, now)),
            Self::Finished(..) => Action::await_change(),
        }
    }
}

/// Soon for a new request, seldom for one that has waited long: each look reads a pod.
fn look_again(request: &ExecRequest, now: Timestamp) -> Duration {
    let age = request.metadata.creation_timestamp.as_ref().map(|created| now.duration_since(created.0).unsigned_abs());
    let left = starting_deadline(request).map(|deadline| now.duration_until(deadline).unsigned_abs());
    let pause = (age.unwrap_or_default() / 10).clamp(LOOK_AGAIN, LOOK_AGAIN_AT_LAST);
    left.map_or(pause, |left| pause.min(left.max(LOOK_AGAIN)))
}

/// Looks again when the starting deadline has passed.
fn at_deadline(request: &ExecRequest, now: Timestamp) -> Action {
    let left = starting_deadline(request).map(|deadline| deadline.duration_since(now));
    let left: Duration = left.and_then(|left| left.try_into().ok()).unwrap_or_default();
    Action::requeue(left.max(LOOK_AGAIN))
}

async fn reconcile(object: Arc<Guarded>, binder: Arc<Binder>) -> Result<Action, BindError> {
    let request = match &object.0 {
        Ok(request) => request,
        Err(invalid) => return refuse_if_unbound(&binder, invalid).await,
    };
    let empty = ExecRequestStatus::default();
    let from = request.status.as_ref().unwrap_or(&empty);
    let deleted = request.metadata.deletion_timestamp.is_some();
    if deleted || from.completion_time.is_some() || from.exec_id.is_some() {
        return Ok(Action::await_change());
    }
    let key = key_of(&request.metadata)?;
    let now = binder.clock.now();
    let write = Write { from, generation: request.metadata.generation, at: now };
    let refuse = |reason, message: String| {
        let outcome = Outcome::refused(reason, message, now);
        (write.finished(&outcome), News::Finished(outcome))
    };
    if from.node_name.is_some() {
        return match bind::bound_too_long(request, &binder.agents, now) {
            Some((reason, message)) => {
                let (next, news) = refuse(reason, message);
                binder.apply(request, &key, next, news, bind::was_vouched_for(request)).await
            }
            None => Ok(at_deadline(request, now)),
        };
    }
    let admission = binder.gate.look().await;
    let rights = access::rights(request);
    let lacks = match bind::requester_to_check(request, &admission) {
        Some(by) => binder.access.first_lacking(by, &rights).await?,
        None => None,
    };
    let pod = binder.pod(request, &key).await?;
    let facts = Facts { request, admission: &admission, lacks, pod: pod.as_ref() };
    let decision = bind::bind(&facts, &binder.agents, now);
    let (next, news) = match bind::unless_unrecorded(decision, binder.audit.available().await) {
        BindDecision::Bind(binding) => {
            let image = pod.as_ref().and_then(|pod| bind::image(pod, &binding.container));
            (write.bound(&binding), News::Bound(binding, image))
        }
        BindDecision::Wait(reason, message) => (write.pending(reason, &message), News::Waits(reason, message)),
        BindDecision::Refuse(reason, message) => refuse(reason, message),
    };
    binder.apply(request, &key, next, news, bind::vouched_for(request, &admission)).await
}

/// An unreadable object that may be bound is its agent's to refuse: something of it may run.
async fn refuse_if_unbound(binder: &Binder, invalid: &InvalidObject) -> Result<Action, BindError> {
    let key = key_of(&invalid.metadata)?;
    if binder.requests.is_bound(&key).await? {
        return Ok(Action::await_change());
    }
    binder.refuse_unreadable(invalid).await
}

#[allow(clippy::needless_pass_by_value, reason = "the controller calls it so")]
fn on_error(object: Arc<Guarded>, error: &BindError, _: Arc<Binder>) -> Action {
    let meta = match &object.0 {
        Ok(request) => &request.metadata,
        Err(invalid) => &invalid.metadata,
    };
    tracing::warn!(namespace = ?meta.namespace, name = ?meta.name, %error, "a request could not be dealt with, it will be tried again");
    Action::requeue(RETRY)
}
