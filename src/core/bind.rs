//! Whether and where a request runs: takes the request and what is known of its
//! requester, its pod and the agents; gives a binding, a reason to wait, or a refusal.

use std::{fmt::Display, time::Duration};

use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStatus, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use super::{
    access::Right,
    admission::Admission,
    request::{is_being_deleted, starting_deadline},
    transition::Binding,
};
use crate::api::{
    ExecRequest, Reason, Requester,
    conditions::{self, ConditionType, Truth},
    names::{DEFAULT_CONTAINER_ANNOTATION, MIRROR_ANNOTATION},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindDecision {
    Bind(Binding),
    /// Report why, and look again soon.
    Wait(Reason, String),
    /// Final: it never runs.
    Refuse(Reason, String),
}

/// What is known of an unbound request, in the order in which it was found out.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub request: &'a ExecRequest,
    /// At a moment after the request was made.
    pub admission: &'a Admission,
    /// A right that the [`requester_to_check`] lacks.
    pub lacks: Option<&'a Right>,
    pub pod: Option<&'a Pod>,
}

/// Whether the agent of a node renews its Lease.
pub trait Agents {
    /// `Err` says what is wrong, when no agent lives on the node that takes requests.
    fn alive(&self, node: &str) -> Result<(), (Reason, String)>;

    /// Whether the agent on the node holds each request of a batch against its batch. One of an earlier version does not.
    fn holds_batches(&self, node: &str) -> bool;
}

/// Ends the message of `Bound` when admission is off. [`was_vouched_for`] reads it back from requests
/// that other versions have bound, so it does not change.
const UNVERIFIED: &str = "admission is off, so it was not checked who asked for this and whether they may";

/// Whether the policies vouch for the request's `spec.requestedBy`.
pub fn vouched_for(request: &ExecRequest, admission: &Admission) -> bool {
    vouches_for(admission, request.metadata.creation_timestamp.as_ref())
}

/// Whether the policies vouch for the `spec.requestedBy` of an object that was created then.
pub fn vouches_for(admission: &Admission, created: Option<&Time>) -> bool {
    match (admission, created) {
        (Admission::Since(from), Some(created)) => created.0 >= *from,
        (Admission::Since(_), None) | (Admission::Off | Admission::Broken(_), _) => false,
    }
}

/// Whether they vouched for it when the request was bound, according to its status.
pub fn was_vouched_for(request: &ExecRequest) -> bool {
    let conditions = request.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let bound = conditions::get(conditions, ConditionType::Bound);
    bound.is_some_and(|bound| bound.status == Truth::True.as_str() && !bound.message.ends_with(UNVERIFIED))
}

/// Whose rights must be checked before the request is bound: nobody's if it will not be bound anyway,
/// or if the requester is unknown.
pub fn requester_to_check<'a>(request: &'a ExecRequest, admission: &Admission) -> Option<&'a Requester> {
    admit(request, admission).ok().flatten()
}

pub fn bind(facts: &Facts<'_>, agents: &impl Agents, now: Timestamp) -> BindDecision {
    let request = facts.request;
    if let Some((reason, message)) = given_up(request) {
        return BindDecision::Refuse(reason, message.to_owned());
    }
    let too_late = starting_deadline(request).is_some_and(|deadline| now >= deadline);
    let exceeded = |reason, message: &str| {
        BindDecision::Refuse(Reason::StartingDeadlineExceeded, deadline_message(request, reason, message))
    };
    let permitted = admit(request, facts.admission).and_then(|by| permit(by, facts.lacks));
    match permitted.and_then(|()| choose(request, facts.pod, agents)) {
        Ok(_) if too_late => match waited_for_audit(request) {
            Some(message) => exceeded(Reason::AuditUnavailable, message),
            None => exceeded(Reason::Pending, "no manager had processed it by then"),
        },
        Ok(binding) => BindDecision::Bind(Binding { caveat: caveat(facts.admission), ..binding }),
        Err(BindDecision::Wait(reason, message)) if too_late => exceeded(reason, &message),
        Err(decision) => decision,
    }
}

