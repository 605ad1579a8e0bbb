//! The request of one target: made by the manager, and made again by whoever holds one against its batch.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, core::ObjectMeta};
use sha2::{Digest as _, Sha256};

use super::targets::{Fate, Target, controller};
use crate::{
    api::{
        BatchReference, ExecBatch, ExecRequest, ExecRequestSpec, Stdin, names::BATCH_LABEL,
        request::Target as RequestTarget,
    },
    core::request::NotBound,
};

/// The UID that is asked for where a name was given that no pod has: no pod has it either, so a pod that gets the name
/// later is not touched.
const NO_POD: &str = "none";
/// Of the hash in a child's name: with it, the index and the longest name of a batch it has 63 characters.
const HASH_LENGTH: usize = 5;
/// Those of which Kubernetes makes the names of pods: no vowels, so no words.
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The name of a child: the same for the same batch, plan and index.
pub fn name(batch: &str, uid: &str, plan: i64, index: u16) -> String {
    let digest = Sha256::digest(format!("{uid}\n{plan}"));
    let letters = digest.iter().take(HASH_LENGTH).map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]));
    format!("{batch}-{}-{index}", letters.collect::<String>())
}

/// The child of this target, as it is created.
///
/// # Errors
/// When the batch has no name, namespace or UID, as every object that was read has.
pub fn child(batch: &ExecBatch, plan: i64, index: u16, target: &Target) -> Result<ExecRequest, NotBound> {
    let meta = &batch.metadata;
    let given = |field: &Option<String>, name| field.clone().ok_or(NotBound(name));
    let batch_name = given(&meta.name, "metadata.name")?;
    let uid = given(&meta.uid, "metadata.uid")?;
    let template = &batch.spec.template;
    let mut labels = template.metadata.labels.clone();
    labels.insert(BATCH_LABEL.to_owned(), batch_name.clone());
    let metadata = ObjectMeta {
        name: Some(name(&batch_name, &uid, plan, index)),
        namespace: Some(given(&meta.namespace, "metadata.namespace")?),
        labels: Some(labels),
        annotations: some(&template.metadata.annotations),
        owner_references: Some(vec![OwnerReference {
            api_version: ExecBatch::api_version(&()).into_owned(),
            kind: ExecBatch::kind(&()).into_owned(),
            name: batch_name.clone(),
            uid: uid.clone(),
            controller: Some(true),
            // Nothing holds up a deletion.
            block_owner_deletion: Some(false),
        }]),
        ..ObjectMeta::default()
    };
    let place = BatchReference { name: batch_name, uid, plan, index: index.into() };
    Ok(ExecRequest { metadata, spec: spec(batch, place, target), status: None })
}

/// Field by field, so that none is forgotten.
fn spec(batch: &ExecBatch, place: BatchReference, target: &Target) -> ExecRequestSpec {
    let template = batch.spec.template.spec.clone();
    let stdin = template.stdin.map(|input| Stdin { text: input.text, data: input.data, attach: None });
    ExecRequestSpec {
        target: RequestTarget {
            pod_name: target.pod.clone(),
            pod_uid: Some(target.uid.clone().unwrap_or_else(|| NO_POD.to_owned())),
            container: batch.spec.targets.container.clone(),
        },
        command: template.command,
        working_dir: template.working_dir,
        env: template.env,
        user: template.user,
        tty: template.tty,
        stdin,
        starting_deadline_seconds: template.starting_deadline_seconds,
        active_deadline_seconds: template.active_deadline_seconds,
        termination_grace_period_seconds: template.termination_grace_period_seconds,
        cancel: false,
        output: template.output,
        reason: batch.spec.reason.clone(),
        requested_by: batch.spec.requested_by.clone(),
        batch: Some(place),
    }
}

/// The target that a child is for. What is known of it beyond its name and UID, its own status says.
pub fn target_of(child: &ExecRequest) -> Target {
    let target = &child.spec.target;
    let uid = target.pod_uid.clone().filter(|uid| uid != NO_POD);
    Target { pod: target.pod_name.clone(), uid, fate: Fate::Run }
}

fn some(map: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then(|| map.clone())
}

/// Whether an object that has a child's name is that child: not a stranger's, nor of another plan that had the same name.
/// It may have been canceled since.
pub fn is_exactly(found: &ExecRequest, wanted: &ExecRequest) -> bool {
    let owner =
        |child: &ExecRequest| controller(child.metadata.owner_references.as_deref()).map(|owner| owner.uid.clone());
    let spec = ExecRequestSpec { cancel: wanted.spec.cancel, ..found.spec.clone() };
    spec == wanted.spec && owner(found) == owner(wanted)
}

