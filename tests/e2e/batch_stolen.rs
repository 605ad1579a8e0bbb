//! The manager's token in the wrong hands, with batches: it makes, cancels and removes their requests, and reaches no more.

use serde_json::{Value, json};

use crate::{
    batch_rights::{CREATE, DRY, assert_refused, batch, change, child, read, said},
    lab::{Lab, NAMESPACE, kubectl_with, text, wait_for},
    measured::pods,
    stolen::stolen,
    subject::{Subject, forged, grant, requester},
};

#[tokio::test]
async fn a_stolen_managers_token_makes_only_requests_of_batches() {
    let lab = Lab::new().await;
    let thief = stolen(&pods("manager")[0]);
    let uid = json!("batch-1");
    let create =
        |child: &Value| said(&thief.kubectl(&[&CREATE[..], &[DRY, "-o", "json"]].concat(), &child.to_string()));
    let made = create(&child(&lab, "c", "b", &uid, &json!({}))).expect("a request of a batch");
    assert_eq!(made["spec"]["requestedBy"]["username"], json!("alice"), "in the name of the batch's requester");
    let owner = made["metadata"]["ownerReferences"][0].clone();
    let mut single = child(&lab, "c", "b", &uid, &json!({}));
    single["spec"].as_object_mut().expect("a spec").remove("batch");
    let mut own = single.clone();
    own["spec"].as_object_mut().expect("a spec").remove("requestedBy");
    for (what, child) in [
        ("no batch", single),
        ("no batch and no requester", own),
        ("no owner", child(&lab, "c", "b", &uid, &json!({"/metadata/ownerReferences": []}))),
        (
            "two owners",
            child(
                &lab,
                "c",
                "b",
                &uid,
                &json!({"/metadata/ownerReferences": [owner,
            {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "1"}]}),
            ),
        ),
        ("another batch by UID", child(&lab, "c", "b", &uid, &json!({"/metadata/ownerReferences/0/uid": "batch-2"}))),
        ("another batch by name", child(&lab, "c", "b", &uid, &json!({"/spec/batch/name": "other"}))),
        ("another kind", child(&lab, "c", "b", &uid, &json!({"/metadata/ownerReferences/0/kind": "ExecRequest"}))),
        ("another group", child(&lab, "c", "b", &uid, &json!({"/metadata/ownerReferences/0/apiVersion": "v1"}))),
        ("no controller", child(&lab, "c", "b", &uid, &json!({"/metadata/ownerReferences/0/controller": false}))),
        ("a brake", child(&lab, "c", "b", &uid, &json!({"/metadata/ownerReferences/0/blockOwnerDeletion": true}))),
    ] {
        assert_refused(create(&child), "orbidden", what);
    }
    let unbound = Subject::account(NAMESPACE, "execlet-manager", &[]);
    let said =
        unbound.is_refused(&[&CREATE[..], &[DRY]].concat(), &child(&lab, "c", "b", &uid, &json!({})).to_string());
    assert!(said.contains("its token must name its pod"), "{said}");
}

/// Deletes by the API itself, which takes preconditions; only tries.
fn delete(lab: &Lab, who: &Subject, plural: &str, name: &str, preconditions: &Value) -> Result<(), String> {
    let path = format!("/apis/execlet.dev/v1alpha1/namespaces/{}/{plural}/{name}", lab.namespace);
    let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"], "preconditions": preconditions});
    let json = ["-X", "DELETE", "-H", "Content-Type: application/json", "-d"];
    let output = who.curl(&path).args(json).arg(body.to_string()).output().expect("curl");
    if output.status.success() { Ok(()) } else { Err(text(&output.stdout)) }
}

/// The name of the only request of a batch, once its status is so.
async fn only_child(lab: &Lab, batch: &str, what: &str, holds: impl Fn(&Value) -> bool) -> String {
    let label = format!("execlet.dev/batch={batch}");
    wait_for(&format!("the request of the batch {what}"), async || {
        let list: Value = serde_json::from_str(&lab.kubectl(&["get", "xr", "-l", &label, "-o", "json"])).ok()?;
        let child = list["items"].as_array()?.first().filter(|child| holds(&child["status"]))?;
        child["metadata"]["name"].as_str().map(str::to_owned)
    })
    .await
}

/// Requests of batches: one that is held, one that runs, one that has ended.
async fn children(lab: &Lab) -> [String; 3] {
    lab.pod("web", "n1").await;
    let run = |name: &str, command: Value, limit: i32| {
        let more = json!({"template": {"spec": {"command": command}}, "releaseLimit": limit});
        assert!(kubectl_with(&CREATE, &batch(lab, name, &more)).status.success());
    };
    run("held", json!(["true"]), 0);
    run("running", json!(["sleep", "1000"]), 1);
    run("ended", json!(["true"]), 1);
    [
        only_child(lab, "held", "to be made", |_| true).await,
        only_child(lab, "running", "to run", |status| status["execID"].is_string()).await,
        only_child(lab, "ended", "to end", |status| status["completionTime"].is_string()).await,
    ]
}

