//! Removes children that belong to no plan that counts: those of an earlier plan, whenever they arrive, and those whose
//! batch is gone.
//!
//! What has not ended the watch knows, so it costs no more than a read of each batch that has such children. What has ended
//! without having been bound is listed, more seldom; what has ended otherwise, and holds the end of its output, never is.

use std::collections::BTreeMap;

use super::world::World;
use crate::{
    api::{ExecBatch, ExecRequest},
    core::{
        batch::{
            child,
            sweep::{Broom, Counting},
        },
        ids::BatchKey,
    },
    infra::call::ApiError,
};

/// Looks at what has not ended. How many were deleted or canceled.
pub async fn sweep_unfinished<W: World>(world: &W) -> Result<usize, ApiError> {
    let mut swept = 0;
    for (key, plans) in world.unfinished() {
        let Some(batch) = read(world, &key).await? else { continue };
        let counting = Counting::of(batch.as_ref());
        let strays = plans
            .iter()
            .flat_map(|(plan, children)| counting.strays(*plan, children).into_iter().map(|index| (*plan, index)));
        for (plan, index) in strays.collect::<Vec<_>>() {
            let name = child::name(&key.name, key.uid.as_str(), plan, index);
            let Some(found) = world.child(&key.namespace, &name).await? else { continue };
            if child::index_in(&found, key.uid.as_str(), plan) != Some(index) {
                continue;
            }
            // Once more: it counts how the batch is after its child was read.
            if let Some(batch) = read(world, &key).await? {
                swept += usize::from(remove(world, &Counting::of(batch.as_ref()), &found).await);
            }
        }
    }
    Ok(swept)
}

/// Looks at what was never bound and has ended, page by page. How many were deleted.
pub async fn sweep_ended<W: World>(world: &W) -> Result<usize, ApiError> {
    let (mut swept, mut after) = (0, None);
    loop {
        let (page, next) = world.page_of_never_bound(after).await?;
        let mut of_batches: BTreeMap<BatchKey, Vec<ExecRequest>> = BTreeMap::new();
        for child in page {
            if let Some(key) = batch_of(&child) {
                of_batches.entry(key).or_default().push(child);
            }
        }
        for (key, children) in of_batches {
            let Some(batch) = read(world, &key).await? else { continue };
            let counting = Counting::of(batch.as_ref());
            for child in &children {
                swept += usize::from(remove(world, &counting, child).await);
            }
        }
        after = next;
        if after.is_none() {
            return Ok(swept);
        }
    }
}

/// The batch, or that it is gone; nothing if it cannot be read: that does not keep the others.
async fn read<W: World>(world: &W, key: &BatchKey) -> Result<Option<Option<ExecBatch>>, ApiError> {
    match world.batch(key).await {
        Ok(batch) => Ok(Some(batch)),
        Err(error) if error.is_unreadable() => {
            tracing::warn!(batch = %key, %error, "a batch could not be read, so its requests are not swept; retrying");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether it was deleted or canceled.
async fn remove<W: World>(world: &W, counting: &Counting<'_>, child: &ExecRequest) -> bool {
    let done = match counting.sweep(child) {
        Broom::Keep => return false,
        Broom::Delete => world.delete(child).await,
        Broom::Cancel => world.cancel(child).await,
    };
    if let Err(error) = &done {
        let (namespace, name) = (child.metadata.namespace.as_deref(), child.metadata.name.as_deref());
        tracing::warn!(namespace, name, %error, "a stray request of a batch could not be removed; retrying");
    }
    done.is_ok()
}

/// The batch that a child says it belongs to.
pub(super) fn batch_of(child: &ExecRequest) -> Option<BatchKey> {
    let place = child.spec.batch.as_ref()?;
    Some(BatchKey {
        namespace: child.metadata.namespace.clone()?,
        name: place.name.clone(),
        uid: place.uid.as_str().into(),
    })
}
