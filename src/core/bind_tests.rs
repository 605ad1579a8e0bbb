use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{super::transition::Write, *};
use crate::api::BatchReference;

struct Live(BTreeSet<String>, bool);

impl Agents for Live {
    fn alive(&self, node: &str) -> Result<(), (Reason, String)> {
        match node {
            "cri-o" => Err((Reason::RuntimeNotSupported, "node cri-o runs its containers in cri-o".to_owned())),
            node if self.0.contains(node) => Ok(()),
            node => Err((Reason::AgentNotReady, format!("no agent on node {node}"))),
        }
    }

    fn holds_batches(&self, _: &str) -> bool {
        self.1
    }
}

fn live() -> Live {
    Live(BTreeSet::from(["n1".to_owned()]), true)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a small number")
}

fn request(target: Value) -> ExecRequest {
    serde_json::from_value(json!({
        "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
        "metadata": {"name": "r", "namespace": "shop", "creationTimestamp": "1970-01-01T00:00:00Z"},
        "spec": {"target": target, "command": ["true"], "requestedBy": {"username": "alice"}},
    }))
    .expect("a request")
}

fn web() -> ExecRequest {
    request(json!({"podName": "web"}))
}

fn named(container: &str) -> ExecRequest {
    request(json!({"podName": "web", "container": container}))
}

fn status(name: &str, state: &Value) -> Value {
    json!({"name": name, "state": state, "image": "", "imageID": "", "ready": true, "restartCount": 0})
}

fn running() -> Value {
    json!({"running": {"startedAt": "1970-01-01T00:00:00Z"}})
}

fn ended(code: i32) -> Value {
    json!({"terminated": {"exitCode": code, "reason": "Completed"}})
}

/// A running pod on n1 with containers `app` and `log`; `change` is merged over it.
fn pod(change: &Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "uid-1"},
        "spec": {"nodeName": "n1", "containers": [{"name": "app"}, {"name": "log"}]},
        "status": {"phase": "Running", "containerStatuses": [status("app", &running()), status("log", &running())]},
    });
    merge(&mut pod, change);
    serde_json::from_value(pod).expect("a pod")
}

fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change.clone(),
    }
}

fn decide(request: &ExecRequest, change: &Value) -> BindDecision {
    judge(request, Some(&pod(change)), at(1))
}

/// With policies that have always stood, and a requester who has every right.
fn judge(request: &ExecRequest, pod: Option<&Pod>, now: Timestamp) -> BindDecision {
    bind(&Facts { request, admission: &Admission::Since(at(0)), lacks: None, pod }, &live(), now)
}

fn admitted(request: &ExecRequest, admission: &Admission, lacks: Option<&Right>) -> BindDecision {
    bind(&Facts { request, admission, lacks, pod: Some(&pod(&json!({}))) }, &live(), at(1))
}

/// The same request, created so many seconds after 1970.
fn created(second: i64) -> ExecRequest {
    let mut request = web();
    request.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(second)));
    request
}

#[track_caller]
fn bound_to(decision: BindDecision, container: &str) {
    let expected = Binding { node: "n1".into(), pod_uid: "uid-1".into(), container: container.into(), caveat: None };
    assert_eq!(decision, BindDecision::Bind(expected));
}

#[track_caller]
fn waits(decision: &BindDecision, reason: Reason) {
    assert!(matches!(decision, BindDecision::Wait(r, _) if *r == reason), "{decision:?}");
}

#[track_caller]
fn refused(decision: &BindDecision, reason: Reason, message: &str) {
    let BindDecision::Refuse(found, text) = decision else { panic!("{decision:?}") };
    assert_eq!((*found, text.as_str()), (reason, message));
}

#[test]
fn the_first_container_is_the_default() {
    bound_to(decide(&web(), &json!({})), "app");
}

#[test]
fn the_annotated_container_is_the_default() {
    let annotation = |name| json!({"metadata": {"annotations": {DEFAULT_CONTAINER_ANNOTATION: name}}});
    bound_to(decide(&web(), &annotation("log")), "log");
    refused(
        &decide(&web(), &annotation("db")),
        Reason::ContainerNotFound,
        "container db not found in pod web: it has app, log",
    );
    bound_to(decide(&web(), &annotation("")), "app");
    bound_to(decide(&named("app"), &annotation("log")), "app");
}

#[test]
fn a_static_pod_is_bound_by_the_uid_that_its_node_knows() {
    let mirror = json!({"metadata": {"annotations": {MIRROR_ANNOTATION: "hash"}}});
    let BindDecision::Bind(binding) = decide(&web(), &mirror) else { panic!("not bound") };
    assert_eq!(binding.pod_uid, "hash");
}

