//! Finding a container by the kubelet's labels.

use std::collections::HashMap;

use execlet::engine::{Container, ContainerQuery, ContainerState, Engine as _, labels};

use crate::{
    lab::{unique, until},
    stage::{Stage, Staged as _, on_the_engine},
};

/// The labels of a container as the kubelet's runtime writes them.
fn labels_of<S: Stage>(_: &S, query: &ContainerQuery, pod_uid: &str, is_container: bool) -> HashMap<String, String> {
    let labels = [
        S::kind_label(is_container),
        (labels::POD_NAMESPACE, &query.namespace),
        (labels::POD_NAME, &query.pod_name),
        (labels::POD_UID, pod_uid),
        (labels::CONTAINER_NAME, &query.container),
    ];
    labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn new_query() -> ContainerQuery {
    ContainerQuery { namespace: "execlet-test".into(), pod_name: unique("pod"), container: "main".into() }
}

async fn find<S: Stage>(stage: &S, query: &ContainerQuery) -> Vec<Container> {
    stage.engine().find_containers(query).await.expect("a list")
}

async fn find_one<S: Stage>(stage: &S, query: &ContainerQuery) -> Container {
    let mut found = find(stage, query).await;
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[tokio::test]
async fn running_paused_and_stopped_containers_are_told_apart() {
    on_the_engine!(stage => {
        let query = new_query();
        let container = stage.with_labels(labels_of(&stage, &query, "uid", true)).await;
        let found = find_one(&stage, &query).await;
        assert_eq!((&found.reference, &found.state), (&container.reference(), &ContainerState::Running));

        stage.pause(&container).await;
        assert_eq!(find_one(&stage, &query).await.state, ContainerState::Paused);

        stage.resume(&container).await;
        assert_eq!(find_one(&stage, &query).await.state, ContainerState::Running);

        stage.end(&container).await;
        let stopped = until("the end of the container", async || {
            let state = find_one(&stage, &query).await.state;
            (state != ContainerState::Running).then_some(state)
        });
        assert_eq!(stopped.await, ContainerState::Stopped("exited".into()));
    });
}

#[tokio::test]
async fn a_container_that_was_never_started_is_stopped() {
    on_the_engine!(stage => {
        let query = new_query();
        let _container = stage.never_started(labels_of(&stage, &query, "uid", true)).await;
        let state = find_one(&stage, &query).await.state;
        assert!(matches!(state, ContainerState::Stopped(_)), "{state:?}");
    });
}

#[tokio::test]
async fn containers_of_another_pod_of_the_same_name_are_told_by_its_uid() {
    on_the_engine!(stage => {
        let query = new_query();
        let old = stage.with_labels(labels_of(&stage, &query, "old", true)).await;
        let new = stage.with_labels(labels_of(&stage, &query, "new", true)).await;
        let found = find(&stage, &query).await;
        let mut found: Vec<_> = found.into_iter().map(|found| (found.pod_uid, found.reference)).collect();
        found.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(found, [("new".to_owned(), new.reference()), ("old".to_owned(), old.reference())]);
    });
}

#[tokio::test]
async fn a_container_is_found_by_its_own_namespace_pod_and_name_only() {
    on_the_engine!(stage => {
        let main = new_query();
        let sidecar = ContainerQuery { container: "sidecar".into(), ..main.clone() };
        let main_container = stage.with_labels(labels_of(&stage, &main, "uid", true)).await;
        let sidecar_container = stage.with_labels(labels_of(&stage, &sidecar, "uid", true)).await;
        let _sandbox = stage.with_labels(labels_of(&stage, &main, "uid", false)).await;
        assert_eq!(find_one(&stage, &main).await.reference, main_container.reference());
        assert_eq!(find_one(&stage, &sidecar).await.reference, sidecar_container.reference());

        let others = [
            ContainerQuery { namespace: "another".into(), ..main.clone() },
            ContainerQuery { pod_name: "another".into(), ..main.clone() },
            ContainerQuery { container: "another".into(), ..main.clone() },
            // No prefix, no pattern, and no filter of its own.
            ContainerQuery { container: "mai".into(), ..main.clone() },
            ContainerQuery { container: "*".into(), ..main.clone() },
            ContainerQuery { container: "\",id!=\"".into(), ..main.clone() },
        ];
        for other in others {
            assert_eq!(find(&stage, &other).await, [], "{other:?}");
        }
    });
}
