//! The manager's token in the wrong hands: it can do what SECURITY.md says, and no more.

use serde_json::{Value, json};

use crate::{
    lab::{Lab, NAMESPACE, kubectl, kubectl_raw, kubectl_with, text, unique, wait_for},
    measured::pods,
    subject::Subject,
};

const MANAGER: &str = "execlet-manager";
const APISERVICE: &str = "v1alpha1.subresources.execlet.dev";

/// A token like a manager's own.
pub fn stolen(pod: &str) -> Subject {
    Subject::account(NAMESPACE, MANAGER, &["--bound-object-kind=Pod", &format!("--bound-object-name={pod}")])
}

fn lease(name: &str, namespace: &str) -> String {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, "namespace": namespace}})
        .to_string()
}

fn event(namespace: &str, controller: &str, instance: &str, more: Value) -> String {
    let mut event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": unique("e"), "namespace": namespace}, "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": controller, "reportingInstance": instance, "action": "Bind", "reason": "Bound",
        "type": "Normal", "note": "n", "regarding": {"kind": "ExecRequest", "apiVersion": "execlet.dev/v1alpha1",
        "name": "r", "namespace": namespace}});
    event.as_object_mut().expect("an object").extend(more.as_object().expect("fields").clone());
    event.to_string()
}

#[tokio::test]
async fn a_stolen_managers_token_writes_its_own_lease_and_events_and_no_others() {
    let lab = Lab::new().await;
    let pods = pods("manager");
    let thief = stolen(&pods[0]);
    let create = ["create", "--dry-run=server", "-f", "-"];
    let apply = ["apply", "--server-side", "--force-conflicts", "--field-manager=test", "--dry-run=server", "-f", "-"];
    thief.succeeds(&apply, &lease(MANAGER, NAMESPACE));
    for (name, namespace, words) in [
        ("execlet-agent.ghost", NAMESPACE, "may write only the Lease execlet-manager"),
        ("another", NAMESPACE, "may write only the Lease execlet-manager"),
        (MANAGER, &lab.namespace, "forbidden"),
    ] {
        let said = thief.is_refused(&create, &lease(name, namespace));
        assert!(said.contains(words), "{name}: {said}");
    }
    let unnamed = lease("", NAMESPACE).replace("\"name\":\"\"", "\"generateName\":\"execlet-agent.g\"");
    let said = thief.is_refused(&create, &unnamed);
    assert!(said.contains("may write only the Lease execlet-manager"), "{said}");
    for args in [
        &[
            "patch",
            "lease",
            "execlet-agent.n1",
            "-n",
            NAMESPACE,
            "--type=merge",
            "-p",
            r#"{"spec":{"holderIdentity":"x"}}"#,
        ][..],
        &["delete", "lease", "execlet-agent.n1", "-n", NAMESPACE],
        &["delete", "lease", MANAGER, "-n", NAMESPACE],
    ] {
        assert!(thief.is_refused(args, "").contains("forbidden"), "{args:?}");
    }

    thief.succeeds(&create, &event(&lab.namespace, "execlet.dev/manager", &pods[0], json!({})));
    for (controller, instance, more) in [
        ("execlet.dev/agent", "n1", json!({})),
        ("execlet.dev/agent", pods[0].as_str(), json!({})),
        ("execlet.dev/manager", "n1", json!({})),
        ("execlet.dev/manager", "another-manager", json!({})),
        ("kubelet", pods[0].as_str(), json!({})),
    ] {
        let said = thief.is_refused(&create, &event(&lab.namespace, controller, instance, more));
        assert!(said.contains("may write only Events of reportingController"), "{controller} {instance}: {said}");
    }
    // By which kubectl would call it the kubelet's.
    let disguised = json!({"deprecatedSource": {"component": "kubelet"}});
    thief.is_refused(&create, &event(&lab.namespace, "execlet.dev/manager", &pods[0], disguised));
    // One that says of no pod whose it is.
    let unbound = Subject::account(NAMESPACE, MANAGER, &[]);
    let said = unbound.is_refused(&create, &event(&lab.namespace, "execlet.dev/manager", &pods[0], json!({})));
    assert!(said.contains("its token must name its pod"), "{said}");
}

