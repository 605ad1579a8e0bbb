//! The container of a running command: whether its run is over.

use crate::{
    agent::node::{Node, World},
    core::ids::ExecRef,
    engine::{Container, ContainerState, Engine, EngineError},
};

/// Whether the run of the container that the exec is in is over.
pub(crate) async fn is_over<W: World>(node: &Node<W>, exec: &ExecRef) -> Result<bool, EngineError> {
    let found = node.engine.container(&exec.container.id).await;
    if let Err(error) = &found {
        tracing::debug!(exec = %exec.id, %error, "whether the container has ended is not known");
    }
    Ok(match found? {
        Some(Container { state: ContainerState::Running | ContainerState::Paused, reference, .. }) => {
            !reference.is_same_run(&exec.container)
        }
        Some(Container { state: ContainerState::Stopped(_), .. }) | None => true,
    })
}
