//! Audit logs and Leases as files, genuine and otherwise.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use execlet::{
    api::{ExecRequest, ExecRequestStatus, Requester},
    core::{
        audit::{
            chain::{Chain, Head},
            event::{Event, Verb},
            redact::CommandDetail,
            subject::Subject,
            verify::file_name,
        },
        ids::{ContainerRef, ExecRef},
        outcome::{Exit, Outcome},
        transition::{Binding, Write},
    },
};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

pub const N1: &str = "agent/n1";

pub struct Case {
    pub folder: TempDir,
}

/// A line, without its end.
pub type Line = Vec<u8>;

pub fn event(number: i64) -> Event {
    let at = Timestamp::from_second(1_000 * number).expect("a time");
    Event::of_writer(if number == 1 { Verb::Opened } else { Verb::Resumed }, N1, at, BTreeMap::new())
}

/// The lines of these events by this writer, from this head on, and the head after each.
pub fn chain(writer: &str, from: Head, events: &[Event]) -> (Vec<Line>, Vec<Head>) {
    let mut chain = Chain::new(writer, from);
    events.iter().map(|event| (chain.add(event).expect("a line"), chain.head().clone())).unzip()
}

pub fn genuine() -> (Vec<Line>, Vec<Head>) {
    chain(N1, Head::start(), &(1..=6).map(event).collect::<Vec<_>>())
}

/// A chain made by somebody who knows how, of as many lines as the genuine one.
pub fn anew(writer: &str, from: Head) -> Vec<Line> {
    chain(writer, from, &(11..=16).map(event).collect::<Vec<_>>()).0
}

pub fn lease(name: &str, heads: &[(&str, &Head)]) -> Value {
    let heads: Vec<Value> =
        heads.iter().map(|(writer, head)| json!({"writer": writer, "head": head.to_string()})).collect();
    annotated(name, json!({"execlet.dev/audit-heads": Value::from(heads).to_string()}))
}

pub fn annotated(name: &str, annotations: Value) -> Value {
    let meta = json!({"name": name, "namespace": "execlet", "annotations": annotations});
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": {}})
}

impl Case {
    pub fn new() -> Self {
        Self { folder: TempDir::new().expect("a folder") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        fs::write(path, text).expect("written");
    }

    /// Writes lines into one file of a directory.
    pub fn log(&self, directory: &str, first: u64, lines: &[Line]) {
        let text: Vec<u8> = lines.iter().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect();
        self.put(&format!("{directory}/{}", file_name(first)), text);
    }

    pub fn leases(&self, name: &str, leases: &[Value]) {
        self.put(name, json!({"apiVersion": "v1", "kind": "List", "items": leases}).to_string());
    }

    /// The genuine log in `n1`, and its Lease in `leases`.
    pub fn usual(&self) {
        let (lines, heads) = genuine();
        self.log("n1", 1, &lines);
        self.lease_of(&heads[5]);
    }

    pub fn lease_of(&self, head: &Head) {
        self.leases("leases", &[lease("execlet-agent.n1", &[(N1, head)])]);
    }

    /// What `execlet audit verify` says, and its exit code.
    pub fn verify(&self, arguments: &str) -> (String, i32) {
        self.audit(&format!("verify {arguments}"))
    }

    /// The same of `execlet audit`.
    pub fn audit(&self, arguments: &str) -> (String, i32) {
        let output = Command::new(env!("CARGO_BIN_EXE_execlet"))
            .arg("audit")
            .args(arguments.split_whitespace())
            .current_dir(self.folder.path())
            .output()
            .expect("the program");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (said, output.status.code().expect("an exit code"))
    }
}

/// A finished request of one user, and the log of it.
pub fn request_and_records(case: &Case) -> Value {
    request_and_records_with(case, "")
}

/// The same, with this in whatever others have written of it.
pub fn request_and_records_with(case: &Case, words: &str) -> Value {
    let with = |text: &str| format!("{text}{words}");
    let mut request: ExecRequest = serde_json::from_value(json!({
        "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
        "metadata": {"name": with("r"), "namespace": "shop", "uid": with("u-1")},
        "spec": {
            "target": {"podName": with("web")}, "command": ["rm", "-r", with("/data")], "reason": with("INC-1"),
        },
    }))
    .expect("a request");
    request.spec.requested_by = Some(Requester { username: with("alice"), ..Requester::default() });
    let at = Timestamp::UNIX_EPOCH;
    let binding = Binding { node: with("n1"), pod_uid: "p".into(), container: with("main"), caveat: None };
    let exec = ExecRef { id: "e".into(), container: ContainerRef { id: "c".into(), started_at: Some("t".into()) } };
    let exit = Exit { code: 3, source: execlet::api::ExitCodeSource::Engine };
    let outcome = Outcome::exited(exit, execlet::api::OutputStatus::default(), at);
    let subject = Subject::of(&request, CommandDetail::Full).expect("a subject").vouched_for();
    let events = [subject.bound(&binding, None, at), subject.started(&exec, at), subject.ended(&outcome, at)];
    let bound = write(&ExecRequestStatus::default()).bound(&binding);
    let committed = write(&bound).committed(&exec);
    request.status = Some(write(&committed).finished(&outcome));
    let (lines, heads) = chain(N1, Head::start(), &[&[event(1)], &events[..]].concat());
    case.log("n1", 1, &lines);
    case.lease_of(heads.last().expect("a head"));
    serde_json::to_value(&request).expect("JSON")
}

fn write(from: &ExecRequestStatus) -> Write<'_> {
    Write { from, generation: None, at: Timestamp::UNIX_EPOCH }
}

pub fn has_fifo(path: &Path) -> bool {
    Command::new("mkfifo").arg(path).status().is_ok_and(|status| status.success())
}
