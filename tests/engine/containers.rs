//! The engine itself, and the runs of a container.

use std::collections::HashMap;

use bollard::query_parameters::RestartContainerOptionsBuilder;
use execlet::engine::{Container, ContainerState, Engine};

use crate::lab::{Lab, TestContainer};

async fn look(lab: &Lab, container: &TestContainer) -> Container {
    lab.engine.container(&container.id).await.expect("an answer").expect("a container")
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
async fn a_restarted_container_keeps_its_id_and_gets_another_start_time() {
    let lab = Lab::open().await;
    let container = lab.labelled(HashMap::new()).await;
    let before = look(&lab, &container).await.reference;
    let options = RestartContainerOptionsBuilder::new().t(0).build();
    lab.docker.restart_container(container.id(), Some(options)).await.unwrap();
    let after = look(&lab, &container).await;
    assert_eq!((&after.reference.id, &after.state), (&before.id, &ContainerState::Running));
    assert_ne!(after.reference.started_at, before.started_at);
}
