//! Who asks: users and groups by impersonation, service accounts by their tokens.

use std::{
    fmt,
    process::{Command, Output},
    sync::LazyLock,
};

use serde_json::{Value, json};

use crate::{
    lab::{Lab, NAMESPACE, kubectl, kubectl_itself, kubectl_raw, kubectl_with, text, wait_for},
    measured::living,
};

/// The agents' service account.
pub const AGENT: &str = "execlet-agent";

/// Somebody who calls the API server.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A user with groups, whom the administrator impersonates.
    User { name: String, groups: Vec<String> },
    /// Whoever holds a token.
    Token { name: String, token: String },
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User { name, groups } => write!(f, "{name} of {groups:?}"),
            Self::Token { name, .. } => write!(f, "{name} by token"),
        }
    }
}

/// The API server without anybody's certificate: beside one, a token would not be looked at.
static DOOR: LazyLock<[String; 3]> = LazyLock::new(|| {
    let field = |path: &str| {
        kubectl(&["config", "view", "--raw", "--minify", "-o", &format!("jsonpath={{.clusters[0].cluster.{path}}}")])
    };
    let authority = field("certificate-authority-data");
    let mut path = std::env::temp_dir();
    path.push(format!("execlet-e2e-{}.crt", std::process::id()));
    let decoded = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, authority).expect("base64");
    std::fs::write(&path, decoded).expect("a file for the certificate authority");
    [
        "--kubeconfig=/dev/null".to_owned(),
        format!("--server={}", field("server")),
        format!("--certificate-authority={}", path.display()),
    ]
});

impl Subject {
    pub fn user(name: &str) -> Self {
        Self::User { name: name.to_owned(), groups: Vec::new() }
    }

    pub fn of(self, group: &str) -> Self {
        match self {
            Self::User { name, mut groups } => {
                groups.push(group.to_owned());
                Self::User { name, groups }
            }
            Self::Token { .. } => panic!("a token says itself of which groups it is"),
        }
    }

    /// By a token that the API server makes for the service account, bound to an object or to none.
    pub fn account(namespace: &str, name: &str, bound: &[&str]) -> Self {
        let token = kubectl(&[&["create", "token", name, "-n", namespace], bound].concat());
        Self::Token { name: format!("system:serviceaccount:{namespace}:{name}"), token: token.trim().to_owned() }
    }

    fn flags(&self) -> Vec<String> {
        match self {
            Self::User { name, groups } => std::iter::once(format!("--as={name}"))
                .chain(groups.iter().map(|group| format!("--as-group={group}")))
                .collect(),
            Self::Token { token, .. } => DOOR.iter().cloned().chain([format!("--token={token}")]).collect(),
        }
    }

    /// kubectl as this subject.
    pub fn kubectl(&self, args: &[&str], input: &str) -> Output {
        let flags = self.flags();
        kubectl_with(&flags.iter().map(String::as_str).chain(args.iter().copied()).collect::<Vec<_>>(), input)
    }

    /// The same, by kubectl itself.
    pub fn kubectl_itself(&self, args: &[&str], input: &str) -> Output {
        let flags = self.flags();
        kubectl_itself(&flags.iter().map(String::as_str).chain(args.iter().copied()).collect::<Vec<_>>(), input)
    }

    /// curl with its token, as anybody would call it without a client of ours.
    pub fn curl(&self, path: &str) -> Command {
        let Self::Token { token, .. } = self else { panic!("{self} has no token") };
        let [_, server, authority] = &*DOOR;
        let value = |flag: &str| flag.split_once('=').expect("a flag with a value").1.to_owned();
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--no-buffer", "--fail-with-body", "--max-time", "60"])
            .args(["--cacert", &value(authority), "--header", &format!("Authorization: Bearer {token}")])
            .arg(value(server) + path);
        curl
    }

    /// Must be refused, and says why.
    #[track_caller]
    pub fn is_refused(&self, args: &[&str], input: &str) -> String {
        let output = self.kubectl(args, input);
        assert!(!output.status.success(), "{self}: kubectl {} succeeded: {}", args.join(" "), text(&output.stdout));
        text(&output.stderr)
    }

    #[track_caller]
    pub fn succeeds(&self, args: &[&str], input: &str) -> String {
        let output = self.kubectl(args, input);
        assert!(output.status.success(), "{self}: kubectl {}: {}", args.join(" "), text(&output.stderr));
        text(&output.stdout)
    }

    /// What the cluster's authorizers say, of RESOURCE.GROUP/SUBRESOURCE.
    pub fn can(&self, namespace: &str, verb: &str, resource: &str) -> bool {
        self.can_named(namespace, verb, resource, "")
    }