/// Why nobody wants an unbound request any more.
pub fn given_up(request: &ExecRequest) -> Option<(Reason, &'static str)> {
    if is_being_deleted(request) {
        return Some((Reason::Deleted, "the request was deleted before it was bound to a node: nothing ran"));
    }
    request.spec.cancel.then_some((Reason::Canceled, "canceled before it was bound to a node: nothing ran"))
}

pub fn caveat(admission: &Admission) -> Option<&'static str> {
    match admission {
        Admission::Off => Some(UNVERIFIED),
        Admission::Since(_) | Admission::Broken(_) => None,
    }
}

/// The requester, if the policies vouch for it, or if admission is off.
fn admit<'a>(request: &'a ExecRequest, admission: &Admission) -> Result<Option<&'a Requester>, BindDecision> {
    let by = request.spec.requested_by.as_ref();
    let forbidden = |why: String| {
        let message = format!("{why}, so its requester is not verified: create the request again");
        Err(BindDecision::Refuse(Reason::Forbidden, message))
    };
    match admission {
        Admission::Off => Ok(by),
        Admission::Broken(why) => Err(BindDecision::Wait(
            Reason::AdmissionNotReady,
            format!("{why}: nothing is bound until every admission policy is in place (helm upgrade restores them)"),
        )),
        Admission::Since(_) if vouched_for(request, admission) => match by {
            Some(by) => Ok(Some(by)),
            None => forbidden("spec.requestedBy is missing".to_owned()),
        },
        Admission::Since(from) => forbidden(too_early(*from)),
    }
}

/// Why a bound request must not run: the policies do not vouch for it.
/// `Err`, with the reason, while they are not in place: then the request must wait.
pub fn unvouched(request: &ExecRequest, admission: &Admission) -> Result<Option<String>, String> {
    match admission {
        Admission::Off => Ok(None),
        Admission::Since(from) => Ok((!vouched_for(request, admission)).then(|| {
            let why = too_early(*from);
            format!("{why}, so neither its requester nor who bound it is verified: create the request again")
        })),
        Admission::Broken(why) => Err(why.clone()),
    }
}

fn too_early(from: Timestamp) -> String {
    format!("it was created before the admission policies took effect at {from}")
}

