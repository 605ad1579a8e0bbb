//! The gate: whether the admission policies stand, and since when.
//!
//! A binder asks after it has read a request, and is answered from reads that began after its question. So a policy that
//! stands then, and has not been changed since it was first seen but by upgrades, stood when the request was created: no
//! lagging watch can hide a change. Concurrent questions share an answer.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Reason, names},
    core::admission::{self, Admission, Mode, Record},
    infra::{
        clock::Clock,
        events::Events,
        health::Readiness,
        metrics::Metrics,
        policies::{LOOK_TIMEOUT, Policies, Rules},
    },
};

/// Name in `/readyz`.
pub(super) const CHECK: &str = "admission";
/// Between two looks when nobody asks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Between the beginnings of two looks, at least.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(50);
const SAY_EVERY: Duration = Duration::from_secs(600);
/// After this a manager is ready without policies too: it does more than binding.
const READY_ANYWAY: Duration = Duration::from_secs(60);
const QUEUE: usize = 64;

#[derive(Clone)]
pub(super) struct Gate(mpsc::Sender<oneshot::Sender<Admission>>);

impl Gate {
    /// The state of the policies, read after this call.
    pub(super) async fn look(&self) -> Admission {
        let (tell, told) = oneshot::channel();
        let answer = async {
            self.0.send(tell).await.ok()?;
            told.await.ok()
        };
        let ended = || Admission::Broken("the manager no longer reads the admission policies".to_owned());
        answer.await.unwrap_or_else(ended)
    }
}

pub(super) struct Keeper {
    pub(super) client: Client,
    pub(super) namespace: String,
    /// Name of the manager's own pod.
    pub(super) identity: String,
    pub(super) rules: Rules,
    pub(super) events: Events,
    pub(super) metrics: Metrics,
    pub(super) readiness: Readiness,
    pub(super) clock: Arc<dyn Clock>,
}

struct Memory {
    begun: Instant,
    ready: bool,
    record: Option<Record>,
    saved: bool,
    said: Option<(Admission, Instant)>,
}

impl Keeper {
    /// The gate, and what must be polled for it to answer, until `shutdown`.
    pub(super) fn open(self, shutdown: CancellationToken) -> (Gate, impl Future<Output = ()>) {
        let (ask, asks) = mpsc::channel(QUEUE);
        (Gate(ask), async move {
            shutdown.run_until_cancelled(self.keep(asks)).await;
        })
    }

    async fn keep(self, mut asks: mpsc::Receiver<oneshot::Sender<Admission>>) {
        let mut memory = Memory { begun: Instant::now(), ready: false, record: None, saved: false, said: None };
        let mut clock = interval(LOOK_EVERY);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = Vec::new();
        loop {
            tokio::select! {
                ask = asks.recv() => match ask {
                    Some(ask) => waiting.push(ask),
                    None => return,
                },
                // The Lease may have been created again, without the record.
                _ = clock.tick() => memory.saved = false,
            }
            while let Ok(ask) = asks.try_recv() {
                waiting.push(ask);
            }
            let begun = Instant::now();
            let found = self.look(&mut memory).await;
            self.say(&mut memory, &found).await;
            for ask in waiting.drain(..) {
                // The binder may be gone: leadership was lost.
                ask.send(found.clone()).unwrap_or_default();
            }
            sleep_until(begun + LOOK_AT_MOST_EVERY).await;
        }
    }

    async fn look(&self, memory: &mut Memory) -> Admission {
        if self.rules.mode == Mode::Off {
            return Admission::Off;
        }
        self.rules.judge(self.check(memory)).await
    }

    async fn check(&self, memory: &mut Memory) -> Result<Record, String> {
        let found = self.policies().stand(&self.rules.expected).await?;
        let versions = admission::versions(found.iter());
        if let Some(record) = memory.record.as_ref().filter(|record| memory.saved && record.versions == versions) {
            return Ok(record.clone());
        }
        let recorded = self.policies().recorded().await?;
        // The Lease's record counts for all replicas; if it was lost, the one in memory.
        let before = [&recorded, &memory.record].into_iter().flatten().find(|record| record.goes_on_to(&versions));
        let record = Record::seen(before, versions, admission::last_change(found.iter()), self.clock.now());
        if memory.record.as_ref() != Some(&record) {
            tracing::info!(since = %record.since, "the admission policies stand");
            memory.record = Some(record.clone());
        }
        memory.saved = recorded.as_ref() == Some(&record) || self.save(&record).await;
        Ok(record)
    }

    fn policies(&self) -> Policies {
        Policies::new(self.client.clone(), &self.namespace)
    }

    /// Without it, the next manager would refuse what was created before it started.
    async fn save(&self, record: &Record) -> bool {
        let Ok(text) = serde_json::to_string(record) else { return false };
        let patch = json!({"metadata": {"annotations": {names::POLICIES_ANNOTATION: text}}});
        match self.policies().leases().patch(names::LEADER_LEASE, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%error, "could not record since when the admission policies stand; retrying");
                false
            }
        }
    }

    async fn say(&self, memory: &mut Memory, found: &Admission) {
        self.metrics.admission.set(i64::from(matches!(found, Admission::Since(_))));
        self.become_ready(memory, found);
        if memory.said.as_ref().is_some_and(|(said, at)| said == found && at.elapsed() < SAY_EVERY) {
            return;
        }
        memory.said = Some((found.clone(), Instant::now()));
        match found {
            Admission::Since(_) => {}
            Admission::Off => {
                let note = "admission is off: whoever may create ExecRequests runs commands in every pod of \
                    their namespaces, as any user, and who it was is not recorded";
                tracing::warn!("{note}");
                self.publish(Reason::AdmissionOff, note).await;
            }
            Admission::Broken(why) => {
                tracing::error!(why, "nothing is bound until every admission policy stands");
                self.publish(Reason::AdmissionNotReady, why).await;
            }
        }
    }

    fn become_ready(&self, memory: &mut Memory, found: &Admission) {
        let why = match found {
            _ if memory.ready => return,
            _ if memory.begun.elapsed() > READY_ANYWAY => None,
            Admission::Off => None,
            Admission::Since(from) if self.clock.now() >= *from => None,
            Admission::Since(from) => Some(format!("the admission policies count from {from}")),
            Admission::Broken(why) => Some(why.clone()),
        };
        if let Some(why) = why {
            self.readiness.not_ready(CHECK, why);
        } else {
            memory.ready = true;
            self.readiness.ready(CHECK);
        }
    }

    async fn publish(&self, reason: Reason, note: &str) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        // For the UID, by which `kubectl describe pod` finds the Event.
        let pod = timeout(LOOK_TIMEOUT, pods.get_opt(&self.identity)).await.ok().and_then(Result::ok).flatten();
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(self.identity.clone()),
            namespace: Some(self.namespace.clone()),
            uid: pod.and_then(|pod| pod.metadata.uid),
            ..ObjectReference::default()
        };
        self.events.publish_about(&about, "Bind", reason, note).await;
    }
}
