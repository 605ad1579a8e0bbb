//! Batches that cannot be planned: each is refused whole, says why, and leaves nothing behind.

use serde_json::{Value, json};

use crate::{
    batch_lab::Seen,
    kubectl::server_stamps,
    lab::{Lab, kubectl_raw, kubectl_with, text, unique, wait_for},
    not_shown::not_shown,
    subject::request,
};

/// Names that no pod has: each is a target all the same.
fn no_pods(count: usize) -> Value {
    (0..count).map(|index| json!({"name": format!("no-{index}")})).collect()
}

fn batch(pods: usize, template: Value) -> Value {
    let mut spec = json!({"targets": {"pods": no_pods(pods)}, "template": {"spec": {"command": ["true"]}}});
    let fields = spec["template"].as_object_mut().expect("fields");
    for (name, value) in template.as_object().expect("fields") {
        fields.insert(name.clone(), value.clone());
    }
    spec
}

/// A policy of somebody else on all requests of the lab's namespace, until it is dropped.
struct Foreign {
    kind: &'static str,
    name: String,
}

impl Foreign {
    async fn new(lab: &Lab, kind: &'static str, mut policy: Value, shows: impl Fn(&str) -> bool) -> Self {
        let it = Self { kind, name: unique("foreign") };
        let rule = json!({"apiGroups": ["execlet.dev"], "apiVersions": ["*"], "operations": ["CREATE"],
            "resources": ["execrequests"]});
        let here = json!({"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}});
        let object = |kind: String, spec: Value| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": it.name}, "spec": spec});
        policy["failurePolicy"] = json!("Fail");
        policy["matchConstraints"] = json!({"resourceRules": [rule], "namespaceSelector": here});
        let mut binding = json!({"policyName": it.name});
        if kind == "ValidatingAdmissionPolicy" {
            binding["validationActions"] = json!(["Deny"]);
        }
        let items = [object(kind.to_owned(), policy), object(format!("{kind}Binding"), binding)];
        let both = json!({"apiVersion": "v1", "kind": "List", "items": items});
        let created = kubectl_with(&["create", "-f", "-"], &both.to_string());
        assert!(created.status.success(), "{}", text(&created.stderr));
        let probe = request(&lab.namespace, "probe", json!({"target": {"podName": "none"}, "command": ["true"]}));
        wait_for("the policy to count", async || {
            let tried = kubectl_with(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &probe);
            shows(&(text(&tried.stdout) + &text(&tried.stderr))).then_some(())
        })
        .await;
        it
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let kind = self.kind.to_lowercase();
        for kind in [format!("{kind}binding"), kind] {
            kubectl_raw(&["delete", &kind, &self.name]);
        }
    }
}

/// Is refused with these words, and nothing of it is left.
async fn refused(lab: &Lab, spec: Value, reason: &str, words: &str) -> Seen {
    let done = lab.batch_ended(&lab.batch(spec)).await;
    assert_eq!((done.phase().as_str(), done.reason(), done.counts()), ("Failed", reason, [0; 5]), "{}", done.message());
    assert!(done.message().contains(words) && done.message().starts_with("nothing ran: "), "{}", done.message());
    assert_eq!((done.total(), done.status.released), (0, 0));
    // The refusal is told first.
    wait_for("nothing to be left", async || lab.children(&done).await.is_empty().then_some(())).await;
    done
}

#[tokio::test]
async fn a_plan_that_would_be_too_large_is_refused_with_its_numbers() {
    let lab = Lab::new().await;
    let tails = json!({"spec": {"command": ["true"], "output": {"tailBytes": 65_536}}});
    let words = "the requests of 400 targets would hold 68 MiB, and at most 64 MiB may be: lower \
        output.tailBytes, which is 65536";
    refused(&lab, batch(400, tails), "PlanTooLarge", words).await;
    // The guards count names that no pod has, too.
    let mut many = batch(11, json!({}));
    many["targets"]["maxTargets"] = json!(10);
    refused(&lab, many, "TooManyTargets", "11 pods were found, and targets.maxTargets is 10").await;
}

#[tokio::test]
async fn a_plan_of_which_one_request_is_refused_leaves_none_of_the_others() {
    let lab = Lab::new().await;
    // Before and behind it others are made at the same time.
    let refuses = json!({"validations": [{"expression": "object.metadata.name != 'probe' && (!has(object.spec.batch) || object.spec.batch.index != 20)",
        "message": "not the twentieth"}]});
    let foreign =
        Foreign::new(&lab, "ValidatingAdmissionPolicy", refuses, |said| said.contains("not the twentieth")).await;
    refused(&lab, batch(40, json!({})), "PlanRefused", "not the twentieth").await;
    drop(foreign);
    if server_stamps() {
        let changes = json!({"reinvocationPolicy": "Never", "mutations": [{"patchType": "JSONPatch", "jsonPatch": {
            "expression": "[JSONPatch{op: 'add', path: '/spec/reason', value: 'changed'}]"}}]});
        let foreign = Foreign::new(&lab, "MutatingAdmissionPolicy", changes, |said| said.contains("changed")).await;
        let words = "a request is not what it was made as: does another admission webhook change ExecRequests?";
        refused(&lab, batch(40, json!({})), "PlanRefused", words).await;
        drop(foreign);
    } else {
        not_shown("a batch whose requests a policy changes: this API server has no such policies");
    }
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"},
        "spec": {"hard": {"count/execrequests.execlet.dev": "20"}}});
    let applied = kubectl_with(&["-n", &lab.namespace, "apply", "-f", "-"], &quota.to_string());
    assert!(applied.status.success(), "{}", text(&applied.stderr));
    wait_for("the quota to count", async || {
        lab.kubectl(&["get", "quota", "few", "-o", "jsonpath={.status.used}"]).contains("execrequests").then_some(())
    })
    .await;
    refused(&lab, batch(40, json!({})), "PlanRefused", "exceeded quota: few").await;
    // What was made and removed has no place in it.
    lab.kubectl(&["delete", "quota", "few"]);
    let done = lab.batch_ended(&lab.batch(batch(40, json!({})))).await;
    done.ended("Failed", "TooManyFailed", [0, 0, 40, 0, 0]);
}

