//! Which agents live, by their Leases.
//!
//! Judged by this process's own clock: an agent lives while its Lease is seen to change. The clocks of the nodes matter
//! only at first sight of a Lease, when it has not been seen to change yet.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{Api, Client, runtime::watcher};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::{Instant, interval};

use crate::{
    api::{Reason, names},
    core::bind::Agents,
    infra::{
        clock::Clock,
        retry,
        watch::{has_lost_its_place, watch},
    },
};

/// How often the live agents are counted: there is no event for one that falls silent.
const COUNT_EVERY: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
struct Seen {
    renewed: Option<Timestamp>,
    fresh_since: Option<Instant>,
    known_since: Instant,
    holds_batches: bool,
    /// Why it takes no requests, in its own words.
    refuses: Option<String>,
}

#[derive(Clone)]
pub(super) struct LiveAgents {
    seen: Arc<Mutex<HashMap<String, Seen>>>,
    timeout: Duration,
    gauge: Gauge,
    clock: Arc<dyn Clock>,
}

impl LiveAgents {
    pub(super) fn new(timeout: Duration, gauge: Gauge, clock: Arc<dyn Clock>) -> Self {
        Self { seen: Arc::default(), timeout, gauge, clock }
    }

    /// Watches the Leases. Calls `synced` when all are known. Returns when it has lost its place: by then so has every other
    /// watch.
    pub(super) async fn watch(&self, client: Client, namespace: &str, synced: impl Fn()) {
        let leases: Api<Lease> = Api::namespaced(client, namespace);
        let selector = format!("{}={}", names::COMPONENT_LABEL, names::COMPONENT_AGENT);
        let mut events = watch(leases, retry::watching().labels(&selector)).boxed();
        let mut clock = interval(COUNT_EVERY);
        loop {
            let event = tokio::select! {
                event = events.next() => match event {
                    Some(event) => event,
                    None => return,
                },
                _ = clock.tick() => {
                    self.count();
                    continue;
                }
            };
            match event {
                Ok(watcher::Event::Apply(lease) | watcher::Event::InitApply(lease)) => {
                    self.note(&lease, Instant::now(), self.clock.now());
                }
                Ok(watcher::Event::Delete(lease)) => self.forget(&lease),
                Ok(watcher::Event::InitDone) => synced(),
                Ok(watcher::Event::Init) => {}
                Err(error) if has_lost_its_place(&error) => {
                    tracing::warn!(%error, "the watch of the agents' Leases could not be reopened; everything begins anew");
                    return;
                }
                Err(error) => tracing::warn!(%error, "the watch of the agents' Leases ended; reopening it"),
            }
            self.count();
        }
    }

    fn note(&self, lease: &Lease, now: Instant, wall: Timestamp) {
        let Some(node) = node_of(lease) else { return };
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0);
        let annotations = lease.metadata.annotations.as_ref();
        let held = annotations.and_then(|all| all.get(names::BATCHES_ANNOTATION));
        let holds_batches = held.is_some_and(|held| held == names::BATCHES_HELD);
        let refuses = annotations.and_then(|all| all.get(names::ENGINE_REFUSED_ANNOTATION)).cloned();
        let mut all = self.seen.lock();
        match all.get_mut(node) {
            Some(seen) if seen.renewed == renewed => (seen.holds_batches, seen.refuses) = (holds_batches, refuses),
            Some(seen) => *seen = Seen { renewed, fresh_since: Some(now), holds_batches, refuses, ..seen.clone() },
            None => {
                // The node's clock and this one hardly differ by more than a renewal; if they do, the next renewal
                // puts it right.
                let age = renewed.map(|at| wall.duration_since(at).unsigned_abs());
                let fresh_since = age.filter(|age| *age < self.timeout).map(|_| now);
                all.insert(node.to_owned(), Seen { renewed, fresh_since, known_since: now, holds_batches, refuses });
            }
        }
    }

    /// How long the agent of a node has been silent, counted from `watching`, when this replica began to watch, at the
    /// earliest.
    pub(super) fn silent_for(&self, node: &str, watching: Instant) -> Duration {
        let heard = self.seen.lock().get(node).map(|seen| seen.fresh_since.unwrap_or(seen.known_since));
        heard.map_or(watching, |heard| heard.max(watching)).elapsed()
    }

    fn forget(&self, lease: &Lease) {
        if let Some(node) = node_of(lease) {
            self.seen.lock().remove(node);
        }
    }

    fn count(&self) {
        let live = self.seen.lock().values().filter(|seen| self.fresh(seen)).count();
        self.gauge.set(i64::try_from(live).unwrap_or(i64::MAX));
    }

    fn fresh(&self, seen: &Seen) -> bool {
        seen.refuses.is_none() && seen.fresh_since.is_some_and(|since| since.elapsed() < self.timeout)
    }
}

