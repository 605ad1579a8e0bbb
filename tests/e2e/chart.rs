//! The chart on a real API server: what it asks for, upgrade, uninstall, and who may what.

use serde_json::{Value, json};

use crate::{
    kubectl::server_stamps,
    lab::{Lab, NAMESPACE, helm, kubectl, kubectl_itself, kubectl_raw, kubectl_with, run, text, wait_for},
    subject::{Subject, request},
};

const RELEASE: &str = "execlet";
const CHART: &str = "charts/execlet";
const CRD: &str = "execrequests.execlet.dev";

fn can(user: &str, namespace: &str, verb: &str, resource: &str) -> bool {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let subresource = format!("--subresource={subresource}");
    let answer = kubectl_raw(&["auth", "can-i", verb, resource, &subresource, "-n", namespace, "--as", user]);
    text(&answer.stdout).trim() == "yes"
}

#[tokio::test]
async fn every_object_of_the_chart_is_taken_by_the_api_server() {
    let _lab = Lab::new().await;
    helm(&["lint", "--strict", CHART]);
    let stamp = if server_stamps() { "always" } else { "never" };
    let sets = format!("crds.install=false,admission.stamp={stamp}");
    let objects = helm(&["template", "other", CHART, "-n", NAMESPACE, "--include-crds", "--set", &sets]);
    let server_side = ["apply", "--server-side", "--force-conflicts", "--field-manager=test", "--dry-run=server"];
    let taken = kubectl_with(&[&server_side[..], &["-f", "-"]].concat(), &objects);
    assert!(taken.status.success(), "{}", text(&taken.stderr));
    assert!(!text(&taken.stderr).contains("Warning"), "{}", text(&taken.stderr));
}

/// Everything here is done by kubectl itself, as it is everywhere.
#[tokio::test]
async fn the_server_says_who_asks_where_it_can_and_the_client_where_it_cannot() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let args = "jsonpath={.spec.template.spec.containers[0].args}";
    let args = kubectl(&["get", "deployment", "execlet-manager", "-n", NAMESPACE, "-o", args]);
    let of = "-lapp.kubernetes.io/part-of=execlet.dev";
    let stamps =
        kubectl_itself(&["get", "mutatingadmissionpolicies,mutatingadmissionpolicybindings", of, "-o", "name"], "");
    let stamps = text(&stamps.stdout).lines().filter(|name| name.contains("stamp")).count();
    let me: Value =
        serde_json::from_slice(&kubectl_itself(&["auth", "whoami", "-o", "json"], "").stdout).expect("JSON");
    let me = &me["status"]["userInfo"];
    let create = |name: &str, by: &Value| {
        let spec = json!({"target": {"podName": "web"}, "command": ["sh", "-c", "exit 3"], "requestedBy": by});
        kubectl_itself(&["create", "-f", "-"], &request(&lab.namespace, name, spec))
    };
    let unsigned = create("unsigned", &Value::Null);
    if server_stamps() {
        assert!(args.contains("--admission=stamped"), "{args}");
        assert_eq!(stamps, 4, "two policies and their bindings");
        assert!(unsigned.status.success(), "{}", text(&unsigned.stderr));
        let by = lab.finished("unsigned").await.request.spec.requested_by.expect("a requester");
        assert_eq!(json!(by.username), me["username"]);
    } else {
        assert!(args.contains("--admission=guarded"), "{args}");
        assert_eq!(stamps, 0);
        let said = text(&unsigned.stderr);
        assert!(!unsigned.status.success(), "{}", text(&unsigned.stdout));
        assert!(said.contains("spec.requestedBy is empty, and no policy has filled it in"), "{said}");
    }
    let signed = create("signed", me);
    assert!(signed.status.success(), "{}", text(&signed.stderr));
    lab.finished("signed").await.ended_with(3);
}

