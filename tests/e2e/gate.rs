//! The gate: while a policy is missing or altered nothing is bound, and what was created meanwhile
//! never runs, whatever it names. These tests disturb the installation, and so run alone.

use std::{
    process::Child,
    sync::atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};

use crate::{
    chart::{Installation, NoManagers},
    clients::execlet,
    kubectl::server_stamps,
    lab::{Lab, NAMESPACE, kubectl, kubectl_raw, kubectl_with, root, text, unique, wait_for},
    leading::managers_rolled_out,
    measured,
    subject::{Subject, a_user, exists, forged, forger, grant, request, requester},
};

const POLICIES: &str = "validatingadmissionpolicies,validatingadmissionpolicybindings,\
    mutatingadmissionpolicies,mutatingadmissionpolicybindings";
const OURS: &str = "app.kubernetes.io/part-of=execlet.dev";
const BINDING: &str = "validatingadmissionpolicybinding/execlet-create";

/// A request that would show if it ran, and names whoever may everything.
fn forgery(lab: &Lab, name: &str) -> String {
    let spec = json!({"target": {"podName": "web"}, "command": ["touch", format!("/tmp/{name}")],
        "startingDeadlineSeconds": 600, "requestedBy": forged()});
    request(&lab.namespace, name, spec)
}

/// What a client fills in where the server does not.
fn whoami() -> Value {
    let said: Value = serde_json::from_str(&kubectl(&["auth", "whoami", "-o", "json"])).expect("JSON");
    said["status"]["userInfo"].clone()
}

/// Waits until requests are bound again.
async fn admitted(lab: &Lab) {
    let by = whoami();
    wait_for("requests to be admitted", async || {
        let name = unique("probe");
        let spec = json!({"target": {"podName": "no-such-pod"}, "command": ["true"], "requestedBy": by});
        if !kubectl_with(&["create", "-f", "-"], &request(&lab.namespace, &name, spec)).status.success() {
            return None;
        }
        let probe = lab
            .request_when(&name, "to be looked at", |s| {
                s.conditions.iter().any(|c| c.type_ == "Bound" || c.type_ == "Succeeded")
            })
            .await;
        let conditions = probe.status?.conditions;
        conditions.iter().any(|c| c.reason == "PodNotFound").then_some(())
    })
    .await;
}

/// Puts the installation back when dropped, and says when it admits requests again.
struct Disturbed {
    installation: Option<Installation>,
}

impl Disturbed {
    fn found() -> Self {
        Self { installation: Some(Installation::found()) }
    }

    fn installation(&self) -> &Installation {
        self.installation.as_ref().expect("not put back yet")
    }

    async fn put_back(mut self, lab: &Lab) {
        drop(self.installation.take());
        admitted(lab).await;
    }
}

async fn is_accepted(lab: &Lab, mallory: &Subject, name: &str) {
    // A binding that goes is obeyed for a moment longer.
    wait_for("the forgery to be taken by the API server", async || {
        mallory.kubectl(&["create", "-f", "-"], &forgery(lab, name)).status.success().then_some(())
    })
    .await;
}

/// None of these has run, and each ends as refused.
async fn never_ran(lab: &Lab, names: &[&str]) {
    for name in names {
        let done = lab.finished(name).await;
        done.never_ran("Forbidden");
        assert!(done.message().contains("verified: create the request again"), "{}", done.message());
        assert_eq!(lab.exec("web", &format!("test -e /tmp/{name}")).1, 1, "{name} ran");
    }
}

async fn waits_for_policies(lab: &Lab, name: &str, words: &str) {
    let waiting =
        lab.request_when(name, "to wait", |s| s.conditions.iter().any(|c| c.reason == "AdmissionNotReady")).await;
    let status = waiting.status.expect("a status");
    let bound = status.conditions.iter().find(|c| c.type_ == "Bound").expect("a condition");
    assert!(bound.message.contains(words), "{}", bound.message);
    assert_eq!((status.phase.to_string().as_str(), status.node_name), ("Pending", None));
}

/// Whether the policies count, by the word of every manager.
fn enforced() -> Option<bool> {
    let mut said = measured::each("manager", "execlet_admission_enforced")?;
    said.dedup();
    match said[..] {
        [0] => Some(false),
        [1] => Some(true),
        _ => None,
    }
}

