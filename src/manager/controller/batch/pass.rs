//! How a pass over a batch ends: with one write of its status, which wins or not, and with when to pass again.

use std::time::Duration;

use super::world::{BatchError, Swapped, World};
use crate::{
    api::{ExecBatch, ExecBatchStatus},
    core::{
        audit::batch::acts,
        batch::{plan::Refusal, status::Write},
    },
    infra::audit::Unavailable,
};

/// After a write that lost or whose answer was lost, and after a plan that was given up.
pub(super) const AGAIN: Duration = Duration::from_millis(500);

/// What is next, unless something is heard of the batch before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// It is gone, or its status is final.
    Over,
    Again(Duration),
    /// Not before that, whatever is heard of it.
    NotBefore(Duration),
}

/// Finishes a batch of which nothing ran.
pub(super) async fn refuse<W: World>(world: &W, batch: &ExecBatch, why: &Refusal) -> Result<Pass, BatchError> {
    let read = batch.status.clone().unwrap_or_default();
    let write = Write { status: &read, generation: batch.metadata.generation, at: world.now() };
    let status = write.refused(why);
    swap(world, batch, status, Duration::ZERO).await
}

/// Records what a status does, before it is written.
pub(super) async fn record<W: World>(world: &W, read: &ExecBatch, next: &ExecBatchStatus) -> Result<(), Unavailable> {
    for act in acts(read, next) {
        world.record(read, &act).await?;
    }
    Ok(())
}

/// Records and writes. Whoever loses reads again: nothing of what was decided here holds then.
pub(super) async fn swap<W: World>(
    world: &W,
    read: &ExecBatch,
    status: ExecBatchStatus,
    then: Duration,
) -> Result<Pass, BatchError> {
    record(world, read, &status).await?;
    match world.write_batch(read, status).await? {
        Swapped::Won(_) => Ok(Pass::Again(then)),
        Swapped::Lost => Ok(Pass::Again(AGAIN)),
        Swapped::Gone => Ok(Pass::Over),
        Swapped::Refused(why) => Err(BatchError::Refused(why)),
    }
}
