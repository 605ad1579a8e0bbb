//! Commit: one compare-and-swap, after which this exec may start and no other ever will.

use crate::{
    agent::node::{Node, StepError, World},
    api::{ExecRequest, ExecRequestStatus},
    core::{ids::ExecRef, transition::Write},
    infra::requests::{Requests, Written},
};

/// Tries to commit, on the object that the decision was made on. Gives the object
/// if that won; in every other case it must be read again.
pub(crate) async fn commit<W: World>(
    node: &Node<W>,
    seen: &ExecRequest,
    exec: &ExecRef,
) -> Result<Option<ExecRequest>, StepError> {
    let empty = ExecRequestStatus::default();
    let from = seen.status.as_ref().unwrap_or(&empty);
    let write = Write { from, generation: seen.metadata.generation, at: node.clock.now() };
    match node.requests.write_status(seen, write.committed(exec)).await? {
        Written::Won(request) => Ok(Some(*request)),
        Written::Lost | Written::Gone => Ok(None),
        Written::Refused(message) => Err(StepError::Refused(message)),
    }
}
