//! Long lists, page by page.

use std::{fmt::Debug, time::Duration};

use futures::{Stream, stream};
use kube::{Api, api::ListParams};
use serde::de::DeserializeOwned;

use super::call::{ApiError, within};

/// For one page.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The objects of one page, and where the next one is, if there is one.
pub(crate) async fn page<K>(api: &Api<K>, params: &ListParams, call: &str) -> Result<(Vec<K>, Option<String>), ApiError>
where
    K: Clone + DeserializeOwned + Debug,
{
    let page = within(TIMEOUT, call.to_owned(), api.list(params)).await?;
    Ok((page.items, page.metadata.continue_.filter(|token| !token.is_empty())))
}

/// All pages. `call` says what the API server is asked to do.
pub(crate) fn pages<K>(
    api: Api<K>,
    params: ListParams,
    call: String,
) -> impl Stream<Item = Result<Vec<K>, ApiError>> + Send
where
    K: Clone + DeserializeOwned + Debug + Send + 'static,
{
    stream::try_unfold((api, Some(params), call), |(api, params, call)| async move {
        let Some(params) = params else { return Ok(None) };
        let (items, next) = page(&api, &params, &call).await?;
        let next = next.map(|token| params.continue_token(&token));
        Ok(Some((items, (api, next, call))))
    })
}
