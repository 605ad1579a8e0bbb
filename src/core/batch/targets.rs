//! Which pods are the targets of a batch, and in which order.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::OwnerReference};

use crate::api::batch::{GivenPod, Operator, Pick, PodSelector, Targets};

/// One target, in the place that its index is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub pod: String,
    /// `None` where a name was given that no pod has.
    pub uid: Option<String>,
    pub fate: Fate,
}

/// What is known of a target before anything runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It runs once it is released.
    Run,
    /// No pod has the given name.
    Missing,
    /// The pod that has the given name has not the given UID.
    Replaced,
    /// The requester may not exec into it, and it is to be skipped then.
    Forbidden,
}

/// The targets among these pods: those that the API server found for the selector, those of the workload, or all pods of
/// the namespace.
pub fn select(targets: &Targets, found: &[Pod]) -> Vec<Target> {
    if let Some(given) = &targets.pods {
        return named(given, found);
    }
    let mut pods: Vec<&Pod> = found.iter().filter(|pod| !has_ended(pod)).collect();
    pods.sort_by(|one, other| natural(name(one), name(other)));
    let pods = match targets.pick {
        Pick::All => pods,
        Pick::OnePerNode => one_per_node(&pods),
        Pick::One => best(&pods).into_iter().collect(),
    };
    pods.into_iter()
        .map(|pod| Target { pod: name(pod).to_owned(), uid: pod.metadata.uid.clone(), fate: Fate::Run })
        .collect()
}

/// In the order in which they were given. Whether one has ended, its request says.
fn named(given: &[GivenPod], found: &[Pod]) -> Vec<Target> {
    let by_name: BTreeMap<&str, &Pod> = found.iter().map(|pod| (name(pod), pod)).collect();
    let target = |wanted: &GivenPod| {
        let pod = by_name.get(wanted.name.as_str());
        let found = pod.and_then(|pod| pod.metadata.uid.clone());
        let fate = match (&found, &wanted.uid) {
            (None, _) => Fate::Missing,
            (Some(found), Some(uid)) if found != uid => Fate::Replaced,
            (Some(_), _) => Fate::Run,
        };
        Target { pod: wanted.name.clone(), uid: wanted.uid.clone().or(found), fate }
    };
    given.iter().map(target).collect()
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// It is ending, or has ended. What does not run yet is waited for.
fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed"))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The first that is ready, else the first.
fn best<'a>(pods: &[&'a Pod]) -> Option<&'a Pod> {
    pods.iter().find(|pod| is_ready(pod)).or(pods.first()).copied()
}

/// In the order of the pods. One that is on no node yet is none of them.
fn one_per_node<'a>(pods: &[&'a Pod]) -> Vec<&'a Pod> {
    let mut of_node: BTreeMap<&str, Vec<&'a Pod>> = BTreeMap::new();
    for pod in pods {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty());
        if let Some(node) = node {
            of_node.entry(node).or_default().push(pod);
        }
    }
    let chosen: BTreeSet<&str> = of_node.values().filter_map(|pods| best(pods)).map(name).collect();
    pods.iter().filter(|pod| chosen.contains(name(pod))).copied().collect()
}

/// By name, numbers as numbers: `db-2` before `db-10`. Names that differ only in zeros before a number are told apart.
pub fn natural(one: &str, other: &str) -> Ordering {
    let (mut left, mut right) = (one, other);
    loop {
        match (part(&mut left), part(&mut right)) {
            (None, None) => return one.cmp(other),
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => match compared(a, b) {
                Ordering::Equal => {}
                order => return order,
            },
        }
    }
}

fn compared(one: &str, other: &str) -> Ordering {
    let is_number = |part: &str| part.starts_with(|c: char| c.is_ascii_digit());
    if !is_number(one) || !is_number(other) {
        return one.cmp(other);
    }
    let (one, other) = (one.trim_start_matches('0'), other.trim_start_matches('0'));
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

/// Takes the next run of digits, or of anything else, off the text.
fn part<'a>(text: &mut &'a str) -> Option<&'a str> {
    let is_digit = text.chars().next()?.is_ascii_digit();
    let end = text.find(|c: char| c.is_ascii_digit() != is_digit).unwrap_or(text.len());
    let (part, rest) = text.split_at(end);
    *text = rest;
    Some(part)
}

/// The pods of a workload: those whose controller it is, or whose controller's controller. `owners` has, by the UID of what
/// was looked up after the pods were listed, the UID of its controller: of what a rollout makes meanwhile no pod was listed.
pub fn of_workload(pods: Vec<Pod>, workload: &str, owners: &BTreeMap<String, String>) -> Vec<Pod> {
    let belongs = |pod: &Pod| {
        let owner = controller(pod.metadata.owner_references.as_deref()).map(|owner| owner.uid.as_str());
        owner.is_some_and(|owner| owner == workload || owners.get(owner).is_some_and(|above| above == workload))
    };
    pods.into_iter().filter(belongs).collect()
}

/// The one that manages an object.
pub fn controller(owners: Option<&[OwnerReference]>) -> Option<&OwnerReference> {
    owners?.iter().find(|owner| owner.controller == Some(true))
}

/// A selector as the API server takes it in a query.
pub fn selector_text(selector: &PodSelector) -> String {
    let labels = selector.match_labels.iter().map(|(key, value)| format!("{key}={value}"));
    let requirements = selector.match_expressions.iter().map(|requirement| {
        let (key, values) = (&requirement.key, requirement.values.join(","));
        match requirement.operator {
            Operator::In => format!("{key} in ({values})"),
            Operator::NotIn => format!("{key} notin ({values})"),
            Operator::Exists => key.clone(),
            Operator::DoesNotExist => format!("!{key}"),
        }
    });
    labels.chain(requirements).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
#[path = "targets_tests.rs"]
mod tests;
