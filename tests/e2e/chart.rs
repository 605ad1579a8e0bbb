//! The chart on a real API server: what it asks for, upgrade, uninstall, and who may what.

use serde_json::{Value, json};

use crate::lab::{Lab, NAMESPACE, helm, kubectl, kubectl_raw, kubectl_with, text, wait_for};

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
    let objects = helm(&["template", "other", CHART, "-n", NAMESPACE, "--include-crds", "--set", "crds.install=false"]);
    let taken = kubectl_with(&["apply", "--dry-run=server", "-n", NAMESPACE, "-f", "-"], &objects);
    assert!(taken.status.success(), "{}", text(&taken.stderr));
    assert!(!text(&taken.stderr).contains("Warning"), "{}", text(&taken.stderr));
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
        (agent, "get", "nodes", false),
        (manager, "get", "pods", true),
        (manager, "list", "execrequests.execlet.dev", true),
        (manager, "update", "execrequests.execlet.dev/status", true),
        (manager, "create", "execrequests.execlet.dev", false),
        (manager, "update", "execrequests.execlet.dev", false),
        (manager, "create", "pods/exec", false),
        (manager, "delete", "pods", false),
        (manager, "get", "secrets", false),
    ] {
        assert_eq!(can(who, "default", verb, resource), allowed, "{who} {verb} {resource}");
    }
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
        assert_eq!(can(user, verb, "execrequests.execlet.dev"), allowed, "{user} {verb}");
    }
    assert!(!can("editer", "update", "execrequests.execlet.dev/status"), "nobody but execlet writes status");
}

#[tokio::test]
async fn the_charts_own_test_passes() {
    let _lab = Lab::new().await;
    let said = helm(&["test", RELEASE, "-n", NAMESPACE]);
    assert!(said.contains("Succeeded"), "{said}");
}

#[tokio::test]
async fn an_upgrade_and_an_uninstall_leave_nothing_stuck() {
    let lab = Lab::alone().await;
    lab.pod("web", "n1").await;
    let values = helm(&["get", "values", RELEASE, "-n", NAMESPACE, "-o", "json"]);
    let values: Value = serde_json::from_str(&values).expect("JSON");
    let upgrade = |change: Value| {
        let mut all = values.clone();
        for (key, value) in change.as_object().unwrap() {
            all[key] = value.clone();
        }
        let file = std::env::temp_dir().join(format!("{}.json", lab.namespace));
        std::fs::write(&file, all.to_string()).expect("written");
        let done = helm(&[
            "upgrade",
            "--install",
            RELEASE,
            CHART,
            "-n",
            NAMESPACE,
            "--wait",
            "--timeout",
            "3m",
            "-f",
            &file.to_string_lossy(),
        ]);
        std::fs::remove_file(&file).expect("removed");
        done
    };
    upgrade(json!({"log": {"format": "json", "level": "debug"}}));
    let done = lab.sh("web", "exit 3").await;
    done.ended_with(3);
    let name = done.request.metadata.name.clone().expect("a name");

    helm(&["uninstall", RELEASE, "-n", NAMESPACE, "--wait", "--timeout", "3m"]);
    assert!(kubectl(&["get", "crd", CRD, "-o", "name"]).contains(CRD), "the definition is kept");
    assert!(lab.kubectl(&["get", "execrequest", &name, "-o", "name"]).contains(&name), "the record is kept");
    let left = kubectl(&[
        "get",
        "all,clusterroles,clusterrolebindings,roles,rolebindings",
        "-A",
        "-l",
        "app.kubernetes.io/instance=execlet",
        "-o",
        "name",
    ]);
    assert_eq!(left, "", "nothing else is left");
    // Without execlet, requests and namespaces with unfinished ones still go away.
    lab.kubectl(&["create", "namespace", &format!("{}-x", lab.namespace)]);
    let other = format!("{}-x", lab.namespace);
    let orphan = json!({"apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
        "metadata": {"name": "orphan", "namespace": other}, "spec": {"target": {"podName": "web"}, "command": ["true"]}});
    assert!(kubectl_with(&["create", "-f", "-"], &orphan.to_string()).status.success());
    lab.kubectl(&["delete", "execrequest", &name, "--timeout=30s"]);
    kubectl(&["delete", "namespace", &other, "--timeout=60s"]);

    upgrade(json!({}));
    wait_for("the new agents to work", async || {
        kubectl(&["get", "lease", "-n", NAMESPACE, "-o", "name"]).contains("execlet-agent.n1").then_some(())
    })
    .await;
    lab.sh("web", "exit 4").await.ended_with(4);
}
