//! Who may what with batches: what is forged, approved by the wrong hands or let run without the right to is refused,
//! whatever RBAC says.

use std::process::Output;

use serde_json::{Value, json};

use crate::{
    chart::Installation,
    kubectl::server_stamps,
    lab::{Lab, NAMESPACE, kubectl_raw, kubectl_with, text, unique, wait_for},
    leading::managers_rolled_out,
    not_shown::not_shown,
    subject::{Subject, a_user, bind, exec_rules, forged, grant, request, requester},
};

pub const DRY: &str = "--dry-run=server";
pub const CREATE: [&str; 3] = ["create", "-f", "-"];

/// A batch of the pod `web` that is a preview, with these fields of its spec changed.
pub fn batch(lab: &Lab, name: &str, more: &Value) -> String {
    let mut spec = json!({"targets": {"pods": [{"name": "web"}]}, "template": {"spec": {"command": ["true"]}},
        "releaseLimit": 0, "parallelism": "10%"});
    spec.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
    json!({"apiVersion": "execlet.dev/v1alpha1", "kind": "ExecBatch",
        "metadata": {"name": name, "namespace": lab.namespace}, "spec": spec})
    .to_string()
}

/// What the batch is after a change of its spec, or why that is refused.
pub fn change(lab: &Lab, who: &Subject, name: &str, spec: &Value, more: &[&str]) -> Result<Value, String> {
    let patch = json!({"spec": spec}).to_string();
    let args = ["patch", "execbatch", name, "-n", &lab.namespace, "--type=merge", "-o", "json", "-p", &patch];
    said(&who.kubectl(&[&args[..], more].concat(), ""))
}

pub fn said(output: &Output) -> Result<Value, String> {
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).expect("JSON"))
    } else {
        Err(text(&output.stderr) + &text(&output.stdout))
    }
}

pub fn read(lab: &Lab, kind: &str, name: &str) -> Value {
    serde_json::from_str(&lab.kubectl(&["get", kind, name, "-o", "json"])).expect("JSON")
}

#[track_caller]
pub fn assert_refused(found: Result<Value, String>, words: &str, what: &str) {
    match found {
        Ok(object) => panic!("{what}: taken: {object}"),
        Err(said) => assert!(said.contains(words), "{what}: {said}"),
    }
}

/// Somebody with these verbs on the batches of the lab's namespace, and no other right.
async fn with_verbs(lab: &Lab, name: &str, verbs: &[&str]) -> Subject {
    let rules = json!([{"apiGroups": ["execlet.dev"], "resources": ["execbatches"], "verbs": verbs}]);
    grant(&lab.namespace, name, rules, &a_user(name));
    let who = Subject::user(name);
    let last = verbs.last().expect("a verb");
    wait_for("the role to count", async || who.can(&lab.namespace, last, "execbatches.execlet.dev").then_some(()))
        .await;
    who
}

async fn may_exec(lab: &Lab, role: &str, who: &Subject, name: &str, pods: &[&str]) {
    grant(&lab.namespace, role, exec_rules(pods), &a_user(name));
    let pod = pods.first().copied().unwrap_or_default();
    wait_for("the role to count", async || who.can_named(&lab.namespace, "create", "pods/exec", pod).then_some(()))
        .await;
}

