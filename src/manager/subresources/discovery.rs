//! Discovery: what is served here.
//!
//! All of it is constant, and needs neither leader nor agents nor the API server: while the group cannot be discovered, no
//! namespace of the cluster can be deleted.

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::api::names::{SUBRESOURCES_GROUP as GROUP, SUBRESOURCES_VERSION as VERSION};

/// In the `Accept` of a client that can read aggregated discovery, beside its version.
const AGGREGATED: &str = "as=apigroupdiscoverylist";
const AGGREGATED_VERSIONS: [&str; 2] = ["v2", "v2beta1"];
pub(super) const OPENAPI_V3: &str = "/openapi/v3/apis/subresources.execlet.dev/v1alpha1";

struct Subresource {
    name: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
    does: &'static str,
    parameters: &'static [(&'static str, &'static str, &'static str)],
}

/// `create` is what attach needs: the API server asks `get` for a WebSocket, and `create` for a POST.
const SUBRESOURCES: [Subresource; 2] = [
    Subresource {
        name: "attach",
        kind: "ExecRequestAttachOptions",
        verbs: &["create", "get"],
        does: "Attach to the command of an ExecRequest, over a WebSocket",
        parameters: &[
            ("stdin", "boolean", "Whether to be the one whose input the command reads"),
            ("stdout", "boolean", "Whether to receive standard output"),
            ("stderr", "boolean", "Whether to receive standard error"),
            ("tty", "boolean", "Whether the command has a terminal"),
        ],
    },
    Subresource {
        name: "log",
        kind: "ExecRequestLogOptions",
        verbs: &["get"],
        does: "Read the output of the command of an ExecRequest",
        parameters: &[
            ("follow", "boolean", "Whether to go on until the command has ended"),
            ("tailLines", "integer", "Lines from the end to begin with"),
            ("sinceSeconds", "integer", "Only what is not older than this"),
            ("sinceTime", "string", "Only what is not older than this time, as in RFC 3339"),
            ("timestamps", "boolean", "Whether to put the time before each line"),
            ("limitBytes", "integer", "Bytes after which to end"),
            ("stream", "string", "All, Stdout or Stderr"),
        ],
    },
];

fn group() -> Value {
    let version = json!({"groupVersion": format!("{GROUP}/{VERSION}"), "version": VERSION});
    json!({"name": GROUP, "versions": [version], "preferredVersion": version})
}

/// `/apis`: aggregated if the client can read that.
pub(super) async fn groups(headers: HeaderMap) -> Response {
    if let Some(version) = aggregated_version(&headers) {
        let media = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        let content_type = HeaderValue::try_from(media).unwrap_or(HeaderValue::from_static("application/json"));
        return ([(header::CONTENT_TYPE, content_type)], aggregated(version).to_string()).into_response();
    }
    Json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]})).into_response()
}

pub(super) async fn versions() -> Json<Value> {
    let mut document = group();
    document["kind"] = json!("APIGroup");
    document["apiVersion"] = json!("v1");
    Json(document)
}

/// `/apis/GROUP/VERSION`. It names the subresources alone: the requests themselves are another group's.
pub(super) async fn resources() -> Json<Value> {
    let resources: Vec<Value> = SUBRESOURCES
        .iter()
        .map(|one| {
            json!({
                "name": format!("execrequests/{}", one.name),
                "singularName": "",
                "namespaced": true,
                "kind": one.kind,
                "verbs": one.verbs,
            })
        })
        .collect();
    Json(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": resources,
    }))
}

/// The first version of aggregated discovery that the client accepts and that is known here.
fn aggregated_version(headers: &HeaderMap) -> Option<&'static str> {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).find_map(|media| {
        let media = media.to_ascii_lowercase();
        let mut parts = media.split(';').map(str::trim);
        let json = parts.next() == Some("application/json");
        let parts: Vec<&str> = parts.collect();
        if !json || !parts.contains(&AGGREGATED) {
            return None;
        }
        AGGREGATED_VERSIONS.into_iter().find(|version| parts.contains(&format!("v={version}").as_str()))
    })
}

/// Subresources must be under a resource. As in the documents that the API server makes itself, that one has neither kind
/// nor verbs, because it is not served here.
fn aggregated(version: &str) -> Value {
    let subresources: Vec<Value> = SUBRESOURCES
        .iter()
        .map(|one| {
            json!({
                "subresource": one.name,
                "responseKind": {"group": GROUP, "version": VERSION, "kind": one.kind},
                "verbs": one.verbs,
            })
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": [{
            "metadata": {"name": GROUP, "creationTimestamp": null},
            "versions": [{
                "version": VERSION,
                "freshness": "Current",
                "resources": [{
                    "resource": "execrequests",
                    "responseKind": {"group": "", "version": "", "kind": ""},
                    "scope": "Namespaced",
                    "singularResource": "",
                    "verbs": [],
                    "subresources": subresources,
                }],
            }],
        }],
    })
}

