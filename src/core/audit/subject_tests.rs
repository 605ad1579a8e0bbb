use serde_json::{Value, json};

use super::*;
use crate::{
    api::{EnvVar, ExitCodeSource, OutputStatus, Reason},
    core::{admission::Admission, bind::caveat, ids::ContainerRef, outcome::Exit},
};

fn request() -> ExecRequest {
    serde_json::from_value(json!({
        "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
        "metadata": {"name": "dump", "namespace": "shop", "uid": "u-1", "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {
            "target": {"podName": "db-0"}, "command": ["pg_dump", "shop"], "user": "999", "reason": "INC-4711",
            "env": [{"name": "PGPASSWORD", "value": "hunter2"}], "stdin": {"text": "secret input"},
            "requestedBy": {"username": "ann", "groups": ["dba"]},
        },
        "status": {"phase": "Bound", "nodeName": "n1", "podUID": "p-1", "container": "db", "conditions": [
            {"type": "Bound", "status": "True", "reason": "Bound", "message": "bound to container db on node n1",
                "lastTransitionTime": "2026-01-02T03:04:05Z"},
        ]},
    }))
    .expect("a request")
}

fn at() -> Timestamp {
    "2026-01-02T03:04:06.123456Z".parse().expect("a time")
}

fn exec(id: &str) -> ExecRef {
    ExecRef { id: id.into(), container: ContainerRef { id: "c1".into(), started_at: Some("t".into()) } }
}

fn subject() -> Subject {
    Subject::of(&request(), CommandDetail::Full).expect("a subject")
}

#[test]
fn a_record_is_an_event_of_the_audit_api_and_tells_who_what_where_when_and_why() {
    let event = serde_json::to_value(subject().started(&exec("e1"), at())).expect("JSON");
    let expected = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "stage": "ResponseStarted",
        "auditID": event["auditID"],
        "requestURI": "/apis/execlet.dev/v1alpha1/namespaces/shop/execrequests/dump",
        "verb": "started",
        "user": {"username": "ann", "uid": "", "groups": ["dba"], "extra": {}},
        "objectRef": {"resource": "execrequests", "namespace": "shop", "name": "dump", "uid": "u-1",
            "apiGroup": "execlet.dev", "apiVersion": "v1alpha1"},
        "requestReceivedTimestamp": "2026-01-02T03:04:05.000000Z",
        "stageTimestamp": "2026-01-02T03:04:06.123456Z",
        "annotations": {
            "execlet.dev/pod": "db-0", "execlet.dev/pod-uid": "p-1", "execlet.dev/container": "db",
            "execlet.dev/container-id": "c1", "execlet.dev/node": "n1", "execlet.dev/exec-id": "e1",
            "execlet.dev/command": r#"["pg_dump","shop"]"#, "execlet.dev/env": r#"["PGPASSWORD"]"#,
            "execlet.dev/user": "999", "execlet.dev/stdin": "text", "execlet.dev/request-reason": "INC-4711",
        },
    });
    assert_eq!(event, expected);
    let id: Vec<usize> = event["auditID"].as_str().expect("an ID").split('-').map(str::len).collect();
    assert_eq!(id, [8, 4, 4, 4, 12], "a UUID");
}

#[test]
fn a_record_is_bounded_whatever_is_in_the_request() {
    // What takes most room as JSON in JSON.
    let (control, quote) = (|length: usize| "\u{1}".repeat(length), |length: usize| "\"".repeat(length));
    let mut request = request();
    request.spec.command = vec![quote(20); 1024];
    request.spec.env = (0..256).map(|_| EnvVar { name: quote(256), value: String::new() }).collect();
    request.spec.reason = Some(control(1024));
    request.spec.user = Some(control(256));
    let by = Requester {
        username: control(1024),
        uid: control(1024),
        groups: vec![quote(9); 1024],
        ..request.spec.requested_by.unwrap_or_default()
    };
    request.spec.requested_by = Some(by.clone());
    let failed = Outcome::refused(Reason::StartFailed, control(4096), at());
    let client = Client { address: "10.0.0.1".to_owned(), stdin: true };
    let longest = |request: &ExecRequest, detail| {
        let subject = Subject::of(request, detail).expect("a subject");
        let all =
            [subject.started(&exec("e1"), at()), subject.ended(&failed, at()), subject.attached(&by, &client, at())];
        all.map(|event| serde_json::to_vec(&event).expect("JSON").len()).into_iter().max().unwrap_or_default()
    };
    let full = longest(&request, CommandDetail::Full);
    assert!((96 << 10..128 << 10).contains(&full), "{full}");
    request.spec.command = vec![quote(131_071)];
    assert!(longest(&request, CommandDetail::Program) < 48 << 10);
}