#[test]
fn a_missing_pod_is_refused() {
    let decision = judge(&web(), None, at(1));
    refused(&decision, Reason::PodNotFound, "pod web not found in namespace shop: kubectl get pods -n shop");
}

#[test]
fn another_pod_than_the_pinned_one_is_refused() {
    let pinned = request(json!({"podName": "web", "podUID": "uid-0"}));
    refused(
        &decide(&pinned, &json!({})),
        Reason::PodReplaced,
        "pod web has UID uid-1, but target.podUID is uid-0: the pod was replaced",
    );
}

#[test]
fn a_missing_container_is_refused_and_the_others_are_named() {
    refused(
        &decide(&named("db"), &json!({})),
        Reason::ContainerNotFound,
        "container db not found in pod web: it has app, log",
    );
}

#[test]
fn a_completed_pod_is_refused() {
    let decision = decide(&web(), &json!({"status": {"phase": "Succeeded"}}));
    refused(
        &decision,
        Reason::ContainerNotRunning,
        "cannot exec into a container in a completed pod: pod web is Succeeded",
    );
}

#[test]
fn a_pod_that_is_not_running_yet_waits() {
    waits(&decide(&web(), &json!({"spec": {"nodeName": null}, "status": {"phase": "Pending"}})), Reason::PodNotRunning);
    let creating = json!({"status": {"phase": "Pending", "containerStatuses": [status("app", &json!({"waiting": {"reason": "ContainerCreating"}}))]}});
    waits(&decide(&web(), &creating), Reason::PodNotRunning);
}

#[test]
fn a_container_that_will_be_restarted_waits_and_one_that_will_not_is_refused() {
    let crashed = json!({"status": {"containerStatuses": [status("app", &ended(1))]}});
    waits(&decide(&web(), &crashed), Reason::ContainerNotRunning);
    let backoff =
        json!({"status": {"containerStatuses": [status("app", &json!({"waiting": {"reason": "CrashLoopBackOff"}}))]}});
    waits(&decide(&web(), &backoff), Reason::ContainerNotRunning);
    let mut never = crashed.clone();
    never["spec"] = json!({"restartPolicy": "Never"});
    let message = "container app of pod web has terminated with exit code 1 (Completed) and will not run again";
    refused(&decide(&web(), &never), Reason::ContainerNotRunning, message);
}

#[test]
fn an_init_container_is_reached_while_it_runs() {
    let init = |state: &Value| json!({"spec": {"initContainers": [{"name": "setup"}]}, "status": {"phase": "Pending", "initContainerStatuses": [status("setup", state)]}});
    bound_to(decide(&named("setup"), &init(&running())), "setup");
    waits(&decide(&named("setup"), &init(&ended(1))), Reason::ContainerNotRunning);
    let message = "container setup of pod web has terminated with exit code 0 (Completed) and will not run again";
    refused(&decide(&named("setup"), &init(&ended(0))), Reason::ContainerNotRunning, message);
}

#[test]
fn a_sidecar_that_ended_waits_for_its_restart() {
    let sidecar = json!({
        "spec": {"initContainers": [{"name": "mesh", "restartPolicy": "Always"}]},
        "status": {"initContainerStatuses": [status("mesh", &ended(0))]},
    });
    waits(&decide(&named("mesh"), &sidecar), Reason::ContainerNotRunning);
}

#[test]
fn an_ephemeral_container_is_reached_while_it_runs_and_never_again() {
    let debug = |state: &Value| json!({"spec": {"ephemeralContainers": [{"name": "dbg"}]}, "status": {"ephemeralContainerStatuses": [status("dbg", state)]}});
    bound_to(decide(&named("dbg"), &debug(&running())), "dbg");
    let message = "container dbg of pod web has terminated with exit code 1 (Completed) and will not run again";
    refused(&decide(&named("dbg"), &debug(&ended(1))), Reason::ContainerNotRunning, message);
}

#[test]
fn a_node_without_a_live_agent_waits() {
    waits(&decide(&web(), &json!({"spec": {"nodeName": "n2"}})), Reason::AgentNotReady);
}

#[test]
fn a_node_whose_engine_is_not_supported_waits_and_says_so_when_it_is_given_up() {
    let there = pod(&json!({"spec": {"nodeName": "cri-o"}}));
    waits(&decide(&web(), &json!({"spec": {"nodeName": "cri-o"}})), Reason::RuntimeNotSupported);
    let message = "the command did not start within startingDeadlineSeconds=60: RuntimeNotSupported: node cri-o runs \
        its containers in cri-o";
    refused(&judge(&web(), Some(&there), at(60)), Reason::StartingDeadlineExceeded, message);
}

