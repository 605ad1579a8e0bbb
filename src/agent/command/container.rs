//! The container of a running command: whether its run is over.

use crate::{
    agent::node::{Node, World},
    core::ids::ExecRef,
    engine::{Container, ContainerState, Engine, EngineError},
};

/// Whether the run of the container that the exec is in is over. Of a container of another engine this one knows nothing: it
/// is not said to be.
pub(crate) async fn is_over<W: World>(node: &Node<W>, exec: &ExecRef) -> Result<bool, EngineError> {
    if !node.engine.is_own(exec) {
        return Ok(false);
    }
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