#[tokio::test]
async fn a_batch_says_who_created_it_and_nobody_else() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let alice = requester(&lab, "alice").await;
    let create =
        |more: Value| said(&alice.kubectl(&[&CREATE[..], &[DRY, "-o", "json"]].concat(), &batch(&lab, "b", &more)));
    let so = json!({"username": "alice", "uid": "", "groups": ["system:authenticated"], "extra": {}});
    for claimed in [
        json!({}),
        json!({"requestedBy": {"username": "alice", "groups": ["system:authenticated", "system:masters"]}}),
        json!({"requestedBy": {"username": "alice", "uid": "1", "extra": {"scopes": ["all"]}}}),
    ] {
        if !server_stamps() && claimed != json!({}) {
            assert_refused(create(claimed.clone()), "spec.requestedBy is not you", &claimed.to_string());
            continue;
        }
        let made = create(claimed.clone()).unwrap_or_else(|said| panic!("{claimed}: {said}"));
        assert_eq!(made["spec"]["requestedBy"], so, "{claimed}");
    }
    let me = json!({"username": "alice", "uid": ""});
    for (more, words) in [
        (json!({"requestedBy": forged()}), r#"is not you: found "admin", you are "alice"; leave it out"#),
        (json!({"requestedBy": {"username": "Alice"}}), r#"is not you: found "Alice""#),
        (json!({"requestedBy": {"username": ""}}), "spec.requestedBy is empty"),
        (json!({"template": {"spec": {"command": ["true"], "user": "0"}}}), "alice cannot use execusers.execlet.dev/0"),
        (json!({"releasedBy": me}), "a new batch cannot be released or approved by anybody yet"),
        (json!({"approval": {"required": true, "planDigest": "d"}}), "approval.planDigest is not that of the plan"),
        (json!({"approval": {"required": true, "by": me}}), "leave it out"),
    ] {
        assert_refused(create(more.clone()), words, &more.to_string());
    }
    let restored = kubectl_with(&[&CREATE[..], &[DRY]].concat(), &batch(&lab, "b", &json!({"requestedBy": so})));
    assert!(text(&restored.stderr).contains(r#"is not you: found "alice""#), "{}", text(&restored.stderr));

    alice.succeeds(&CREATE, &batch(&lab, "b", &json!({})));
    let root = Subject::user("root").of("system:masters");
    for by in [forged(), json!({"groups": ["system:masters"]})] {
        let changed = change(&lab, &root, "b", &json!({"requestedBy": by}), &[DRY]);
        assert_refused(changed, "spec is immutable except", &by.to_string());
    }
    if !server_stamps() {
        return not_shown("what an update leaves out is put back: this API server cannot");
    }
    // A PUT of the manifest leaves the name out: it is put back.
    let put = root.succeeds(&["replace", "-f", "-", DRY, "-o", "json"], &batch(&lab, "b", &json!({})));
    assert_eq!(serde_json::from_str::<Value>(&put).expect("JSON")["spec"]["requestedBy"], so);
}

#[tokio::test]
async fn nobody_but_the_manager_writes_the_status_of_a_batch() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let alice = requester(&lab, "alice").await;
    alice.succeeds(&CREATE, &batch(&lab, "b", &json!({})));
    let rules = json!([{"apiGroups": ["execlet.dev"], "resources": ["execbatches/status"], "verbs": ["get", "update", "patch"]}]);
    grant(&lab.namespace, "status", rules, &a_user("clerk"));
    let clerk = Subject::user("clerk");
    wait_for("the role to count", async || {
        clerk.can(&lab.namespace, "patch", "execbatches.execlet.dev/status").then_some(())
    })
    .await;
    let patch = json!({"status": {"observedGeneration": 1}}).to_string();
    let args = ["patch", "execbatch", "b", "-n", &lab.namespace, "--subresource=status", "--type=merge", "-p", &patch];
    for who in [clerk, Subject::user("root").of("system:masters")] {
        let said = who.is_refused(&[&args[..], &[DRY]].concat(), "");
        assert!(said.contains("only the execlet manager may write the status of a batch"), "{who}: {said}");
    }
    let agent = Subject::user(&format!("system:serviceaccount:{NAMESPACE}:execlet-agent"));
    assert!(agent.is_refused(&args, "").contains("forbidden"));
}

#[tokio::test]
async fn nobody_but_the_manager_makes_a_request_of_a_batch() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let alice = requester(&lab, "alice").await;
    alice.succeeds(&CREATE, &batch(&lab, "b", &json!({})));
    let uid = read(&lab, "execbatch", "b")["metadata"]["uid"].clone();
    for who in [&alice, &Subject::user("root").of("system:masters")] {
        let said =
            who.is_refused(&[&CREATE[..], &[DRY]].concat(), &child(&lab, "c", "b", &uid, &json!({})).to_string());
        assert!(said.contains("spec.batch is set by execlet alone"), "{who}: {said}");
    }
    let single = request(&lab.namespace, "r", json!({"target": {"podName": "web"}, "command": ["true"]}));
    alice.succeeds(&CREATE, &single);
    let patch = json!({"spec": {"batch": {"name": "b", "uid": uid, "plan": 1, "index": 0}}}).to_string();
    let said = alice.is_refused(&["patch", "xr", "r", "-n", &lab.namespace, "--type=merge", "-p", &patch], "");
    assert!(said.contains("spec is immutable except for cancel"), "{said}");
}

#[tokio::test]
async fn letting_a_batch_run_takes_being_its_requester_or_exec() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let alice = requester(&lab, "alice").await;
    let pat = with_verbs(&lab, "pat", &["get", "update", "patch"]).await;
    let web = with_verbs(&lab, "webber", &["get", "patch"]).await;
    may_exec(&lab, "web", &web, "webber", &["web"]).await;
    let op = with_verbs(&lab, "op", &["get", "patch"]).await;
    may_exec(&lab, "all", &op, "op", &[]).await;
    alice.succeeds(&CREATE, &batch(&lab, "shares", &json!({"releaseLimit": "10%", "suspend": true})));
    alice.succeeds(&CREATE, &batch(&lab, "numbers", &json!({"releaseLimit": 3, "parallelism": 5, "suspend": true})));
    for (name, spec) in [
        ("shares", json!({"releaseLimit": "11%"})),
        ("shares", json!({"releaseLimit": "100%"})),
        ("shares", json!({"releaseLimit": 1})),
        ("shares", json!({"releaseLimit": null})),
        ("shares", json!({"parallelism": "11%"})),
        ("shares", json!({"parallelism": 1})),
        ("shares", json!({"parallelism": null})),
        ("shares", json!({"parallelism": "1%", "releaseLimit": "20%"})),
        ("shares", json!({"suspend": false})),
        ("shares", json!({"suspend": null, "cancel": true})),
        ("numbers", json!({"releaseLimit": 4})),
        ("numbers", json!({"releaseLimit": "1%"})),
        ("numbers", json!({"parallelism": 6})),
        ("numbers", json!({"parallelism": "1%"})),
        ("numbers", json!({"suspend": false, "releaseLimit": 0})),
    ] {
        for who in [&pat, &web] {
            let words = r#"cannot let this batch run: to raise releaseLimit or parallelism, or to set suspend to false, one must be its requester "alice""#;
            assert_refused(change(&lab, who, name, &spec, &[DRY]), words, &format!("{who}: {spec}"));
        }
        for (who, by) in [(&alice, "alice"), (&op, "op")] {
            let changed = change(&lab, who, name, &spec, &[DRY]).unwrap_or_else(|said| panic!("{who}: {spec}: {said}"));
            assert_eq!(changed["spec"]["releasedBy"], json!({"username": by, "uid": ""}), "{who}: {spec}");
        }
    }
    for (name, spec) in [
        ("shares", json!({"releaseLimit": "9%", "parallelism": "9%"})),
        ("shares", json!({"releaseLimit": "0%", "suspend": true})),
        ("shares", json!({"releaseLimit": 0})),
        ("shares", json!({"releaseLimit": 0, "parallelism": "0%"})),
        ("shares", json!({"cancel": true})),
        ("numbers", json!({"releaseLimit": 2, "parallelism": 4})),
        ("numbers", json!({"releaseLimit": 0})),
        ("numbers", json!({"releaseLimit": "0%", "parallelism": "0%"})),
    ] {
        let changed = change(&lab, &pat, name, &spec, &[DRY]).unwrap_or_else(|said| panic!("{spec}: {said}"));
        assert!(changed["spec"]["releasedBy"].is_null(), "{spec}: nobody let it run");
    }
}

