//! A connection to a cluster: calls with a deadline, and the commands that lead to the same place.

use std::time::Duration;

use hyper::Request;
use kube::Client;

use crate::{
    api::names::{SUBRESOURCES_GROUP, SUBRESOURCES_VERSION},
    cli::error::{self, Error},
};

/// How long one call may take, unless --request-timeout says otherwise.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection on which nothing comes for so long is taken for dead, as by client-go.
pub const SILENCE: Duration = Duration::from_secs(16);

/// How long the server may take to open a stream. By default it waits 30 s for the request to be bound.
pub const OPENING: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    pub namespace: String,
    pub server: String,
    pub timeout: Option<Duration>,
    /// The flags that lead to it, for commands that are suggested to the user; begins with a blank, or is empty.
    pub flags: String,
}

impl Cluster {
    /// A kubectl command for this cluster, to be pasted into a shell.
    pub fn kubectl(&self, command: &str) -> String {
        format!("kubectl{} {command}", self.flags)
    }

    /// A command of this plugin for this cluster, to be pasted into a shell.
    pub fn plugin(&self, command: &str) -> String {
        format!("kubectl execlet{} {command}", self.flags)
    }

    /// The call of a subresource of the request `name`; `call` is `attach` or `log` with its query.
    pub fn subresource(&self, name: &str, call: &str) -> Request<Vec<u8>> {
        let namespace = &self.namespace;
        let group = format!("{SUBRESOURCES_GROUP}/{SUBRESOURCES_VERSION}");
        let mut request = Request::new(Vec::new());
        // Kubernetes names need no escaping; the API server refuses what is not a name.
        let uri = format!("/apis/{group}/namespaces/{namespace}/execrequests/{name}/{call}").parse();
        *request.uri_mut() = uri.unwrap_or_default();
        request
    }

    /// Makes a call within its deadline; `what` it is for goes into the error.
    pub async fn call<T>(
        &self,
        what: impl Into<String>,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        let answered = match self.timeout {
            None => call.await,
            Some(within) => match tokio::time::timeout(within, call).await {
                Ok(answered) => answered,
                Err(_) => return Err(Error::Timeout { what: what.into(), within }),
            },
        };
        answered.map_err(|source| self.failed(what, source))
    }

    pub fn failed(&self, what: impl Into<String>, source: kube::Error) -> Error {
        match error::unreachable(&source) {
            Some(why) => Error::Unreachable { what: what.into(), server: self.server.clone(), why },
            None => Error::Call { what: what.into(), source: Box::new(source) },
        }
    }
}

pub async fn open_in_time<T>(opening: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    tokio::time::timeout(OPENING, opening)
        .await
        .unwrap_or_else(|_| Err(kube::Error::Service(format!("no answer within {} s", OPENING.as_secs()).into())))
}
