//! Deletes finished batches whose `ttlSecondsAfterFinished` has passed. Their requests go with them.

use std::pin::pin;

use futures::TryStreamExt;
use kube::{
    Api,
    api::{DeleteParams, ListParams},
    core::{DeserializeGuard, ObjectMeta},
};

use super::{
    api_server::ApiServer,
    world::{Act, BatchError, World},
};
use crate::{api::ExecBatch, core::batch::expiry::has_expired, infra::pages::pages};

const FINISHED: &str = "status.completionTime!=";
const PAGE: u32 = 100;

/// How many were deleted.
pub(super) async fn delete_expired(world: &ApiServer) -> Result<usize, BatchError> {
    let api: Api<DeserializeGuard<ExecBatch>> = Api::all(world.leader().client.clone());
    let params = ListParams::default().fields(FINISHED).limit(PAGE);
    let mut pages = pin!(pages(api, params, "list the finished batches".to_owned()));
    let mut deleted = 0;
    while let Some(page) = pages.try_next().await? {
        let batches = page.into_iter().filter_map(|guard| guard.0.ok());
        for batch in batches.filter(|batch| has_expired(batch, world.now())) {
            world.record(&batch, &Act::Expired).await?;
            match world.delete_as_read(&batch, DeleteParams::background()).await {
                Ok(()) => deleted += 1,
                // It does not keep the others.
                Err(error) => {
                    let ObjectMeta { namespace, name, .. } = &batch.metadata;
                    tracing::warn!(?namespace, ?name, %error, "an expired batch could not be deleted; retrying");
                }
            }
        }
    }
    Ok(deleted)
}