#[tokio::test]
async fn who_lets_a_batch_run_must_be_the_same_requester_and_may_use_its_user() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let op = with_verbs(&lab, "op", &["get", "patch"]).await;
    may_exec(&lab, "all", &op, "op", &[]).await;
    let template = json!({"template": {"spec": {"command": ["true"], "user": "1000"}}});
    assert!(kubectl_with(&CREATE, &batch(&lab, "as", &template)).status.success());
    let raise = json!({"releaseLimit": 1});
    assert_refused(change(&lab, &op, "as", &raise, &[DRY]), "and to use execusers.execlet.dev/1000", "as 1000");
    let run_as = json!([{"apiGroups": ["execlet.dev"], "resources": ["execusers"], "verbs": ["use"], "resourceNames": ["1000"]}]);
    grant(&lab.namespace, "as", run_as, &a_user("op"));
    wait_for("the role to count", async || change(&lab, &op, "as", &raise, &[DRY]).ok()).await;

    // An account that is deleted and made anew has the same name.
    let account = json!({"kind": "ServiceAccount", "name": "robot", "namespace": lab.namespace});
    lab.kubectl(&["create", "serviceaccount", "robot"]);
    bind(&lab.namespace, "robot", &json!({"kind": "ClusterRole", "name": "execlet-requester"}), &account);
    let robot = Subject::account(&lab.namespace, "robot", &[]);
    wait_for("the role to count", async || {
        robot.kubectl(&CREATE, &batch(&lab, "robots", &json!({}))).status.success().then_some(())
    })
    .await;
    let changed = change(&lab, &robot, "robots", &raise, &[DRY]).expect("its own batch");
    let uid = lab.kubectl(&["get", "serviceaccount", "robot", "-o", "jsonpath={.metadata.uid}"]);
    assert_eq!(changed["spec"]["releasedBy"]["uid"], json!(uid));
    lab.kubectl(&["delete", "serviceaccount", "robot"]);
    lab.kubectl(&["create", "serviceaccount", "robot"]);
    let other = Subject::account(&lab.namespace, "robot", &[]);
    assert_refused(change(&lab, &other, "robots", &raise, &[DRY]), "cannot let this batch run", "another account");
}