#[tokio::test]
async fn a_stolen_managers_token_cancels_requests_of_batches_and_changes_nothing_else() {
    let lab = Lab::new().await;
    let thief = stolen(&pods("manager")[0]);
    let [held, running, _] = children(&lab).await;
    let single = lab.create(json!({"target": {"podName": "web"}, "command": ["sleep", "1000"]}));
    let patch = |name: &str, patch: Value| {
        let patch = patch.to_string();
        let args = ["patch", "xr", name, "-n", &lab.namespace, "--type=merge", DRY, "-o", "json", "-p", &patch];
        said(&thief.kubectl(&args, ""))
    };
    let cancel = json!({"spec": {"cancel": true}});
    for name in [&held, &running] {
        assert_eq!(patch(name, cancel.clone()).expect("canceled")["spec"]["cancel"], json!(true));
    }
    let words = "may change nothing of a request but set spec.cancel to true, if it belongs to a batch";
    assert_refused(patch(&single, cancel), words, "a request without batch");
    for change in [
        json!({"metadata": {"labels": {"a": "b"}}}),
        json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"cancel": true}}),
        json!({"metadata": {"finalizers": ["example.com/stays"]}, "spec": {"cancel": true}}),
        json!({"metadata": {"ownerReferences": []}, "spec": {"cancel": true}}),
        json!({"metadata": {"labels": {"execlet.dev/batch": null}}, "spec": {"cancel": true}}),
        json!({"spec": {"cancel": false}}),
    ] {
        assert_refused(patch(&held, change.clone()), words, &change.to_string());
    }
    for change in [json!({"command": ["false"]}), json!({"batch": {"index": 1}}), json!({"requestedBy": forged()})] {
        assert_refused(patch(&held, json!({"spec": change})), "spec is immutable", &change.to_string());
    }
    lab.kubectl(&["patch", "execbatch", "running", "--type=merge", "-p", r#"{"spec":{"cancel":true}}"#]);
    lab.kubectl(&["patch", "xr", &single, "--type=merge", "-p", r#"{"spec":{"cancel":true}}"#]);
}

#[tokio::test]
async fn a_stolen_managers_token_deletes_nothing_that_runs_and_nothing_by_its_name_alone() {
    let lab = Lab::new().await;
    let thief = stolen(&pods("manager")[0]);
    let [held, running, ended] = children(&lab).await;
    let single = lab.sh("web", "true").await.request.metadata.name.expect("a name");
    let try_request = |name: &str, preconditions: &Value| delete(&lab, &thief, "execrequests", name, preconditions);
    let pinned = |kind: &str, name: &str| json!({"uid": read(&lab, kind, name)["metadata"]["uid"]});
    let words = "may delete only requests of batches that have finished or are not bound";
    for name in [&held, &ended] {
        try_request(name, &pinned("xr", name)).unwrap_or_else(|said| panic!("{name}: {said}"));
        let version = json!({"resourceVersion": read(&lab, "xr", name)["metadata"]["resourceVersion"]});
        for preconditions in [Value::Null, json!({}), version] {
            let said = try_request(name, &preconditions).expect_err("without a UID");
            assert!(said.contains(words), "{name}: {preconditions}: {said}");
        }
        assert!(try_request(name, &json!({"uid": "another"})).is_err());
    }
    for name in [&running, &single] {
        let said = try_request(name, &pinned("xr", name)).expect_err("refused");
        assert!(said.contains(words), "{name}: {said}");
    }
    wait_for("the batch to finish", async || {
        read(&lab, "execbatch", "ended")["status"]["completionTime"].is_string().then_some(())
    })
    .await;
    delete(&lab, &thief, "execbatches", "ended", &pinned("execbatch", "ended")).expect("a finished batch");
    for (name, preconditions) in
        [("ended", Value::Null), ("running", pinned("execbatch", "running")), ("held", pinned("execbatch", "held"))]
    {
        let said = delete(&lab, &thief, "execbatches", name, &preconditions).expect_err("refused");
        assert!(said.contains("delete only one that has finished, with its UID"), "{name}: {said}");
    }
    lab.kubectl(&["patch", "execbatch", "running", "--type=merge", "-p", r#"{"spec":{"cancel":true}}"#]);
}

/// What its role does not let it, the policy would not either.
#[tokio::test]
async fn a_stolen_managers_token_neither_makes_nor_edits_a_batch() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let alice = requester(&lab, "alice").await;
    alice.succeeds(&CREATE, &batch(&lab, "b", &json!({})));
    let thief = stolen(&pods("manager")[0]);
    assert!(thief.is_refused(&[&CREATE[..], &[DRY]].concat(), &batch(&lab, "c", &json!({}))).contains("orbidden"));
    let manager = json!({"kind": "ServiceAccount", "name": "execlet-manager", "namespace": NAMESPACE});
    let rules = json!([{"apiGroups": ["execlet.dev"], "resources": ["execbatches"], "verbs": ["*"]}]);
    grant(&lab.namespace, "more", rules, &manager);
    wait_for("the role to count", async || {
        thief.can(&lab.namespace, "update", "execbatches.execlet.dev").then_some(())
    })
    .await;
    let words = "a manager may neither create nor change a batch";
    assert!(thief.is_refused(&[&CREATE[..], &[DRY]].concat(), &batch(&lab, "c", &json!({}))).contains(words));
    for spec in [json!({"releaseLimit": 1}), json!({"cancel": true}), json!({"parallelism": "1%"})] {
        assert_refused(change(&lab, &thief, "b", &spec, &[DRY]), "execlet-", &spec.to_string());
    }
    let label = ["label", "execbatch", "b", "-n", &lab.namespace, "a=b", DRY];
    assert!(thief.is_refused(&label, "").contains(words));
}