#[test]
fn what_belongs_to_a_batch_waits_for_an_agent_that_holds_it_against_its_batch() {
    let mut child = web();
    child.spec.batch = Some(BatchReference { name: "b".into(), uid: "u".into(), plan: 1, index: 0 });
    let (pod, admission) = (pod(&json!({})), Admission::Off);
    let decide = |request, holds| {
        let facts = Facts { request, admission: &admission, lacks: None, pod: Some(&pod) };
        bind(&facts, &Live(BTreeSet::from(["n1".to_owned()]), holds), at(1))
    };
    let BindDecision::Wait(Reason::AgentNotReady, why) = decide(&child, false) else { panic!("it does not wait") };
    assert!(why.contains("does not know batches yet"), "{why}");
    assert!(matches!(decide(&child, true), BindDecision::Bind(_)));
    assert!(matches!(decide(&web(), false), BindDecision::Bind(_)), "any agent knows a request of its own");
}

#[test]
fn waiting_ends_at_the_starting_deadline() {
    let elsewhere = pod(&json!({"spec": {"nodeName": "n2"}}));
    let decision = judge(&web(), Some(&elsewhere), at(60));
    let message = "the command did not start within startingDeadlineSeconds=60: AgentNotReady: no agent on node n2";
    refused(&decision, Reason::StartingDeadlineExceeded, message);
    let late = judge(&web(), Some(&pod(&json!({}))), at(60));
    assert!(matches!(late, BindDecision::Refuse(Reason::StartingDeadlineExceeded, _)), "{late:?}");
}

#[test]
fn a_bound_request_whose_agent_died_is_given_up_at_the_deadline_and_not_before() {
    let mut request = web();
    request.status = Some(crate::api::ExecRequestStatus { node_name: Some("n2".into()), ..Default::default() });
    assert_eq!(bound_too_long(&request, &live(), at(59)), None);
    assert!(matches!(bound_too_long(&request, &live(), at(60)), Some((Reason::StartingDeadlineExceeded, _))));
    if let Some(status) = &mut request.status {
        status.node_name = Some("n1".into());
    }
    assert_eq!(bound_too_long(&request, &live(), at(60)), None, "a live agent decides itself");
    if let Some(status) = &mut request.status {
        status.node_name = Some("n2".into());
        status.exec_id = Some("e".into());
    }
    assert_eq!(bound_too_long(&request, &live(), at(60)), None, "a committed request is never given up");
}

#[test]
fn what_is_deleted_and_still_held_is_refused_by_the_manager_unless_a_live_agent_has_it() {
    let mut request = web();
    request.metadata.deletion_timestamp = Some(Time(at(1)));
    for pod in [None, Some(&pod(&json!({})))] {
        refused(
            &judge(&request, pod, at(2)),
            Reason::Deleted,
            "the request was deleted before it was bound to a node: nothing ran",
        );
    }
    for (node, reason) in [("n1", None), ("n2", Some(Reason::Deleted))] {
        request.status = Some(crate::api::ExecRequestStatus { node_name: Some(node.into()), ..Default::default() });
        assert_eq!(bound_too_long(&request, &live(), at(2)).map(|(reason, _)| reason), reason, "{node}");
    }
    if let Some(status) = &mut request.status {
        status.exec_id = Some("e".into());
    }
    assert_eq!(bound_too_long(&request, &live(), at(60)), None, "a committed request is never given up");
}

#[test]
fn while_a_policy_is_missing_everything_waits_and_nobody_is_asked_about() {
    let broken = Admission::Broken("validatingadmissionpolicy/execlet-create is missing".to_owned());
    waits(&admitted(&web(), &broken, None), Reason::AdmissionNotReady);
    assert_eq!(requester_to_check(&web(), &broken), None);
    let facts = Facts { request: &web(), admission: &broken, lacks: None, pod: None };
    let late = bind(&facts, &live(), at(60));
    assert!(matches!(&late, BindDecision::Refuse(Reason::StartingDeadlineExceeded, why) if why.contains("is missing")));
}

#[test]
fn what_was_created_before_the_policies_stood_never_runs_whatever_it_names() {
    let since = Admission::Since(at(10));
    for second in [0, 9] {
        let forged = created(second);
        let message = "it was created before the admission policies took effect at 1970-01-01T00:00:10Z, \
            so its requester is not verified: create the request again";
        refused(&admitted(&forged, &since, None), Reason::Forbidden, message);
        assert_eq!(requester_to_check(&forged, &since), None, "whom it names is not even asked about");
    }
    bound_to(admitted(&created(10), &since, None), "app");
    let mut undated = web();
    undated.metadata.creation_timestamp = None;
    assert!(matches!(admitted(&undated, &since, None), BindDecision::Refuse(Reason::Forbidden, _)));
}

