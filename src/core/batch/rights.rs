//! What the requester of a batch must be allowed to do before it is planned. At each binding its request's own rights are
//! asked for again.

use super::{plan::Refusal, targets::Target};
use crate::{
    api::{ExecBatch, Reason, Requester, batch::WorkloadKind},
    core::{access::Right, admission::Admission, bind::vouches_for},
};

/// Why nobody's rights can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotVouched {
    /// The policies are not in place.
    Wait(Refusal),
    /// They do not vouch for who the requester is, and never will.
    Refuse(Refusal),
}

/// The requester, if the policies vouch for it, or if admission is off: then there may be none.
pub fn vouch<'a>(batch: &'a ExecBatch, admission: &Admission) -> Result<Option<&'a Requester>, NotVouched> {
    let by = batch.spec.requested_by.as_ref();
    let refuse = |why: &str| {
        let message = format!("{why}, so its requester is not verified: create the batch again");
        Err(NotVouched::Refuse(Refusal::new(Reason::Forbidden, message)))
    };
    match (admission, by) {
        (Admission::Off, by) => Ok(by),
        (Admission::Broken(why), _) => {
            let message = format!("{why}: nothing is planned until every admission policy is in place");
            Err(NotVouched::Wait(Refusal::new(Reason::AdmissionNotReady, message)))
        }
        (Admission::Since(_), None) => refuse("spec.requestedBy is missing"),
        (Admission::Since(from), Some(by)) => {
            if vouches_for(admission, batch.metadata.creation_timestamp.as_ref()) {
                return Ok(Some(by));
            }
            refuse(&format!("it was created before the admission policies took effect at {from}"))
        }
    }
}

/// To see the pods, and to run as another user. Who names pods sees nothing that they have not said themselves.
pub fn to_plan(batch: &ExecBatch) -> Vec<Right> {
    let namespace = namespace(batch);
    let targets = &batch.spec.targets;
    let list = targets.pods.is_none().then(|| Right::list_pods(namespace));
    let workload = targets.workload.as_ref().map(|workload| {
        let (group, resource) = resource(workload.kind);
        Right::get(group, resource, namespace, &workload.name)
    });
    let user = batch.spec.template.spec.user.as_deref().map(|user| Right::run_as(namespace, user));
    list.into_iter().chain(workload).chain(user).collect()
}

/// Who has this needs no other: it is for any pod of the namespace.
pub fn exec_anywhere(batch: &ExecBatch) -> Right {
    Right::exec(namespace(batch), "")
}

pub fn exec_into(batch: &ExecBatch, target: &Target) -> Right {
    Right::exec(namespace(batch), &target.pod)
}

fn namespace(batch: &ExecBatch) -> &str {
    batch.metadata.namespace.as_deref().unwrap_or_default()
}

/// API group and plural of a kind of workload.
pub const fn resource(kind: WorkloadKind) -> (&'static str, &'static str) {
    match kind {
        WorkloadKind::Deployment => ("apps", "deployments"),
        WorkloadKind::StatefulSet => ("apps", "statefulsets"),
        WorkloadKind::DaemonSet => ("apps", "daemonsets"),
        WorkloadKind::ReplicaSet => ("apps", "replicasets"),
        WorkloadKind::Job => ("batch", "jobs"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::core::batch::fixture::{at, batch};

    #[test]
    fn only_who_is_vouched_for_is_believed_to_be_the_requester() {
        let by = json!({"requestedBy": {"username": "alice"}});
        let told = |batch: &ExecBatch, admission: &Admission| match vouch(batch, admission) {
            Ok(by) => format!("{:?}", by.map(|by| by.username.clone())),
            Err(NotVouched::Wait(why)) => format!("wait: {}", why.reason),
            Err(NotVouched::Refuse(why)) => format!("refuse: {}", why.reason),
        };
        let since = |second| Admission::Since(at(second));
        for (spec, admission, wanted) in [
            (by.clone(), since(0), "Some(\"alice\")"),
            (by.clone(), since(1), "refuse: Forbidden"),
            (json!({}), since(0), "refuse: Forbidden"),
            (by, Admission::Broken("missing".to_owned()), "wait: AdmissionNotReady"),
            (json!({}), Admission::Off, "None"),
        ] {
            assert_eq!(told(&batch(&spec), &admission), wanted, "{admission:?}");
        }
    }

    #[test]
    fn a_batch_shows_no_names_to_who_may_not_see_them() {
        let list = r#"list resource "pods" in API group "" in the namespace "shop""#;
        let get = r#"get resource "statefulsets" in API group "apps" in the namespace "shop" for "db""#;
        for (targets, wanted) in [
            (json!({"all": true}), vec![list]),
            (json!({"selector": {"matchLabels": {"a": "b"}}}), vec![list]),
            (json!({"workload": {"kind": "StatefulSet", "name": "db"}}), vec![list, get]),
            (json!({"pods": [{"name": "web"}]}), vec![]),
        ] {
            let rights = to_plan(&batch(&json!({"targets": targets})));
            assert_eq!(rights.iter().map(ToString::to_string).collect::<Vec<_>>(), wanted);
        }
        let template = json!({"spec": {"command": ["true"], "user": "root"}});
        let rights = to_plan(&batch(&json!({"targets": {"pods": [{"name": "web"}]}, "template": template})));
        assert_eq!((rights.len(), rights[0].resource), (1, "execusers"));
        assert_eq!(exec_anywhere(&batch(&json!({}))).name, "");
    }
}
