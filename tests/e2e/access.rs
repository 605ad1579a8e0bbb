//! Who may what: execlet's verdict is that of `kubectl exec`, and each role of the chart is what its
//! table in `docs/access.md` says.

use std::{collections::BTreeSet, fs, sync::Mutex, thread};

use serde_json::{Value, json};

use crate::{
    kubectl::server_stamps,
    lab::{Lab, kubectl, kubectl_raw, kubectl_with, root, text, wait_for},
    not_shown::not_shown,
    subject::{Subject, a_group, a_user, bind, exec_rules, exists, grant, request},
};

/// Callers at a time.
const HANDS: usize = 6;

/// Does `work` on each of `items`, a few at a time.
fn each<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = Mutex::new(items.iter());
    let take = || next.lock().unwrap().next();
    thread::scope(|scope| {
        for _ in 0..HANDS {
            scope.spawn(|| {
                while let Some(item) = take() {
                    work(item);
                }
            });
        }
    });
}

/// Of the API server's version.
fn server_minor() -> u32 {
    let version: Value = serde_json::from_str(&kubectl(&["get", "--raw", "/version"])).expect("JSON");
    let minor = version["minor"].as_str().expect("a minor version");
    // Some clouds write "32+".
    minor.trim_end_matches('+').parse().expect("a number")
}

/// Another namespace, and a role bound in all of them, for as long as a test lasts.
struct Beside {
    namespace: String,
    everywhere: String,
}

impl Beside {
    fn new(lab: &Lab, user: &str) -> Self {
        let it = Self { namespace: format!("{}-b", lab.namespace), everywhere: format!("{}-all", lab.namespace) };
        kubectl(&["create", "namespace", &it.namespace]);
        kubectl(&["create", "clusterrole", &it.everywhere, "--verb=create", "--resource=pods/exec"]);
        let role = format!("--clusterrole={}", it.everywhere);
        kubectl(&["create", "clusterrolebinding", &it.everywhere, &role, &format!("--user={user}")]);
        it
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        kubectl_raw(&["delete", "namespace", &self.namespace, "--wait=false"]);
        kubectl_raw(&["delete", "clusterrole,clusterrolebinding", &self.everywhere]);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allowed,
    Refused,
}

fn verdict(what: &str, output: &std::process::Output) -> Verdict {
    let said = text(&output.stderr);
    match output.status.success() {
        true => Verdict::Allowed,
        false if said.contains("forbidden") => Verdict::Refused,
        false => panic!("{what}: neither done nor forbidden: {said}"),
    }
}

struct Case<'a> {
    who: &'a Subject,
    namespace: &'a str,
    pod: &'a str,
    user: Option<&'a str>,
    attach: bool,
}

impl Case<'_> {
    /// What `kubectl exec` does; and where it has no such thing, what RBAC says.
    fn of_kubectl(&self) -> Verdict {
        let exec = self.who.kubectl(&["exec", "-n", self.namespace, self.pod, "--", "true"], "");
        let exec = verdict("kubectl exec", &exec);
        let run_as = |user: &str| self.who.can_named(self.namespace, "use", "execusers.execlet.dev", user);
        match self.user {
            Some(user) if !run_as(user) => Verdict::Refused,
            Some(_) | None => exec,
        }
    }

    /// What execlet does. What it lets through runs to its end, unless it waits for a client.
    fn of_execlet(&self, name: &str) -> Verdict {
        let mut spec = json!({"target": {"podName": self.pod}, "command": ["true"], "startingDeadlineSeconds": 300});
        if let Some(user) = self.user {
            spec["user"] = json!(user);
        }
        if self.attach {
            spec["stdin"] = json!({"attach": {}});
        }
        let dry: &[&str] = if self.attach { &["--dry-run=server"] } else { &[] };
        let args = [&["create", "-f", "-"], dry].concat();
        verdict("kubectl create", &self.who.kubectl(&args, &request(self.namespace, name, spec)))
    }
}

