//! The `CustomResourceDefinition`, with what the derive macro cannot express.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use super::{ExecBatch, ExecRequest, names::GROUP};

/// Limits of `metav1.Condition`, as the Kubernetes API machinery documents them.
const CONDITION_LIMITS: [(&str, u32); 4] = [("type", 316), ("reason", 1024), ("message", 32_768), ("status", 7)];

/// File name of the definition of `ExecRequest`, in `crds/`.
pub const REQUEST_FILE: &str = "execrequests.execlet.dev.yaml";
/// File name of the definition of `ExecBatch`, in `crds/`.
pub const BATCH_FILE: &str = "execbatches.execlet.dev.yaml";

/// The definition of `ExecRequest`.
///
/// # Errors
/// When the generated schema does not have the expected shape; a unit test shows that it has.
pub fn exec_request() -> Result<CustomResourceDefinition, serde_json::Error> {
    finished(&ExecRequest::crd(), &not_done(&json!({"phase": "Pending"})))
}

/// The definition of `ExecBatch`.
///
/// # Errors
/// When the generated schema does not have the expected shape; a unit test shows that it has.
pub fn exec_batch() -> Result<CustomResourceDefinition, serde_json::Error> {
    let none = json!({"count": 0, "indexes": ""});
    let counts = ["succeeded", "failed", "notRun", "unknown", "skipped"].map(|name| (name.to_owned(), none.clone()));
    let mut status: Map<String, Value> = counts.into_iter().collect();
    status.extend(
        [("phase", json!("Pending")), ("released", json!(0)), ("active", json!(0))]
            .map(|(name, value)| (name.to_owned(), value)),
    );
    finished(&ExecBatch::crd(), &not_done(&Value::Object(status)))
}

fn finished(
    generated: &CustomResourceDefinition,
    default_status: &Value,
) -> Result<CustomResourceDefinition, serde_json::Error> {
    let mut crd = serde_json::to_value(generated)?;
    for version in array(&mut crd["spec"]["versions"]) {
        let status = &mut version["schema"]["openAPIV3Schema"]["properties"]["status"];
        status["default"] = default_status.clone();
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

/// The initial status. Without it, tools that use kstatus (Helm, Argo CD, Flux) take a new object for done.
fn not_done(fields: &Value) -> Value {
    let mut status = fields.clone();
    status["observedGeneration"] = json!(0);
    status["conditions"] = json!([{
        "type": "Finished",
        "status": "Unknown",
        "reason": "Pending",
        "message": "waiting for the manager",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    }]);
    status
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

    /// Every definition, with the name of its file.
    fn definitions() -> [(&'static str, CustomResourceDefinition); 2] {
        [(REQUEST_FILE, exec_request().expect("a definition")), (BATCH_FILE, exec_batch().expect("a definition"))]
    }

    fn root(definition: &CustomResourceDefinition) -> Value {
        let crd = serde_json::to_value(definition).expect("JSON");
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    fn each_field(mut look: impl FnMut(&str, &Value)) {
        for (file, definition) in definitions() {
            for part in ["spec", "status"] {
                walk(&format!("{file}: {part}"), &root(&definition)["properties"][part], &mut look);
            }
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
                None if schema["x-kubernetes-int-or-string"] == json!(true) => &["maxLength"],
                _ => return,
            };
            assert!(limits.iter().any(|limit| !schema[*limit].is_null()), "{path} has none of {limits:?}");
        });
    }

    #[test]
    fn every_field_of_the_spec_but_those_that_may_change_is_held_immutable() {
        // What of the approval may change has rules of its own.
        let free: [&[&str]; 2] =
            [&["cancel"], &["parallelism", "releaseLimit", "suspend", "cancel", "approval", "releasedBy"]];
        for ((file, definition), free) in definitions().iter().zip(free) {
            let spec = &root(definition)["properties"]["spec"];
            let rules = spec["x-kubernetes-validations"].to_string();
            for field in spec["properties"].as_object().expect("fields").keys() {
                let held = rules.contains(&format!("self.{field} == oldSelf.{field}"));
                assert_eq!(held, !free.contains(&field.as_str()), "{file}: {field}");
            }
        }
    }

    #[test]
    fn every_rule_says_what_to_do() {
        each_field(|path, schema| {
            for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                let message = rule["message"].as_str().unwrap_or_default();
                assert!(message.len() > 10, "{path}: {}", rule["rule"]);
            }
        });
    }

    #[test]
    fn a_new_object_is_not_done_in_the_eyes_of_kstatus() {
        for (file, definition) in definitions() {
            let status = &root(&definition)["properties"]["status"]["default"];
            assert_eq!((&status["phase"], &status["observedGeneration"]), (&json!("Pending"), &json!(0)), "{file}");
            assert_eq!(status["conditions"][0]["status"], json!("Unknown"), "{file}");
        }
    }

    #[test]
    fn a_count_of_a_new_batch_is_there_so_that_it_can_be_held_not_to_fall() {
        let status = &root(&exec_batch().expect("a definition"))["properties"]["status"];
        let rules = status["x-kubernetes-validations"].to_string();
        for count in ["succeeded", "failed", "notRun", "unknown", "skipped"] {
            assert_eq!(status["default"][count], json!({"count": 0, "indexes": ""}));
            assert!(rules.contains(&format!("self.{count}.count >= oldSelf.{count}.count")), "{count} may fall");
        }
        assert!(rules.contains("self.released >= oldSelf.released"));
    }

    #[test]
    fn the_parts_of_a_template_are_those_of_a_request() {
        let of =
            |definition: &CustomResourceDefinition, path: &str| root(definition).pointer(path).cloned().expect(path);
        let [(_, request), (_, batch)] = definitions();
        let request = of(&request, "/properties/spec/properties");
        let template = of(&batch, "/properties/spec/properties/template/properties/spec/properties");
        let names = |fields: &Value| fields.as_object().expect("fields").keys().cloned().collect::<Vec<_>>();
        let mut wanted = names(&request);
        wanted.retain(|name| !["target", "cancel", "requestedBy", "reason", "batch"].contains(&name.as_str()));
        assert_eq!(names(&template), wanted);
        for name in wanted {
            assert_eq!(template[&name]["type"], request[&name]["type"], "{name}");
            assert_eq!(template[&name]["default"], request[&name]["default"], "{name}");
        }
    }

    #[test]
    fn the_committed_definitions_are_current() {
        for (file, definition) in definitions() {
            let path = format!("{}/crds/{file}", env!("CARGO_MANIFEST_DIR"));
            let committed = std::fs::read_to_string(path).expect("crds/ holds the definition");
            let current = serde_yaml_ng::to_string(&definition).expect("YAML");
            assert!(committed == current, "crds/{file} is stale: run `make crds`");
        }
    }

    #[test]
    fn the_chart_carries_the_same_definitions() {
        let root = env!("CARGO_MANIFEST_DIR");
        for file in [REQUEST_FILE, BATCH_FILE] {
            let read = |path: &str| std::fs::read_to_string(format!("{root}/{path}/{file}")).expect("a definition");
            assert!(read("crds") == read("charts/execlet/files/crds"), "the chart's {file} is stale: run `make crds`");
        }
    }
}
