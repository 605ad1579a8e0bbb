//! The manager's token in the wrong hands makes requests that differ from their batch in one thing, and binds them. Admission
//! refuses some; of the others the agent runs none.

use serde_json::{Value, json};

use crate::{
    batch_rights::{CREATE, said},
    lab::{Lab, container, text},
    leader::NoLeader,
    measured::pods,
    stolen::stolen,
    subject::Subject,
};

/// Who refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The API server does not take it.
    Admission,
    /// It is taken and bound, and never runs.
    Agent,
}

/// One thing that is not as the batch says: where in the request, what is there, who refuses it, and in which words. A path
/// that begins with `/bound` is in the binding.
type Difference = (&'static str, Value, By, &'static str);

/// Of a batch that names its pods and its container, and gives every field of its template.
fn differences(other_pod: &str) -> Vec<Difference> {
    use By::{Admission, Agent};
    let owners = "as controller, and with blockOwnerDeletion false";
    let [bob, other_uid] =
        [("bob", ""), ("alice", "1")].map(|(username, uid)| json!({"username": username, "uid": uid, "groups": ["g"]}));
    vec![
        ("/spec/target/podName", json!("other"), Agent, "pod other was replaced"),
        ("/spec/target/podUID", json!("another"), Agent, "it is for the pod with UID another, and bound to"),
        ("/spec/target/podUID", Value::Null, Agent, "spec.target.podUID is missing"),
        ("/spec/target/container", json!("side"), Agent, "its spec.target.container is not"),
        ("/spec/target/container", Value::Null, Agent, "its spec.target.container is not"),
        ("/spec/command", json!(["sh", "-c", "echo other >> /tmp/runs"]), Agent, "its spec.command is not"),
        ("/spec/command/2", json!("echo other >> /tmp/runs"), Agent, "its spec.command is not"),
        ("/spec/workingDir", json!("/"), Agent, "its spec.workingDir is not"),
        ("/spec/workingDir", Value::Null, Agent, "its spec.workingDir is not"),
        ("/spec/env", json!([]), Agent, "its spec.env is not"),
        ("/spec/env/0/value", json!("2"), Agent, "its spec.env is not"),
        ("/spec/env/0/name", json!("B"), Agent, "its spec.env is not"),
        ("/spec/env/0/name", json!("EXECLET_UID"), Admission, "set by execlet: leave it out"),
        ("/spec/user", json!("root"), Agent, "its spec.user is not"),
        ("/spec/user", Value::Null, Agent, "its spec.user is not"),
        ("/spec/tty", json!(true), Admission, "need tty: false"),
        ("/spec/stdin/text", json!("other"), Agent, "its spec.stdin.text is not"),
        ("/spec/stdin", json!({"data": "aW5wdXQ="}), Agent, "spec.stdin.data"),
        ("/spec/stdin", Value::Null, Agent, "its spec.stdin is not"),
        ("/spec/startingDeadlineSeconds", json!(601), Agent, "its spec.startingDeadlineSeconds is not"),
        ("/spec/activeDeadlineSeconds", json!(59), Agent, "its spec.activeDeadlineSeconds is not"),
        ("/spec/activeDeadlineSeconds", Value::Null, Agent, "its spec.activeDeadlineSeconds is not"),
        ("/spec/terminationGracePeriodSeconds", json!(1), Agent, "its spec.terminationGracePeriodSeconds is not"),
        ("/spec/output/tailBytes", json!(0), Agent, "its spec.output.tailBytes is not"),
        ("/spec/output/spoolBytes", json!(0), Agent, "its spec.output.spoolBytes is not"),
        ("/spec/reason", json!("other"), Agent, "its spec.reason is not"),
        ("/spec/reason", Value::Null, Agent, "its spec.reason is not"),
        ("/spec/requestedBy", bob, Agent, "spec.requestedBy"),
        ("/spec/requestedBy", other_uid, Agent, "spec.requestedBy"),
        ("/spec/requestedBy", Value::Null, Agent, "spec.requestedBy.username"),
        ("/spec/requestedBy/groups", json!(["system:masters"]), Agent, "its spec.requestedBy.groups is not"),
        ("/spec/requestedBy/extra", json!({"scopes": ["all"]}), Agent, "spec.requestedBy.extra"),
        ("/spec/cancel", json!(true), Agent, "anceled before the command could start"),
        ("/spec/batch", Value::Null, Admission, "orbidden"),
        ("/spec/batch/name", json!("other"), Admission, owners),
        ("/spec/batch/uid", json!("another"), Admission, owners),
        ("/spec/batch/plan", json!(2), Agent, "it belongs to plan 2, and the batch has plan 1"),
        ("/spec/batch/plan", json!(0), Admission, "spec.batch.plan"),
        (
            "/spec/batch/index",
            json!(1),
            Agent,
            "it is for pod web, which is not what targets.pods of the batch has at 1",
        ),
        ("/spec/batch/index", json!(10_000), Admission, "spec.batch.index"),
        ("/metadata/name", json!("another"), Agent, "its metadata.name is not that of this index"),
        ("/metadata/ownerReferences", json!([]), Admission, owners),
        ("/metadata/ownerReferences/0/uid", json!("another"), Admission, owners),
        ("/metadata/ownerReferences/0/controller", json!(false), Admission, owners),
        ("/bound/podUID", json!("another"), Agent, "pod web was replaced"),
        ("/bound/podUID", json!(other_pod), Agent, "pod web was replaced"),
        ("/bound/container", json!("side"), Agent, "it is for container main, and bound to container side"),
    ]
}