#[tokio::test]
async fn what_a_batch_says_of_who_let_it_run_and_who_approved_it_is_so() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let alice = requester(&lab, "alice").await;
    let op = with_verbs(&lab, "op", &["get", "update", "patch"]).await;
    may_exec(&lab, "all", &op, "op", &[]).await;
    let manifest = batch(&lab, "b", &json!({"suspend": true}));
    alice.succeeds(&CREATE, &manifest);
    let who = |name: &str| json!({"username": name, "uid": ""});
    let alone = "spec.releasedBy says who last let the batch run";
    let with = r#"spec.releasedBy must say who raises releaseLimit or parallelism or sets suspend to false: found "alice", you are "op""#;
    for (spec, words) in [
        (json!({"releasedBy": who("op")}), alone),
        (json!({"releasedBy": who("alice"), "parallelism": "9%"}), alone),
        (json!({"releasedBy": who("alice"), "parallelism": "11%"}), with),
        (json!({"releasedBy": {"username": "op", "uid": "1"}, "parallelism": "11%"}), "spec.releasedBy must say"),
        (json!({"approval": {"by": who("op")}}), "approval.by says who has set approval.planDigest"),
    ] {
        assert_refused(change(&lab, &op, "b", &spec, &[DRY]), words, &spec.to_string());
    }
    let raised = change(&lab, &op, "b", &json!({"parallelism": "11%"}), &[]).expect("raised");
    assert_eq!(raised["spec"]["releasedBy"], who("op"));
    if !server_stamps() {
        return not_shown("what an update leaves out is put back: this API server cannot");
    }
    // Who reads and writes it back need not know of it, and it stays where nothing is let run.
    let mut whole = read(&lab, "execbatch", "b");
    whole["spec"]["parallelism"] = json!("12%");
    // The manager writes its status meanwhile: what counts here is not the version that was read.
    whole["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
    lab.batch_when("b", "to be seen as it is", |seen| {
        seen.status.observed_generation == seen.batch.metadata.generation && seen.phase() == "Paused"
    })
    .await;
    let put = |who: &Subject, object: &str| said(&who.kubectl(&["replace", "-f", "-", DRY, "-o", "json"], object));
    assert_eq!(put(&alice, &whole.to_string()).expect("raised")["spec"]["releasedBy"], who("alice"));
    assert_eq!(put(&op, &manifest).expect("lowered")["spec"]["releasedBy"], who("op"), "dropped, and put back");
    whole["spec"]["releasedBy"] = who("bob");
    assert_refused(put(&alice, &whole.to_string()), "spec.releasedBy must say", "forged");
    let dropped = change(&lab, &op, "b", &json!({"releasedBy": null}), &[DRY]).expect("put back");
    assert_eq!(dropped["spec"]["releasedBy"], who("op"));
}