#[tokio::test]
async fn without_a_binding_everything_waits_and_what_was_forged_meanwhile_never_runs() {
    let lab = Lab::alone().await;
    let disturbed = Disturbed::found();
    lab.pod("web", "n1").await;
    let mallory = forger(&lab).await;
    let said = mallory.is_refused(&["create", "-f", "-"], &forgery(&lab, "early"));
    assert!(said.contains("spec.requestedBy is not you"), "{said}");
    assert_eq!(enforced(), Some(true));

    kubectl(&["delete", BINDING]);
    is_accepted(&lab, &mallory, "missing").await;
    waits_for_policies(&lab, "missing", &format!("{BINDING} is missing: nothing is bound")).await;
    wait_for("the metric to say so", async || (enforced() == Some(false)).then_some(())).await;
    wait_for("an Event to say so", async || {
        let events = kubectl(&["get", "events", "-n", NAMESPACE, "-o", "jsonpath={.items[*].reason}"]);
        events.contains("AdmissionNotReady").then_some(())
    })
    .await;
    disturbed.put_back(&lab).await;
    never_ran(&lab, &["missing"]).await;
    mallory.is_refused(&["create", "-f", "-"], &forgery(&lab, "late"));
    lab.sh("web", "exit 3").await.ended_with(3);
}

/// An object as it is created again.
fn saved(object: &str) -> Value {
    let mut object: Value = serde_json::from_str(&kubectl(&["get", object, "-o", "json"])).expect("JSON");
    let meta = object["metadata"].as_object_mut().expect("metadata");
    for field in ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"] {
        meta.remove(field);
    }
    object.as_object_mut().expect("an object").remove("status");
    object
}