/// The request with that one difference, and what its binding is.
fn with(request: &Value, binding: &Value, path: &str, value: &Value) -> (Value, Value) {
    let mut both = json!({"request": request, "bound": binding});
    let path = if path.starts_with("/bound") { path.to_owned() } else { format!("/request{path}") };
    let (parent, field) = path.rsplit_once('/').expect("a path");
    match both.pointer_mut(parent).expect("a parent") {
        Value::Object(fields) if value.is_null() => drop(fields.remove(field)),
        Value::Object(fields) => drop(fields.insert(field.to_owned(), value.clone())),
        Value::Array(items) => items[field.parse::<usize>().expect("an index")] = value.clone(),
        other => panic!("{path}: {other}"),
    }
    (both["request"].clone(), both["bound"].clone())
}

struct Thief<'a> {
    lab: &'a Lab,
    token: Subject,
}

impl Thief<'_> {
    /// With its UID, as the policy wants it.
    fn delete(&self, request: &Value) {
        let (name, uid) = (&request["metadata"]["name"], &request["metadata"]["uid"]);
        let path = format!(
            "/apis/execlet.dev/v1alpha1/namespaces/{}/execrequests/{}",
            self.lab.namespace,
            name.as_str().expect("a name")
        );
        let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}});
        let json = ["-X", "DELETE", "-H", "Content-Type: application/json", "-d"];
        let output = self.token.curl(&path).args(json).arg(body.to_string()).output().expect("curl");
        assert!(output.status.success(), "{}", text(&output.stdout));
    }

    /// Makes a request and binds it. Whether it was started, and why it ended; or why it is not taken.
    async fn run(&self, request: &Value, binding: &Value) -> Result<(bool, String), String> {
        let made = self.token.kubectl(&[&CREATE[..], &["-o", "json"]].concat(), &request.to_string());
        let made = said(&made)?;
        let name = made["metadata"]["name"].as_str().expect("a name");
        let written = self.token.write_status(self.lab, name, binding, false);
        assert!(written.status.success(), "{}", text(&written.stderr));
        let done = self.lab.request_when(name, "to finish", |status| status.completion_time.is_some()).await;
        let status = done.status.expect("a status");
        let of = |kind: &str| status.conditions.iter().find(|condition| condition.type_ == kind).expect("a condition");
        let (started, finished) = (of("Started").status == "True", of("Finished"));
        self.delete(&made);
        Ok((started, format!("{}: {}", finished.reason, finished.message)))
    }
}