#[tokio::test]
async fn a_stolen_managers_token_changes_nothing_of_its_apiservice_but_the_authorities() {
    let _lab = Lab::new().await;
    let thief = stolen(&pods("manager")[0]);
    let patch = |name: &str, patch: &Value| {
        let patch = patch.to_string();
        thief.kubectl(&["patch", "apiservice", name, "--type=merge", "--dry-run=server", "-p", &patch], "")
    };
    let bundle = kubectl(&["get", "apiservice", APISERVICE, "-o", "jsonpath={.spec.caBundle}"]);
    let same = patch(APISERVICE, &json!({"spec": {"caBundle": bundle}}));
    assert!(same.status.success(), "{}", text(&same.stderr));
    for change in [
        json!({"spec": {"service": {"name": "evil", "namespace": "default"}}}),
        json!({"spec": {"service": {"port": 1}}}),
        json!({"spec": {"service": null, "caBundle": null}}),
        json!({"spec": {"insecureSkipTLSVerify": true, "caBundle": null}}),
        json!({"spec": {"groupPriorityMinimum": 1}}),
        json!({"spec": {"versionPriority": 1}}),
        json!({"metadata": {"finalizers": ["example.com/stays"]}}),
        json!({"metadata": {"annotations": {"cert-manager.io/inject-ca-from": "default/evil"}}}),
        json!({"metadata": {"labels": {"a": "b"}}}),
        json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "x", "uid": "1"}]}}),
    ] {
        let refused = patch(APISERVICE, &change);
        let said = text(&refused.stderr);
        assert!(!refused.status.success() && said.contains("but spec.caBundle"), "{change}: {said}");
    }
    for args in [
        &["patch", "apiservice", "v1.apps", "--type=merge", "-p", r#"{"spec":{"caBundle":null}}"#][..],
        &[
            "patch",
            "apiservice",
            APISERVICE,
            "--subresource=status",
            "--type=merge",
            "-p",
            r#"{"status":{"conditions":[]}}"#,
        ],
        &["delete", "apiservice", APISERVICE],
    ] {
        assert!(thief.is_refused(args, "").contains("forbidden"), "{args:?}");
    }
}

#[tokio::test]
async fn a_stolen_managers_token_gets_only_tokens_for_agents_that_end_with_its_pod() {
    let _lab = Lab::new().await;
    let pods = pods("manager");
    let thief = stolen(&pods[0]);
    let own = json!({"kind": "Pod", "apiVersion": "v1", "name": pods[0]});
    let ask = |account: &str, audiences: &[&str], seconds: Option<i64>, bound: &Value| {
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": bound}});
        let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token");
        thief.kubectl(&["create", "--raw", &path, "-f", "-"], &request.to_string())
    };
    let agent = "streams.execlet.dev/n1";
    let given = ask(MANAGER, &[agent], Some(600), &own);
    assert!(given.status.success(), "{}", text(&given.stderr));
    // Of the name that a token may be bound to.
    let secret = json!({"kind": "Secret", "apiVersion": "v1", "name": pods[0]});
    let other = json!({"kind": "Pod", "apiVersion": "v1", "name": pods.last().expect("a pod")});
    for (audiences, seconds, bound) in [
        (&[agent][..], Some(31_536_000), &own),
        (&[agent], Some(601), &own),
        (&[agent], None, &own),
        (&[agent], Some(600), &Value::Null),
        (&[agent], Some(600), &secret),
        (&[agent], Some(600), &other),
        (&[], Some(600), &own),
        (&["https://kubernetes.default.svc"], Some(600), &own),
        (&[agent, "https://kubernetes.default.svc"], Some(600), &own),
        (&["streams.execlet.dev"], Some(600), &own),
    ] {
        if bound == &other && pods.len() < 2 {
            continue;
        }
        let refused = ask(MANAGER, audiences, seconds, bound);
        let said = text(&refused.stderr);
        let words = "may get only tokens of the audiences streams.execlet.dev/NODE";
        assert!(!refused.status.success() && said.contains(words), "{audiences:?} {seconds:?} {bound}: {said}");
    }
    for account in ["execlet-agent", "default"] {
        let refused = ask(account, &[agent], Some(600), &own);
        assert!(text(&refused.stderr).contains("forbidden"), "{account}: {}", text(&refused.stderr));
    }
}

#[tokio::test]
async fn a_stolen_managers_token_reaches_no_secret_no_node_and_no_spec() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let done = lab.sh("web", "exit 3").await;
    let name = done.request.metadata.name.as_deref().expect("a name");
    let thief = stolen(&pods("manager")[0]);
    thief.succeeds(&["get", "pod", "web", "-n", &lab.namespace], "");
    thief.succeeds(&["get", "xr", name, "-n", &lab.namespace], "");
    let request =
        crate::subject::request(&lab.namespace, "r", json!({"target": {"podName": "web"}, "command": ["true"]}));
    for (args, input) in [
        (&["create", "-f", "-"][..], request.as_str()),
        (
            &["patch", "xr", name, "-n", &lab.namespace, "--type=merge", "-p", r#"{"metadata":{"labels":{"a":"b"}}}"#],
            "",
        ),
        (&["delete", "xr", name, "-n", &lab.namespace], ""),
        (&["exec", "web", "-n", &lab.namespace, "--", "true"], ""),
        (&["get", "secrets", "-n", NAMESPACE], ""),
        (&["get", "secret", "another", "-n", NAMESPACE], ""),
        (&["get", "nodes"], ""),
        (&["get", "configmap", "kube-root-ca.crt", "-n", &lab.namespace], ""),
        (&["delete", "pod", "web", "-n", &lab.namespace], ""),
        (&["delete", "validatingadmissionpolicy", "execlet-manager"], ""),
        (
            &[
                "patch",
                "validatingadmissionpolicybinding",
                "execlet-manager",
                "--type=merge",
                "-p",
                r#"{"spec":{"validationActions":["Audit"]}}"#,
            ],
            "",
        ),
        (&["create", "clusterrolebinding", "x", "--clusterrole=cluster-admin", "--user=x"], ""),
        (&["get", "pods", "-n", &lab.namespace, "--as=admin"], ""),
    ] {
        let said = thief.is_refused(args, input);
        assert!(said.contains("orbidden"), "{args:?}: {said}");
    }
}

