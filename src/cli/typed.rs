//! Values as they are typed on the command line: names as kubectl prints them, shares, and `KEY=VALUE`.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::{
    api::batch::{WorkloadKind, WorkloadReference},
    core::batch::MOST_TARGETS,
};

const POD: &[&str] = &["pod", "pods", "po"];
const REQUEST: &[&str] = &["xr", "execrequest", "execrequests", "execrequest.execlet.dev", "execrequests.execlet.dev"];
const BATCH: &[&str] = &["xb", "execbatch", "execbatches", "execbatch.execlet.dev", "execbatches.execlet.dev"];
const WORKLOADS: [(WorkloadKind, &[&str]); 5] = [
    (WorkloadKind::Deployment, &["deploy", "deployment", "deployments", "deployment.apps", "deployments.apps"]),
    (WorkloadKind::StatefulSet, &["sts", "statefulset", "statefulsets", "statefulset.apps", "statefulsets.apps"]),
    (WorkloadKind::DaemonSet, &["ds", "daemonset", "daemonsets", "daemonset.apps", "daemonsets.apps"]),
    (WorkloadKind::ReplicaSet, &["rs", "replicaset", "replicasets", "replicaset.apps", "replicasets.apps"]),
    (WorkloadKind::Job, &["job", "jobs", "job.batch", "jobs.batch"]),
];

/// A request or a batch, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    Request(String),
    Batch(String),
}

impl Name {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Request(name) | Self::Batch(name) => name,
        }
    }
}

impl Default for Name {
    fn default() -> Self {
        Self::Request(String::new())
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self::Request(name.to_owned())
    }
}

/// Where a command is to run, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetName {
    Pod(String),
    Workload(WorkloadReference),
}

/// Reads `NAME` or `pod/NAME`.
pub fn pod_name(text: &str) -> Result<String, String> {
    name(text, POD, |kind| format!("a {kind} is not a pod: give its name"))
}

/// Reads the name of a pod, or `TYPE/NAME` of a workload.
pub fn target_name(text: &str) -> Result<TargetName, String> {
    let kind = text.split_once('/').and_then(|(kind, _)| workload_kind(kind));
    let Some((kind, words)) = kind else {
        return name(text, POD, |kind| {
            format!("a {kind} has no pods: give a pod, or a Deployment, StatefulSet, DaemonSet, ReplicaSet or Job")
        })
        .map(TargetName::Pod);
    };
    let name = name(text, words, |_| "give TYPE/NAME".to_owned())?;
    Ok(TargetName::Workload(WorkloadReference { kind, name }))
}

fn workload_kind(text: &str) -> Option<(WorkloadKind, &'static [&'static str])> {
    WORKLOADS.into_iter().find(|(_, words)| words.contains(&text))
}

/// Reads `NAME`, `xr/NAME` or `execrequest.execlet.dev/NAME` of a request; `xb/NAME` or `execbatch.execlet.dev/NAME` of a
/// batch.
pub fn object_name(text: &str) -> Result<Name, String> {
    if text.split_once('/').is_some_and(|(kind, _)| BATCH.contains(&kind)) {
        return batch_name(text).map(Name::Batch);
    }
    name(text, REQUEST, |kind| format!("a {kind} is neither a request nor a batch: give NAME, xr/NAME or xb/NAME"))
        .map(Name::Request)
}

/// Reads `NAME`, `xb/NAME` or `execbatch.execlet.dev/NAME`.
pub fn batch_name(text: &str) -> Result<String, String> {
    name(text, BATCH, |kind| format!("a {kind} is not a batch: give xb/NAME"))
}

/// Reads a number of targets, or a share of them such as `10%`.
pub fn share(text: &str) -> Result<IntOrString, String> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str, most: u16| text.parse::<u16>().ok().filter(|number| digits(text) && *number <= most);
    let read = match text.strip_suffix('%') {
        Some(percent) => number(percent, 100).map(|percent| IntOrString::String(format!("{percent}%"))),
        None => number(text, MOST_TARGETS).map(|number| IntOrString::Int(number.into())),
    };
    read.ok_or_else(|| format!("{text:?} is neither a number up to {MOST_TARGETS} nor a share such as 10%"))
}

/// The same, of which 0 makes no sense.
pub fn share_from_one(text: &str) -> Result<IntOrString, String> {
    match share(text)? {
        IntOrString::Int(0) => Err("at least 1 has to run at a time; to run nothing yet, give --limit 0".to_owned()),
        share => Ok(share),
    }
}

fn name(text: &str, kinds: &[&str], other: impl Fn(&str) -> String) -> Result<String, String> {
    match text.split_once('/') {
        None if text.is_empty() => Err("the name is empty".to_owned()),
        None => Ok(text.to_owned()),
        Some((kind, name)) if kinds.contains(&kind) && !name.is_empty() && !name.contains('/') => Ok(name.to_owned()),
        Some((kind, _)) => Err(other(kind)),
    }
}

pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("write KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_as_kubectl_prints_them() {
        for text in ["r", "xr/r", "execrequest/r", "execrequest.execlet.dev/r"] {
            assert_eq!(object_name(text), Ok("r".into()), "{text}");
        }
        for text in ["xb/b", "execbatch/b", "execbatches.execlet.dev/b"] {
            assert_eq!(object_name(text), Ok(Name::Batch("b".to_owned())), "{text}");
            assert_eq!(batch_name(text).as_deref(), Ok("b"), "{text}");
        }
        for text in ["", "xr/", "pod/r", "xr/a/b", "xb/"] {
            assert!(object_name(text).is_err(), "{text}");
        }
        assert!(batch_name("xr/r").is_err());
    }

    #[test]
    fn a_target_is_a_pod_or_a_workload() {
        let workload = |kind, name: &str| Ok(TargetName::Workload(WorkloadReference { kind, name: name.to_owned() }));
        assert_eq!(target_name("pod/db-0"), Ok(TargetName::Pod("db-0".to_owned())));
        assert_eq!(target_name("deploy/web"), workload(WorkloadKind::Deployment, "web"));
        assert_eq!(target_name("statefulset.apps/db"), workload(WorkloadKind::StatefulSet, "db"));
        for text in ["node/n1", "deploy/", "deploy/a/b", ""] {
            assert!(target_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_a_number_or_a_part_of_all() {
        let percent = |text: &str| Ok(IntOrString::String(text.to_owned()));
        assert_eq!(
            (share("7"), share("10%"), share("0")),
            (Ok(IntOrString::Int(7)), percent("10%"), Ok(IntOrString::Int(0)))
        );
        for text in ["", "%", "101%", "-1", "+1", "1.5", "10001", "1 %"] {
            assert!(share(text).is_err(), "{text}");
        }
        assert!(share_from_one("0").is_err() && share_from_one("0%").is_ok());
    }

    #[test]
    fn a_value_may_be_empty_and_hold_more_of_them() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!((key_value("a=b=c"), key_value("a=")), (pair("a", "b=c"), pair("a", "")));
        assert!(key_value("scopes").is_err() && key_value("=a").is_err());
    }
}