#[tokio::test]
async fn the_verdict_is_that_of_kubectl_exec() {
    let lab = Lab::new().await;
    let beside = Beside::new(&lab, "everywhere");
    let (here, there) = (lab.namespace.as_str(), beside.namespace.as_str());
    lab.pod("web", "n1").await;
    lab.pod("db", "n2").await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": there},
        "spec": {"nodeName": "n2", "terminationGracePeriodSeconds": 0, "containers": [crate::lab::container("main")]}});
    wait_for("the pod beside to be taken", async || {
        let made = kubectl_with(&["create", "-f", "-"], &pod.to_string());
        (made.status.success() || text(&made.stderr).contains("already exists")).then_some(())
    })
    .await;

    // Everybody may create requests and see pods: what differs is who may exec into which.
    for namespace in [here, there] {
        let everybody = a_group("system:authenticated");
        bind(namespace, "requests", &json!({"kind": "ClusterRole", "name": "execlet-requester"}), &everybody);
        grant(namespace, "pods", json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]), &everybody);
    }
    let account = |namespace: &str, name: &str| {
        kubectl(&["create", "serviceaccount", name, "-n", namespace]);
        json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
    };
    let any = exec_rules(&[]);
    grant(here, "all", any.clone(), &a_user("all"));
    grant(here, "web", exec_rules(&["web"]), &a_user("web-only"));
    grant(here, "db", exec_rules(&["db"]), &a_group("dbas"));
    grant(here, "group", any.clone(), &a_group("operators"));
    grant(there, "there", any.clone(), &a_user("there-only"));
    grant(here, "get", json!([{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get"]}]), &a_user("get-only"));
    grant(here, "sub", json!([{"apiGroups": [""], "resources": ["pods/*"], "verbs": ["create"]}]), &a_user("star"));
    grant(here, "wild", json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]), &a_user("wild"));
    grant(
        here,
        "ours",
        json!([{"apiGroups": ["execlet.dev"], "resources": ["execrequests"], "verbs": ["*"]}]),
        &a_user("ours"),
    );
    for role in ["view", "edit", "admin"] {
        bind(here, role, &json!({"kind": "ClusterRole", "name": role}), &a_user(role));
    }
    grant(here, "robot", any.clone(), &account(here, "robot"));
    account(here, "idle");
    grant(here, "guest", any.clone(), &account(there, "guest"));
    account(there, "native");
    grant(here, "natives", any.clone(), &a_group(&format!("system:serviceaccounts:{here}")));
    // Users of a container.
    let run_as = |names: &[&str]| json!([{"apiGroups": ["execlet.dev"], "resources": ["execusers"], "verbs": ["use"], "resourceNames": names}]);
    grant(here, "as-any", run_as(&[]), &a_user("all"));
    grant(here, "as-1000", run_as(&["1000"]), &a_user("web-only"));
    grant(here, "as-any-too", run_as(&[]), &a_user("get-only"));

    let subjects = [
        Subject::user("all"),
        Subject::user("web-only"),
        Subject::user("dba").of("dbas"),
        Subject::user("operator").of("operators"),
        Subject::user("both").of("dbas").of("strangers"),
        Subject::user("stranger").of("strangers"),
        Subject::user("nobody"),
        Subject::user("there-only"),
        Subject::user("everywhere"),
        Subject::user("get-only"),
        Subject::user("star"),
        Subject::user("wild"),
        Subject::user("ours"),
        Subject::user("view"),
        Subject::user("edit"),
        Subject::user("admin"),
        Subject::user("root").of("system:masters"),
        // By name only: impersonating a service account brings its groups along.
        Subject::user(&format!("system:serviceaccount:{here}:robot")),
        Subject::account(here, "robot", &[]),
        Subject::account(here, "idle", &[]),
        Subject::account(there, "guest", &[]),
        Subject::account(there, "native", &[]),
    ];
    let case = |who, namespace, pod, user, attach| Case { who, namespace, pod, user, attach };
    let mut cases = Vec::new();
    for who in &subjects {
        for (namespace, pod) in [(here, "web"), (here, "db"), (there, "web")] {
            cases.push(case(who, namespace, pod, None, false));
        }
    }
    for who in subjects.iter().filter(|who| !who.to_string().contains("token")).step_by(2) {
        for user in ["0", "1000"] {
            cases.push(case(who, here, "web", Some(user), false));
        }
        cases.push(case(who, here, "web", None, true));
    }
    for (who, user) in [(1, "0"), (1, "1000"), (1, "app"), (9, "0"), (12, "0"), (14, "0"), (15, "0")] {
        cases.push(case(&subjects[who], here, "web", Some(user), false));
    }
    assert!(cases.len() >= 40, "{} cases", cases.len());
    lab.ready("web").await;
    wait_for("the pod beside to run", async || {
        (kubectl(&["get", "pod", "web", "-n", there, "-o", "jsonpath={.status.phase}"]) == "Running").then_some(())
    })
    .await;

    let found = Mutex::new(Vec::new());
    let numbered: Vec<_> = cases.iter().enumerate().collect();
    each(&numbered, |(number, case)| {
        let verdicts = (case.of_kubectl(), case.of_execlet(&format!("case-{number}")));
        found.lock().unwrap().push((*number, verdicts));
    });
    let found = found.into_inner().unwrap();
    assert_eq!(found.len(), cases.len());
    let mut differences = Vec::new();
    // An older API server lets a WebSocket through to whoever may get pods/exec.
    let suffices = server_minor() < 35;
    for (number, (kubectl, execlet)) in &found {
        let Case { who, namespace, pod, user, attach } = &cases[*number];
        let is_stricter = suffices && who.to_string().starts_with("get-only ") && *execlet == Verdict::Refused;
        if kubectl != execlet && !is_stricter {
            differences.push(format!(
                "{who}, {namespace}/{pod}, user {user:?}, attach {attach}: kubectl {kubectl:?}, execlet {execlet:?}"
            ));
        }
    }
    assert!(differences.is_empty(), "{} of {} cases:\n{}", differences.len(), found.len(), differences.join("\n"));
    let count = |verdict| found.iter().filter(|(_, (kubectl, _))| *kubectl == verdict).count();
    assert!(count(Verdict::Allowed) >= 20 && count(Verdict::Refused) >= 20, "{found:?}");

    // What was let through runs, what was refused is not there.
    for (number, (_, execlet)) in &found {
        let (name, case) = (format!("case-{number}"), &cases[*number]);
        if case.namespace == here && !case.attach {
            match execlet {
                Verdict::Allowed => lab.finished(&name).await.ended_with(0),
                Verdict::Refused => assert!(!exists(&lab, &name), "{name} was refused and is there"),
            }
        }
    }
    println!("{} cases, {} allowed", found.len(), count(Verdict::Allowed));
}

/// The roles of the table in docs/access.md, and in its order.
const ROLES: [&str; 7] = ["viewer", "requester", "attacher", "run-as", "approver", "auditor", "admin"];

/// The table of docs/access.md: what is done, by which verb on which resource, and who may.
fn documented() -> Vec<(String, String, BTreeSet<String>)> {
    let text = fs::read_to_string(root().join("docs/access.md")).expect("docs/access.md");
    let table = text.split("<!-- roles -->").nth(1).expect("the table of roles").split("<!-- end of roles -->").next();
    let rows = table.expect("its end").lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let right = cells[1].trim_matches('`');
        let (verb, resource) = right.split_once(' ').expect("a verb and a resource");
        let may = ROLES.iter().zip(&cells[2..]).filter(|(_, cell)| **cell == "yes").map(|(role, _)| (*role).to_owned());
        assert_eq!(cells.len(), ROLES.len() + 2, "{row}");
        (verb.to_owned(), resource.to_owned(), may.collect())
    })
    .collect()
}