fn permit(by: Option<&Requester>, lacks: Option<&Right>) -> Result<(), BindDecision> {
    match (by, lacks) {
        (Some(by), Some(right)) => Err(BindDecision::Refuse(
            Reason::Forbidden,
            format!(r#"User "{}" cannot {right}: the right was withdrawn after the request was created"#, by.username),
        )),
        (_, None) | (None, _) => Ok(()),
    }
}

/// Does not bind while the audit log is required and cannot be written.
pub fn unless_unrecorded<E: Display>(decision: BindDecision, available: Result<(), E>) -> BindDecision {
    match (decision, available) {
        (BindDecision::Bind(_), Err(why)) => BindDecision::Wait(Reason::AuditUnavailable, why.to_string()),
        (decision, _) => decision,
    }
}

/// By its digest, if known.
pub fn image(pod: &Pod, container: &str) -> Option<String> {
    let chosen = containers(pod).into_iter().find(|chosen| chosen.name == container)?;
    let status = container_status(pod, &chosen)?;
    [&status.image_id, &status.image].into_iter().find(|image| !image.is_empty()).cloned()
}

/// Gives up a request that is bound but not committed: its node may be gone for good. Its agent does, if one lives.
pub fn bound_too_long(request: &ExecRequest, agents: &impl Agents, now: Timestamp) -> Option<(Reason, String)> {
    let status = request.status.as_ref()?;
    let node = status.node_name.as_deref()?;
    if status.exec_id.is_some() || status.completion_time.is_some() {
        return None;
    }
    let deleted = is_being_deleted(request);
    if !deleted && now < starting_deadline(request)? {
        return None;
    }
    let (reason, why) = agents.alive(node).err()?;
    if deleted {
        let message = format!("the request was deleted before the command could start: nothing ran ({why})");
        return Some((Reason::Deleted, message));
    }
    Some((Reason::StartingDeadlineExceeded, deadline_message(request, reason, &why)))
}

/// Gives up a committed request whose agent has been silent for too long.
pub fn node_lost(request: &ExecRequest, silent: Duration, limit: Duration) -> Option<(Reason, String)> {
    let status = request.status.as_ref()?;
    let node = status.node_name.as_deref()?;
    if status.exec_id.is_none() || status.completion_time.is_some() || silent < limit {
        return None;
    }
    let message = format!(
        "the agent on node {node} has been silent for {} s: whether the command ran to its end, and how it ended, cannot be known",
        silent.as_secs()
    );
    Some((Reason::NodeLost, message))
}

/// The message of its status, if it was waiting for the audit log.
fn waited_for_audit(request: &ExecRequest) -> Option<&str> {
    let finished = conditions::get(&request.status.as_ref()?.conditions, ConditionType::Finished)?;
    (finished.reason == Reason::AuditUnavailable.as_str()).then_some(finished.message.as_str())
}

fn deadline_message(request: &ExecRequest, reason: Reason, message: &str) -> String {
    format!(
        "the command did not start within startingDeadlineSeconds={}: {reason}: {message}",
        request.spec.starting_deadline_seconds
    )
}

fn choose(request: &ExecRequest, pod: Option<&Pod>, agents: &impl Agents) -> Result<Binding, BindDecision> {
    let target = &request.spec.target;
    let name = &target.pod_name;
    let namespace = request.metadata.namespace.as_deref().unwrap_or_default();
    let refuse = |reason, message: String| Err(BindDecision::Refuse(reason, message));

    let Some(pod) = pod else {
        let message = format!("pod {name} not found in namespace {namespace}: kubectl get pods -n {namespace}");
        return refuse(Reason::PodNotFound, message);
    };
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    if let Some(wanted) = target.pod_uid.as_ref().filter(|wanted| **wanted != uid) {
        let message = format!("pod {name} has UID {uid}, but target.podUID is {wanted}: the pod was replaced");
        return refuse(Reason::PodReplaced, message);
    }
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
    if matches!(phase, "Succeeded" | "Failed") {
        let message = format!("cannot exec into a container in a completed pod: pod {name} is {phase}");
        return refuse(Reason::ContainerNotRunning, message);
    }
    let container = container_name(request, pod)?;
    let node = pod.spec.as_ref().and_then(|s| s.node_name.clone());
    let Some(node) = node.filter(|node| !node.is_empty()) else {
        let message = format!("pod {name} is {phase}: it is not scheduled to a node yet");
        return Err(BindDecision::Wait(Reason::PodNotRunning, message));
    };
    container_runs(pod, name, phase, &container)?;
    agents.alive(&node).map_err(|(reason, why)| BindDecision::Wait(reason, why))?;
    if request.spec.batch.is_some() && !agents.holds_batches(&node) {
        let message = format!("the execlet agent on node {node} does not know batches yet: it waits to be updated");
        return Err(BindDecision::Wait(Reason::AgentNotReady, message));
    }
    Ok(Binding { node, pod_uid: uid_on_node(pod).unwrap_or(uid), container: container.name, caveat: None })
}

/// A static pod has another UID on its node than its mirror pod at the API server.
fn uid_on_node(pod: &Pod) -> Option<String> {
    pod.metadata.annotations.as_ref()?.get(MIRROR_ANNOTATION).cloned()
}

/// `kubectl exec` reaches a container of each kind while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    App,
    /// Restartable ones are sidecars: they run as long as the pod.
    Init {
        restartable: bool,
    },
    Ephemeral,
}