#[test]
fn a_request_that_names_nobody_is_refused() {
    let mut anonymous = web();
    anonymous.spec.requested_by = None;
    let message = "spec.requestedBy is missing, so its requester is not verified: create the request again";
    refused(&admitted(&anonymous, &Admission::Since(at(0)), None), Reason::Forbidden, message);
}

#[test]
fn a_right_that_was_withdrawn_counts() {
    let since = Admission::Since(at(0));
    assert_eq!(requester_to_check(&web(), &since).map(|by| by.username.as_str()), Some("alice"));
    let message = r#"User "alice" cannot create resource "pods/exec" in API group "" in the namespace "shop" for "web": the right was withdrawn after the request was created"#;
    refused(&admitted(&web(), &since, Some(&Right::exec("shop", "web"))), Reason::Forbidden, message);
}

#[test]
fn the_requester_counts_before_the_pod() {
    let lacks = Right::exec("shop", "web");
    let facts = Facts { request: &web(), admission: &Admission::Since(at(0)), lacks: Some(&lacks), pod: None };
    assert!(matches!(bind(&facts, &live(), at(1)), BindDecision::Refuse(Reason::Forbidden, _)));
}

#[test]
fn without_policies_every_binding_says_so_and_a_name_that_is_given_still_needs_its_right() {
    let mut anonymous = web();
    anonymous.spec.requested_by = None;
    let BindDecision::Bind(binding) = admitted(&anonymous, &Admission::Off, None) else { panic!("not bound") };
    assert!(binding.caveat.is_some_and(|caveat| caveat.contains("admission is off")), "{binding:?}");
    let lacks = Right::run_as("shop", "0");
    assert!(matches!(admitted(&web(), &Admission::Off, Some(&lacks)), BindDecision::Refuse(Reason::Forbidden, _)));
}

#[test]
fn what_cannot_be_recorded_waits_if_it_must_be_and_says_so_at_its_deadline() {
    let binding = Binding { node: "n1".into(), pod_uid: "p".into(), container: "main".into(), caveat: None };
    let bind = BindDecision::Bind(binding);
    assert_eq!(unless_unrecorded(bind.clone(), Ok::<(), String>(())), bind);
    let held = unless_unrecorded(bind, Err("the disk is full"));
    assert_eq!(held, BindDecision::Wait(Reason::AuditUnavailable, "the disk is full".to_owned()));
    let refused = BindDecision::Refuse(Reason::PodNotFound, "no pod".to_owned());
    assert_eq!(unless_unrecorded(refused.clone(), Err("the disk is full")), refused, "what never runs need not wait");
}

#[test]
fn an_image_is_named_by_its_digest_where_that_is_known() {
    let of = |status: &Value| {
        let mut all = [self::status("app", &running())];
        merge(&mut all[0], status);
        image(&pod(&json!({"status": {"containerStatuses": all}})), "app")
    };
    assert_eq!(of(&json!({"image": "db:17", "imageID": "db@sha256:00"})).as_deref(), Some("db@sha256:00"));
    assert_eq!(of(&json!({"image": "db:17"})).as_deref(), Some("db:17"));
    assert_eq!(of(&json!({})), None);
    assert_eq!(image(&pod(&json!({})), "other"), None);
}

#[test]
fn a_request_that_waited_for_the_audit_log_says_so_at_its_deadline() {
    let mut late = web();
    let status = Write { from: &crate::api::ExecRequestStatus::default(), generation: None, at: at(1) }
        .pending(Reason::AuditUnavailable, "the disk is full");
    late.status = Some(status);
    let BindDecision::Refuse(reason, message) = judge(&late, Some(&pod(&json!({}))), at(1000)) else {
        panic!("it is too late");
    };
    assert_eq!(reason, Reason::StartingDeadlineExceeded);
    assert!(message.contains("AuditUnavailable: the disk is full"), "{message}");
}

#[test]
fn an_agent_prepares_nothing_that_was_created_or_bound_without_the_policies() {
    assert_eq!(unvouched(&created(10), &Admission::Since(at(10))), Ok(None));
    assert_eq!(unvouched(&created(0), &Admission::Off), Ok(None));
    let forged = unvouched(&created(9), &Admission::Since(at(10)));
    assert!(forged.is_ok_and(|why| why.is_some_and(|why| why.contains("nor who bound it is verified"))));
    assert_eq!(unvouched(&created(10), &Admission::Broken("missing".to_owned())), Err("missing".to_owned()));
}
