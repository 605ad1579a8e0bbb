//! Deletes finished batches whose `ttlSecondsAfterFinished` has passed. Their requests go with them.

use kube::{
    Api,
    api::{DeleteParams, ListParams},
    core::{DeserializeGuard, ObjectMeta},
};

use super::{
    api_server::{ApiServer, LIST_TIMEOUT},
    world::{Act, BatchError, World},
};
use crate::{api::ExecBatch, core::batch::expiry::has_expired, infra::call::within};

const FINISHED: &str = "status.completionTime!=";
const PAGE: u32 = 100;

/// How many were deleted.
pub(super) async fn delete_expired(world: &ApiServer) -> Result<usize, BatchError> {
    let api: Api<DeserializeGuard<ExecBatch>> = Api::all(world.leader().client.clone());
    let mut params = ListParams::default().fields(FINISHED).limit(PAGE);
    let mut deleted = 0;
    loop {
        let page = within(LIST_TIMEOUT, "list the finished batches".to_owned(), api.list(&params)).await?;
        let batches = page.items.into_iter().filter_map(|guard| guard.0.ok());
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
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(deleted),
        }
    }
}
