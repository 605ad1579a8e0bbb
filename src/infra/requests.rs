//! Reading requests from the API server, and writing their status.

use std::{future::Future, time::Duration};

use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject, ObjectMeta},
};
use serde_json::json;

pub use super::call::ApiError;
use super::call::within;
use crate::{
    api::{ExecRequest, ExecRequestStatus},
    core::ids::RequestKey,
};

const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// With these words an internal error says that an object is too large: those of etcd, and, beyond 2 MiB, those of the API
/// server's connection to it.
const TOO_LARGE: [&str; 2] = ["too large", "larger than max"];

pub trait Requests: Send + Sync + 'static {
    /// Reads a request; `None` if it is gone, or if another one has its name.
    fn get(&self, key: &RequestKey) -> impl Future<Output = Result<Option<ExecRequest>, ApiError>> + Send;

    /// Writes the status of a request, if nobody has written to it since it was read.
    fn write_status(
        &self,
        read: &ExecRequest,
        status: ExecRequestStatus,
    ) -> impl Future<Output = Result<Written, ApiError>> + Send;

    /// Writes the status of an object that cannot be read, if nobody has written to it since.
    fn write_status_of_unreadable(
        &self,
        meta: &ObjectMeta,
        status: &ExecRequestStatus,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;
}

#[derive(Clone)]
pub struct KubeRequests {
    client: Client,
}

#[derive(Debug)]
pub enum Written {
    Won(Box<ExecRequest>),
    /// Somebody wrote since the object was read: read again.
    Lost,
    Gone,
    /// The API server will never take it as it is.
    Refused(String),
}

impl KubeRequests {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Whether an object, readable or not, is bound to a node.
    pub async fn is_bound(&self, key: &RequestKey) -> Result<bool, ApiError> {
        let found =
            within(CALL_TIMEOUT, format!("get ExecRequest {key}"), self.unreadable(&key.namespace).get_opt(&key.name))
                .await?;
        Ok(found.is_some_and(|object| object.data.pointer("/status/nodeName").is_some()))
    }

    /// Objects that need not be readable as requests.
    fn unreadable(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &ApiResource::erase::<ExecRequest>(&()))
    }
}

impl Requests for KubeRequests {
    async fn get(&self, key: &RequestKey) -> Result<Option<ExecRequest>, ApiError> {
        let api: Api<ExecRequest> = Api::namespaced(self.client.clone(), &key.namespace);
        let found = within(CALL_TIMEOUT, format!("get ExecRequest {key}"), api.get_opt(&key.name)).await?;
        Ok(found.filter(|request| request.metadata.uid.as_deref() == Some(key.uid.as_str())))
    }

    async fn write_status(&self, read: &ExecRequest, status: ExecRequestStatus) -> Result<Written, ApiError> {
        if read.status.as_ref() == Some(&status) {
            return Ok(Written::Won(Box::new(read.clone())));
        }
        let namespace = read.metadata.namespace.as_deref().unwrap_or_default();
        let name = read.metadata.name.as_deref().unwrap_or_default();
        let api: Api<ExecRequest> = Api::namespaced(self.client.clone(), namespace);
        let mut next = read.clone();
        next.status = Some(status);
        let params = PostParams::default();
        let written = api.replace_status(name, &params, &next);
        verdict(within(CALL_TIMEOUT, format!("update the status of ExecRequest {namespace}/{name}"), written).await)
    }

    async fn write_status_of_unreadable(&self, meta: &ObjectMeta, status: &ExecRequestStatus) -> Result<(), ApiError> {
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let name = meta.name.as_deref().unwrap_or_default();
        let api = self.unreadable(namespace);
        let patch = Patch::Merge(json!({"metadata": {"resourceVersion": meta.resource_version}, "status": status}));
        let params = PatchParams::default();
        let written = api.patch_status(name, &params, &patch);
        match within(CALL_TIMEOUT, format!("update the status of ExecRequest {namespace}/{name}"), written).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.code(), Some(409 | 404)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn verdict(result: Result<ExecRequest, ApiError>) -> Result<Written, ApiError> {
    let error = match result {
        Ok(request) => return Ok(Written::Won(Box::new(request))),
        Err(error) => error,
    };
    let Some(status) = error.status() else { return Err(error) };
    match status.code {
        404 => Ok(Written::Gone),
        409 => Ok(Written::Lost),
        413 | 422 => Ok(Written::Refused(status.message.clone())),
        500 if TOO_LARGE.iter().any(|words| status.message.contains(words)) => {
            Ok(Written::Refused(status.message.clone()))
        }
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: u16, message: &str) -> Result<Written, ApiError> {
        let status = json!({"status": "Failure", "message": message, "code": code});
        let source = Box::new(kube::Error::Api(serde_json::from_value(status).expect("a Status")));
        verdict(Err(ApiError::Failed { call: "write".to_owned(), source }))
    }

    #[test]
    fn an_object_that_is_too_large_is_refused_for_good_in_whichever_words() {
        for (code, message) in [
            (413, "Request entity too large: limit is 3145728"),
            (500, "etcdserver: request is too large"),
            (
                500,
                "rpc error: code = ResourceExhausted desc = trying to send message larger than max (2257372 vs. 2097152)",
            ),
            (422, "status.result.message: Too long: may not be more than 32768 bytes"),
        ] {
            assert!(matches!(failed(code, message), Ok(Written::Refused(said)) if said == message), "{message}");
        }
        assert!(failed(500, "etcdserver: request timed out").is_err(), "that one may be tried again");
    }
}
