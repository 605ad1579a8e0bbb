//! Prepare: find the container, create the exec. Nothing runs yet.

use crate::{
    agent::node::{Node, StepError, World},
    api::{
        Reason,
        names::{BATCH_ENV, BATCH_INDEX_ENV, BATCH_TOTAL_ENV, POD_NAME_ENV, UID_ENV},
    },
    core::{
        batch::held::Held,
        decide::ContainerView,
        ids::{ContainerRef, ExecName, ExecRef},
        outcome::Outcome,
        request::BoundRequest,
        strings::impossible,
    },
    engine::{
        Container, ContainerQuery, ContainerState, Engine, EngineError, ExecSpec, ExecState, Prepared, Surroundings,
    },
    infra::kernel::Kernel,
};

/// The bound container, as the engine shows it now.
pub(crate) async fn look<W: World>(node: &Node<W>, request: &BoundRequest) -> Result<ContainerView, EngineError> {
    let query = ContainerQuery {
        namespace: request.key.namespace.clone(),
        pod_name: request.pod_name.clone(),
        container: request.container.clone(),
    };
    let found = node.engine.find_containers(&query).await?;
    Ok(choose(request, found))
}

/// Of all containers with the right labels, the one of the bound pod. A restarted
/// container leaves its predecessors behind, stopped.
fn choose(request: &BoundRequest, found: Vec<Container>) -> ContainerView {
    let BoundRequest { container, pod_name, pod_uid, node, .. } = request;
    let other = found.iter().find(|c| c.pod_uid != pod_uid.as_str()).map(|c| c.pod_uid.clone());
    let best = found.into_iter().filter(|c| c.pod_uid == pod_uid.as_str()).min_by_key(|c| match c.state {
        ContainerState::Running => 0,
        ContainerState::Paused => 1,
        ContainerState::Stopped(_) => 2,
    });
    match (best, other) {
        (Some(Container { state: ContainerState::Running, reference, .. }), _) => ContainerView::Running(reference),
        (Some(Container { state: ContainerState::Paused, .. }), _) => ContainerView::Unfit(
            Reason::ContainerNotRunning,
            format!("container {container} of pod {pod_name} is paused: unpause it, then create another request"),
        ),
        (Some(Container { state: ContainerState::Stopped(state), .. }), None) => ContainerView::Unfit(
            Reason::ContainerNotRunning,
            format!("container {container} of pod {pod_name} is not running: the engine says it is {state}"),
        ),
        (Some(_) | None, Some(other)) => ContainerView::Unfit(
            Reason::PodReplaced,
            format!(
                "pod {pod_name} was replaced before the command could start: it was bound with UID {pod_uid}, and now has UID {other}"
            ),
        ),
        (None, None) => ContainerView::Unfit(
            Reason::PodNotFound,
            format!(
                "pod {pod_name} with UID {pod_uid} is no longer on node {node}: it was deleted before the command could start"
            ),
        ),
    }
}

/// Creates an exec in place of one that was taken away, in the same run of the container.
pub(crate) async fn replace<W: World>(
    node: &Node<W>,
    request: &BoundRequest,
    held: Option<Held>,
    before: &ExecRef,
) -> Result<Result<ExecRef, Outcome>, StepError> {
    let refused = |reason, message| Ok(Err(Outcome::refused(reason, message, node.clock.now())));
    match look(node, request).await? {
        ContainerView::Running(now) if now.is_same_run(&before.container) => {
            create(node, request, now, held, Some(before)).await
        }
        ContainerView::Running(_) => {
            refused(Reason::ContainerDied, "the container was restarted before the command could start".to_owned())
        }
        ContainerView::Unfit(reason, message) => refused(reason, message),
    }
}

/// Creates an exec, or says why this can never be. `held`: if it is a batch's. `before`: the one whose place it takes.
pub(crate) async fn create<W: World>(
    node: &Node<W>,
    request: &BoundRequest,
    container: ContainerRef,
    held: Option<Held>,
    before: Option<&ExecRef>,
) -> Result<Result<ExecRef, Outcome>, StepError> {
    let spec = &request.spec;
    let exec = ExecSpec {
        command: spec.command.clone(),
        env: environment(request, held),
        working_dir: spec.working_dir.clone(),
        user: spec.user.clone(),
        tty: spec.tty,
        stdin: spec.stdin.is_some(),
    };
    let input = spec.own_input().err().map(|error| format!("stdin.data is not valid base64: {error}"));
    if let Some(message) = impossible(spec).or(input) {
        return Ok(Err(Outcome::refused(Reason::InvalidRequest, message, node.clock.now())));
    }
    if let Some(message) = unrecognised(node, request, &container).await? {
        return Ok(Err(Outcome::refused(Reason::RuntimeNotSupported, message, node.clock.now())));
    }
    let mut name = match before.and_then(|before| ExecName::of(&before.id)) {
        Some(name) => name.next(),
        None => ExecName { request: request.key.uid.clone(), number: 1 },
    };
    loop {
        match node.engine.prepare(&container, &name, &exec).await {
            Ok(Prepared::Created(exec)) => return Ok(Ok(exec)),
            // Of an agent that ended before it could put it down, or that lost what it had put down.
            Ok(Prepared::Existed) => {
                let existed = ExecRef { id: name.to_string().into(), container: container.clone() };
                match node.engine.state(&existed).await? {
                    ExecState::Untouched | ExecState::Absent => name = name.next(),
                    ExecState::Spent | ExecState::Running { .. } | ExecState::Ended { .. } => {
                        let message =
                            "the engine has an exec of this request that may have run, and nobody remembers it";
                        return Ok(Err(Outcome::lost(message, None, node.clock.now())));
                    }
                }
            }
            // Some engines find out here what others find out at the start: a user that is not there.
            Err(EngineError::Invalid(message)) => {
                let message = format!("the engine could not start the command: {message}");
                return Ok(Err(Outcome::refused(Reason::StartFailed, message, node.clock.now())));
            }
            Err(EngineError::Unsupported(message)) => {
                return Ok(Err(Outcome::refused(Reason::RuntimeNotSupported, message, node.clock.now())));
            }
            // The container's state has changed since it was looked at: look again.
            Err(error) => return Err(error.into()),
        }
    }
}

