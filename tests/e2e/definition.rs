//! The API as the API server holds it: what is refused, and with which words.

use serde_json::{Value, json};

use crate::lab::{Lab, kubectl, kubectl_with, text};

fn request(lab: &Lab, spec: Value) -> String {
    json!({
        "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
        "metadata": {"name": "r", "namespace": lab.namespace}, "spec": spec,
    })
    .to_string()
}

#[tokio::test]
async fn bad_input_is_refused_with_a_reason() {
    let lab = Lab::new().await;
    let with = |change: Value| {
        let mut spec = json!({"target": {"podName": "web"}, "command": ["true"]});
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        spec
    };
    let long = "x".repeat(131_000);
    let variable = |value: String| json!({"env": [{"name": "A", "value": value}]});
    for (change, words) in [
        (json!({"command": []}), "spec.command: Invalid value"),
        (json!({"command": [""]}), "command[0] is empty"),
        (json!({"command": ["a", "b\u{0}c"]}), "spec.command[1]"),
        (json!({"command": ["a", long.clone(), long.clone()]}), "command, env and stdin are too long"),
        (json!({"command": ["é".repeat(2_048)]}), "command[0] has more than 4095 bytes"),
        (json!({"command": ["a", "x".repeat(131_072)]}), "spec.command[1]: Too long"),
        (json!({"command": ["a", "€".repeat(44_000)]}), "an argument has more than 131071 bytes"),
        (json!({"command": vec!["😀".repeat(1_000); 62]}), "command, env and stdin are too long"),
        (variable("x".repeat(131_070)), "a variable has more than 131071 bytes as NAME=VALUE"),
        (variable("€".repeat(44_000)), "a variable has more than 131071 bytes as NAME=VALUE"),
        (variable("a\u{0}b".to_owned()), "spec.env[0].value"),
        (json!({"stdin": {"text": "€".repeat(90_000)}}), "command, env and stdin are too long"),
        (json!({"workingDir": format!("/{}", "é".repeat(2_100))}), "workingDir has more than 4095 bytes"),
        (json!({"command": ["a"], "env": [{"name": "EXECLET_UID", "value": "x"}]}), "EXECLET_UID is set by execlet"),
        (json!({"env": [{"name": "A=B", "value": "x"}]}), "spec.env[0].name"),
        (json!({"env": [{"name": "A", "value": "x"}, {"name": "A", "value": "y"}]}), "Duplicate value"),
        (json!({"workingDir": "relative"}), "spec.workingDir"),
        (json!({"user": ""}), "spec.user"),
        (json!({"startingDeadlineSeconds": 0}), "spec.startingDeadlineSeconds"),
        (json!({"output": {"tailBytes": 65537}}), "spec.output.tailBytes"),
        (json!({"output": {"spoolBytes": -1}}), "spec.output.spoolBytes"),
        (json!({"target": {"podName": "Not A Name"}}), "spec.target.podName"),
        (json!({"target": {}}), "spec.target.podName: Required value"),
        (json!({"reason": "x".repeat(1025)}), "spec.reason"),
        (json!({"comand": ["true"]}), "unknown field \"spec.comand\""),
    ] {
        let refused = kubectl_with(&["create", "--dry-run=server", "-f", "-"], &request(&lab, with(change.clone())));
        let said = text(&refused.stderr);
        assert!(
            !refused.status.success() && said.contains(words),
            "{}: {said}",
            &change.to_string()[..60.min(change.to_string().len())]
        );
    }
}

#[tokio::test]
async fn what_is_admitted_reaches_the_command_to_the_last_byte() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let done = lab
        .run(json!({
            "target": {"podName": "web"},
            // Without the shell's own name and script: nothing but busybox has to be found.
            "command": ["sh", "-c", "echo ${#1} $(printf %s \"$B\" | wc -c)", "sh", "x".repeat(131_071)],
            "env": [{"name": "B", "value": format!("{}x", "€".repeat(38_000))}],
        }))
        .await;
    assert_eq!((done.reason(), done.stdout()), ("Completed", "131071 114001\n"));
    let folder = format!("/{}", "é".repeat(2_047));
    let done = lab.run(json!({"target": {"podName": "web"}, "command": ["true"], "workingDir": folder})).await;
    assert_eq!(done.reason(), "StartFailed", "there is no such folder");
}

#[tokio::test]
async fn a_null_is_a_field_that_is_not_set() {
    let lab = Lab::new().await;
    let spec = json!({"target": {"podName": "web"}, "command": ["true"], "env": null, "tty": null});
    let taken = kubectl_with(&["create", "--dry-run=server", "-f", "-", "-o", "json"], &request(&lab, spec));
    assert!(taken.status.success(), "{}", text(&taken.stderr));
    let object: Value = serde_json::from_slice(&taken.stdout).expect("JSON");
    assert_eq!((&object["spec"]["env"], &object["spec"]["tty"]), (&json!([]), &json!(false)));
}

#[tokio::test]
async fn from_the_first_moment_on_a_request_says_that_it_is_not_done() {
    let lab = Lab::new().await;
    let spec = json!({"target": {"podName": "web"}, "command": ["true"]});
    let taken = kubectl_with(&["create", "--dry-run=server", "-f", "-", "-o", "json"], &request(&lab, spec));
    let object: Value = serde_json::from_slice(&taken.stdout).expect("JSON");
    assert_eq!(object["status"]["phase"], json!("Pending"));
    assert_eq!(object["status"]["observedGeneration"], json!(0));
    assert_eq!(object["status"]["conditions"][0]["type"], json!("Finished"));
    assert_eq!(object["spec"]["startingDeadlineSeconds"], json!(60));
}

#[tokio::test]
async fn the_spec_is_immutable_and_an_end_is_final() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let done = lab.sh("web", "exit 3").await;
    let name = done.request.metadata.name.as_deref().expect("a name");
    let patch = |subresource: &[&str], patch: &str| {
        lab.kubectl_fails(&[&["patch", "execrequest", name, "--type=merge", "-p", patch], subresource].concat())
    };
    let said = patch(&[], r#"{"spec":{"command":["false"]}}"#);
    assert!(
        said.contains("spec is immutable except for cancel: delete this ExecRequest and create another one"),
        "{said}"
    );
    for change in [
        r#"{"status":{"exitCode":0}}"#,
        r#"{"status":{"phase":"Running","completionTime":null}}"#,
        r#"{"status":null}"#,
    ] {
        let said = patch(&["--subresource=status"], change);
        assert!(said.contains("its status is final") || said.contains("go together"), "{change}: {said}");
    }
    let again = lab.requests().get(name).await.expect("the request").status.expect("a status");
    assert_eq!(again, done.status);
}

#[tokio::test]
async fn explain_is_a_manual() {
    let _lab = Lab::new().await;
    let manual = kubectl(&["explain", "execrequest", "--recursive"]);
    for field in [
        "podName",
        "podUID",
        "workingDir",
        "startingDeadlineSeconds",
        "tailBytes",
        "exitCodeSource",
        "incompleteReason",
    ] {
        assert!(manual.contains(field), "{field} is not in\n{manual}");
    }
    let spec = kubectl(&["explain", "execrequest.spec"]);
    let words = spec.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("There is no shell") && words.contains("Immutable except for `cancel`"), "{spec}");
}
