//! What `kubectl/` does is what kubectl does.

use serde_json::{Value, json};

use crate::{
    kubectl::done_here,
    lab::{Lab, run, text},
};

/// What was printed, without what differs from one call to the next.
fn printed(bytes: &[u8]) -> Value {
    let Ok(mut object) = serde_json::from_slice::<Value>(bytes) else { return json!(text(bytes)) };
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["uid", "creationTimestamp", "resourceVersion", "managedFields"] {
            meta.remove(field);
        }
        // kubectl's own lists have an empty one.
        if meta.is_empty() {
            object.as_object_mut().expect("an object").remove("metadata");
        }
    }
    object
}

#[tokio::test]
async fn what_is_done_here_is_what_kubectl_does() {
    let lab = Lab::new().await;
    let object = |name: &str, data: Value| {
        let meta = json!({"name": name, "namespace": lab.namespace, "labels": {"of": "two"}});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}).to_string()
    };
    for name in ["a", "b"] {
        let created = done_here(&["create", "-f", "-"], &object(name, json!({"x.y": "1", "z": "2"}))).expect("known");
        assert!(created.status.success(), "{}", text(&created.stderr));
    }
    let raw = format!("/api/v1/namespaces/{}/configmaps", lab.namespace);
    let of_a = format!("{raw}/a");
    let of_none = format!("{raw}/none");
    let new = object("c", json!({"x": "y"}));
    let wrong = object("c", json!({"x": "y"})).replace("\"data\"", "\"dates\"");
    let both = format!(r#"{{"apiVersion":"v1","kind":"List","items":[{new},{}]}}"#, object("d", json!({})));
    let patch = r#"{"data":{"z":"3"}}"#;
    let steps = r#"[{"op":"remove","path":"/data/z"}]"#;
    let cases: &[(&[&str], &str)] = &[
        (&["get", "configmap", "a", "-o", "json"], ""),
        (&["get", "cm/a", "-o", "name"], ""),
        (&["get", "configmaps", "-l", "of=two", "-o", "name"], ""),
        (&["get", "configmaps", "-l", "of=two", "-o", "json"], ""),
        (&["get", "configmaps,serviceaccounts", "-o", "name"], ""),
        (&["get", "cm", "--field-selector", "metadata.name=b", "-o", "jsonpath={.items[*].metadata.name}"], ""),
        (&["get", "cm", "a", "-o", r"jsonpath={.data.x\.y} and {.data} and {.nothing}"], ""),
        (&["get", "cm", "-o", r#"jsonpath={.items[?(@.kind=="ConfigMap")].data.z}"#], ""),
        (&["get", "cm", "none", "-o", "name"], ""),
        (&["get", "cm", "none", "--ignore-not-found", "-o", "name"], ""),
        (&["get", "secrets", "-o", "name", "--as=nobody", "--as-group=nobodies"], ""),
        (&["get", "execrequests", "-o", "name"], ""),
        (&["get", "validatingadmissionpolicies", "-o", "name"], ""),
        (&["get", "--raw", &of_a], ""),
        (&["get", "--raw", &of_none], ""),
        (&["create", "--dry-run=server", "-o", "json", "-f", "-"], &new),
        (&["create", "--dry-run=server", "-o", "name", "-f", "-"], &both),
        (&["create", "--dry-run=server", "-o", "name", "-f", "-"], &wrong),
        (&["create", "--dry-run=server", "--validate=false", "-o", "json", "-f", "-"], &wrong),
        (&["create", "--dry-run=server", "-o", "name", "-f", "-", "--as=nobody"], &new),
        (&["create", "-f", "-"], &object("a", json!({}))),
        (&["patch", "configmap", "a", "--type=merge", "-p", patch, "--dry-run=server", "-o", "json"], ""),
        (&["patch", "configmap", "a", "--type=json", "-p", steps, "--dry-run=server", "-o", "json"], ""),
        (&["patch", "configmap", "none", "--type=merge", "-p", patch], ""),
        (&["replace", "--dry-run=server", "-o", "json", "-f", "-"], &object("a", json!({"new": "1"}))),
        (&["delete", "configmap", "none"], ""),
        (&["delete", "configmap", "none", "--ignore-not-found"], ""),
        (&["auth", "can-i", "get", "pods", "--subresource=log"], ""),
        (&["auth", "can-i", "create", "execrequests", "--as=nobody"], ""),
    ];
    for (args, input) in cases {
        let args = [args, &["-n", &lab.namespace][..]].concat();
        let args = if args.contains(&"--raw") { &args[..args.len() - 2] } else { &args[..] };
        let here = done_here(args, input).unwrap_or_else(|| panic!("{args:?} is not done here"));
        let there = run("kubectl", args, input);
        let told = |output: &std::process::Output| {
            let said = text(&output.stderr);
            let said: Vec<_> = said.lines().filter(|line| !line.starts_with("No resources found")).collect();
            (output.status.success(), printed(&output.stdout), said.join("\n"))
        };
        assert_eq!(told(&here), told(&there), "{args:?}");
    }
    for args in
        [&["get", "pods"][..], &["describe", "pod", "a"], &["get", "pod", "a", "-o", "wide"], &["explain", "pod"]]
    {
        assert!(done_here(args, "").is_none(), "{args:?} is kubectl's own");
    }
}
