//! Finding a container by the kubelet's labels.

use std::collections::HashMap;

use bollard::query_parameters::{KillContainerOptions, RestartContainerOptionsBuilder};
use execlet::engine::{Container, ContainerQuery, ContainerState, Engine, docker::labels as kubelet};

use crate::lab::{Lab, unique, until};

/// The labels of a container as the kubelet's runtime writes them.
fn labels(query: &ContainerQuery, pod_uid: &str, kind: &str) -> HashMap<String, String> {
    let labels = [
        (kubelet::TYPE, kind),
        (kubelet::POD_NAMESPACE, &query.namespace),
        (kubelet::POD_NAME, &query.pod_name),
        (kubelet::POD_UID, pod_uid),
        (kubelet::CONTAINER_NAME, &query.container),
    ];
    labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn container_labels(query: &ContainerQuery, pod_uid: &str) -> HashMap<String, String> {
    labels(query, pod_uid, kubelet::TYPE_CONTAINER)
}

fn new_query() -> ContainerQuery {
    ContainerQuery { namespace: "execlet-test".into(), pod_name: unique("pod"), container: "main".into() }
}

impl Lab {
    async fn find(&self, query: &ContainerQuery) -> Vec<Container> {
        self.engine.find_containers(query).await.expect("a list")
    }

    async fn find_one(&self, query: &ContainerQuery) -> Container {
        let mut found = self.find(query).await;
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }
}

#[tokio::test]
async fn the_engine_and_its_api_are_told() {
    let lab = Lab::open().await;
    let version = lab.engine.version().await.expect("an engine that is new enough");
    let format = "{{.Server.Version}} {{.Server.APIVersion}}";
    let (told, _) = lab.docker_cli(vec!["version".into(), "--format".into(), format.into()]).await;
    let expected = format!("{} {}\n", version.engine, version.api);
    assert_eq!(String::from_utf8_lossy(&told.stdout), expected);
}

#[tokio::test]
async fn running_paused_and_stopped_containers_are_told_apart() {
    let lab = Lab::open().await;
    let query = new_query();
    let container = lab.labelled(container_labels(&query, "uid")).await;
    let found = lab.find_one(&query).await;
    assert_eq!((&found.reference.id, &found.state), (&container.id, &ContainerState::Running));

    lab.docker.pause_container(container.id()).await.unwrap();
    assert_eq!(lab.find_one(&query).await.state, ContainerState::Paused);

    lab.docker.unpause_container(container.id()).await.unwrap();
    assert_eq!(lab.find_one(&query).await.state, ContainerState::Running);

    lab.docker.kill_container(container.id(), None::<KillContainerOptions>).await.unwrap();
    let stopped = until("the end of the container", async || {
        let state = lab.find_one(&query).await.state;
        (state != ContainerState::Running).then_some(state)
    });
    assert_eq!(stopped.await, ContainerState::Stopped("exited".into()));
}

#[tokio::test]
async fn a_container_that_was_never_started_is_stopped() {
    let lab = Lab::open().await;
    let query = new_query();
    let _container = lab.unstarted(container_labels(&query, "uid")).await;
    assert_eq!(lab.find_one(&query).await.state, ContainerState::Stopped("created".into()));
}

#[tokio::test]
async fn containers_of_another_pod_of_the_same_name_are_told_by_its_uid() {
    let lab = Lab::open().await;
    let query = new_query();
    let old = lab.labelled(container_labels(&query, "old")).await;
    let new = lab.labelled(container_labels(&query, "new")).await;
    let found = lab.find(&query).await;
    let mut found: Vec<_> = found.iter().map(|found| (found.pod_uid.as_str(), &found.reference.id)).collect();
    found.sort_unstable();
    assert_eq!(found, [("new", &new.id), ("old", &old.id)]);
}

#[tokio::test]
async fn a_container_is_found_by_its_own_namespace_pod_and_name_only() {
    let lab = Lab::open().await;
    let main = new_query();
    let sidecar = ContainerQuery { container: "sidecar".into(), ..main.clone() };
    let main_container = lab.labelled(container_labels(&main, "uid")).await;
    let sidecar_container = lab.labelled(container_labels(&sidecar, "uid")).await;
    let _sandbox = lab.labelled(labels(&main, "uid", "podsandbox")).await;
    assert_eq!(lab.find_one(&main).await.reference.id, main_container.id);
    assert_eq!(lab.find_one(&sidecar).await.reference.id, sidecar_container.id);

    let others = [
        ContainerQuery { namespace: "another".into(), ..main.clone() },
        ContainerQuery { pod_name: "another".into(), ..main.clone() },
        ContainerQuery { container: "another".into(), ..main.clone() },
        // No prefix, and no pattern.
        ContainerQuery { container: "mai".into(), ..main.clone() },
        ContainerQuery { container: "*".into(), ..main.clone() },
    ];
    for other in others {
        assert_eq!(lab.find(&other).await, [], "{other:?}");
    }
}

#[tokio::test]
async fn a_restarted_container_keeps_its_id_and_gets_another_start_time() {
    let lab = Lab::open().await;
    let query = new_query();
    let container = lab.labelled(container_labels(&query, "uid")).await;
    let before = lab.find_one(&query).await.reference;
    let options = RestartContainerOptionsBuilder::new().t(0).build();
    lab.docker.restart_container(container.id(), Some(options)).await.unwrap();
    let after = lab.find_one(&query).await;
    assert_eq!((&after.reference.id, &after.state), (&before.id, &ContainerState::Running));
    assert_ne!(after.reference.started_at, before.started_at);
}
