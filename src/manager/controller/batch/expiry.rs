//! Deletes finished batches whose `ttlSecondsAfterFinished` has passed. Their requests go with them.

use kube::{
    Api,
    api::{DeleteParams, ListParams, Preconditions},
    core::{DeserializeGuard, ObjectMeta},
};

use super::{
    api_server::{ApiServer, CALL_TIMEOUT, LIST_TIMEOUT, unless_gone},
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
            let (namespace, name) = (batch.metadata.namespace.clone(), batch.metadata.name.clone());
            match delete(world, batch.metadata).await {
                Ok(()) => deleted += 1,
                // It does not keep the others.
                Err(error) => {
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

/// As it was read, and no other.
async fn delete(world: &ApiServer, meta: ObjectMeta) -> Result<(), BatchError> {
    let ObjectMeta { namespace, name, uid, resource_version, .. } = meta;
    let [namespace, name] = [namespace, name].map(Option::unwrap_or_default);
    let api: Api<ExecBatch> = Api::namespaced(world.leader().client.clone(), &namespace);
    let preconditions = Some(Preconditions { uid, resource_version });
    let params = DeleteParams { preconditions, ..DeleteParams::background() };
    let call = format!("delete ExecBatch {namespace}/{name}");
    Ok(unless_gone(within(CALL_TIMEOUT, call, api.delete(&name, &params)).await.map(drop))?)
}