/// The index of a child of this plan of this batch, if it is one.
pub fn index_in(child: &ExecRequest, batch: &str, plan: i64) -> Option<u16> {
    let place = child.spec.batch.as_ref().filter(|place| place.uid == batch && place.plan == plan)?;
    u16::try_from(place.index).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        api::batch::spec::LONGEST_NAME,
        core::batch::{
            MOST_TARGETS,
            fixture::{batch, target},
            targets::Fate,
        },
    };

    fn whole() -> ExecBatch {
        batch(&json!({
            "targets": {"all": true, "container": "app"},
            "template": {
                "metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}},
                "spec": {
                    "command": ["uname", "-r"], "workingDir": "/srv", "env": [{"name": "A", "value": "1"}], "user": "0",
                    "stdin": {"text": "x"}, "startingDeadlineSeconds": 5, "activeDeadlineSeconds": 6,
                    "terminationGracePeriodSeconds": 7, "output": {"tailBytes": 8, "spoolBytes": 9},
                },
            },
            "reason": "CHG-1", "requestedBy": {"username": "alice"},
        }))
    }

    #[test]
    fn a_child_is_the_template_with_its_target_and_its_place() {
        let child = child(&whole(), 2, 7, &target(3)).expect("a child");
        let hash = name("b", "batch-1", 2, 7);
        assert_eq!(
            serde_json::to_value(&child).expect("JSON"),
            json!({
                "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
                "metadata": {
                    "name": hash, "namespace": "shop",
                    "labels": {"team": "a", "execlet.dev/batch": "b"}, "annotations": {"note": "b"},
                    "ownerReferences": [{"apiVersion": "execlet.dev/v1alpha1", "kind": "ExecBatch", "name": "b",
                        "uid": "batch-1", "controller": true, "blockOwnerDeletion": false}],
                },
                "spec": {
                    "target": {"podName": "web-3", "podUID": "pod-3", "container": "app"},
                    "command": ["uname", "-r"], "workingDir": "/srv", "env": [{"name": "A", "value": "1"}], "user": "0",
                    "tty": false, "stdin": {"text": "x"}, "startingDeadlineSeconds": 5, "activeDeadlineSeconds": 6,
                    "terminationGracePeriodSeconds": 7, "cancel": false, "output": {"tailBytes": 8, "spoolBytes": 9},
                    "reason": "CHG-1", "requestedBy": {"username": "alice", "uid": "", "groups": [], "extra": {}},
                    "batch": {"name": "b", "uid": "batch-1", "plan": 2, "index": 7},
                },
            })
        );
    }

    #[test]
    fn a_pod_that_was_missing_is_never_touched_when_it_comes() {
        let missing = Target { pod: "gone".to_owned(), uid: None, fate: Fate::Missing };
        let child = child(&whole(), 1, 0, &missing).expect("a child");
        assert_eq!(child.spec.target.pod_uid.as_deref(), Some(NO_POD));
    }

    #[test]
    fn a_name_tells_batch_plan_and_index_and_fits_into_a_label() {
        let one = name("b", "u", 1, 0);
        assert_eq!(one, name("b", "u", 1, 0));
        for other in [name("b", "u", 2, 0), name("b", "v", 1, 0), name("b", "u", 1, 1)] {
            assert_ne!(one, other);
        }
        assert_eq!(name(&"x".repeat(LONGEST_NAME), "u", 1, MOST_TARGETS - 1).len(), 63);
    }

    #[test]
    fn only_its_own_child_is_taken_for_it() {
        let batch = whole();
        let wanted = child(&batch, 1, 0, &target(0)).expect("a child");
        let found = |change: &dyn Fn(&mut ExecRequest)| {
            let mut found = wanted.clone();
            found.metadata.uid = Some("given".to_owned());
            change(&mut found);
            is_exactly(&found, &wanted)
        };
        assert!(found(&|_| {}));
        assert!(found(&|child| child.spec.cancel = true));
        assert!(!found(&|child| child.spec.command.push("x".to_owned())));
        assert!(!found(&|child| child.spec.target.pod_uid = Some("another".to_owned())));
        assert!(!found(&|child| child.spec.batch.as_mut().expect("a batch").plan = 2));
        assert!(!found(&|child| child.spec.requested_by = None));
        assert!(!found(&|child| child.metadata.owner_references = None));
    }

    #[test]
    fn a_child_of_another_plan_or_batch_has_no_index_here() {
        let child = child(&whole(), 2, 7, &target(3)).expect("a child");
        assert_eq!(index_in(&child, "batch-1", 2), Some(7));
        assert_eq!((index_in(&child, "batch-1", 1), index_in(&child, "batch-2", 2)), (None, None));
    }
}