struct Chosen {
    name: String,
    kind: Kind,
}

/// The requested container, or the one kubectl would choose: the annotated one, else the first.
fn container_name(request: &ExecRequest, pod: &Pod) -> Result<Chosen, BindDecision> {
    let pod_name = &request.spec.target.pod_name;
    let annotated = pod.metadata.annotations.as_ref().and_then(|a| a.get(DEFAULT_CONTAINER_ANNOTATION));
    // As with kubectl, an annotation that names no container of the pod is an error.
    let wanted = request.spec.target.container.as_ref().or(annotated.filter(|name| !name.is_empty()));
    let mut all = containers(pod);
    if let Some(index) = all.iter().position(|c| wanted.is_none_or(|name| c.name == *name)) {
        return Ok(all.swap_remove(index));
    }
    let wanted = wanted.map_or("", String::as_str);
    let names: Vec<&str> = all.iter().map(|c| c.name.as_str()).collect();
    let message = format!("container {wanted} not found in pod {pod_name}: it has {}", names.join(", "));
    Err(BindDecision::Refuse(Reason::ContainerNotFound, message))
}

fn containers(pod: &Pod) -> Vec<Chosen> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let app = spec.containers.iter().map(|c| Chosen { name: c.name.clone(), kind: Kind::App });
    let init = spec.init_containers.iter().flatten().map(|c| Chosen {
        name: c.name.clone(),
        kind: Kind::Init { restartable: c.restart_policy.as_deref() == Some("Always") },
    });
    let ephemeral =
        spec.ephemeral_containers.iter().flatten().map(|c| Chosen { name: c.name.clone(), kind: Kind::Ephemeral });
    app.chain(init).chain(ephemeral).collect()
}

fn container_runs(pod: &Pod, pod_name: &str, phase: &str, container: &Chosen) -> Result<(), BindDecision> {
    let name = &container.name;
    let state = container_status(pod, container).and_then(|s| s.state.as_ref());
    let restarts = match container.kind {
        Kind::App => pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always") != "Never",
        Kind::Init { restartable } => restartable,
        Kind::Ephemeral => false,
    };
    let wait = |reason, message| Err(BindDecision::Wait(reason, message));
    match state {
        Some(ContainerState { running: Some(_), .. }) => Ok(()),
        Some(ContainerState { terminated: Some(end), .. }) => {
            let message = format!(
                "container {name} of pod {pod_name} has terminated with exit code {}{}",
                end.exit_code,
                end.reason.as_deref().map(|r| format!(" ({r})")).unwrap_or_default()
            );
            // An init container is retried only if it failed.
            let retried = matches!(container.kind, Kind::Init { .. }) && end.exit_code != 0;
            if restarts || retried {
                wait(Reason::ContainerNotRunning, message)
            } else {
                Err(BindDecision::Refuse(Reason::ContainerNotRunning, format!("{message} and will not run again")))
            }
        }
        Some(ContainerState { waiting: Some(why), .. }) => wait(
            if phase == "Running" { Reason::ContainerNotRunning } else { Reason::PodNotRunning },
            format!(
                "container {name} of pod {pod_name} is waiting{}",
                why.reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default()
            ),
        ),
        Some(_) | None => {
            wait(Reason::PodNotRunning, format!("pod {pod_name} is {phase}: container {name} has not started yet"))
        }
    }
}

fn container_status<'a>(pod: &'a Pod, container: &Chosen) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let list = match container.kind {
        Kind::App => &status.container_statuses,
        Kind::Init { .. } => &status.init_container_statuses,
        Kind::Ephemeral => &status.ephemeral_container_statuses,
    };
    list.as_ref()?.iter().find(|s| s.name == container.name)
}

#[cfg(test)]
#[path = "bind_tests.rs"]
mod tests;