#[tokio::test]
async fn a_plan_is_approved_by_somebody_else_who_may_and_for_good() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let alice = requester(&lab, "alice").await;
    bind(&lab.namespace, "own", &json!({"kind": "ClusterRole", "name": "execlet-approver"}), &a_user("alice"));
    bind(&lab.namespace, "approver", &json!({"kind": "ClusterRole", "name": "execlet-approver"}), &a_user("carol"));
    let pat = with_verbs(&lab, "pat", &["get", "update", "patch"]).await;
    let carol = Subject::user("carol");
    wait_for("the role to count", async || {
        carol.can(&lab.namespace, "approve", "execbatches.execlet.dev").then_some(())
    })
    .await;
    let manifest = batch(&lab, "b", &json!({"approval": {"required": true}}));
    alice.succeeds(&CREATE, &manifest);
    let digest = lab.batch_paused("b", 0).await.digest();
    let approve = |digest: &str| json!({"approval": {"planDigest": digest}});
    let right = approve(&digest);
    let forged = |by: Value| json!({"approval": {"planDigest": digest, "by": by}});
    for (who, spec, words) in [
        (&alice, right.clone(), "alice has created this batch, so somebody else has to approve it"),
        (&pat, right.clone(), "pat cannot approve execbatches.execlet.dev/b"),
        (&carol, approve(&digest.replace(['a', '1'], "b")), "approval.planDigest is not that of the plan"),
        (&carol, approve("d"), "approval.planDigest is not that of the plan"),
        (&carol, forged(json!({"username": "dave"})), "spec.approval.by must say who sets spec.approval.planDigest"),
        (&carol, forged(json!({"username": "carol", "uid": "1"})), "spec.approval.by must say"),
        (&carol, json!({"releaseLimit": 1}), "cannot let this batch run"),
    ] {
        assert_refused(change(&lab, who, "b", &spec, &[DRY]), words, &format!("{who}: {spec}"));
    }
    let approved = change(&lab, &carol, "b", &right, &[]).expect("approved");
    let wanted = json!({"required": true, "planDigest": digest, "by": {"username": "carol", "uid": ""}});
    assert_eq!(approved["spec"]["approval"], wanted);
    for (who, spec) in [
        (&carol, approve("d")),
        (&carol, json!({"approval": {"by": {"username": "dave", "uid": ""}}})),
        (&pat, json!({"approval": {"required": false}})),
    ] {
        let said = change(&lab, who, "b", &spec, &[DRY]).expect_err("refused");
        let words = ["cannot be changed or taken back", "is not that of the plan", "approval.required is immutable"];
        assert!(words.iter().any(|words| said.contains(words)), "{who}: {spec}: {said}");
    }
    // Left out or emptied, it is put back, or that is refused.
    let emptied = change(&lab, &carol, "b", &json!({"approval": {"planDigest": "", "by": null}}), &[DRY]);
    let put = said(&pat.kubectl(&["replace", "-f", "-", DRY, "-o", "json"], &manifest));
    for changed in [emptied, put] {
        assert_eq!(changed.is_ok(), server_stamps(), "{changed:?}");
        assert!(changed.is_err() || changed.is_ok_and(|it| it["spec"]["approval"] == wanted));
    }
    // A batch of the same name is another one.
    lab.kubectl(&["delete", "execbatch", "b"]);
    alice.succeeds(&CREATE, &manifest);
    let other = lab.batch_paused("b", 0).await.digest();
    assert_ne!(other, digest);
    assert_refused(change(&lab, &carol, "b", &right, &[DRY]), "is not that of the plan", "of the batch before");
}

/// An account that has another name by now is the same one.
#[tokio::test]
async fn nobody_approves_an_own_batch_under_another_name() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    for name in ["ann", "ann-marie"] {
        bind(&lab.namespace, name, &json!({"kind": "ClusterRole", "name": "execlet-requester"}), &a_user(name));
        bind(
            &lab.namespace,
            &format!("{name}-too"),
            &json!({"kind": "ClusterRole", "name": "execlet-approver"}),
            &a_user(name),
        );
    }
    let exec = exec_rules(&[]);
    grant(&lab.namespace, "exec", exec, &a_user("ann"));
    let subject = Subject::user("ann-marie");
    wait_for("the roles to count", async || {
        let all = subject.can(&lab.namespace, "approve", "execbatches.execlet.dev")
            && Subject::user("ann").can(&lab.namespace, "create", "pods/exec");
        all.then_some(())
    })
    .await;
    let as_user = |name: &str, uid: &str, args: &[&str], input: &str| {
        let who = [format!("--as={name}"), format!("--as-uid={uid}")];
        kubectl_with(&[&[who[0].as_str(), who[1].as_str()], args].concat(), input)
    };
    let manifest = batch(&lab, "b", &json!({"approval": {"required": true}}));
    assert!(as_user("ann", "u-1", &CREATE, &manifest).status.success());
    let digest = lab.batch_paused("b", 0).await.digest();
    let patch = json!({"spec": {"approval": {"planDigest": digest}}}).to_string();
    let approve = ["patch", "execbatch", "b", "-n", &lab.namespace, "--type=merge", "-o", "json", DRY, "-p", &patch];
    let words = "has created this batch, so somebody else has to approve it";
    for (name, uid) in [("ann", "u-1"), ("ann", "u-2"), ("ann-marie", "u-1")] {
        assert_refused(said(&as_user(name, uid, &approve, "")), words, &format!("{name} {uid}"));
    }
    said(&as_user("ann-marie", "u-2", &approve, "")).expect("somebody else");
}