/// Rights of the managers beside their own, while this is there.
struct More(String);

impl More {
    fn rights(rules: &Value) -> Self {
        let name = unique("e2e-more");
        let (group, meta) = ("rbac.authorization.k8s.io", json!({"name": name}));
        let items = [
            json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": meta, "rules": rules}),
            json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": meta,
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": MANAGER, "namespace": NAMESPACE}]}),
        ];
        let more = Self(name);
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        let created = kubectl_with(&["create", "-f", "-"], &list.to_string());
        assert!(created.status.success(), "{}", text(&created.stderr));
        more
    }
}

impl Drop for More {
    fn drop(&mut self) {
        kubectl_raw(&["delete", "clusterrolebinding,clusterrole", &self.0]);
    }
}

#[tokio::test]
async fn what_a_role_would_allow_a_stolen_managers_token_its_policy_does_not() {
    let lab = Lab::alone().await;
    let pods = pods("manager");
    let thief = stolen(&pods[0]);
    let _more = More::rights(&json!([
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]},
        {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["*"]},
        {"apiGroups": ["apiregistration.k8s.io"], "resources": ["apiservices", "apiservices/status"], "verbs": ["*"]},
    ]));
    for (verb, resource) in [
        ("delete", "leases.coordination.k8s.io"),
        ("patch", "events"),
        ("patch", "apiservices.apiregistration.k8s.io/status"),
    ] {
        wait_for("the role to count", async || thief.can(&lab.namespace, verb, resource).then_some(())).await;
    }
    let of_agent = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": lab.namespace},
            "involvedObject": {"kind": "Pod", "name": "web", "namespace": lab.namespace}, "reason": "Started",
            "reportingComponent": "execlet.dev/agent", "reportingInstance": "n1", "type": "Normal", "message": "m"})
        .to_string()
    };
    let created = kubectl_with(&["create", "-f", "-"], &of_agent("seen"));
    assert!(created.status.success(), "{}", text(&created.stderr));
    let own = json!({"reportingComponent": "execlet.dev/manager", "reportingInstance": pods[0]}).to_string();
    let service = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1.example.com"}, "spec": {"group": "example.com", "version": "v1",
        "groupPriorityMinimum": 100, "versionPriority": 100, "insecureSkipTLSVerify": true,
        "service": {"name": "evil", "namespace": "default"}}})
    .to_string();
    let dry = "--dry-run=server";
    let patch = |kind, name, what| ["patch", kind, name, "--type=merge", dry, "-p", what];
    let [lease_words, event_words] = ["only the Lease execlet-manager", "only Events of reportingController"];
    let (service_words, delete_words) = ("but spec.caBundle", "may delete nothing");
    let in_lab = ["-n", &lab.namespace];
    let here = ["-n", NAMESPACE];
    for (args, input, words) in [
        ([&["create", dry, "-f", "-"][..], &[]].concat(), lease(MANAGER, &lab.namespace), lease_words),
        (
            [&patch("lease", "execlet-agent.n1", r#"{"spec":{"holderIdentity":"x"}}"#)[..], &here].concat(),
            String::new(),
            lease_words,
        ),
        ([&["delete", "lease", MANAGER, dry][..], &here].concat(), String::new(), delete_words),
        ([&["create", dry, "-f", "-"][..], &[]].concat(), of_agent("another"), event_words),
        // Neither to change what it says, nor to make it one's own.
        ([&patch("event", "seen", r#"{"message":"x"}"#)[..], &in_lab].concat(), String::new(), event_words),
        ([&patch("event", "seen", &own)[..], &in_lab].concat(), String::new(), event_words),
        ([&["delete", "event", "seen", dry][..], &in_lab].concat(), String::new(), delete_words),
        ([&["create", dry, "-f", "-"][..], &[]].concat(), service, service_words),
        (
            [&patch("apiservice", APISERVICE, r#"{"status":{"conditions":[]}}"#)[..], &["--subresource=status"]]
                .concat(),
            String::new(),
            service_words,
        ),
        ([&["delete", "apiservice", APISERVICE, dry][..], &[]].concat(), String::new(), delete_words),
    ] {
        let said = thief.is_refused(&args, &input);
        assert!(said.contains(words), "{args:?}: {said}");
    }
}