#[tokio::test]
async fn agent_and_manager_may_do_what_they_must_and_no_more() {
    let _lab = Lab::new().await;
    let agent = &format!("system:serviceaccount:{NAMESPACE}:execlet-agent");
    let manager = &format!("system:serviceaccount:{NAMESPACE}:execlet-manager");
    for (who, verb, resource, allowed) in [
        (agent, "list", "execrequests.execlet.dev", true),
        (agent, "update", "execrequests.execlet.dev/status", true),
        (agent, "update", "execrequests.execlet.dev", false),
        (agent, "create", "execrequests.execlet.dev", false),
        (agent, "delete", "execrequests.execlet.dev", false),
        (agent, "get", "pods", false),
        (agent, "create", "pods/exec", false),
        (agent, "get", "secrets", false),
        // A role cannot name each agent's own.
        (agent, "get", "nodes", true),
        (agent, "list", "nodes", false),
        (agent, "watch", "nodes", false),
        (agent, "patch", "nodes", false),
        (agent, "get", "nodes/proxy", false),
        (agent, "create", "tokenreviews.authentication.k8s.io", true),
        (agent, "delete", "leases.coordination.k8s.io", false),
        (agent, "create", "subjectaccessreviews.authorization.k8s.io", true),
        (agent, "get", "execbatches.execlet.dev", true),
        (agent, "list", "execbatches.execlet.dev", false),
        (agent, "create", "execbatches.execlet.dev", false),
        (agent, "update", "execbatches.execlet.dev", false),
        (agent, "update", "execbatches.execlet.dev/status", false),
        (agent, "get", "validatingadmissionpolicies.admissionregistration.k8s.io", false),
        (manager, "get", "pods", true),
        (manager, "list", "execrequests.execlet.dev", true),
        (manager, "update", "execrequests.execlet.dev/status", true),
        // Which ones, the policy execlet-manager says.
        (manager, "create", "execrequests.execlet.dev", true),
        (manager, "patch", "execrequests.execlet.dev", true),
        (manager, "delete", "execrequests.execlet.dev", true),
        (manager, "update", "execrequests.execlet.dev", false),
        (manager, "deletecollection", "execrequests.execlet.dev", false),
        (manager, "list", "execbatches.execlet.dev", true),
        (manager, "delete", "execbatches.execlet.dev", true),
        (manager, "update", "execbatches.execlet.dev/status", true),
        (manager, "create", "execbatches.execlet.dev", false),
        (manager, "update", "execbatches.execlet.dev", false),
        (manager, "patch", "execbatches.execlet.dev", false),
        (manager, "approve", "execbatches.execlet.dev", false),
        (manager, "list", "pods", true),
        (manager, "watch", "pods", false),
        (manager, "get", "statefulsets.apps", true),
        (manager, "list", "deployments.apps", false),
        (manager, "create", "pods/exec", false),
        (manager, "delete", "pods", false),
        (manager, "create", "subjectaccessreviews.authorization.k8s.io", true),
        (manager, "create", "tokenreviews.authentication.k8s.io", false),
        (manager, "list", "validatingadmissionpolicies.admissionregistration.k8s.io", false),
        (manager, "update", "validatingadmissionpolicies.admissionregistration.k8s.io", false),
        (manager, "create", "validatingadmissionpolicies.admissionregistration.k8s.io", false),
        (manager, "impersonate", "users", false),
        (manager, "get", "secrets", false),
        (manager, "create", "serviceaccounts/token", false),
        (agent, "create", "serviceaccounts/token", false),
    ] {
        assert_eq!(can(who, "default", verb, resource), allowed, "{who} {verb} {resource}");
    }
    // Tokens of its own account, by which agents know it.
    for (who, account, allowed) in
        [(manager, "execlet-manager", true), (manager, "execlet-agent", false), (agent, "execlet-manager", false)]
    {
        let named = Subject::user(who).can_named(NAMESPACE, "create", "serviceaccounts/token", account);
        assert_eq!(named, allowed, "{who} {account}");
    }
}

fn rendered(engine: &str) -> String {
    helm(&["template", "other", CHART, "--set", "admission.stamp=always", "--set", &format!("engine.name={engine}")])
}

#[tokio::test]
async fn an_agent_that_is_told_its_engine_may_get_no_node() {
    let _lab = Lab::new().await;
    let may = |engine: &str| rendered(engine).contains("resources: [nodes]");
    assert!(may("auto") && !may("docker") && !may("containerd"));
}

#[tokio::test]
async fn what_one_engine_needs_of_the_node_is_mounted_only_where_it_may_be_met() {
    let _lab = Lab::new().await;
    let parts = |engine: &str| {
        let all = rendered(engine);
        let docker =
            all.contains("--engine-socket=/host/engine/docker.sock") && all.contains("mountPath: /host/engine");
        let containerd = ["--containerd-socket=/host/containerd/containerd.sock", "mountPath: /host/containerd"];
        let containerd =
            [&containerd[..], &["--run-dir=/run/execlet", "mountPath: /run/execlet", "Unconfined"]].concat();
        let holder = ["name: holder", "--name=$(POD_UID)", "--holder=$(POD_UID)"];
        let containerd = [&containerd[..], &holder].concat();
        let found: Vec<_> = containerd.iter().map(|part| all.contains(part)).collect();
        assert!(found.iter().all(|part| *part == found[0]), "{engine}: {found:?}");
        // A pod must start on a node that has only one of them.
        (docker, found[0], all.contains("path: /run/containerd, type: DirectoryOrCreate"))
    };
    assert_eq!(parts("auto"), (true, true, true));
    assert_eq!(parts("docker"), (true, false, false));
    assert_eq!(parts("containerd"), (false, true, false));
}

