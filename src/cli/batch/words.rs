//! A batch in words.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

use super::fold::fold_within;
use crate::{
    api::{
        BatchPhase, ExecBatch, ExecBatchStatus, Reason,
        batch::{OnForbidden, Pick, Targets},
        conditions::{self, ConditionType},
    },
    core::batch::{end::End, targets::selector_text},
};

/// Most characters of the names in a line.
const NAMES: usize = 200;

/// As it is typed.
pub fn typed(batch: &ExecBatch) -> String {
    format!("xb/{}", batch.name_any())
}

pub fn is_finished(batch: &ExecBatch) -> bool {
    batch.status.as_ref().is_some_and(|status| status.completion_time.is_some())
}

/// All targets; `None` while it is not planned.
pub fn total(status: &ExecBatchStatus) -> Option<u16> {
    status.plan.as_ref().and_then(|plan| plan.total).and_then(|total| u16::try_from(total).ok())
}

/// The number of its plan, once that never changes any more.
pub fn frozen(status: &ExecBatchStatus) -> Option<i64> {
    status.plan.as_ref().filter(|plan| plan.total.is_some()).map(|plan| plan.number)
}

pub fn done(status: &ExecBatchStatus) -> i32 {
    [&status.succeeded, &status.failed, &status.not_run, &status.unknown, &status.skipped]
        .iter()
        .map(|ends| ends.count)
        .sum()
}

/// Why it is in its phase: the reason and the message of the condition Finished.
pub fn why(status: &ExecBatchStatus) -> (&str, &str) {
    let condition = conditions::get(&status.conditions, ConditionType::Finished);
    condition.map_or((Reason::Pending.as_str(), ""), |condition| (&condition.reason, &condition.message))
}

/// What it waits for, does, or has come to: the rest of the sentence "xb/NAME: ...".
pub fn state(batch: &ExecBatch) -> String {
    let empty = ExecBatchStatus::default();
    let status = batch.status.as_ref().unwrap_or(&empty);
    match (status.phase, why(status)) {
        (BatchPhase::Pending, ("Pending", _)) => "waiting for the execlet manager".to_owned(),
        (phase, (reason, message)) => {
            let reason = if reason == phase.to_string() { String::new() } else { format!(" ({reason})") };
            let message = if message.is_empty() { String::new() } else { format!(": {message}") };
            let done = if phase == BatchPhase::Running { format!("; {} done", done(status)) } else { String::new() };
            format!("{phase}{reason}{message}{done}")
        }
    }
}

/// It goes on once somebody raises its limit, and the manager knows of no higher one.
pub fn is_at_its_limit(batch: &ExecBatch) -> bool {
    batch.status.as_ref().is_some_and(|status| {
        status.phase == BatchPhase::Paused
            && why(status).0 == Reason::ReleaseLimit.as_str()
            && status.observed_generation == batch.metadata.generation
    })
}

/// Why it does not go on before somebody approves it or ends its suspension.
pub fn waits_for_somebody(batch: &ExecBatch) -> Option<&'static str> {
    let status = batch.status.as_ref().filter(|status| status.phase == BatchPhase::Paused)?;
    let reasons = [Reason::ApprovalRequired, Reason::Suspended];
    reasons.into_iter().map(Reason::as_str).find(|reason| why(status).0 == *reason)
}

/// How many targets ended how; what there is none of is left out.
pub fn counts(status: &ExecBatchStatus) -> String {
    let all = [
        (&status.succeeded, End::Succeeded),
        (&status.failed, End::Failed),
        (&status.not_run, End::NotRun),
        (&status.unknown, End::Unknown),
        (&status.skipped, End::Skipped),
    ];
    let some = all.into_iter().filter(|(ends, end)| ends.count > 0 || *end == End::Succeeded);
    some.map(|(ends, end)| format!("{} {}", ends.count, ended(end))).collect::<Vec<_>>().join(", ")
}

/// How a target ended.
pub const fn ended(end: End) -> &'static str {
    match end {
        End::Succeeded => "succeeded",
        End::Failed => "failed",
        End::NotRun => "never ran",
        End::Unknown => "may have run",
        End::Skipped => "skipped",
    }
}