/// A batch of both pods, with everything in its template that a request can have.
fn batch(lab: &Lab) -> String {
    lab.batch(json!({
        "targets": {"pods": [{"name": "web"}, {"name": "other"}], "container": "main"},
        "template": {"spec": {
            "command": ["sh", "-c", r#"echo "$PWD $A $(cat)" >> /tmp/runs"#], "workingDir": "/tmp",
            "env": [{"name": "A", "value": "1"}], "user": "0", "stdin": {"text": "input"},
            "startingDeadlineSeconds": 600, "activeDeadlineSeconds": 60, "terminationGracePeriodSeconds": 0,
            "output": {"tailBytes": 100, "spoolBytes": 1000},
        }},
        "reason": "CHG-1", "parallelism": 2,
    }))
}

/// The request of index 0 of a batch that is released, as it was created; its pods do not run before that.
async fn released(lab: &Lab) -> (String, Value) {
    for pod in ["web", "other"] {
        let spec = json!({"schedulingGates": [{"name": "execlet.test/wait"}], "nodeSelector": {"kubernetes.io/hostname": "n1"},
            "containers": [container("main"), container("side")]});
        lab.create_pod(pod, spec, json!({})).await;
    }
    let name = batch(lab);
    let seen = lab.batch_when(&name, "to be released", |seen| seen.status.released == 2).await;
    let request = serde_json::to_value(&lab.children(&seen).await[&0]).expect("JSON");
    (name, request)
}

async fn let_run(lab: &Lab, pod: &str) -> String {
    let open = json!([{"op": "remove", "path": "/spec/schedulingGates"}]).to_string();
    lab.kubectl(&["patch", "pod", pod, "--type=json", "-p", &open]);
    lab.ready(pod).await.metadata.uid.expect("a UID")
}

#[tokio::test]
async fn a_stolen_managers_token_runs_no_request_that_differs_from_its_batch_in_anything() {
    let lab = Lab::alone().await;
    let (name, mut request) = released(&lab).await;
    // From now on the thief is the only manager that does anything.
    let no_leader = NoLeader::new().await;
    let [web, other] = [let_run(&lab, "web").await, let_run(&lab, "other").await];
    let thief = Thief { lab: &lab, token: stolen(&pods("manager")[0]) };
    thief.delete(&request);
    for field in ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"] {
        request["metadata"].as_object_mut().expect("metadata").remove(field);
    }
    request.as_object_mut().expect("a request").remove("status");
    let bound = json!({"nodeName": "n1", "podUID": web, "container": "main", "phase": "Bound",
        "startBy": "2100-01-01T00:00:00.000000Z"});
    let mut wrong = Vec::new();
    for (path, value, by, words) in differences(&other) {
        let (changed, binding) = with(&request, &bound, path, &value);
        assert_ne!((&changed, &binding), (&request, &bound), "{path}");
        let found = match thief.run(&changed, &binding).await {
            Err(said) => (By::Admission, said),
            Ok((false, said)) => (By::Agent, said),
            Ok((true, said)) => panic!("{path} as {value} ran: {said}"),
        };
        println!("{path} = {value}: refused by {found:?}");
        if found.0 != by || !found.1.contains(words) {
            wrong.push(format!("{path} = {value}: {by:?} does not say {words:?}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert_eq!([lab.runs("web"), lab.runs("other")], [0, 0]);
    // The very request runs, on which people may have put labels.
    request["metadata"]["labels"]["team"] = json!("a");
    request["metadata"]["annotations"] = json!({"note": "b"});
    thief.token.succeeds(&CREATE, &request.to_string());
    drop(no_leader);
    lab.batch_ended(&name).await.ended("Succeeded", "Completed", [2, 0, 0, 0, 0]);
    for pod in ["web", "other"] {
        assert_eq!(text(&lab.exec(pod, "cat /tmp/runs").0), "/tmp 1 input\n", "{pod}");
    }
}