pub(super) async fn openapi_v2() -> Json<Value> {
    let paths = paths(
        |name, place, kind, text| json!({"name": name, "in": place, "type": kind, "description": text, "required": place == "path", "uniqueItems": true}),
    );
    Json(json!({"swagger": "2.0", "info": info(), "paths": paths}))
}

/// `/openapi/v3`: where the documents are, with a hash that tells changes.
pub(super) async fn openapi_v3_index() -> Json<Value> {
    let key = format!("apis/{GROUP}/{VERSION}");
    let url = format!("{OPENAPI_V3}?hash={}", env!("CARGO_PKG_VERSION"));
    Json(json!({"paths": {key: {"serverRelativeURL": url}}}))
}

pub(super) async fn openapi_v3() -> Json<Value> {
    let paths = paths(
        |name, place, kind, text| json!({"name": name, "in": place, "schema": {"type": kind}, "description": text, "required": place == "path"}),
    );
    Json(json!({"openapi": "3.0.0", "info": info(), "paths": paths}))
}

fn info() -> Value {
    json!({"title": "execlet", "version": env!("CARGO_PKG_VERSION")})
}

fn paths(parameter: impl Fn(&str, &str, &str, &str) -> Value) -> Value {
    SUBRESOURCES
        .iter()
        .map(|one| {
            let mut parameters = vec![
                parameter("name", "path", "string", "Name of the ExecRequest"),
                parameter("namespace", "path", "string", "Namespace of the ExecRequest"),
            ];
            parameters.extend(one.parameters.iter().map(|(name, kind, text)| parameter(name, "query", kind, text)));
            let operation = json!({
                "operationId": format!("read{}", one.kind.trim_end_matches("Options")),
                "description": one.does,
                "parameters": parameters,
                "responses": {"200": {"description": "OK"}, "401": {"description": "Unauthorized"}},
            });
            let request = format!("/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/execrequests/{{name}}");
            (format!("{request}/{}", one.name), json!({"get": operation}))
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn accepting(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))])
    }

    /// What a `kube-apiserver` sends.
    const AGGREGATOR: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

    async fn answer(headers: HeaderMap) -> (String, Value) {
        let response = groups(headers).await;
        let content_type = response.headers()["content-type"].to_str().expect("text").to_owned();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (content_type, serde_json::from_slice(&body).expect("JSON"))
    }

    #[tokio::test]
    async fn discovery_is_one_document_for_whom_can_read_it_and_a_list_for_others() {
        let (content_type, document) = answer(accepting(AGGREGATOR)).await;
        assert_eq!(content_type, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
        assert_eq!(document["apiVersion"], "apidiscovery.k8s.io/v2");
        let subresources = &document["items"][0]["versions"][0]["resources"][0]["subresources"];
        assert_eq!(subresources[0]["subresource"], "attach");
        assert_eq!(subresources[1]["verbs"], json!(["get"]));

        let beta = accepting("application/json;as=APIGroupDiscoveryList;v=v2beta1;g=apidiscovery.k8s.io");
        assert_eq!(answer(beta).await.1["apiVersion"], "apidiscovery.k8s.io/v2beta1");
        for plain in ["application/json", "*/*", "application/json;v=v9;as=APIGroupDiscoveryList"] {
            let (content_type, document) = answer(accepting(plain)).await;
            assert_eq!(content_type, "application/json", "{plain}");
            assert_eq!(document["kind"], "APIGroupList", "{plain}");
        }
    }

    #[tokio::test]
    async fn attach_and_log_are_named_with_their_verbs() {
        let Json(list) = resources().await;
        assert_eq!(list["groupVersion"], "subresources.execlet.dev/v1alpha1");
        let found: Vec<(&str, &Value)> = list["resources"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| (one["name"].as_str().expect("a name"), &one["verbs"]))
            .collect();
        let (both, get) = (json!(["create", "get"]), json!(["get"]));
        assert_eq!(found, [("execrequests/attach", &both), ("execrequests/log", &get)]);
    }

    #[tokio::test]
    async fn both_openapi_documents_describe_the_two_paths() {
        let Json(v2) = openapi_v2().await;
        let Json(v3) = openapi_v3().await;
        let path = "/apis/subresources.execlet.dev/v1alpha1/namespaces/{namespace}/execrequests/{name}/log";
        assert_eq!(v2["paths"][path]["get"]["parameters"][2]["type"], "boolean");
        assert_eq!(v3["paths"][path]["get"]["parameters"][2]["schema"]["type"], "boolean");
    }
}
