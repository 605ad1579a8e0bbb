//! Whether these targets may be planned, and the digest of a plan.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::{
    MOST_TARGETS,
    child::child,
    targets::{Fate, Target},
};
use crate::{
    api::{
        ExecBatch, ExecBatchSpec, Reason,
        batch::{
            Approval,
            spec::{DEFAULT_PARALLELISM, DEFAULT_RELEASE_LIMIT},
        },
    },
    core::{digest::sha256, request::NotBound},
};

/// Most bytes that the requests of a batch may hold when they have ended, as far as can be told before.
pub const MOST_BYTES: usize = 64 << 20;
/// What a status holds beside the tails: conditions, result, digests.
const STATUS_BYTES: usize = 3 << 10;
/// Tails of a request: of standard output and standard error.
const TAILS: usize = 2;

/// Why nothing of a batch runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub message: String,
}

impl Refusal {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Refuses what is not to be planned, with the numbers.
pub fn check(batch: &ExecBatch, targets: &[Target]) -> Result<(), Refusal> {
    let (total, spec) = (targets.len(), &batch.spec.targets);
    let most = usize::try_from(spec.max_targets).unwrap_or(0).min(usize::from(MOST_TARGETS));
    if total > most {
        let message =
            format!("{total} pods were found, and targets.maxTargets is {most}: select fewer, or raise maxTargets");
        return Err(Refusal::new(Reason::TooManyTargets, message));
    }
    if total == 0 {
        let message = "no pod was found: look at `kubectl get pods --show-labels`, or set \
                       targets.allowEmpty to true if that is fine";
        return if spec.allow_empty { Ok(()) } else { Err(Refusal::new(Reason::NoTargets, message)) };
    }
    let bytes = bytes(batch, targets);
    if bytes > MOST_BYTES {
        let tail = batch.spec.template.spec.output.tail_bytes;
        let message = format!(
            "the requests of {total} targets would hold {} MiB, and at most {} MiB may be: lower \
             output.tailBytes, which is {tail}, or select fewer pods",
            bytes >> 20,
            MOST_BYTES >> 20,
        );
        return Err(Refusal::new(Reason::PlanTooLarge, message));
    }
    Ok(())
}

/// What all children will hold: each itself, and the tails of its output, which are base64 at worst.
fn bytes(batch: &ExecBatch, targets: &[Target]) -> usize {
    let tail = usize::try_from(batch.spec.template.spec.output.tail_bytes).unwrap_or(0);
    let tails = TAILS * tail.div_ceil(3) * 4;
    // They differ only in names.
    let longest = targets.iter().max_by_key(|target| target.pod.len());
    let one = longest.and_then(|target| child(batch, i64::MAX, MOST_TARGETS - 1, target).ok());
    let one = one.and_then(|child| serde_json::to_vec(&child).ok()).map_or(0, |text| text.len());
    targets.len() * (one + STATUS_BYTES + tails)
}

/// Tells a plan from every other: the batch by its UID, what it runs, and where.
pub fn digest(batch: &ExecBatch, targets: &[Target]) -> Result<String, NotBound> {
    let uid = batch.metadata.uid.as_deref().ok_or(NotBound("metadata.uid"))?;
    let targets: Vec<Value> =
        (0..).zip(targets).map(|(index, target): (usize, _)| json!([index, target.pod, target.uid])).collect();
    let spec = serde_json::to_value(immutable(&batch.spec)).map_err(|_| NotBound("spec"))?;
    Ok(sha256(json!([uid, spec, targets]).to_string().as_bytes()))
}

/// Without what may change.
fn immutable(spec: &ExecBatchSpec) -> ExecBatchSpec {
    let mut spec = ExecBatchSpec {
        parallelism: IntOrString::Int(DEFAULT_PARALLELISM),
        release_limit: IntOrString::String(DEFAULT_RELEASE_LIMIT.to_owned()),
        suspend: false,
        cancel: false,
        released_by: None,
        ..spec.clone()
    };
    spec.approval = Approval { required: spec.approval.required, ..Approval::default() };
    spec
}

/// With what the requester may not exec into marked, or the refusal if there is such a target and none is to be skipped.
pub fn without_forbidden(
    mut targets: Vec<Target>,
    forbidden: &[usize],
    refusal: Option<Refusal>,
) -> Result<Vec<Target>, Refusal> {
    match refusal {
        Some(refusal) if !forbidden.is_empty() => Err(refusal),
        Some(_) | None => {
            for index in forbidden {
                targets[*index].fate = Fate::Forbidden;
            }
            Ok(targets)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::batch::fixture::{batch, target};

    fn many(total: u16) -> Vec<Target> {
        (0..total).map(target).collect()
    }

    fn refused(spec: &Value, total: u16) -> Option<Reason> {
        check(&batch(spec), &many(total)).err().map(|refusal| refusal.reason)
    }

    #[test]
    fn a_plan_is_refused_with_its_numbers() {
        let targets = |fields: Value| json!({"targets": fields});
        let tail = |bytes: i32| {
            json!({"targets": {"all": true, "maxTargets": 10_000},
            "template": {"spec": {"command": ["true"], "output": {"tailBytes": bytes}}}})
        };
        for (spec, total, wanted) in [
            (targets(json!({"all": true})), 0, Some(Reason::NoTargets)),
            (targets(json!({"all": true, "allowEmpty": true})), 0, None),
            (targets(json!({"all": true})), 1000, None),
            (targets(json!({"all": true})), 1001, Some(Reason::TooManyTargets)),
            (targets(json!({"all": true, "maxTargets": 1})), 2, Some(Reason::TooManyTargets)),
            (tail(512), 10_000, None),
            (tail(4096), 10_000, Some(Reason::PlanTooLarge)),
            (tail(4096), 4_000, None),
            (tail(65_536), 500, Some(Reason::PlanTooLarge)),
        ] {
            assert_eq!(refused(&spec, total), wanted, "{total} targets of {spec}");
        }
        let refusal = check(&batch(&tail(65_536)), &many(1000)).expect_err("too large");
        assert!(
            refusal.message.contains("of 1000 targets would hold") && refusal.message.contains("which is 65536"),
            "{refusal:?}"
        );
    }

    #[test]
    fn a_digest_covers_the_batch_what_it_runs_and_every_target_in_its_place() {
        let of = |batch: &ExecBatch, targets: &[Target]| digest(batch, targets).expect("a digest");
        let one = batch(&json!({}));
        let wanted = of(&one, &many(2));
        for free in [
            json!({"parallelism": 7}),
            json!({"releaseLimit": 0}),
            json!({"suspend": true, "cancel": true}),
            json!({"approval": {"required": false, "planDigest": "d", "by": {"username": "bob"}}}),
            json!({"releasedBy": {"username": "bob"}}),
        ] {
            assert_eq!(of(&batch(&free), &many(2)), wanted, "{free} may change");
        }
        for other in [
            json!({"template": {"spec": {"command": ["false"]}}}),
            json!({"approval": {"required": true}}),
            json!({"reason": "x"}),
            json!({"requestedBy": {"username": "bob"}}),
            json!({"failurePolicy": {"maxFailed": 1}}),
            json!({"targets": {"all": true, "container": "x"}}),
        ] {
            assert_ne!(of(&batch(&other), &many(2)), wanted, "{other}");
        }
        let mut again = one.clone();
        again.metadata.uid = Some("batch-2".to_owned());
        assert_ne!(of(&again, &many(2)), wanted, "another batch");
        let swapped = vec![target(1), target(0)];
        let mut replaced = many(2);
        replaced[1].uid = Some("another".to_owned());
        for targets in [many(1), many(3), swapped, replaced] {
            assert_ne!(of(&one, &targets), wanted, "{targets:?}");
        }
    }

    #[test]
    fn what_is_forbidden_stops_a_batch_or_is_skipped() {
        let refusal = || Some(Refusal::new(Reason::Forbidden, "no"));
        assert_eq!(without_forbidden(many(2), &[], refusal()), Ok(many(2)));
        assert_eq!(without_forbidden(many(2), &[1], refusal()).map_err(Some), Err(refusal()));
        let skipped = without_forbidden(many(2), &[1], None).expect("targets");
        assert_eq!((skipped[0].fate, skipped[1].fate), (Fate::Run, Fate::Forbidden));
    }
}