#[tokio::test]
async fn each_policy_and_each_binding_counts_whether_it_is_missing_or_altered() {
    let lab = Lab::alone().await;
    let disturbed = Disturbed::found();
    lab.pod("web", "n1").await;
    let all = kubectl(&["get", POLICIES, "-l", OURS, "-o", "name"]);
    let all: Vec<(String, String)> = all
        .lines()
        .map(|line| {
            let (kind, name) = line.split_once('/').expect("KIND.GROUP/NAME");
            (kind.split('.').next().unwrap_or_default().to_owned(), name.to_owned())
        })
        .collect();
    assert_eq!(all.len(), 14, "{all:?}");
    let by = whoami();
    let mut probes = Vec::new();
    for (kind, name) in &all {
        let object = format!("{kind}/{name}");
        let as_it_was = saved(&object);
        // What a binding does not match, and what a policy that fails lets pass.
        let change = if kind.ends_with("binding") {
            json!({"spec": {"matchResources": {"namespaceSelector": {"matchLabels": {"a": "b"}}}}})
        } else {
            json!({"spec": {"failurePolicy": "Ignore"}})
        };
        for (disturb, words) in [
            (&["delete", &object][..], format!("{object} is missing")),
            (&["patch", &object, "--type=merge", "-p", &change.to_string()], format!("{object} was altered: spec.")),
        ] {
            kubectl(disturb);
            let probe = unique("probe");
            let spec = json!({"target": {"podName": "web"}, "command": ["touch", format!("/tmp/{probe}")],
                "startingDeadlineSeconds": 900, "requestedBy": by});
            let created = kubectl_with(&["create", "-f", "-"], &request(&lab.namespace, &probe, spec));
            assert!(created.status.success(), "{}", text(&created.stderr));
            waits_for_policies(&lab, &probe, &words).await;
            probes.push(probe);
            kubectl_raw(&["delete", &object, "--ignore-not-found"]);
            // In Helm's name, which takes no object from others.
            let again = ["apply", "--server-side", "--field-manager=helm", "-f", "-"];
            let created = kubectl_with(&again, &as_it_was.to_string());
            assert!(created.status.success(), "{}", text(&created.stderr));
        }
    }
    disturbed.put_back(&lab).await;
    never_ran(&lab, &probes.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn what_somebody_else_binds_while_the_fences_are_away_never_runs() {
    let lab = Lab::alone().await;
    let disturbed = Disturbed::found();
    let pod = lab.pod("web", "n1").await;
    let mallory = forger(&lab).await;
    let rules = json!([{"apiGroups": ["execlet.dev"], "resources": ["execrequests/status"], "verbs": ["update"]}]);
    grant(&lab.namespace, "binder", rules, &a_user("mallory"));
    wait_for("the role to count", async || {
        mallory.can(&lab.namespace, "update", "execrequests.execlet.dev/status").then_some(())
    })
    .await;
    kubectl(&["delete", BINDING, "validatingadmissionpolicybinding/execlet-status"]);
    is_accepted(&lab, &mallory, "bound").await;
    let binding = json!({"nodeName": "n1", "podUID": pod.metadata.uid, "container": "main"});
    wait_for("the binding to be taken by the API server", async || {
        mallory.write_status(&lab, "bound", &binding, false).status.success().then_some(())
    })
    .await;
    wait_for("the agent to say why it waits", async || {
        let notes = lab.kubectl(&["get", "events", "-o", "jsonpath={.items[*].note}{.items[*].message}"]);
        notes.contains("nothing starts until every admission policy stands").then_some(())
    })
    .await;
    assert_eq!(lab.exec("web", "test -e /tmp/bound").1, 1, "it ran");
    disturbed.put_back(&lab).await;
    // Not by `finished`: no record says that it was bound, as nobody who may has bound it.
    let done = lab.request_when("bound", "to finish", |s| s.completion_time.is_some()).await;
    let status = done.status.expect("a status");
    let of = |kind: &str| status.conditions.iter().find(|c| c.type_ == kind).expect("a condition");
    assert_eq!((of("Finished").reason.as_str(), of("Started").status.as_str()), ("Forbidden", "False"));
    assert!(of("Finished").message.contains("nor who bound it is verified"), "{status:#?}");
    assert_eq!(lab.exec("web", "test -e /tmp/bound").1, 1, "it ran");
}

#[tokio::test]
async fn an_altered_policy_counts_as_missing_also_when_it_is_put_back_while_no_manager_looks() {
    let lab = Lab::alone().await;
    let disturbed = Disturbed::found();
    lab.pod("web", "n1").await;
    let mallory = forger(&lab).await;
    let action = |action: &str| {
        let patch = json!({"spec": {"validationActions": [action]}}).to_string();
        kubectl(&["patch", BINDING, "--type=merge", "-p", &patch]);
    };
    action("Audit");
    is_accepted(&lab, &mallory, "altered").await;
    waits_for_policies(&lab, "altered", "execlet-create was altered: spec.validationActions[0]").await;
    action("Deny");
    admitted(&lab).await;
    never_ran(&lab, &["altered"]).await;

    // The same behind the managers' backs: those that come later know since when it stands.
    let away = NoManagers::new().await;
    action("Audit");
    is_accepted(&lab, &mallory, "behind").await;
    action("Deny");
    drop(away);
    managers_rolled_out();
    admitted(&lab).await;
    never_ran(&lab, &["behind"]).await;
    disturbed.put_back(&lab).await;
}

#[tokio::test]
async fn a_manager_that_starts_anew_remembers_since_when_the_policies_stand() {
    let lab = Lab::alone().await;
    lab.pod("web", "n1").await;
    let away = NoManagers::new().await;
    // Created while nobody led, under policies that stood all the time.
    let name = lab.create(
        json!({"target": {"podName": "web"}, "command": ["sh", "-c", "exit 3"], "startingDeadlineSeconds": 300}),
    );
    drop(away);
    lab.finished(&name).await.ended_with(3);
    managers_rolled_out();
}

#[tokio::test]
async fn an_upgrade_of_a_policy_is_no_new_beginning_for_what_is_held() {
    let lab = Lab::alone().await;
    lab.pod("web", "n1").await;
    let held = lab.batch(json!({"targets": {"pods": [{"name": "web"}]}, "releaseLimit": 0,
        "template": {"spec": {"command": ["true"]}}}));
    lab.batch_paused(&held, 0).await;
    let lease = ["-n", NAMESPACE, "lease", "execlet-manager"];
    let record = || -> Value {
        let path = r"jsonpath={.metadata.annotations.execlet\.dev/policies}";
        serde_json::from_str(&kubectl(&[&["get"], &lease[..], &["-o", path]].concat())).expect("a record")
    };
    let now = record();
    let versions = now["versions"].as_str().expect("versions");
    let (uid, rest) = versions.split_once('@').expect("UID@GENERATION");
    let (generation, rest) = rest.split_once(' ').expect("more than one");
    let generation: i64 = generation.parse().expect("a number");
    let away = NoManagers::new().await;
    // As the version before has left it: since then somebody has written this policy once.
    let before = json!({"since": now["since"], "versions": format!("{uid}@{} {rest}", generation - 1)});
    let annotation = format!("execlet.dev/policies={before}");
    kubectl(&[&["annotate", "--overwrite"], &lease[..], &[&annotation]].concat());
    drop(away);
    managers_rolled_out();
    assert_eq!(record(), now);
    lab.patch_batch(&held, json!({"releaseLimit": "100%"})).await;
    lab.batch_ended(&held).await.ended("Succeeded", "Completed", [1, 0, 0, 0, 0]);
}

/// Goes on to forge requests until it is told to stop.
struct Forger {
    child: Child,
}

static FORGING: AtomicBool = AtomicBool::new(false);

impl Forger {
    /// In a shell of its own: it must not stand still while Helm works.
    fn start(lab: &Lab, log: &str) -> Self {
        assert!(!FORGING.swap(true, Ordering::SeqCst), "one at a time");
        let template = forgery(lab, "NAME").replace("NAME", "forged-$N");
        let script = format!(
            "N=0; while :; do N=$((N+1)); kubectl create --as=mallory --validate=false -f - <<END >>{log} 2>&1\n{template}\nEND\ndone"
        );
        let child = std::process::Command::new("bash").args(["-c", &script]).spawn().expect("a shell");
        Self { child }
    }
}

impl Drop for Forger {
    fn drop(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("its end");
        FORGING.store(false, Ordering::SeqCst);
    }
}

/// The definition as Helm leaves it when it stops before the policies.
fn half_an_installation() {
    let definition = std::fs::read_to_string(root().join("crds/execrequests.execlet.dev.yaml")).expect("crds/");
    let mut definition: Value = serde_yaml_ng::from_str(&definition).expect("YAML");
    definition["metadata"]["labels"]["app.kubernetes.io/managed-by"] = json!("Helm");
    definition["metadata"]["annotations"] =
        json!({"meta.helm.sh/release-name": "execlet", "meta.helm.sh/release-namespace": NAMESPACE});
    let apply = ["apply", "--server-side", "--field-manager=helm", "-f", "-"];
    let applied = kubectl_with(&apply, &definition.to_string());
    assert!(applied.status.success(), "{}", text(&applied.stderr));
}

/// The forgeries that the API server has taken.
fn taken(lab: &Lab) -> Vec<String> {
    let names = kubectl_raw(&["get", "execrequests", "-n", &lab.namespace, "-o", "jsonpath={.items[*].metadata.name}"]);
    text(&names.stdout).split(' ').filter(|name| name.starts_with("forged-")).map(str::to_owned).collect()
}

#[tokio::test]
async fn an_upgrade_an_uninstall_and_a_first_installation_leave_no_moment_for_a_forgery() {
    let lab = Lab::alone().await;
    let disturbed = Disturbed::found();
    lab.pod("web", "n1").await;
    let _mallory = forger(&lab).await;
    let log = tempfile::NamedTempFile::new().expect("a file");
    let forging = Forger::start(&lab, &log.path().to_string_lossy());

    disturbed.installation().with("log.level=debug,admission.marginSeconds=5");
    Installation::uninstall();
    for kind in POLICIES.split(',') {
        let kept = kubectl(&["get", kind, "-l", OURS, "-o", "name"]);
        assert!(kept.contains("execlet-"), "{kind} are kept: {kept}");
    }
    disturbed.installation().with("log.level=info,admission.marginSeconds=5");
    // From nothing, and only half of it: Helm installs policies after the definition.
    Installation::uninstall();
    kubectl(&["delete", POLICIES, "-l", OURS]);
    kubectl(&["delete", "crd", "execrequests.execlet.dev", "--timeout=180s"]);
    half_an_installation();
    wait_for("a forgery to be taken", async || (!taken(&lab).is_empty()).then_some(())).await;
    disturbed.installation().with("admission.marginSeconds=5");
    drop(forging);
    disturbed.put_back(&lab).await;

    let said = std::fs::read_to_string(log.path()).expect("what the forger was told");
    assert!(said.lines().filter(|line| line.contains("is not you: found")).count() > 10, "it was at work:\n{said}");
    let taken = taken(&lab);
    println!(
        "{} forgeries tried, {} of them taken by the API server before the policies stood",
        said.lines().count(),
        taken.len()
    );
    never_ran(&lab, &taken.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(lab.exec("web", "ls /tmp").0, b"", "a forgery ran");
    let services = kubectl(&[
        "get",
        "apiservices",
        "-o",
        "jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type==\"Available\")].status}{\"\\n\"}{end}",
    ]);
    assert!(services.lines().all(|line| line.ends_with("True")), "{services}");
}

#[tokio::test]
async fn on_a_server_without_the_stamp_the_client_says_who_it_is_and_the_guard_checks_it() {
    let lab = Lab::alone().await;
    let disturbed = Disturbed::found();
    lab.pod("web", "n1").await;
    let alice = requester(&lab, "alice").await;
    disturbed.installation().with("admission.stamp=never");
    if server_stamps() {
        for kind in ["policy", "policybinding"] {
            kubectl(&["delete", &format!("mutatingadmission{kind}"), "execlet-stamp", "execlet-batch-stamp"]);
        }
    }
    let create = |name: &str, by: Option<Value>| {
        let mut spec = json!({"target": {"podName": "web"}, "command": ["sh", "-c", "exit 3"]});
        if let Some(by) = by {
            spec["requestedBy"] = by;
        }
        alice.kubectl_itself(&["create", "-f", "-"], &request(&lab.namespace, name, spec))
    };
    wait_for("the stamp to be forgotten", async || (!create(&unique("r"), None).status.success()).then_some(())).await;
    for by in [
        None,
        Some(forged()),
        Some(json!({"username": "alice"})),
        Some(json!({"username": "alice", "groups": ["system:authenticated", "system:masters"]})),
        Some(json!({"username": "alice", "uid": "1", "groups": ["system:authenticated"]})),
        Some(json!({"username": "alice", "groups": ["system:authenticated"], "extra": {"scopes": ["all"]}})),
    ] {
        let said = text(&create("f", by.clone()).stderr);
        let words = if by.is_some() { "is not you" } else { "is empty, and no policy has filled it in" };
        assert!(said.contains(words), "{by:?}: {said}");
        assert!(!exists(&lab, "f"), "{by:?}");
    }
    admitted(&lab).await;
    assert!(create("r", Some(json!({"username": "alice", "groups": ["system:authenticated"]}))).status.success());
    lab.finished("r").await.ended_with(3);
    let heard = execlet(&lab, &["run", "web", "--", "sh", "-c", "exit 3"]).await;
    assert_eq!(heard.code, 3, "the plugin says who it is: {}", text(&heard.stderr));
    disturbed.put_back(&lab).await;
}

#[tokio::test]
async fn with_admission_off_the_manager_says_so_everywhere() {
    let lab = Lab::alone().await;
    let disturbed = Disturbed::found();
    lab.pod("web", "n1").await;
    disturbed.installation().with("admission.enabled=false");
    // They are kept until somebody decides otherwise.
    kubectl(&["delete", POLICIES, "-l", OURS]);
    let mallory = forger(&lab).await;
    let spec = json!({"target": {"podName": "web"}, "command": ["sh", "-c", "exit 3"]});
    // One goes a moment before the other.
    wait_for("the policies to be forgotten", async || {
        let args = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
        let tried = mallory.kubectl(&args, &request(&lab.namespace, "r", spec.clone()));
        let object: Value = serde_json::from_slice(&tried.stdout).ok()?;
        object["spec"]["requestedBy"].is_null().then_some(())
    })
    .await;
    mallory.succeeds(&["create", "-f", "-"], &request(&lab.namespace, "r", spec.clone()));
    let done = lab.finished("r").await;
    done.ended_with(3);
    let bound = done.status.conditions.iter().find(|c| c.type_ == "Bound").expect("a condition");
    assert!(bound.message.contains("admission is off"), "{}", bound.message);
    assert_eq!(done.request.spec.requested_by, None);
    assert_eq!(enforced(), Some(false));
    for pod in measured::pods("manager") {
        let log = kubectl(&["logs", "-n", NAMESPACE, &pod]);
        assert!(log.contains("WARN") && log.contains("admission is off"), "{pod}: {log}");
    }
    wait_for("an Event to say so", async || {
        let events = kubectl(&["get", "events", "-n", NAMESPACE, "-o", "jsonpath={.items[*].reason}"]);
        events.contains("AdmissionOff").then_some(())
    })
    .await;
    disturbed.put_back(&lab).await;
    assert!(!mallory.kubectl(&["create", "-f", "-"], &request(&lab.namespace, "s", spec)).status.success());
    assert!(!exists(&lab, "s"));
}