fn node_of(lease: &Lease) -> Option<&str> {
    lease.metadata.name.as_deref()?.strip_prefix(names::AGENT_LEASE_PREFIX)
}

impl Agents for LiveAgents {
    fn alive(&self, node: &str) -> Result<(), (Reason, String)> {
        let message = match self.seen.lock().get(node) {
            Some(seen) if self.fresh(seen) => return Ok(()),
            Some(Seen { refuses: Some(why), .. }) => {
                let message = format!("the execlet agent on node {node} takes no requests: {why}");
                return Err((Reason::RuntimeNotSupported, message));
            }
            Some(_) => format!(
                "the execlet agent on node {node} has not renewed its Lease {} for {} s: look at its pod and at the node",
                names::agent_lease(node),
                self.timeout.as_secs()
            ),
            None => format!(
                "no execlet agent runs on node {node}: the DaemonSet must reach every node that has a supported container engine"
            ),
        };
        Err((Reason::AgentNotReady, message))
    }

    fn holds_batches(&self, node: &str) -> bool {
        self.seen.lock().get(node).is_some_and(|seen| seen.holds_batches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(second: i64) -> Lease {
        let renewed = Timestamp::from_second(second).expect("a small number");
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "execlet-agent.n1"},
            "spec": {"renewTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(renewed)},
        }))
        .expect("a lease")
    }

    fn agents(timeout: Duration) -> LiveAgents {
        LiveAgents::new(timeout, Gauge::default(), Arc::new(crate::infra::clock::SystemClock))
    }

    fn wall(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a small number")
    }

    #[test]
    fn an_agent_lives_while_its_lease_changes_whatever_its_clock_says() {
        let agents = agents(Duration::from_secs(40));
        agents.note(&lease(0), Instant::now(), wall(1_000_000));
        assert!(agents.alive("n1").is_err(), "an old Lease, never seen to change");
        agents.note(&lease(0), Instant::now(), wall(1_000_000));
        assert!(agents.alive("n1").is_err(), "seen again, unchanged");
        agents.note(&lease(10), Instant::now(), wall(1_000_010));
        assert_eq!(agents.alive("n1"), Ok(()));
    }

    #[test]
    fn an_agent_that_renewed_just_now_lives_at_first_sight() {
        let agents = agents(Duration::from_secs(40));
        agents.note(&lease(100), Instant::now(), wall(105));
        assert_eq!(agents.alive("n1"), Ok(()));
    }

    #[test]
    fn an_agent_holds_batches_if_its_lease_says_so_and_until_it_does_not() {
        let agents = agents(Duration::from_secs(40));
        let mut says = lease(0);
        agents.note(&says, Instant::now(), wall(0));
        assert!(!agents.holds_batches("n1"), "an earlier version");
        says.metadata.annotations =
            Some([(names::BATCHES_ANNOTATION.to_owned(), names::BATCHES_HELD.to_owned())].into());
        agents.note(&says, Instant::now(), wall(0));
        assert!(agents.holds_batches("n1"), "an update, in the same second");
        agents.note(&lease(10), Instant::now(), wall(10));
        assert!(!agents.holds_batches("n1"), "put back to an earlier version");
    }

    #[test]
    fn an_agent_that_refuses_its_engine_takes_no_requests_however_fresh_and_until_it_does_not() {
        let agents = agents(Duration::from_secs(40));
        agents.note(&lease(0), Instant::now(), wall(0));
        assert_eq!(agents.alive("n1"), Ok(()));
        let mut refuses = lease(0);
        let why = "node n1 runs its containers in cri-o 1.30";
        refuses.metadata.annotations = Some([(names::ENGINE_REFUSED_ANNOTATION.to_owned(), why.to_owned())].into());
        agents.note(&refuses, Instant::now(), wall(1));
        let (reason, message) = agents.alive("n1").expect_err("it takes none");
        assert_eq!(reason, Reason::RuntimeNotSupported);
        assert!(message.contains(why), "{message}");
        agents.note(&lease(10), Instant::now(), wall(10));
        assert_eq!(agents.alive("n1"), Ok(()), "another engine");
    }

    #[test]
    fn a_silent_agent_is_taken_for_dead() {
        let agents = agents(Duration::ZERO);
        agents.note(&lease(0), Instant::now(), wall(0));
        agents.note(&lease(10), Instant::now(), wall(10));
        assert!(agents.alive("n1").is_err());
    }

    #[test]
    fn a_node_without_an_agent_is_told_from_one_with_a_silent_one() {
        let agents = agents(Duration::from_secs(40));
        assert!(agents.alive("n2").is_err_and(|(reason, why)| {
            reason == Reason::AgentNotReady && why.contains("no execlet agent runs on node n2")
        }));
    }
}
