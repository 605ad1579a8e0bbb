//! The `CustomResourceDefinition`, completed by what the derive cannot say.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::{ExecRequest, names::GROUP};

/// Limits of `metav1.Condition`, as the Kubernetes API machinery documents them.
const CONDITION_LIMITS: [(&str, u32); 4] = [("type", 316), ("reason", 1024), ("message", 32_768), ("status", 7)];

/// File name of the definition, in `crds/`.
pub const FILE_NAME: &str = "execrequests.execlet.dev.yaml";

/// The definition of `ExecRequest`.
///
/// # Errors
/// When the generated schema has not the shape that this function completes;
/// a unit test shows that it has.
pub fn exec_request() -> Result<CustomResourceDefinition, serde_json::Error> {
    let mut crd = serde_json::to_value(ExecRequest::crd())?;
    for version in array(&mut crd["spec"]["versions"]) {
        let status = &mut version["schema"]["openAPIV3Schema"]["properties"]["status"];
        status["default"] = default_status();
        let condition = &mut status["properties"]["conditions"]["items"]["properties"];
        for (field, limit) in CONDITION_LIMITS {
            condition[field]["maxLength"] = json!(limit);
        }
        condition["status"]["enum"] = json!(["True", "False", "Unknown"]);
    }
    crd["metadata"]["labels"] = json!({"app.kubernetes.io/name": "execlet", "app.kubernetes.io/part-of": GROUP});
    serde_json::from_value(crd)
}

/// The status from the first moment on: without it, tools that follow kstatus
/// (Helm, Argo, Flux) take a request for done before anyone has looked at it.
fn default_status() -> Value {
    json!({
        "phase": "Pending",
        "observedGeneration": 0,
        "conditions": [{
            "type": "Finished",
            "status": "Unknown",
            "reason": "Pending",
            "message": "waiting for the manager",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }],
    })
}

fn array(value: &mut Value) -> &mut [Value] {
    value.as_array_mut().map_or(&mut [], Vec::as_mut_slice)
}
