//! The `CustomResourceDefinition`, with what the derive macro cannot express.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use super::{ExecRequest, names::GROUP};

/// Limits of `metav1.Condition`, as the Kubernetes API machinery documents them.
const CONDITION_LIMITS: [(&str, u32); 4] = [("type", 316), ("reason", 1024), ("message", 32_768), ("status", 7)];

/// File name of the definition, in `crds/`.
pub const FILE_NAME: &str = "execrequests.execlet.dev.yaml";

/// The definition of `ExecRequest`.
///
/// # Errors
/// When the generated schema does not have the expected shape; a unit test shows that it has.
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
    for version in array(&mut crd["spec"]["versions"]) {
        each_object(&mut version["schema"], &mut |schema| {
            not_nullable(schema);
            unwrap_description(schema);
        });
    }
    crd["metadata"]["labels"] = json!({"app.kubernetes.io/name": "execlet", "app.kubernetes.io/part-of": GROUP});
    serde_json::from_value(crd)
}

/// The initial status. Without it, tools that use kstatus (Helm, Argo CD, Flux) take a new
/// request for done.
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

/// By convention an optional field is absent, not null. The API server then treats a null that
/// a template left behind as a field that is not set.
fn not_nullable(schema: &mut Map<String, Value>) {
    schema.remove("nullable");
}

/// `kubectl explain` wraps lines itself.
fn unwrap_description(schema: &mut Map<String, Value>) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace('\n', " ");
    }
}

fn each_object(value: &mut Value, change: &mut impl FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(fields) => {
            change(fields);
            fields.values_mut().for_each(|field| each_object(field, change));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each_object(item, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn array(value: &mut Value) -> &mut [Value] {
    value.as_array_mut().map_or(&mut [], Vec::as_mut_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `look` with the path and the schema of every field.
    fn walk(path: &str, schema: &Value, look: &mut impl FnMut(&str, &Value)) {
        look(path, schema);
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), field, look);
        }
        for each in ["items", "additionalProperties"] {
            if !schema[each].is_null() {
                walk(&format!("{path}[]"), &schema[each], look);
            }
        }
    }

    fn each_field(mut look: impl FnMut(&str, &Value)) {
        let crd = serde_json::to_value(exec_request().expect("a definition")).expect("JSON");
        let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        for part in ["spec", "status"] {
            walk(part, &root["properties"][part], &mut look);
        }
    }

    #[test]
    fn every_field_is_described() {
        each_field(|path, schema| {
            let described = schema["description"].as_str().is_some_and(|text| text.len() > 10);
            assert!(described || path.ends_with("[]"), "{path} has no description");
        });
    }

    #[test]
    fn every_field_has_a_limit() {
        each_field(|path, schema| {
            let limits: &[&str] = match schema["type"].as_str() {
                Some("string") => &["maxLength", "enum", "format"],
                Some("array") => &["maxItems"],
                Some("integer") => &["maximum", "format"],
                Some("object") if !schema["additionalProperties"].is_null() => &["maxProperties"],
                _ => return,
            };
            assert!(limits.iter().any(|limit| !schema[*limit].is_null()), "{path} has none of {limits:?}");
        });
    }

    #[test]
    fn every_field_of_the_spec_but_cancel_is_held_immutable() {
        let crd = serde_json::to_value(exec_request().expect("a definition")).expect("JSON");
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let rules = spec["x-kubernetes-validations"].to_string();
        for field in spec["properties"].as_object().expect("fields").keys() {
            let held = rules.contains(&format!("self.{field} == oldSelf.{field}"));
            assert_eq!(held, field != "cancel", "{field}");
        }
    }

    #[test]
    fn the_committed_definition_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/execrequests.execlet.dev.yaml");
        let committed = std::fs::read_to_string(path).expect("crds/ holds the definition");
        let current = serde_yaml_ng::to_string(&exec_request().expect("a definition")).expect("YAML");
        assert!(committed == current, "crds/{FILE_NAME} is stale: run `make crds`");
    }

    #[test]
    fn the_chart_carries_the_same_definition() {
        let root = env!("CARGO_MANIFEST_DIR");
        let read = |path: &str| std::fs::read_to_string(format!("{root}/{path}/{FILE_NAME}")).expect("a definition");
        assert!(read("crds") == read("charts/execlet/files/crds"), "the chart's copy is stale: run `make crds`");
    }
}
