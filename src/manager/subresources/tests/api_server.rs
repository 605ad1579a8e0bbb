//! The stand-in of an API server.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Extension, Json, Router,
    extract::Path,
    http::{StatusCode, Uri},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub(super) const ACCOUNT: &str = "execlet-manager";

/// The API server, as far as it is asked: jane may do everything, joe may attach without input, and
/// anybody else nothing. Tokens are numbered, and begin with their audience.
pub(super) async fn api_server(agent: (SocketAddr, &str)) -> SocketAddr {
    let lease = json!({"metadata": {"name": "execlet-agent.n1", "annotations": {
        "execlet.dev/stream-endpoint": agent.0.to_string(),
        "execlet.dev/stream-certificate": agent.1,
    }}});
    let review = |Json(review): Json<Value>| async move {
        let spec = &review["spec"];
        let allowed = match spec["user"].as_str() {
            Some("jane") => true,
            Some("joe") => spec["resourceAttributes"]["resource"] == "execrequests",
            Some(_) | None => false,
        };
        Json(json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec,
            "status": {"allowed": allowed, "reason": "as RBAC says"}}))
    };
    let request = |Path(name): Path<String>| async move {
        let status = match name.as_str() {
            "bound" => json!({"phase": "Running", "nodeName": "n1"}),
            "elsewhere" => json!({"phase": "Running", "nodeName": "n2"}),
            "unbound" => json!({"phase": "Pending", "conditions": [condition("Unknown")]}),
            "refused" => json!({"phase": "Failed", "completionTime": "2026-01-02T03:04:05.000000Z",
                "conditions": [condition("True")]}),
            _ => {
                return Err((
                    StatusCode::NOT_FOUND,
                    Json(json!({"kind": "Status", "apiVersion": "v1",
                "metadata": {}, "status": "Failure", "reason": "NotFound", "code": 404})),
                ));
            }
        };
        Ok(Json(json!({"apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
            "metadata": {"name": name, "namespace": "shop", "uid": "u-1", "resourceVersion": "1"},
            "spec": {"target": {"podName": "db-0"}, "command": ["true"]}, "status": status})))
    };
    let given = Arc::new(AtomicUsize::new(0));
    let token = move |Json(request): Json<Value>| async move {
        let number = given.fetch_add(1, Ordering::Relaxed) + 1;
        let token = format!("{}#{number}", request["spec"]["audiences"][0].as_str().unwrap_or_default());
        Json(json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
            "spec": request["spec"], "status": {"token": token, "expirationTimestamp": "2026-01-02T03:04:05Z"}}))
    };
    let not_found = (
        StatusCode::NOT_FOUND,
        Json(json!({"kind": "Status", "apiVersion": "v1",
        "metadata": {}, "status": "Failure", "reason": "NotFound", "code": 404})),
    );
    let router = Router::new()
        .route("/apis/authorization.k8s.io/v1/subjectaccessreviews", post(review))
        .route("/apis/execlet.dev/v1alpha1/namespaces/shop/execrequests/{name}", get(request))
        .route(
            "/apis/coordination.k8s.io/v1/namespaces/execlet/leases/execlet-agent.n1",
            get(|Extension(lease): Extension<Value>| async move { Json(lease) }),
        )
        .route(&format!("/api/v1/namespaces/execlet/serviceaccounts/{ACCOUNT}/token"), post(token))
        // A watch that brings no news.
        .route(
            "/apis/execlet.dev/v1alpha1/namespaces/shop/execrequests",
            get(|uri: Uri| async move {
                assert!(uri.query().is_some_and(|query| query.contains("metadata.name")), "only the one is watched");
                futures::future::pending::<()>().await;
            }),
        )
        .fallback(move || async move { not_found })
        .layer(Extension(lease));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn condition(status: &str) -> Value {
    json!({"type": "Finished", "status": status, "reason": "PodNotRunning", "message": "pod db-0 is Pending",
        "lastTransitionTime": "2026-01-02T03:04:05Z"})
}
