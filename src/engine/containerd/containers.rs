//! Containers, found by the kubelet's labels. Whether one runs, its process tells, and never its status alone.

use k8s_openapi::jiff::Timestamp;

use super::{
    calls::Calls,
    messages::{self, Moment, Process, Status},
};
use crate::{
    core::ids::{ContainerId, ContainerRef},
    engine::{Container, ContainerQuery, ContainerState, EngineError, labels},
};

/// Label that tells the containers of a pod from its sandbox.
const KIND_LABEL: &str = "io.cri-containerd.kind";
const KIND_CONTAINER: &str = "container";

/// All containers, in any state, with these labels of the kubelet.
pub(super) async fn find(calls: &Calls, query: &ContainerQuery) -> Result<Vec<Container>, EngineError> {
    let labels = [
        (KIND_LABEL, KIND_CONTAINER),
        (labels::POD_NAMESPACE, &query.namespace),
        (labels::POD_NAME, &query.pod_name),
        (labels::CONTAINER_NAME, &query.container),
    ];
    let filter: Vec<String> =
        labels.iter().map(|(name, value)| format!("labels.{}=={}", quoted(name), quoted(value))).collect();
    let mut containers = Vec::new();
    for found in calls.containers(filter.join(",")).await? {
        // The filter's own rules are no concern of ours.
        if labels.iter().all(|(name, value)| found.labels.get(*name).is_some_and(|label| label == value)) {
            containers.push(with_state(calls, &found).await?);
        }
    }
    Ok(containers)
}

/// One container; `None` if there is none.
pub(super) async fn look(calls: &Calls, id: &ContainerId) -> Result<Option<Container>, EngineError> {
    match calls.container(id.as_str()).await? {
        Some(found) => Ok(Some(with_state(calls, &found).await?)),
        None => Ok(None),
    }
}

async fn with_state(calls: &Calls, found: &messages::Container) -> Result<Container, EngineError> {
    let process = calls.process(&found.id, "").await?;
    let state = state(calls, process.as_ref())?;
    let pod_uid = found.labels.get(labels::POD_UID).cloned().unwrap_or_default();
    Ok(Container { reference: reference(found), pod_uid, state })
}

/// The kubelet's runtime makes a new container for each run, with an ID of its own.
pub(super) fn reference(found: &messages::Container) -> ContainerRef {
    ContainerRef { id: found.id.as_str().into(), started_at: found.created_at.and_then(time).map(|at| at.to_string()) }
}

pub(super) fn time(moment: Moment) -> Option<Timestamp> {
    Timestamp::new(moment.seconds, moment.nanos).ok()
}

/// `None`: it has none, or its shim has gone.
pub(super) fn state(calls: &Calls, process: Option<&Process>) -> Result<ContainerState, EngineError> {
    let Some(process) = process else { return Ok(ContainerState::Stopped("stopped".to_owned())) };
    Ok(match process.status() {
        Status::Unknown => {
            return Err(calls.unreachable("get process", &std::io::Error::other("its shim does not answer")));
        }
        _ if process.exited_at.is_some_and(Moment::has_come) => ContainerState::Stopped("exited".to_owned()),
        _ if process.pid == 0 => ContainerState::Stopped("created".to_owned()),
        Status::Paused | Status::Pausing => ContainerState::Paused,
        Status::Created | Status::Running | Status::Stopped => ContainerState::Running,
    })
}

/// As the engine's filters take a text as it is.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_runs_if_it_has_a_process_that_has_not_ended_whatever_its_status() {
        let calls = Calls::new("/s");
        let (never, ended) = (Moment { seconds: -62_135_596_800, nanos: 0 }, Moment { seconds: 9, nanos: 0 });
        let process =
            |status: Status, pid, exited_at| Process { pid, status: status.into(), exit_status: 0, exited_at };
        let stopped = |word: &str| ContainerState::Stopped(word.to_owned());
        for (found, expected) in [
            (process(Status::Running, 7, Some(never)), ContainerState::Running),
            (process(Status::Created, 7, None), ContainerState::Running),
            (process(Status::Paused, 7, Some(never)), ContainerState::Paused),
            (process(Status::Pausing, 7, None), ContainerState::Paused),
            (process(Status::Paused, 7, Some(ended)), stopped("exited")),
            (process(Status::Running, 7, Some(ended)), stopped("exited")),
            (process(Status::Created, 0, None), stopped("created")),
        ] {
            assert_eq!(state(&calls, Some(&found)).expect("a state"), expected, "{found:?}");
        }
        assert_eq!(state(&calls, None).expect("a state"), stopped("stopped"));
        let silent = state(&calls, Some(&process(Status::Unknown, 7, None)));
        assert!(matches!(silent, Err(EngineError::Unreachable { .. })), "{silent:?}");
    }

    #[test]
    fn two_runs_are_told_apart_by_when_they_were_made() {
        let at = |nanos| messages::Container {
            id: "c".to_owned(),
            created_at: Some(Moment { seconds: 9, nanos }),
            ..messages::Container::default()
        };
        assert!(!reference(&at(1)).is_same_run(&reference(&at(2))));
        assert_eq!(reference(&at(1)).started_at.as_deref(), Some("1970-01-01T00:00:09.000000001Z"));
    }

    #[test]
    fn a_text_in_a_filter_is_only_that() {
        assert_eq!(quoted(r#"a"b\c"#), r#""a\"b\\c""#);
    }
}