/// Why the command's processes could be neither watched nor ended, if that is so. An agent in a cgroup namespace of its own
/// does not see which container it is in.
async fn unrecognised<W: World>(
    node: &Node<W>,
    request: &BoundRequest,
    container: &ContainerRef,
) -> Result<Option<String>, StepError> {
    if !node.kernel.own_container_is_hidden() {
        return Ok(None);
    }
    let Some(Surroundings { main, .. }) = node.engine.surroundings(container).await? else { return Ok(None) };
    Ok((!node.kernel.recognises(main, &container.id)).then(|| {
        let whose = if main == std::process::id() { "the agent's own" } else { "not one that the agent recognises" };
        let (name, pod) = (&request.container, &request.pod_name);
        format!(
            "container {name} of pod {pod} is {whose}: by their control groups its processes cannot be told from others, so the command could be neither watched nor ended"
        )
    }))
}

/// The request's own variables, and ours: by the tag its processes are found, by the others the targets of a batch share out
/// their work.
fn environment(request: &BoundRequest, held: Option<Held>) -> Vec<String> {
    let own = request.spec.env.iter().map(|variable| format!("{}={}", variable.name, variable.value));
    let of_batch = request.spec.batch.as_ref().zip(held).map(|(place, held)| {
        [
            format!("{BATCH_ENV}={}", place.name),
            format!("{BATCH_INDEX_ENV}={}", place.index),
            format!("{BATCH_TOTAL_ENV}={}", held.total),
            format!("{POD_NAME_ENV}={}", request.pod_name),
        ]
    });
    let tag = format!("{UID_ENV}={}", request.key.uid);
    own.chain(of_batch.into_iter().flatten()).chain([tag]).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::core::request::Progress;

    fn request() -> BoundRequest {
        let spec = serde_json::json!({"target": {"podName": "web"}, "command": ["true"]});
        BoundRequest {
            key: crate::core::ids::RequestKey { namespace: "shop".into(), name: "r".into(), uid: "u".into() },
            node: "n1".into(),
            pod_name: "web".into(),
            pod_uid: "new".into(),
            container: "app".into(),
            spec: serde_json::from_value(spec).expect("a spec"),
            starting_deadline: Timestamp::MAX,
            progress: Progress::Bound,
            committed_at: None,
            deleting: false,
        }
    }

    fn container(id: &str, pod_uid: &str, state: ContainerState) -> Container {
        Container {
            reference: ContainerRef { id: id.into(), started_at: Some("t".into()) },
            pod_uid: pod_uid.into(),
            state,
        }
    }

    fn stopped() -> ContainerState {
        ContainerState::Stopped("exited".into())
    }

    #[track_caller]
    fn unfit(found: Vec<Container>, reason: Reason) {
        let view = choose(&request(), found);
        assert!(matches!(&view, ContainerView::Unfit(r, _) if *r == reason), "{view:?}");
    }

    #[test]
    fn a_batchs_command_finds_its_share_of_the_work_and_any_other_only_its_tag() {
        let mut request = request();
        request.spec.env = vec![crate::api::request::EnvVar { name: "A".to_owned(), value: "1".to_owned() }];
        assert_eq!(environment(&request, None), ["A=1", "EXECLET_UID=u"]);
        request.spec.batch =
            Some(crate::api::BatchReference { name: "b".to_owned(), uid: "b-1".to_owned(), plan: 1, index: 7 });
        let ours = ["EXECLET_BATCH=b", "EXECLET_BATCH_INDEX=7", "EXECLET_BATCH_TOTAL=9", "EXECLET_POD_NAME=web"];
        let wanted: Vec<&str> = ["A=1"].into_iter().chain(ours).chain(["EXECLET_UID=u"]).collect();
        assert_eq!(environment(&request, Some(Held { total: 9 })), wanted);
    }

    #[test]
    fn the_running_container_is_chosen_among_its_stopped_predecessors() {
        let found = vec![container("a", "new", stopped()), container("b", "new", ContainerState::Running)];
        let ContainerView::Running(reference) = choose(&request(), found) else { panic!("not running") };
        assert_eq!(reference.id.as_str(), "b");
    }

    #[test]
    fn a_container_of_another_pod_of_the_same_name_is_never_chosen() {
        unfit(vec![container("a", "old", ContainerState::Running)], Reason::PodReplaced);
        unfit(
            vec![container("a", "old", ContainerState::Running), container("b", "new", stopped())],
            Reason::PodReplaced,
        );
    }

    #[test]
    fn paused_stopped_and_missing_are_told_apart() {
        unfit(vec![container("a", "new", ContainerState::Paused)], Reason::ContainerNotRunning);
        unfit(vec![container("a", "new", stopped())], Reason::ContainerNotRunning);
        unfit(vec![], Reason::PodNotFound);
    }
}