fn outcome() -> Outcome {
    let mut output = OutputStatus { complete: true, ..OutputStatus::default() };
    output.stdout.bytes = 7;
    output.stdout.sha256 = Some("ab".to_owned());
    output.stdout.tail = Some("the output".to_owned());
    Outcome::exited(Exit { code: 3, source: ExitCodeSource::Kernel }, output, at())
}

#[test]
fn an_end_has_reason_code_source_counts_and_digests() {
    let event = subject().ended(&outcome(), at());
    for (key, value) in [
        (key::REASON, "NonZeroExitCode"),
        (key::RAN, "true"),
        (key::EXIT_CODE, "3"),
        (key::EXIT_CODE_SOURCE, "Kernel"),
        (key::OUTPUT_COMPLETE, "true"),
        (key::STDOUT_BYTES, "7"),
        (key::STDOUT_SHA256, "ab"),
        (key::STDERR_BYTES, "0"),
    ] {
        assert_eq!(event.note(key), Some(value), "{key}");
    }
    assert_eq!(event.verb, Verb::Finished);
}

#[test]
fn neither_input_nor_output_nor_values_of_variables_are_recorded() {
    let binding = Binding { node: "n1".into(), pod_uid: "p-1".into(), container: "db".into(), caveat: None };
    let client = Client { address: "10.0.0.1".to_owned(), stdin: true };
    for detail in [CommandDetail::Full, CommandDetail::Program, CommandDetail::Digest] {
        let subject = Subject::of(&request(), detail).expect("a subject");
        let all = [
            subject.bound(&binding, Some("image"), at()),
            subject.started(&exec("e"), at()),
            subject.cancelled(Cause::Canceled, at()),
            subject.attached(&Requester::default(), &client, at()),
            subject.ended(&outcome(), at()),
        ];
        let text = serde_json::to_string(&all).expect("JSON");
        for secret in ["hunter2", "secret input", "the output"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        let shown = text.contains("[\\\"pg_dump\\\",\\\"shop\\\"]");
        assert_eq!(shown, detail == CommandDetail::Full, "{text}");
    }
}

#[test]
fn a_message_that_may_name_the_program_is_left_out_where_the_command_is() {
    let failed = Outcome::refused(Reason::StartFailed, "exec: \"pg_dump\": executable file not found", at());
    for (detail, shown) in
        [(CommandDetail::Full, true), (CommandDetail::Program, false), (CommandDetail::Digest, false)]
    {
        let event = Subject::of(&request(), detail).expect("a subject").ended(&failed, at());
        assert_eq!(event.note(key::MESSAGE).is_some(), shown, "{detail}");
        assert_eq!(event.note(key::REASON), Some("StartFailed"));
    }
}

#[test]
fn the_same_act_has_the_same_id_and_another_act_another() {
    let later = "2026-01-02T04:00:00Z".parse().expect("a time");
    let subject = subject();
    let id = |event: Event| event.audit_id;
    assert_eq!(id(subject.started(&exec("e1"), at())), id(subject.started(&exec("e1"), later)));
    assert_ne!(id(subject.started(&exec("e1"), at())), id(subject.started(&exec("e2"), at())));
    assert_ne!(id(subject.started(&exec("e1"), at())), id(subject.ended(&outcome(), at())));
    let unread = Subject::known_by_key(&key_of(&request().metadata).expect("a key"), CommandDetail::Full);
    assert_eq!(id(subject.ended(&outcome(), at())), id(unread.ended(&outcome(), at())), "whoever knows less");
    let client = Client { address: "10.0.0.1".to_owned(), stdin: false };
    let [first, second] = [at(), later].map(|at| subject.attached(&Requester::default(), &client, at));
    assert_ne!(first.audit_id, second.audit_id, "each connection is an act of its own");
}

#[test]
fn who_attaches_is_the_user_of_the_record_and_the_session_joins_its_two_ends() {
    let bob = Requester { username: "bob".to_owned(), ..Requester::default() };
    let client = Client { address: "10.0.0.1".to_owned(), stdin: true };
    let attached = subject().attached(&bob, &client, at());
    assert_eq!(
        (attached.user.username.as_str(), attached.source_ips.as_slice()),
        ("bob", &["10.0.0.1".to_owned()][..])
    );
    let session = attached.note(key::SESSION).expect("a session");
    let detached = subject().detached(&bob, &client, session, at());
    assert_eq!(detached.note(key::SESSION), Some(session));
    let subresource = attached.object_ref.and_then(|object| object.subresource);
    assert_eq!(subresource.as_deref(), Some("attach"));
}

#[test]
fn a_requester_for_whom_no_policy_vouches_is_recorded_as_a_claim() {
    let mut request = request();
    let binding = Binding { node: "n1".into(), pod_uid: "p-1".into(), container: "db".into(), caveat: None };
    let subject = |request: &ExecRequest| Subject::of(request, CommandDetail::Full).expect("a subject");
    let who = |event: &Event| (event.user.username.clone(), event.note(key::CLAIMED_USER).map(str::to_owned));
    let claimed = (String::new(), Some(r#"{"username":"ann","uid":"","groups":["dba"],"extra":{}}"#.to_owned()));
    let proven = ("ann".to_owned(), None);
    let status = request.status.take().expect("a status");
    // The manager says what it found out, before the status does.
    assert_eq!(who(&subject(&request).bound(&binding, None, at())), claimed);
    assert_eq!(who(&subject(&request).vouched_for().bound(&binding, None, at())), proven);
    // The agent has it from the status.
    let write = crate::core::transition::Write { from: &status, generation: None, at: at() };
    for admission in [Admission::Off, Admission::Since(at())] {
        request.status = Some(write.bound(&Binding { caveat: caveat(&admission), ..binding.clone() }));
        let expected = if admission == Admission::Off { &claimed } else { &proven };
        assert_eq!(who(&subject(&request).started(&exec("e1"), at())), *expected, "{admission:?}");
    }
    // Who attaches was asked for by the API server, whoever created the request.
    let bob = Requester { username: "bob".to_owned(), ..Requester::default() };
    request.status = None;
    let attached = subject(&request).attached(&bob, &Client { address: String::new(), stdin: false }, at());
    assert_eq!(who(&attached), ("bob".to_owned(), None));
    request.spec.requested_by = None;
    assert_eq!(who(&subject(&request).ended(&outcome(), at())), (String::new(), None));
}

#[test]
fn the_verb_of_an_end_says_denied_and_unknown_apart() {
    assert_eq!(Verb::of_end(Reason::Forbidden), Verb::Denied);
    assert_eq!(Verb::of_end(Reason::PodNotFound), Verb::Finished);
    for unknown in [Reason::OutcomeLost, Reason::NodeLost, Reason::KillFailed] {
        assert_eq!(Verb::of_end(unknown), Verb::OutcomeUnknown);
    }
}

#[test]
fn a_verb_is_written_as_it_is_called() {
    for verb in [
        Verb::Opened,
        Verb::Resumed,
        Verb::Denied,
        Verb::Bound,
        Verb::Started,
        Verb::Attached,
        Verb::Detached,
        Verb::Cancelled,
        Verb::Finished,
        Verb::OutcomeUnknown,
    ] {
        assert_eq!(serde_json::to_value(verb).expect("JSON"), Value::from(verb.as_str()));
    }
}

#[test]
fn an_event_that_is_made_of_user_input_stays_one_line() {
    let mut request = request();
    let forged = "x\"}}\n{\"kind\":\"Event\",\"execlet.dev/previous\":\"00\"}\u{2028}";
    request.spec.command = vec![forged.to_owned()];
    request.spec.reason = Some(forged.to_owned());
    let mut chain = super::super::chain::Chain::new("agent/n1", super::super::chain::Head::start());
    let event = Subject::of(&request, CommandDetail::Full).expect("a subject").started(&exec("e1"), at());
    let line = chain.add(&event).expect("a line");
    assert!(!line.contains(&b'\n'));
    let (again, place) = super::super::chain::parse(&line).expect("a record");
    assert_eq!((again.note(key::REQUEST_REASON), place.sequence), (Some(forged), 1));
    let text = String::from_utf8(line).expect("text");
    assert_eq!(text.matches("\"execlet.dev/previous\":\"").count(), 1, "{text}");
}
