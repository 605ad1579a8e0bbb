//! What the chart's pods ask of the node, and its roles of the API server: what is documented, and no more.

use std::{collections::BTreeSet, fs};

use serde::Deserialize as _;
use serde_json::Value;

use crate::lab::{Lab, NAMESPACE, helm, kubectl, kubectl_with, root, run, text};

const CHART: &str = "charts/execlet";

fn objects(args: &[&str]) -> Vec<Value> {
    let rendered = helm(&[&["template", "execlet", CHART, "--set", "admission.stamp=always"], args].concat());
    documents(&rendered)
}

fn documents(yaml: &str) -> Vec<Value> {
    let all = serde_yaml_ng::Deserializer::from_str(yaml);
    let all = all.map(|document| Value::deserialize(document).expect("YAML"));
    all.filter(|object| !object.is_null()).collect()
}

/// The exceptions that the chart's README names: the words in front of each reason.
fn documented() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("charts/execlet/README.md")).expect("the README");
    let table = text.split("<!-- exceptions -->").nth(1).expect("the table of exceptions");
    let table = table.split("<!-- end of exceptions -->").next().expect("its end");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    rows.map(str::to_owned).collect()
}

#[tokio::test]
async fn the_pods_fit_restricted_but_for_the_documented_exceptions() {
    let lab = Lab::new().await;
    kubectl(&["label", "namespace", &lab.namespace, "pod-security.kubernetes.io/warn=restricted"]);
    let mut exceptions = BTreeSet::new();
    let mut pods = 0;
    for mut object in objects(&["-n", &lab.namespace]) {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        if !["DaemonSet", "Deployment", "StatefulSet", "Job", "CronJob", "Pod"].contains(&kind.as_str()) {
            continue;
        }
        pods += 1;
        // Admission, not quota, is what is asked.
        if kind == "Pod" {
            object["spec"]["priorityClassName"] = Value::Null;
        }
        let checked = kubectl_with(&["create", "--dry-run=server", "-f", "-"], &object.to_string());
        assert!(checked.status.success(), "{}", text(&checked.stderr));
        let said = text(&checked.stderr);
        let Some((_, found)) = said.split_once("would violate PodSecurity \"restricted:latest\": ") else {
            assert!(!said.contains("PodSecurity"), "{said}");
            continue;
        };
        assert_eq!(object["metadata"]["name"], "execlet-agent", "only the agents need more: {found}");
        // Each finding is a check's name, and in brackets what it found.
        let mut depth = 0;
        let each = found.trim().split(|c: char| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            c == ',' && depth == 0
        });
        exceptions.extend(each.map(|finding| finding.trim().to_owned()));
    }
    assert_eq!(pods, 3, "the agents, the manager, and the pod of helm test");
    assert_eq!(exceptions, documented(), "charts/execlet/README.md names the exceptions");
}

#[tokio::test]
async fn every_pod_has_the_runtimes_seccomp_profile_and_no_writable_root() {
    let _lab = Lab::new().await;
    for object in objects(&[]) {
        let template = &object["spec"]["template"]["spec"];
        let pod = if object["kind"] == "Pod" { &object["spec"] } else { template };
        for container in ["initContainers", "containers"].iter().filter_map(|kind| pod[kind].as_array()).flatten() {
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{object}");
            let context = &container["securityContext"];
            assert_eq!(context["readOnlyRootFilesystem"], true, "{object}");
            assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]), "{object}");
            assert_ne!(context["privileged"], true, "{object}");
        }
    }
}

#[tokio::test]
async fn no_rule_of_any_role_has_a_wildcard() {
    let _lab = Lab::new().await;
    let mut rules = 0;
    for object in objects(&[]) {
        for rule in object["rules"].as_array().into_iter().flatten() {
            rules += 1;
            for field in ["apiGroups", "resources", "verbs", "resourceNames", "nonResourceURLs"] {
                let words = rule[field].to_string();
                assert!(!words.contains('*'), "{}: {rule}", object["metadata"]["name"]);
            }
        }
    }
    assert!(rules >= 20, "{rules}");
}

#[tokio::test]
async fn each_component_has_a_network_policy_for_the_ports_that_it_serves() {
    let _lab = Lab::new().await;
    let all = objects(&[]);
    let of = |kind: &str| -> Vec<&Value> { all.iter().filter(|object| object["kind"] == kind).collect() };
    for workload in of("DaemonSet").into_iter().chain(of("Deployment")) {
        let name = &workload["metadata"]["name"];
        let policies = of("NetworkPolicy");
        let policy = policies.iter().find(|policy| policy["metadata"]["name"] == *name).expect("a policy");
        assert_eq!(policy["spec"]["podSelector"], workload["spec"]["selector"], "{name}");
        let ports = |list: &Value, field: &str| -> BTreeSet<String> {
            list.as_array()
                .into_iter()
                .flatten()
                .map(|port| port[field].as_str().unwrap_or_default().to_owned())
                .collect()
        };
        let served = ports(&workload["spec"]["template"]["spec"]["containers"][0]["ports"], "name");
        let rules = policy["spec"]["ingress"].as_array().expect("rules");
        let open: BTreeSet<_> = rules.iter().flat_map(|rule| ports(&rule["ports"], "port")).collect();
        assert_eq!(open, served, "{name}");
    }
}

#[tokio::test]
async fn the_program_carries_the_policies_of_the_chart() {
    let _lab = Lab::new().await;
    let policies = |mut all: Vec<Value>| -> Vec<Value> {
        all.retain(|object| object["kind"].as_str().is_some_and(|kind| kind.contains("AdmissionPolicy")));
        for object in &mut all {
            object["metadata"] = serde_json::json!({"name": object["metadata"]["name"]});
        }
        all.sort_by_key(|object| format!("{}{}", object["kind"], object["metadata"]["name"]));
        all
    };
    let chart = policies(objects(&["-n", NAMESPACE]));
    let account = |name: &str| format!("{NAMESPACE}:execlet-{name}");
    let (manager, agent) = (account("manager"), account("agent"));
    let accounts = ["--manager-service-account", &manager, "--agent-service-account", &agent];
    let printed = run(env!("CARGO_BIN_EXE_execlet"), &[&["policies"], &accounts[..]].concat(), "");
    assert!(printed.status.success(), "{}", text(&printed.stderr));
    assert_eq!(policies(documents(&text(&printed.stdout))), chart);
    assert_eq!(chart.len(), 14);
}