/// A request as the manager makes it for a batch.
pub fn child(lab: &Lab, name: &str, of: &str, uid: &Value, more: &Value) -> Value {
    let owner = json!({"apiVersion": "execlet.dev/v1alpha1", "kind": "ExecBatch", "name": of, "uid": uid,
        "controller": true, "blockOwnerDeletion": false});
    let mut child = json!({"apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
        "metadata": {"name": name, "namespace": lab.namespace, "ownerReferences": [owner]},
        "spec": {"target": {"podName": "web", "podUID": "1"}, "command": ["true"],
            "requestedBy": {"username": "alice", "uid": "", "groups": [], "extra": {}},
            "batch": {"name": of, "uid": uid, "plan": 1, "index": 0}}});
    for (path, value) in more.as_object().expect("fields") {
        *child.pointer_mut(path).expect(path) = value.clone();
    }
    child
}

#[tokio::test]
async fn without_the_stamp_the_client_says_who_it_is_and_the_guard_checks_it() {
    let lab = Lab::alone().await;
    let installation = Installation::found();
    let alice = requester(&lab, "alice").await;
    installation.with("admission.stamp=never");
    if server_stamps() {
        for kind in ["policy", "policybinding"] {
            kubectl_raw(&["delete", &format!("mutatingadmission{kind}"), "execlet-batch-stamp", "execlet-stamp"]);
        }
    }
    let create = |more: &Value| {
        said(&alice.kubectl_itself(&[&CREATE[..], &["-o", "json"]].concat(), &batch(&lab, &unique("b"), more)))
    };
    wait_for("the stamp to be forgotten", async || create(&json!({})).err()).await;
    assert_refused(create(&json!({"requestedBy": forged()})), "spec.requestedBy is not you", "forged");
    assert_refused(create(&json!({})), "is empty, and no policy has filled it in", "left out");
    let me = json!({"username": "alice", "groups": ["system:authenticated"]});
    for (field, value) in [
        ("uid", json!("1")),
        ("groups", json!(["system:authenticated", "system:masters"])),
        ("groups", json!([])),
        ("extra", json!({"scopes": ["all"]})),
    ] {
        let mut by = me.clone();
        by[field] = value;
        assert_refused(create(&json!({"requestedBy": by})), "spec.requestedBy is not you", &by.to_string());
    }
    let made = create(&json!({"requestedBy": me})).expect("made");
    let name = made["metadata"]["name"].as_str().expect("a name");
    let me = json!({"username": "alice", "uid": ""});
    for (spec, taken) in [
        (json!({"releaseLimit": 1}), false),
        (json!({"releaseLimit": 1, "releasedBy": {"username": "bob", "uid": ""}}), false),
        (json!({"releasedBy": me}), false),
        (json!({"releaseLimit": 1, "releasedBy": me}), true),
    ] {
        let patch = json!({"spec": spec}).to_string();
        let args = ["patch", "execbatch", name, "-n", &lab.namespace, "--type=merge", "-o", "json", DRY, "-p", &patch];
        let changed = said(&alice.kubectl_itself(&args, ""));
        assert_eq!(changed.is_ok(), taken, "{spec}: {changed:?}");
        assert!(taken || changed.is_err_and(|said| said.contains("spec.releasedBy")), "{spec}");
    }
    drop(installation);
    managers_rolled_out();
}