#[tokio::test]
async fn each_role_of_the_chart_can_what_its_table_says_and_no_more() {
    let lab = Lab::new().await;
    let namespace = lab.namespace.as_str();
    for role in ROLES {
        bind(
            namespace,
            role,
            &json!({"kind": "ClusterRole", "name": format!("execlet-{role}")}),
            &a_user(&format!("a-{role}")),
        );
    }
    let last = Subject::user("a-admin");
    wait_for("the roles to count", async || last.can(namespace, "create", "execrequests.execlet.dev").then_some(()))
        .await;
    let rows = documented();
    assert!(rows.len() >= 15, "{rows:?}");
    let cases: Vec<_> = rows.iter().flat_map(|row| ROLES.iter().map(move |role| (row, *role))).collect();
    let wrong = Mutex::new(Vec::new());
    each(&cases, |((verb, resource, may), role)| {
        let can = Subject::user(&format!("a-{role}")).can(namespace, verb, resource);
        if can != may.contains(*role) {
            wrong.lock().unwrap().push(format!("{role} {verb} {resource}: {can}"));
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "docs/access.md says otherwise:\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_request_says_who_created_it() {
    let lab = Lab::new().await;
    let everybody = a_group("system:authenticated");
    bind(&lab.namespace, "requests", &json!({"kind": "ClusterRole", "name": "execlet-requester"}), &everybody);
    grant(&lab.namespace, "exec", exec_rules(&[]), &everybody);
    kubectl(&["create", "serviceaccount", "robot", "-n", &lab.namespace]);
    let robot = Subject::account(&lab.namespace, "robot", &[]);
    let alice = Subject::user("alice").of("dev");
    wait_for("the role to count", async || alice.can(&lab.namespace, "create", "pods/exec").then_some(())).await;
    let by = |who: &Subject, name: &str| -> Value {
        let spec = json!({"target": {"podName": "web"}, "command": ["true"]});
        let said = who.succeeds(&["create", "-f", "-", "-o", "json"], &request(&lab.namespace, name, spec));
        serde_json::from_str::<Value>(&said).expect("JSON")["spec"]["requestedBy"].clone()
    };
    assert_eq!(
        by(&alice, "a"),
        json!({"username": "alice", "uid": "", "groups": ["dev", "system:authenticated"], "extra": {}})
    );
    let robot = by(&robot, "b");
    assert_eq!(robot["username"], json!(format!("system:serviceaccount:{}:robot", lab.namespace)));
    let uid = kubectl(&["get", "serviceaccount", "robot", "-n", &lab.namespace, "-o", "jsonpath={.metadata.uid}"]);
    assert_eq!(robot["uid"], json!(uid));
    assert!(robot["groups"].to_string().contains("system:serviceaccounts"), "{robot}");
    assert!(!robot["extra"]["authentication.kubernetes.io/credential-id"].is_null(), "{robot}");
    if !server_stamps() {
        return not_shown("what an update leaves out is put back: this API server cannot");
    }
    // Applied again, by the same user or another one, nothing changes.
    let spec = json!({"target": {"podName": "web"}, "command": ["true"]});
    let again = request(&lab.namespace, "c", spec);
    alice.succeeds(&["apply", "-f", "-"], &again);
    assert!(alice.succeeds(&["apply", "-f", "-"], &again).contains("unchanged"));
    let bob = Subject::user("bob");
    assert!(bob.succeeds(&["apply", "-f", "-"], &again).contains("unchanged"));
    // A PUT of the manifest leaves the name out: it is put back.
    bob.succeeds(&["replace", "-f", "-"], &again);
    let name = lab.kubectl(&["get", "execrequest", "c", "-o", "jsonpath={.spec.requestedBy.username}"]);
    assert_eq!(name, "alice");
}
