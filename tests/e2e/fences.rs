//! The fences: what is forged, edited, or written by the wrong hands is refused, whatever RBAC says.

use execlet::core::audit::{event::Verb, key};
use serde_json::{Value, json};

use crate::{
    audit,
    kubectl::server_stamps,
    lab::{IMAGE, Lab, NAMESPACE, kubectl, kubectl_raw, kubectl_with, text, unique, wait_for},
    subject::{AGENT, Subject, a_user, agent_of, bind, exists, forged, forger, grant, request, requester},
};

fn spec(more: Value) -> Value {
    let mut spec = json!({"target": {"podName": "web"}, "command": ["true"]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

#[tokio::test]
async fn a_forged_requester_is_refused_whoever_forges_it() {
    let lab = Lab::new().await;
    let alice = requester(&lab, "alice").await;
    let mallory = forger(&lab).await;
    for (by, found) in [(forged(), "admin"), (json!({"username": ""}), ""), (json!({"username": "Alice"}), "Alice")] {
        let input = request(&lab.namespace, "f", spec(json!({"requestedBy": by})));
        let said = alice.is_refused(&["create", "-f", "-"], &input);
        let words = match found {
            "" => "spec.requestedBy is empty".to_owned(),
            found => format!(r#"is not you: found "{found}", you are "alice"; leave it out"#),
        };
        assert!(said.contains(&words), "{by}: {said}");
        assert!(!exists(&lab, "f"), "{by}");
    }
    // Under the own name, whatever else is claimed gives way to what is so, or is refused.
    let so = json!({"username": "alice", "uid": "", "groups": ["system:authenticated"], "extra": {}});
    for (name, claimed) in [
        ("own", json!({"username": "alice", "groups": ["system:authenticated"]})),
        ("groups", json!({"username": "alice", "groups": ["system:authenticated", "system:masters"]})),
        ("uid", json!({"username": "alice", "uid": "1"})),
        ("extra", json!({"username": "alice", "extra": {"scopes": ["all"]}})),
    ] {
        let input = request(&lab.namespace, name, spec(json!({"requestedBy": claimed})));
        if !server_stamps() && name != "own" {
            let said = alice.is_refused(&["create", "-f", "-"], &input);
            assert!(said.contains("spec.requestedBy is not you"), "{name}: {said}");
            continue;
        }
        let said = alice.succeeds(&["create", "-f", "-", "-o", "json"], &input);
        let object: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(object["spec"]["requestedBy"], so, "{name}");
    }
    // Whoever may do everything may not do it in another's name either: a restored backup would
    // otherwise run all that it holds.
    let input = request(&lab.namespace, "f", spec(json!({"requestedBy": {"username": "alice"}})));
    let restored = kubectl_with(&["create", "-f", "-"], &input);
    assert!(text(&restored.stderr).contains("is not you: found \"alice\""), "{}", text(&restored.stderr));
    let said = mallory.is_refused(&["create", "-f", "-"], &request(&lab.namespace, "f", spec(json!({}))));
    let words = format!("mallory cannot create pods/exec of pod web in namespace {}", lab.namespace);
    assert!(said.contains(&words), "{said}");
    let said = alice.is_refused(&["create", "-f", "-"], &request(&lab.namespace, "f", spec(json!({"user": "0"}))));
    let words = format!("alice cannot use execusers.execlet.dev/0 in namespace {}", lab.namespace);
    assert!(said.contains(&words), "{said}");
}

#[tokio::test]
async fn an_edited_spec_is_refused() {
    let lab = Lab::new().await;
    let alice = requester(&lab, "alice").await;
    alice
        .succeeds(&["create", "-f", "-"], &request(&lab.namespace, "r", spec(json!({"startingDeadlineSeconds": 600}))));
    for change in [
        json!({"requestedBy": forged()}),
        json!({"requestedBy": {"groups": ["system:masters"]}}),
        json!({"command": ["false"]}),
        json!({"user": "0"}),
        json!({"target": {"podName": "db"}}),
    ] {
        for who in [&alice, &Subject::user("root").of("system:masters")] {
            let patch = json!({"spec": change}).to_string();
            let said =
                who.is_refused(&["patch", "execrequest", "r", "-n", &lab.namespace, "--type=merge", "-p", &patch], "");
            assert!(
                said.contains("spec is immutable except for cancel") || said.contains("is final"),
                "{change}: {said}"
            );
        }
    }
}

#[tokio::test]
async fn a_status_written_by_a_user_is_refused() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let running = lab.create(json!({"target": {"podName": "web"}, "command": ["sleep", "1000"]}));
    lab.request_when(&running, "to run", |s| s.exec_id.is_some()).await;
    let rules = json!([{"apiGroups": ["execlet.dev"], "resources": ["execrequests/status"], "verbs": ["get", "update", "patch"]}]);
    grant(&lab.namespace, "status", rules, &a_user("clerk"));
    let clerk = Subject::user("clerk");
    wait_for("the role to count", async || {
        clerk.can(&lab.namespace, "patch", "execrequests.execlet.dev/status").then_some(())
    })
    .await;
    for who in [clerk, Subject::user("root").of("system:masters")] {
        for change in [json!({"exitCode": 0}), json!({"nodeName": "n2"}), Value::Null, json!({"conditions": []})] {
            let refused = who.write_status(&lab, &running, &change, false);
            let said = text(&refused.stderr);
            assert!(!refused.status.success(), "{who}: {change}");
            assert!(said.contains("only the execlet manager and agents may write status"), "{who}: {change}: {said}");
        }
    }
    lab.kubectl(&["patch", "execrequest", &running, "--type=merge", "-p", r#"{"spec":{"cancel":true}}"#]);
    assert_eq!(lab.finished(&running).await.reason(), "Canceled");
}

/// A legacy token of a service account, without any claim, in a Secret that goes away when dropped.
struct LegacyToken(String);

impl LegacyToken {
    async fn new() -> Self {
        let it = Self(unique("legacy"));
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {"name": it.0, "namespace": NAMESPACE, "annotations": {"kubernetes.io/service-account.name": AGENT}}});
        assert!(kubectl_with(&["create", "-f", "-"], &secret.to_string()).status.success());
        wait_for("a token", async || (!it.encoded().is_empty()).then_some(())).await;
        it
    }

    fn encoded(&self) -> String {
        kubectl(&["get", "secret", &self.0, "-n", NAMESPACE, "-o", "jsonpath={.data.token}"])
    }

    fn subject(&self) -> Subject {
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, self.encoded()).expect("base64");
        Subject::Token { name: "legacy".to_owned(), token: text(&bytes) }
    }
}

impl Drop for LegacyToken {
    fn drop(&mut self) {
        kubectl_raw(&["delete", "secret", &self.0, "-n", NAMESPACE]);
    }
}

#[tokio::test]
async fn an_agents_token_reaches_the_requests_of_its_own_node_and_no_others() {
    let lab = Lab::new().await;
    lab.pod("web", "n2").await;
    let running = lab.create(json!({"target": {"podName": "web"}, "command": ["sleep", "1000"]}));
    lab.request_when(&running, "to run", |s| s.exec_id.is_some()).await;
    let legacy = LegacyToken::new().await;
    let own = agent_of("n2");
    let manager = Subject::user(&format!("system:serviceaccount:{NAMESPACE}:execlet-manager"));
    let node = |name: &str| {
        Subject::account(NAMESPACE, AGENT, &["--bound-object-kind=Node", &format!("--bound-object-name={name}")])
    };
    let harmless = json!({"exitCode": 7});
    let over = |phase: &str, reason: &str| {
        let at = "2026-01-01T00:00:00Z";
        let finished = json!({"type": "Finished", "status": "True", "reason": reason, "message": "it is over", "lastTransitionTime": at});
        json!({"phase": phase, "completionTime": "2026-01-01T00:00:00.000000Z", "conditions": [finished]})
    };
    let elsewhere = r#"may not write a request of node "n2""#;
    for (who, change, refused) in [
        (&own, &harmless, None),
        (&node("n2"), &harmless, None),
        (&agent_of("n1"), &harmless, Some(elsewhere)),
        (&node("n1"), &harmless, Some(elsewhere)),
        (&Subject::account(NAMESPACE, AGENT, &[]), &harmless, Some(elsewhere)),
        (&legacy.subject(), &harmless, Some(elsewhere)),
        (&Subject::user(&format!("system:serviceaccount:{NAMESPACE}:{AGENT}")), &harmless, Some(elsewhere)),
        (&own, &json!({"nodeName": "n1"}), Some("only the manager may set")),
        (&own, &json!({"podUID": "another"}), Some("only the manager may set")),
        (&own, &json!({"container": "another"}), Some("only the manager may set")),
        (&own, &json!({"nodeName": null}), Some("only the manager may set")),
        (&own, &json!({"execID": "another"}), Some("cannot be changed once set")),
        (&own, &json!({"execID": null}), Some("cannot be changed once set")),
        (&own, &Value::Null, Some("only the manager may set")),
        (&manager, &json!({"nodeName": "n1"}), Some("cannot be changed once set")),
        (&manager, &json!({"exitCode": 0}), Some("only the agent may set")),
        (&manager, &json!({"execID": "another"}), Some("only the agent may set")),
        (&manager, &json!({"output": {"complete": true}}), Some("only the agent may set")),
        (&manager, &over("Succeeded", "Completed"), Some("may only set its phase to Unknown")),
        (&manager, &over("Failed", "Canceled"), Some("may only set its phase to Unknown")),
        (&manager, &over("Unknown", "NodeLost"), None),
    ] {
        let written = who.write_status(&lab, &running, change, true);
        let said = text(&written.stderr);
        assert_eq!(written.status.success(), refused.is_none(), "{who}: {change}: {said}");
        assert!(said.contains(refused.unwrap_or_default()), "{who}: {change}: {said}");
    }
    // Nothing else of a request, or of anything, is an agent's.
    let get = ["get", "execrequest", &running, "-n", &lab.namespace];
    own.succeeds(&get, "");
    for args in [
        &["delete", "execrequest", &running, "-n", &lab.namespace][..],
        &["patch", "execrequest", &running, "-n", &lab.namespace, "--type=merge", "-p", r#"{"spec":{"cancel":true}}"#],
        &["get", "pods", "-n", &lab.namespace],
        &["get", "secrets", "-n", NAMESPACE],
    ] {
        assert!(own.is_refused(args, "").contains("forbidden"), "{args:?}");
    }
    lab.kubectl(&["patch", "execrequest", &running, "--type=merge", "-p", r#"{"spec":{"cancel":true}}"#]);
    lab.finished(&running).await;
}

#[tokio::test]
async fn a_finished_request_is_not_set_back_to_running_by_anybody() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let done = lab.sh("web", "exit 3").await;
    let name = done.request.metadata.name.as_deref().expect("a name");
    let manager = Subject::user(&format!("system:serviceaccount:{NAMESPACE}:execlet-manager"));
    for who in [agent_of("n1"), manager, Subject::user("root").of("system:masters")] {
        for change in [
            json!({"phase": "Running"}),
            json!({"phase": "Running", "completionTime": null, "conditions": []}),
            json!({"conditions": []}),
            json!({"exitCode": 0}),
            Value::Null,
        ] {
            let refused = who.write_status(&lab, name, &change, false);
            let said = text(&refused.stderr);
            assert!(!refused.status.success(), "{who}: {change}");
            assert!(said.contains("is final") || said.contains("go together"), "{who}: {change}: {said}");
        }
    }
    assert_eq!(lab.requests().get(name).await.expect("the request").status.expect("a status"), done.status);
}

#[tokio::test]
async fn an_agents_token_reaches_its_own_lease_and_events_and_no_others() {
    let lab = Lab::new().await;
    let own = agent_of("n1");
    let lease = |name: &str| {
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, "namespace": NAMESPACE}}).to_string()
    };
    let write = |who: &Subject, name: &str| {
        let args =
            ["apply", "--server-side", "--force-conflicts", "--field-manager=test", "--dry-run=server", "-f", "-"];
        who.kubectl(&args, &lease(name))
    };
    assert!(write(&own, "execlet-agent.n1").status.success());
    for name in ["execlet-agent.n2", "execlet-manager", "execlet-agent.n1x", "another"] {
        let refused = write(&own, name);
        let said = text(&refused.stderr);
        assert!(!refused.status.success() && said.contains("may write only its own Lease"), "{name}: {said}");
    }
    let unbound = Subject::account(NAMESPACE, AGENT, &[]);
    let said = text(&write(&unbound, "another").stderr);
    assert!(said.contains("its token must name its node"), "{said}");
    for who in [&own, &unbound] {
        assert!(who.is_refused(&["delete", "lease", "execlet-agent.n1", "-n", NAMESPACE], "").contains("forbidden"));
    }

    let event = |controller: &str, instance: &str| {
        json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": unique("e"), "namespace": lab.namespace},
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": controller, "reportingInstance": instance,
            "action": "Start", "reason": "Completed", "type": "Normal", "note": "n",
            "regarding": {"kind": "ExecRequest", "apiVersion": "execlet.dev/v1alpha1", "name": "r", "namespace": lab.namespace}})
        .to_string()
    };
    let agent = "execlet.dev/agent";
    own.succeeds(&["create", "-f", "-"], &event(agent, "n1"));
    for (controller, instance) in
        [(agent, "n2"), (agent, "execlet-manager-x"), ("execlet.dev/manager", "n1"), ("kubelet", "n1")]
    {
        let said = own.is_refused(&["create", "-f", "-"], &event(controller, instance));
        assert!(said.contains("only Events that name it as reportingInstance"), "{controller} {instance}: {said}");
    }
}

