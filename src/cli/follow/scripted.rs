//! An API server with scripted answers, for tests.

use std::{future::pending, io, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

pub use crate::infra::print::kept::Kept;
use crate::{
    api::ExecRequest,
    cli::cluster::connection::{CALL_TIMEOUT, Cluster},
};

/// What a call is answered with: a code and an object; `None`: the connection breaks.
pub type Answer = Option<(u16, Value)>;

/// The code of an answer whose connection breaks before its end.
pub const CUT: u16 = 299;

/// The code of an answer that begins and never ends.
pub const SILENT: u16 = 298;

/// The code of an answer that never comes.
pub const NEVER: u16 = 297;

/// The calls that were made: `METHOD path?query`.
pub type Calls = Arc<Mutex<Vec<String>>>;

/// A cluster of which each call is answered by `answer`, and the calls.
pub fn cluster(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> (Cluster, Calls) {
    let calls = Calls::default();
    let (answer, noted) = (Arc::new(answer), Arc::clone(&calls));
    let service = tower::service_fn(move |call: hyper::Request<Body>| {
        let call = format!("{} {}", call.method(), call.uri());
        let answer = answer(&call);
        noted.lock().push(call);
        async move {
            let (code, body) = answer.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset))?;
            if code == NEVER {
                return pending().await;
            }
            let cut = (code == CUT).then(|| Err(io::Error::from(io::ErrorKind::ConnectionReset)));
            let end = if code == SILENT { stream::pending().left_stream() } else { stream::iter(cut).right_stream() };
            let pieces = stream::iter([Ok(Frame::data(Bytes::from(body.to_string())))]).chain(end);
            let mut response = hyper::Response::new(StreamBody::new(pieces));
            *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
            Ok::<_, io::Error>(response)
        }
    });
    let cluster = Cluster {
        client: kube::Client::new(service, "shop"),
        namespace: "shop".to_owned(),
        server: "http://scripted".to_owned(),
        timeout: Some(CALL_TIMEOUT),
        flags: " -n shop".to_owned(),
    };
    (cluster, calls)
}

/// A refusal.
pub fn status(code: u16, message: &str) -> Answer {
    Some((code, json!({"kind": "Status", "status": "Failure", "message": message, "reason": "", "code": code})))
}

/// What a watch tells of the request `r`; a body that is not one is nothing.
pub fn event(kind: &str, status: Value) -> Answer {
    Some((200, json!({"type": kind, "object": object(status)})))
}

/// An answer to a list of requests in which there are none.
pub fn none_there() -> Answer {
    let meta = json!({"resourceVersion": "2"});
    Some((200, json!({"kind": "ExecRequestList", "apiVersion": "execlet.dev/v1alpha1", "metadata": meta, "items": []})))
}

/// The request `r` with a status.
pub fn request(status: Value) -> ExecRequest {
    serde_json::from_value(object(status)).expect("a request")
}

/// The same as JSON.
pub fn object(status: Value) -> Value {
    json!({
        "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
        "metadata": {"name": "r", "namespace": "shop", "uid": "u", "resourceVersion": "1"},
        "spec": {"target": {"podName": "web"}, "command": ["true"]}, "status": status,
    })
}

/// Of a request that has finished without having run.
pub fn never_ran() -> Value {
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "PodNotFound", "message": "no pod web", "lastTransitionTime": "1970-01-01T00:00:00Z"});
    json!({"phase": "Failed", "completionTime": "2026-01-02T03:04:05.000000Z",
        "conditions": [condition("Finished", "True"), condition("Started", "False")]})
}
