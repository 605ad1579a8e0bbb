//! Whether and where a request is to run: from the request, what is known of its
//! requester, its pod and the agents that live, to a binding, a reason to wait, or a refusal.

use std::{fmt::Display, time::Duration};

use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStatus, Pod},
    jiff::Timestamp,
};

use super::{access::Right, admission::Admission, request::starting_deadline, transition::Binding};
use crate::api::{
    ExecRequest, Reason, Requester,
    conditions::{self, ConditionType, Truth},
    names::{DEFAULT_CONTAINER_ANNOTATION, MIRROR_ANNOTATION},
};

/// What the manager is to do with an unbound request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindDecision {
    /// Bind it.
    Bind(Binding),
    /// Say why it waits, and look again soon.
    Wait(Reason, String),
    /// It never runs.
    Refuse(Reason, String),
}

/// What was found out about an unbound request, in this order.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The request.
    pub request: &'a ExecRequest,
    /// The policies, at a moment after the request was read.
    pub admission: &'a Admission,
    /// A right that [`suspect`] must have and has not.
    pub lacks: Option<&'a Right>,
    /// The pod that it names; `None` if there is none.
    pub pod: Option<&'a Pod>,
}

/// Whether the agent of a node renews its Lease.
pub trait Agents {
    /// `Ok` if it does, else what is wrong, for people.
    ///
    /// # Errors
    /// When no agent lives on the node.
    fn alive(&self, node: &str) -> Result<(), String>;
}

/// Said with every request that is bound without policies.
const UNVERIFIED: &str = "admission is off, so it was not checked who asked for this and whether they may";

/// Whether the policies vouch for what a request says of its requester.
pub fn vouched_for(request: &ExecRequest, admission: &Admission) -> bool {
    match (admission, &request.metadata.creation_timestamp) {
        (Admission::Since(from), Some(created)) => created.0 >= *from,
        (Admission::Since(_), None) | (Admission::Off | Admission::Broken(_), _) => false,
    }
}

/// Whether they vouched for it when the request was bound, as its status tells.
pub fn was_vouched_for(request: &ExecRequest) -> bool {
    let conditions = request.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let bound = conditions::get(conditions, ConditionType::Bound);
    bound.is_some_and(|bound| bound.status == Truth::True.as_str() && !bound.message.ends_with(UNVERIFIED))
}

/// Whose rights are to be asked for before the request is bound: nobody's, if it will not be bound
/// anyhow, or if nobody knows who it was.
pub fn suspect<'a>(request: &'a ExecRequest, admission: &Admission) -> Option<&'a Requester> {
    admit(request, admission).ok().flatten()
}

/// Decides about an unbound request.
pub fn bind(facts: &Facts<'_>, agents: &impl Agents, now: Timestamp) -> BindDecision {
    let request = facts.request;
    if request.spec.cancel {
        let message = "canceled before it was bound to a node: nothing ran";
        return BindDecision::Refuse(Reason::Canceled, message.to_owned());
    }
    let too_late = starting_deadline(request).is_some_and(|deadline| now >= deadline);
    let exceeded = |reason, message: &str| {
        BindDecision::Refuse(Reason::StartingDeadlineExceeded, deadline_message(request, reason, message))
    };
    let permitted = admit(request, facts.admission).and_then(|by| permit(by, facts.lacks));
    match permitted.and_then(|()| choose(request, facts.pod, agents)) {
        Ok(_) if too_late => match waited_for_audit(request) {
            Some(message) => exceeded(Reason::AuditUnavailable, message),
            None => exceeded(Reason::Pending, "no manager had looked at it before"),
        },
        Ok(binding) => BindDecision::Bind(Binding { caveat: caveat(facts.admission), ..binding }),
        Err(BindDecision::Wait(reason, message)) if too_late => exceeded(reason, &message),
        Err(decision) => decision,
    }
}

/// What people must know of a request that is bound.
pub fn caveat(admission: &Admission) -> Option<&'static str> {
    match admission {
        Admission::Off => Some(UNVERIFIED),
        Admission::Since(_) | Admission::Broken(_) => None,
    }
}

/// Who asked for it, if the policies vouch for that, or if there are none and it says so itself.
fn admit<'a>(request: &'a ExecRequest, admission: &Admission) -> Result<Option<&'a Requester>, BindDecision> {
    let by = request.spec.requested_by.as_ref();
    let forbidden = |why: String| {
        let message = format!("{why}, so who asked for it cannot be told: create it again");
        Err(BindDecision::Refuse(Reason::Forbidden, message))
    };
    match admission {
        Admission::Off => Ok(by),
        Admission::Broken(why) => Err(BindDecision::Wait(
            Reason::AdmissionNotReady,
            format!("{why}: nothing is bound until every admission policy stands (helm upgrade puts them back)"),
        )),
        Admission::Since(_) if vouched_for(request, admission) => match by {
            Some(by) => Ok(Some(by)),
            None => forbidden("spec.requestedBy is missing".to_owned()),
        },
        Admission::Since(from) => forbidden(format!("it was created before {from}, when the admission policies stood")),
    }
}