    /// The same of one object. `kubectl auth can-i` would not do: it asks for another resource where the
    /// API server has none of that name.
    pub fn can_named(&self, namespace: &str, verb: &str, resource: &str, name: &str) -> bool {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"namespace": namespace, "verb": verb, "group": group,
                "resource": resource, "subresource": subresource, "name": name}}});
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let answer = self.succeeds(&["create", "--raw", path, "-f", "-"], &review.to_string());
        serde_json::from_str::<Value>(&answer).expect("JSON")["status"]["allowed"] == true
    }

    /// Writes the status of a request, as execlet itself does: by a PUT.
    pub fn write_status(&self, lab: &Lab, name: &str, change: &Value, dry: bool) -> Output {
        let mut object: Value =
            serde_json::from_str(&lab.kubectl(&["get", "execrequest", name, "-o", "json"])).expect("JSON");
        match change.as_object() {
            Some(fields) => {
                for (field, value) in fields {
                    let status = object["status"].as_object_mut().expect("a status");
                    match value {
                        Value::Null => drop(status.remove(field)),
                        value => drop(status.insert(field.clone(), value.clone())),
                    }
                }
            }
            None => drop(object.as_object_mut().expect("an object").remove("status")),
        }
        let dry = if dry { "?dryRun=All" } else { "" };
        let path = format!("/apis/execlet.dev/v1alpha1/namespaces/{}/execrequests/{name}/status{dry}", lab.namespace);
        self.kubectl(&["replace", "--raw", &path, "-f", "-"], &object.to_string())
    }
}

/// A request, as it is applied.
pub fn request(namespace: &str, name: &str, spec: Value) -> String {
    json!({
        "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
    .to_string()
}

/// A role of a namespace, bound to one subject; both go away with the namespace.
pub fn grant(namespace: &str, name: &str, rules: Value, to: &Value) {
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": name, "namespace": namespace}, "rules": rules});
    put(&role);
    bind(namespace, name, &json!({"kind": "Role", "name": name}), to);
}

/// Binds a role that is there.
pub fn bind(namespace: &str, name: &str, role: &Value, to: &Value) {
    let mut role = role.clone();
    role["apiGroup"] = json!("rbac.authorization.k8s.io");
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": namespace}, "roleRef": role, "subjects": [to]});
    put(&binding);
}

/// Creates an object, or puts it into the place of the one of its name.
fn put(object: &Value) {
    let object = object.to_string();
    let mut done = kubectl_with(&["create", "-f", "-"], &object);
    if text(&done.stderr).contains("AlreadyExists") {
        done = kubectl_with(&["replace", "-f", "-"], &object);
    }
    assert!(done.status.success(), "{}", text(&done.stderr));
}

pub fn a_user(name: &str) -> Value {
    json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name})
}

pub fn a_group(name: &str) -> Value {
    json!({"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": name})
}

/// Rules to exec into pods: all of them, or those of these names.
pub fn exec_rules(names: &[&str]) -> Value {
    json!([{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"], "resourceNames": names}])
}

/// A user who may create requests in the lab's namespace, and exec into its pods.
pub async fn requester(lab: &Lab, name: &str) -> Subject {
    let user = a_user(name);
    bind(&lab.namespace, "requester", &json!({"kind": "ClusterRole", "name": "execlet-requester"}), &user);
    grant(&lab.namespace, "exec", exec_rules(&[]), &user);
    let subject = Subject::user(name);
    wait_for("the roles to count", async || {
        let all = subject.can(&lab.namespace, "create", "execrequests.execlet.dev")
            && subject.can(&lab.namespace, "create", "pods/exec");
        all.then_some(())
    })
    .await;
    subject
}

/// A user who may create requests and no more.
pub async fn forger(lab: &Lab) -> Subject {
    // A role of the namespace's own: those of the chart go with it when it is uninstalled.
    let rules = json!([{"apiGroups": ["execlet.dev"], "resources": ["execrequests"], "verbs": ["create", "get"]}]);
    grant(&lab.namespace, "forger", rules, &a_user("mallory"));
    let mallory = Subject::user("mallory");
    wait_for("the role to count", async || {
        mallory.can(&lab.namespace, "create", "execrequests.execlet.dev").then_some(())
    })
    .await;
    mallory
}

/// A forged name that has every right.
pub fn forged() -> Value {
    json!({"username": "admin", "groups": ["system:masters", "system:authenticated"]})
}

/// The agent's pod on a node.
pub fn agent_pod(node: &str) -> String {
    let pod = living("agent").into_iter().find(|pod| pod["spec"]["nodeName"] == node).expect("an agent");
    pod["metadata"]["name"].as_str().expect("a name").to_owned()
}

/// The agent of a node, by a token like its own.
pub fn agent_of(node: &str) -> Subject {
    let pod = format!("--bound-object-name={}", agent_pod(node));
    Subject::account(NAMESPACE, AGENT, &["--bound-object-kind=Pod", &pod])
}

/// Whether the object is there.
pub fn exists(lab: &Lab, name: &str) -> bool {
    kubectl_raw(&["get", "execrequest", name, "-n", &lab.namespace, "-o", "name"]).status.success()
}