#[tokio::test]
async fn the_token_of_an_agents_pod_that_is_gone_is_worth_nothing() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    // A pod of the agents' account on the node: what its token is worth does not depend on what runs in it.
    let name = unique("gone");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"nodeName": "n1", "serviceAccountName": AGENT, "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "1000"]}]}});
    let created = kubectl_with(&["create", "-f", "-"], &pod.to_string());
    assert!(created.status.success(), "{}", text(&created.stderr));
    let bound = format!("--bound-object-name={name}");
    let token = Subject::account(NAMESPACE, AGENT, &["--bound-object-kind=Pod", &bound]);
    let running = lab.create(json!({"target": {"podName": "web"}, "command": ["sleep", "1000"]}));
    lab.request_when(&running, "to run", |s| s.exec_id.is_some()).await;
    let write = || token.write_status(&lab, &running, &json!({"exitCode": 7}), true);
    let written = write();
    assert!(written.status.success(), "{}", text(&written.stderr));
    kubectl(&["delete", "pod", &name, "-n", NAMESPACE, "--wait", "--timeout=180s"]);
    // The API server remembers for 10 s at most that a token was good.
    wait_for("the token to be refused", async || {
        let said = text(&write().stderr);
        (said.contains("Unauthorized") || said.contains("must be logged in")).then_some(())
    })
    .await;
    lab.kubectl(&["patch", "execrequest", &running, "--type=merge", "-p", r#"{"spec":{"cancel":true}}"#]);
    lab.finished(&running).await;
}

#[tokio::test]
async fn a_right_that_is_withdrawn_before_the_binding_counts() {
    let lab = Lab::new().await;
    let alice = requester(&lab, "alice").await;
    let run_as = json!([{"apiGroups": ["execlet.dev"], "resources": ["execusers"], "verbs": ["use"], "resourceNames": ["1000"]}]);
    grant(&lab.namespace, "as", run_as, &a_user("alice"));
    wait_for("the role to count", async || {
        alice.can_named(&lab.namespace, "use", "execusers.execlet.dev", "1000").then_some(())
    })
    .await;
    let setup =
        json!({"name": "setup", "image": IMAGE, "command": ["sh", "-c", "until [ -e /tmp/go ]; do sleep 0.1; done"]});
    let pod = json!({"nodeName": "n1", "initContainers": [setup], "containers": [crate::lab::container("main")]});
    lab.create_pod("web", pod, json!({})).await;
    let touch = |name: &str, more: Value| {
        let mut spec = spec(json!({"command": ["touch", format!("/tmp/{name}")], "startingDeadlineSeconds": 300}));
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        alice.succeeds(&["create", "-f", "-"], &request(&lab.namespace, name, spec));
    };
    touch("as", json!({"user": "1000"}));
    touch("exec", json!({}));
    for name in ["as", "exec"] {
        lab.request_when(name, "to wait", |s| s.conditions.iter().any(|c| c.reason == "PodNotRunning")).await;
    }
    lab.kubectl(&["delete", "rolebinding", "as"]);
    let done = lab.finished("as").await;
    done.never_ran("Forbidden");
    let words = format!(
        r#"User "alice" cannot use resource "execusers" in API group "execlet.dev" in the namespace "{}" for "1000": the right was withdrawn"#,
        lab.namespace
    );
    assert!(done.message().contains(&words), "{}", done.message());
    lab.kubectl(&["delete", "rolebinding", "exec"]);
    let done = lab.finished("exec").await;
    done.never_ran("Forbidden");
    let words = format!(
        r#"User "alice" cannot create resource "pods/exec" in API group "" in the namespace "{}" for "web""#,
        lab.namespace
    );
    assert!(done.message().contains(&words), "{}", done.message());
    assert!(lab.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"]).contains("Forbidden"));
    let records = audit::of_managers(&done);
    let of: Vec<_> = records.iter().map(|event| (event.verb, event.user.username.as_str())).collect();
    assert_eq!(of, [(Verb::Denied, "alice")]);
    assert!(records[0].note(key::MESSAGE).is_some_and(|said| said.contains(&words)), "{records:?}");
    // Had they been let through, they would run now.
    let release = json!({"target": {"podName": "web", "container": "setup"}, "command": ["touch", "/tmp/go"]});
    lab.run(release).await.ended_with(0);
    lab.ready("web").await;
    assert_eq!(lab.exec("web", "ls /tmp").0, b"");
}

#[tokio::test]
async fn kubernetes_own_admin_cannot_write_status() {
    let lab = Lab::new().await;
    for role in ["edit", "admin"] {
        bind(&lab.namespace, role, &json!({"kind": "ClusterRole", "name": role}), &a_user(role));
        let who = Subject::user(role);
        wait_for("the role to count", async || {
            who.can(&lab.namespace, "create", "execrequests.execlet.dev").then_some(())
        })
        .await;
        assert!(!who.can(&lab.namespace, "update", "execrequests.execlet.dev/status"), "{role}");
        assert!(!who.can(&lab.namespace, "use", "execusers.execlet.dev"), "{role}");
    }
}