/// Why what somebody has bound must not run, if the policies do not vouch for it. `Err`: it must
/// wait, because they do not stand.
///
/// # Errors
/// While they do not stand, with what is wrong.
pub fn unvouched(request: &ExecRequest, admission: &Admission) -> Result<Option<String>, String> {
    match admission {
        Admission::Off => Ok(None),
        Admission::Since(from) => Ok((!vouched_for(request, admission)).then(|| {
            format!(
                "it was created before {from}, when the admission policies stood, so who asked for it and who \
                 bound it cannot be told: create it again"
            )
        })),
        Admission::Broken(why) => Err(why.clone()),
    }
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

/// A request is not bound while that could not be recorded, and must be.
pub fn unless_unrecorded<E: Display>(decision: BindDecision, available: Result<(), E>) -> BindDecision {
    match (decision, available) {
        (BindDecision::Bind(_), Err(why)) => BindDecision::Wait(Reason::AuditUnavailable, why.to_string()),
        (decision, _) => decision,
    }
}

/// The image of a container, by its digest if that is known.
pub fn image(pod: &Pod, container: &str) -> Option<String> {
    let chosen = containers(pod).into_iter().find(|chosen| chosen.name == container)?;
    let status = container_status(pod, &chosen)?;
    [&status.image_id, &status.image].into_iter().find(|image| !image.is_empty()).cloned()
}

/// Whether a request that is bound but not committed must be given up: its node may be gone for good.
pub fn bound_too_long(request: &ExecRequest, agents: &impl Agents, now: Timestamp) -> Option<(Reason, String)> {
    let status = request.status.as_ref()?;
    let node = status.node_name.as_deref()?;
    if status.exec_id.is_some() || status.completion_time.is_some() || now < starting_deadline(request)? {
        return None;
    }
    let why = agents.alive(node).err()?;
    Some((Reason::StartingDeadlineExceeded, deadline_message(request, Reason::AgentNotReady, &why)))
}

/// Whether a request that was committed must be given up, because its agent has been silent for so long.
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

/// What it waited for, if that was the audit log.
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
    let refuse = |reason, message| BindDecision::Refuse(reason, message);

    let pod = pod.ok_or_else(|| {
        refuse(
            Reason::PodNotFound,
            format!("pod {name} not found in namespace {namespace}: kubectl get pods -n {namespace}"),
        )
    })?;
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    if let Some(wanted) = &target.pod_uid
        && *wanted != uid
    {
        return Err(refuse(
            Reason::PodReplaced,
            format!("pod {name} has UID {uid}, target.podUID wants {wanted}: it is another pod"),
        ));
    }
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
    if matches!(phase, "Succeeded" | "Failed") {
        return Err(refuse(
            Reason::ContainerNotRunning,
            format!("cannot exec into a container in a completed pod: pod {name} is {phase}"),
        ));
    }
    let container = container_name(request, pod)?;
    let node = pod.spec.as_ref().and_then(|s| s.node_name.clone());
    let Some(node) = node.filter(|node| !node.is_empty()) else {
        return Err(BindDecision::Wait(
            Reason::PodNotRunning,
            format!("pod {name} is {phase}: it is not on a node yet"),
        ));
    };
    container_runs(pod, name, phase, &container)?;
    agents.alive(&node).map_err(|why| BindDecision::Wait(Reason::AgentNotReady, why))?;
    Ok(Binding { node, pod_uid: uid_on_node(pod).unwrap_or(uid), container: container.name, caveat: None })
}

/// A static pod has another UID on its node than its mirror has at the API server.
fn uid_on_node(pod: &Pod) -> Option<String> {
    pod.metadata.annotations.as_ref()?.get(MIRROR_ANNOTATION).cloned()
}

/// The three kinds of container that a pod has. `kubectl exec` reaches each of them while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    App,
    /// Restartable ones (sidecars) run as long as the pod.
    Init {
        restartable: bool,
    },
    Ephemeral,
}

struct Chosen {
    name: String,
    kind: Kind,
}

/// The container asked for, or the one that kubectl would take: annotated, else the first.
fn container_name(request: &ExecRequest, pod: &Pod) -> Result<Chosen, BindDecision> {
    let pod_name = &request.spec.target.pod_name;
    let annotated = pod.metadata.annotations.as_ref().and_then(|a| a.get(DEFAULT_CONTAINER_ANNOTATION));
    // As in kubectl, an annotation that names no container of the pod is an error, not a hint.
    let wanted = request.spec.target.container.as_ref().or(annotated.filter(|name| !name.is_empty()));
    let mut all = containers(pod);
    match all.iter().position(|c| wanted.is_none_or(|name| c.name == *name)) {
        Some(index) => Ok(all.swap_remove(index)),
        None => Err(BindDecision::Refuse(
            Reason::ContainerNotFound,
            format!(
                "container {} not found in pod {pod_name}: it has {}",
                wanted.map_or("", String::as_str),
                all.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ")
            ),
        )),
    }
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
                "container {name} of pod {pod_name} has ended with exit code {}{}",
                end.exit_code,
                end.reason.as_deref().map(|r| format!(" ({r})")).unwrap_or_default()
            );
            // An init container that failed is tried again; one that succeeded is not.
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