/// Where they run, as it was asked for.
pub fn place(targets: &Targets) -> String {
    let pods = if let Some(selector) = &targets.selector {
        format!("pods with {}", selector_text(selector))
    } else if let Some(pods) = &targets.pods {
        let names = fold_within(pods.iter().map(|pod| pod.name.as_str()), NAMES);
        format!("pods {names}")
    } else if let Some(workload) = &targets.workload {
        format!("pods of {:?} {}", workload.kind, workload.name)
    } else {
        "every pod of the namespace".to_owned()
    };
    let which = match targets.pick {
        Pick::All => "",
        Pick::OnePerNode => ", one on each node",
        Pick::One => ", one of them",
    };
    let container = targets.container.as_ref().map_or_else(String::new, |name| format!(", container {name}"));
    let forbidden = match targets.on_forbidden {
        OnForbidden::Refuse => "",
        OnForbidden::Skip => ", without those that the requester may not exec into",
    };
    format!("{pods}{which}{container}{forbidden}")
}

/// A number or a share, as it was written.
pub fn as_written(share: &IntOrString) -> String {
    match share {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(text) => text.clone(),
    }
}

#[cfg(test)]
pub(in crate::cli) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A batch of four pods.
    pub fn batch(status: Value) -> ExecBatch {
        serde_json::from_value(object(status)).expect("a batch")
    }

    /// The same as JSON.
    pub fn object(status: Value) -> Value {
        json!({
            "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecBatch",
            "metadata": {"name": "b", "namespace": "shop", "uid": "u", "generation": 2, "resourceVersion": "1",
                "creationTimestamp": "2026-01-02T03:04:05Z"},
            "spec": {"targets": {"selector": {"matchLabels": {"app": "db"}}},
                "template": {"spec": {"command": ["uname", "-r"]}}},
            "status": status,
        })
    }

    /// A status in this phase, for this reason.
    pub fn status(phase: &str, reason: &str, message: &str, more: &Value) -> Value {
        let ended = matches!(phase, "Succeeded" | "Failed");
        let mut status = json!({
            "phase": phase, "observedGeneration": 2,
            "plan": {"number": 1, "total": 4, "digest": "d1", "time": "2026-01-02T03:04:05.000000Z"},
            "conditions": [{"type": "Finished", "status": if ended { "True" } else { "False" }, "reason": reason,
                "message": message, "lastTransitionTime": "2026-01-02T03:04:05Z"}],
        });
        if ended {
            status["completionTime"] = json!("2026-01-02T03:05:05.000000Z");
        }
        for (field, value) in more.as_object().into_iter().flatten() {
            status[field] = value.clone();
        }
        status
    }

    #[test]
    fn the_state_is_told_with_its_reason() {
        for (status, words) in [
            (Value::Null, "waiting for the execlet manager"),
            (
                status("Running", "Running", "3 of 4 targets are released", &json!({"succeeded": {"count": 2}})),
                "Running: 3 of 4 targets are released; 2 done",
            ),
            (status("Paused", "Suspended", "suspend is set", &Value::Null), "Paused (Suspended): suspend is set"),
            (status("Pending", "AdmissionNotReady", "", &Value::Null), "Pending (AdmissionNotReady)"),
        ] {
            assert_eq!(state(&batch(status)), words);
        }
    }

    #[test]
    fn a_limit_that_the_manager_has_not_seen_yet_is_none() {
        let at_limit = |generation: i64| {
            batch(status("Paused", "ReleaseLimit", "", &json!({"observedGeneration": generation, "released": 1})))
        };
        assert!(is_at_its_limit(&at_limit(2)) && !is_at_its_limit(&at_limit(1)));
        assert!(!is_at_its_limit(&batch(status("Paused", "Suspended", "", &Value::Null))));
    }

    #[test]
    fn what_there_is_none_of_is_not_counted() {
        let status = |more: Value| serde_json::from_value(status("Failed", "x", "", &more)).expect("a status");
        assert_eq!(counts(&status(json!({"failed": {"count": 2}}))), "0 succeeded, 2 failed");
        let all = json!({"succeeded": {"count": 1}, "notRun": {"count": 2}, "unknown": {"count": 3}, "skipped": {"count": 4}});
        assert_eq!(counts(&status(all)), "1 succeeded, 2 never ran, 3 may have run, 4 skipped");
    }
}