#[tokio::test]
async fn a_template_with_metadata_that_no_request_can_have_is_refused_at_once() {
    let lab = Lab::new().await;
    let with = |what: &str, key: &str, value: &str| json!({"metadata": {what: {key: value}}});
    let (label, annotation) = (|key| with("labels", key, "x"), |key| with("annotations", key, "x"));
    let long = "x".repeat(64);
    let prefix = format!("{}.example/x", "x".repeat(250));
    let [ours, key] = ["begin with execlet.dev/ are set by execlet", "a key of labels is not valid"];
    for (template, words) in [
        (label("execlet.dev/batch"), ours),
        (label("execlet.dev/other"), ours),
        (label("a b"), key),
        (label("-a"), key),
        (label("a/b/c"), key),
        (label("Example.com/a"), key),
        (label(&long), key),
        (label(&prefix), key),
        (with("labels", "a", "b c"), "spec.template.metadata.labels.a"),
        (with("labels", "a", &long), "spec.template.metadata.labels.a"),
        (annotation("execlet.dev/batch"), ours),
        (annotation("a b"), "a key of annotations is not valid"),
        (annotation("/a"), "a key of annotations is not valid"),
    ] {
        let said = lab.try_batch("b", batch(1, template.clone())).expect_err("refused");
        assert!(said.contains(words), "{template}: {said}");
    }
    // What is taken, every request can have.
    let labels = json!({"a": "", "A_b.c-D": &long[1..], "example.com/a": "b", &long[1..]: "y"});
    let annotations = json!({"example.com/a": "\u{1b}[2J <script>", "b": "x".repeat(1024)});
    let name = lab.batch(batch(1, json!({"metadata": {"labels": labels, "annotations": annotations}})));
    let done = lab.batch_ended(&name).await;
    let meta = serde_json::to_value(&lab.children(&done).await[&0].metadata).expect("JSON");
    let mut wanted = labels;
    wanted["execlet.dev/batch"] = json!(name);
    assert_eq!((&meta["labels"], &meta["annotations"]), (&wanted, &annotations));
}
