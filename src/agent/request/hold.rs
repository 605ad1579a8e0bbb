//! Hold: a batch's request against its batch, before anything is created for it.
//!
//! The manager has checked all of this. But it makes these requests itself, so what it says is not enough.

use super::work::Work;
use crate::{
    agent::node::{StepError, World},
    api::{ExecBatch, ExecRequest, Reason},
    core::{
        access::rights,
        batch::{
            held::{Held, hold},
            plan::Refusal,
            rights::{NotVouched, vouch},
        },
        bind::unvouched,
        outcome::Outcome,
    },
};

impl<W: World> Work<W> {
    /// Whether this may run as far as its batch is concerned, or how it ends because it may not. `None`: it has no batch.
    pub(super) async fn hold(&self, seen: &ExecRequest) -> Result<Result<Option<Held>, Outcome>, StepError> {
        let Some(place) = &seen.spec.batch else { return Ok(Ok(None)) };
        let namespace = seen.metadata.namespace.as_deref().unwrap_or_default();
        let batch = self.node.batches.read(namespace, place).await.map_err(StepError::Batch)?;
        let now = self.node.clock.now();
        let held = match (hold(seen, batch.as_deref(), now), batch) {
            (Ok(held), Some(batch)) => self.permit(seen, &batch).await?.map(|()| Some(held)),
            (Ok(_), None) => Err(Refusal::new(Reason::Deleted, "the batch is gone: nothing ran")),
            (Err(refusal), _) => Err(refusal),
        };
        Ok(held.map_err(|Refusal { reason, message }| Outcome::refused(reason, message, now)))
    }

    /// Whether the policies vouch for the request, and for who has asked for the batch; and whether that one may still exec
    /// into this pod.
    async fn permit(&self, seen: &ExecRequest, batch: &ExecBatch) -> Result<Result<(), Refusal>, StepError> {
        let admission = self.node.gate.look().await;
        if let Some(why) = unvouched(seen, &admission).map_err(StepError::Admission)? {
            return Ok(Err(Refusal::new(Reason::Forbidden, why)));
        }
        let by = match vouch(batch, &admission) {
            Ok(Some(by)) => by,
            Ok(None) => return Ok(Ok(())),
            Err(NotVouched::Refuse(refusal)) => return Ok(Err(refusal)),
            Err(NotVouched::Wait(refusal)) => return Err(StepError::Admission(refusal.message)),
        };
        let lacks = self.node.batches.lacks(by, &rights(seen)).await.map_err(StepError::Batch)?;
        Ok(lacks.map_or(Ok(()), |right| {
            let message = format!(r#"User "{}" cannot {right}, so nothing ran"#, by.username);
            Err(Refusal::new(Reason::Forbidden, message))
        }))
    }
}
