//! Removes children that belong to no plan that counts: those of an earlier plan, whenever they arrive, and those whose
//! batch is gone.

use std::collections::BTreeMap;

use super::world::World;
use crate::{
    api::{ExecBatch, ExecRequest},
    core::{
        batch::sweep::{Broom, sweep},
        ids::BatchKey,
    },
    infra::call::ApiError,
};

/// Looks at all children once, page by page. How many were deleted or canceled.
pub async fn sweep_all<W: World>(world: &W) -> Result<usize, ApiError> {
    let (mut swept, mut after) = (0, None);
    loop {
        let (page, next) = world.page_of_children(after).await?;
        swept += sweep_page(world, &page).await?;
        if next.is_none() {
            return Ok(swept);
        }
        after = next;
    }
}

/// Each batch is read once for a page, and after it.
async fn sweep_page<W: World>(world: &W, page: &[ExecRequest]) -> Result<usize, ApiError> {
    let mut batches: BTreeMap<String, Option<ExecBatch>> = BTreeMap::new();
    let mut swept = 0;
    for child in page {
        let Some(key) = batch_of(child) else { continue };
        let uid = key.uid.to_string();
        if !batches.contains_key(&uid) {
            match world.batch(&key).await {
                Ok(batch) => batches.insert(uid.clone(), batch),
                // It does not keep the others.
                Err(error) if error.is_unreadable() => {
                    tracing::warn!(batch = %key, %error, "a batch could not be read, so its requests are not swept; retrying");
                    continue;
                }
                Err(error) => return Err(error),
            };
        }
        let done = match sweep(child, batches.get(&uid).and_then(Option::as_ref)) {
            Broom::Keep => continue,
            Broom::Delete => world.delete(child).await,
            Broom::Cancel => world.cancel(child).await,
        };
        match done {
            Ok(()) => swept += 1,
            Err(error) => {
                let (namespace, name) = (child.metadata.namespace.as_deref(), child.metadata.name.as_deref());
                tracing::warn!(namespace, name, %error, "a stray request of a batch could not be removed; retrying");
            }
        }
    }
    Ok(swept)
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