#[tokio::test]
async fn kubernetes_own_roles_reach_requests() {
    let lab = Lab::new().await;
    for role in ["view", "edit"] {
        let binding = format!("--clusterrole={role}");
        lab.kubectl(&["create", "rolebinding", role, &binding, &format!("--user={role}er")]);
    }
    let can = |user: &str, verb: &str, resource: &str| can(user, &lab.namespace, verb, resource);
    for (user, verb, allowed) in [
        ("viewer", "get", true),
        ("viewer", "watch", true),
        ("viewer", "create", false),
        ("viewer", "delete", false),
        ("editer", "create", true),
        ("editer", "delete", true),
    ] {
        for kind in ["execrequests.execlet.dev", "execbatches.execlet.dev"] {
            assert_eq!(can(user, verb, kind), allowed, "{user} {verb} {kind}");
        }
    }
    assert!(!can("editer", "update", "execrequests.execlet.dev/status"), "nobody but execlet writes status");
    assert!(!can("editer", "approve", "execbatches.execlet.dev"), "who asks for batches does not approve them");
}

#[tokio::test]
async fn the_charts_own_test_passes() {
    let _lab = Lab::new().await;
    let said = helm(&["test", RELEASE, "-n", NAMESPACE]);
    assert!(said.contains("Succeeded"), "{said}");
}

/// The managers are away until this is dropped.
pub struct NoManagers;

impl NoManagers {
    pub async fn new() -> Self {
        let it = Self;
        kubectl(&["scale", "deployment", "execlet-manager", "-n", NAMESPACE, "--replicas=0"]);
        let managers = ["get", "pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=manager", "-o", "name"];
        wait_for("the managers to be gone", async || kubectl(&managers).is_empty().then_some(())).await;
        it
    }
}

impl Drop for NoManagers {
    fn drop(&mut self) {
        kubectl(&["scale", "deployment", "execlet-manager", "-n", NAMESPACE, "--replicas=2"]);
    }
}

/// The installation as it was found; put back when dropped, whatever a test did to it.
pub struct Installation(Value);

impl Installation {
    pub fn found() -> Self {
        let values = helm(&["get", "values", RELEASE, "-n", NAMESPACE, "-o", "json"]);
        Self(serde_json::from_str(&values).expect("JSON"))
    }

    pub fn with(&self, change: &str) {
        Self::install(&self.0, &["--set", change]);
    }

    pub fn uninstall() {
        helm(&["uninstall", RELEASE, "-n", NAMESPACE, "--wait", "--timeout", "3m"]);
    }

    fn install(values: &Value, more: &[&str]) {
        let fixed = ["upgrade", "--install", RELEASE, CHART, "-n", NAMESPACE, "--wait", "--timeout", "3m", "-f", "-"];
        let done = run("helm", &[&fixed, more].concat(), &values.to_string());
        assert!(done.status.success(), "helm upgrade: {}", text(&done.stderr));
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        Self::install(&self.0, &["--reset-values"]);
    }
}

#[tokio::test]
async fn an_upgrade_and_an_uninstall_leave_nothing_stuck() {
    let lab = Lab::alone().await;
    lab.pod("web", "n1").await;
    let installation = Installation::found();
    installation.with("log.level=debug");
    let done = lab.sh("web", "exit 3").await;
    done.ended_with(3);
    let name = done.request.metadata.name.clone().expect("a name");

    Installation::uninstall();
    wait_for("everything but definition and records to be gone", async || {
        let kinds = "all,apiservices,clusterroles,clusterrolebindings,roles,rolebindings,secrets,serviceaccounts,poddisruptionbudgets";
        let label = "app.kubernetes.io/instance=execlet";
        kubectl(&["get", kinds, "-A", "-l", label, "-o", "name"]).is_empty().then_some(())
    })
    .await;
    assert!(kubectl(&["get", "crd", CRD, "-o", "name"]).contains(CRD), "the definition is kept");
    assert!(lab.kubectl(&["get", "execrequest", &name, "-o", "name"]).contains(&name), "the record is kept");
    // Without execlet, requests and namespaces with unfinished ones still go away.
    let other = format!("{}-x", lab.namespace);
    kubectl(&["create", "namespace", &other]);
    let orphan = json!({"apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
        "metadata": {"name": "orphan", "namespace": other}, "spec": {"target": {"podName": "web"}, "command": ["true"]}});
    assert!(kubectl_with(&["create", "-f", "-"], &orphan.to_string()).status.success());
    lab.kubectl(&["delete", "execrequest", &name, "--timeout=180s"]);
    kubectl(&["delete", "namespace", &other, "--timeout=180s"]);

    drop(installation);
    lab.sh("web", "exit 4").await.ended_with(4);
}
