//! The requests of a batch, as far as they were seen: what runs, and what has ended.
//!
//! Only those of its plan count, and which that is may be known later than how some of them ended.

use std::collections::BTreeMap;

use futures::{Stream, StreamExt as _, future::ready};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::{self, Event};

use crate::{
    api::{ExecRequest, Phase},
    cli::{
        cluster::{batches::of_batch, connection::Cluster},
        say::words,
    },
    core::batch::{child::index_in, end::End, groups::Ending},
    infra,
};

/// How long one watch lasts, in seconds.
const WATCH_SECONDS: u32 = 10;

/// The requests of the batch with this UID, whenever one of them changes.
pub fn watch(cluster: &Cluster, uid: &str) -> impl Stream<Item = Result<ExecRequest, watcher::Error>> + use<> {
    let config = watcher::Config::default().fields(&of_batch(uid)).timeout(WATCH_SECONDS);
    infra::watch::watch(cluster.requests(), config).filter_map(|event| {
        ready(match event {
            Ok(Event::Apply(child) | Event::InitApply(child)) => Some(Ok(child)),
            // One that is gone tells nothing of how it ended.
            Ok(Event::Delete(_) | Event::Init | Event::InitDone) => None,
            Err(error) => Some(Err(error)),
        })
    })
}

/// Whether the watch is not allowed.
pub fn is_refused(error: &watcher::Error) -> bool {
    let source = match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => source,
        watcher::Error::WatchError(status) => return matches!(status.code, 401 | 403),
        watcher::Error::NoResourceVersion => return false,
    };
    matches!(crate::cli::error::answer(source), Some(401 | 403))
}

#[derive(Debug)]
pub struct Running {
    pub pod: String,
    pub since: Option<Timestamp>,
}

/// How one has ended, without what it has written.
#[derive(Debug)]
pub struct Ended {
    pub pod: String,
    /// As its own status tells. Whether it was skipped, its batch says.
    pub end: End,
    pub reason: String,
    pub exit_code: Option<i32>,
    /// Its reason and message.
    pub words: String,
    pub ending: Ending,
}

#[derive(Debug, Default)]
pub struct Children {
    uid: String,
    /// The plan that counts, once that is known.
    plan: Option<i64>,
    /// Ended before that was known.
    early: Vec<ExecRequest>,
    pub running: BTreeMap<u16, Running>,
    pub ended: BTreeMap<u16, Ended>,
}

impl Children {
    pub fn of(uid: &str) -> Self {
        Self { uid: uid.to_owned(), ..Self::default() }
    }

    /// From now on this is the plan that counts: gives what has ended of it.
    pub fn count_only(&mut self, plan: i64) -> Vec<ExecRequest> {
        if self.plan.replace(plan) == Some(plan) {
            return Vec::new();
        }
        self.running.clear();
        std::mem::take(&mut self.early).into_iter().filter_map(|child| self.see(child)).collect()
    }

    /// Notes it; gives it back if it has ended, and that was not known.
    pub fn see(&mut self, child: ExecRequest) -> Option<ExecRequest> {
        let ended = child.status.as_ref().is_some_and(|status| status.completion_time.is_some());
        let Some(plan) = self.plan else {
            if ended {
                self.early.push(child);
            }
            return None;
        };
        let index = index_in(&child, &self.uid, plan)?;
        let status = child.status.as_ref()?;
        let pod = child.spec.target.pod_name.clone();
        if !ended {
            let since = status.start_time.as_ref().map(|time| time.0);
            if status.phase == Phase::Running && !self.ended.contains_key(&index) {
                self.running.insert(index, Running { pod, since });
            }
            return None;
        }
        self.running.remove(&index);
        if self.ended.contains_key(&index) {
            return None;
        }
        let ended = Ended {
            pod,
            end: End::of(status)?,
            reason: words::reason(status).to_owned(),
            exit_code: status.exit_code,
            words: words::outcome(status),
            ending: Ending::of(&child, index)?,
        };
        self.ended.insert(index, ended);
        Some(child)
    }
}

#[cfg(test)]
pub(in crate::cli) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The request of this index of plan 1, in a pod of that number.
    pub fn child(index: u16, status: Value) -> ExecRequest {
        serde_json::from_value(object(index, status)).expect("a request")
    }

    /// The same as JSON.
    pub fn object(index: u16, status: Value) -> Value {
        json!({
            "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
            "metadata": {"name": format!("b-x-{index}"), "namespace": "shop", "uid": format!("c{index}"), "resourceVersion": "1"},
            "spec": {"target": {"podName": format!("db-{index}"), "podUID": format!("p{index}")}, "command": ["uname", "-r"],
                "batch": {"name": "b", "uid": "u", "plan": 1, "index": index}},
            "status": status,
        })
    }

    /// Of one that ended with this code, and wrote this.
    pub fn exited(code: i32, stdout: &str) -> Value {
        let reason = if code == 0 { "Completed" } else { "NonZeroExitCode" };
        let condition = |kind: &str| {
            json!({"type": kind, "status": "True", "reason": reason,
            "message": format!("the command ended with exit code {code}"), "lastTransitionTime": "2026-01-02T03:04:05Z"})
        };
        json!({
            "phase": if code == 0 { "Succeeded" } else { "Failed" }, "exitCode": code,
            "startTime": "2026-01-02T03:04:05.000000Z", "completionTime": "2026-01-02T03:04:06.000000Z",
            "conditions": [condition("Finished"), condition("Started")],
            "output": {"complete": true, "stdout": {"tail": stdout, "bytes": stdout.len(), "sha256": stdout}},
        })
    }

    #[test]
    fn what_ended_before_the_plan_was_known_is_told_when_it_is() {
        let mut children = Children::of("u");
        let mut other = child(1, exited(0, "a"));
        other.spec.batch.as_mut().expect("its place").plan = 2;
        assert!(children.see(child(0, exited(0, "a"))).is_none() && children.see(other.clone()).is_none());
        let told: Vec<_> = children.count_only(1).into_iter().map(|child| child.metadata.name).collect();
        assert_eq!(told, [Some("b-x-0".to_owned())]);
        assert!(children.count_only(1).is_empty());
        assert!(children.see(other).is_none(), "it is of another plan");
        assert_eq!(children.ended.len(), 1);
    }

    #[test]
    fn each_end_is_told_once_and_a_late_word_of_its_run_is_none() {
        let mut children = Children::of("u");
        children.count_only(1);
        let runs = || child(3, json!({"phase": "Running", "startTime": "2026-01-02T03:04:05.000000Z"}));
        assert!(children.see(runs()).is_none() && children.running.contains_key(&3));
        assert!(children.see(child(3, exited(3, "a"))).is_some());
        assert!(children.see(child(3, exited(3, "a"))).is_none() && children.see(runs()).is_none());
        assert!(children.running.is_empty());
        let ended = &children.ended[&3];
        assert_eq!((ended.end, ended.exit_code, ended.reason.as_str()), (End::Failed, Some(3), "NonZeroExitCode"));
    }
}
