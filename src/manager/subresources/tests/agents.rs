//! Calls to agents, and their answers.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::{
    crypto::ring::default_provider,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use super::{
    api_server::ACCOUNT,
    lab::{ATTACH, Lab, PATH, PATIENCE, SWITCHED, StandIn, UNAUTHORIZED, head_of, refused, tokens, until},
};
use crate::{
    api::Requester,
    manager::subresources::{
        agent::connect::{Agents, Call, CallError, Endpoint},
        target::Target,
    },
};

#[tokio::test]
async fn an_attached_client_speaks_to_the_agent_which_knows_who_it_is() {
    let lab = Lab::new().await;
    let mut stream = lab.connect().await;
    let call = format!(
        "GET {PATH}/bound/attach?stdin=true&stdout=true&token=secret HTTP/1.1\r\nHost: a\r\n{ATTACH}\
         X-Remote-User: jane\r\nX-Remote-Group: devs\r\nX-Forwarded-For: déguisé, 10.0.0.7\r\n\
         Authorization: Bearer of-the-user\r\nX-Execlet-User: forged\r\nX-Execlet-Client: forged\r\n\r\n"
    );
    // Bytes that come with the call are not lost.
    stream.write_all(format!("{call}first,").as_bytes()).await.expect("written");
    assert_eq!(
        head_of(&mut stream).await.to_ascii_lowercase().lines().next(),
        Some("http/1.1 101 switching protocols")
    );
    stream.write_all(b"second").await.expect("written");
    let mut echo = [0; 12];
    stream.read_exact(&mut echo).await.expect("an echo");
    assert_eq!(&echo, b"first,second");

    let head = lab.agent.heads().remove(0);
    let user = STANDARD.encode(r#"{"username":"jane","uid":"","groups":["devs"],"extra":{}}"#);
    for line in [
        "GET /v1/namespaces/shop/execrequests/bound/u-1/attach?stdin=true&stdout=true&stderr=false&tty=false HTTP/1.1",
        "authorization: Bearer streams.execlet.dev/n1#1",
        &format!("x-execlet-user: {user}"),
        "x-execlet-client: 10.0.0.7",
        "sec-websocket-protocol: v5.channel.k8s.io",
    ] {
        assert!(head.lines().any(|found| found.eq_ignore_ascii_case(line)), "{line}\n{head}");
    }
    assert!(!head.contains("of-the-user") && !head.contains("forged") && !head.contains("secret"), "{head}");

    // Both ends come through, and nothing is left.
    stream.shutdown().await.expect("ended");
    assert_eq!(stream.read(&mut echo).await.expect("an end"), 0);
    until("the stream to be forgotten", || lab.joined.is_empty() && lab.metrics.streams.get() == 0).await;
}

#[tokio::test]
async fn an_agent_that_falls_ends_the_clients_connection_and_no_other() {
    let lab = Lab::new().await;
    let (mut first, mut second) = (lab.attached("jane").await, lab.attached("jane").await);
    first.write_all(b"FALL").await.expect("written");
    let mut rest = Vec::new();
    // Ended or broken, but at once.
    timeout(PATIENCE, first.read_to_end(&mut rest)).await.expect("in time").ok();
    second.write_all(b"still").await.expect("written");
    let mut echo = [0; 5];
    second.read_exact(&mut echo).await.expect("an echo");
    drop(second);
    until("both streams to be forgotten", || lab.metrics.streams.get() == 0).await;
}

#[tokio::test]
async fn a_request_that_has_no_agent_says_why() {
    let lab = Lab::new().await;
    refused(&lab.attach("missing", "stdout=true", "").await, 404, r#""missing" not found"#);
    let words = "not bound to a node yet: PodNotRunning: pod db-0 is Pending";
    refused(&lab.attach("unbound", "stdout=true", "").await, 504, words);
    refused(&lab.ask(&format!("{PATH}/unbound/log"), "").await, 504, words);
    refused(&lab.attach("refused", "stdout=true", "").await, 400, "never ran: PodNotRunning");
    refused(&lab.attach("elsewhere", "stdout=true", "").await, 503, "no execlet agent runs on node n2");
}

#[tokio::test]
async fn no_answer_but_the_right_one_joins_client_and_agent() {
    let lab = Lab::new().await;
    let status = r#"{"kind":"Status","message":"the log is gone","reason":"NotFound","code":404}"#;
    let long = "x".repeat(1 << 20);
    let with_body = |line: &str, body: &str| format!("HTTP/1.1 {line}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for (agent, code, words) in [
        (with_body("200 OK", "hello"), 500, "the agent answers 200"),
        (with_body("302 Found\r\nLocation: https://169.254.169.254/", ""), 500, "the agent answers 302"),
        (UNAUTHORIZED.to_owned(), 500, "the agent answers 401"),
        (with_body("403 Forbidden", ""), 500, "the agent answers 403"),
        (with_body("410 Gone", &status.replace("404", "410")), 410, "the log is gone"),
        (with_body("409 Conflict", "<html>"), 409, "the agent answers 409"),
        (with_body("500 Internal Server Error", &long), 500, "the agent answers 500"),
        (SWITCHED.replace("s3pP", "xxxx"), 500, "Sec-WebSocket-Accept"),
        (SWITCHED.replace("v5.channel", "v9.channel"), 500, "was not offered"),
        ("nonsense\r\n\r\n".to_owned(), 503, "cannot be reached"),
    ] {
        lab.agent.answers(&agent);
        refused(&lab.attach("bound", "stdout=true", "").await, code, words);
    }
    until("every connection to be forgotten", || lab.joined.is_empty()).await;
    assert_eq!(lab.metrics.streams.get(), 0);
}

#[tokio::test]
async fn an_agent_that_has_not_heard_of_the_request_yet_is_asked_again() {
    let lab = Lab::with(10, PATIENCE).await;
    lab.agent.answers("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    let heads = Arc::clone(&lab.agent.heads);
    let (answer, ()) = tokio::join!(lab.attach("bound", "stdout=true", ""), async {
        until("the first try", || !heads.lock().is_empty()).await;
        lab.agent.answers(SWITCHED);
    });
    assert_eq!(answer.0, 101);
}

#[tokio::test]
async fn a_log_is_passed_on_as_it_comes() {
    let lab = Lab::new().await;
    lab.agent.answers("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n");
    let (code, body) = lab.ask(&format!("{PATH}/bound/log?tailLines=5&stream=Stdout"), "").await;
    assert_eq!((code, body.contains("one\n"), body.contains("two\n")), (200, true, true), "{body}");
    let head = lab.agent.heads().remove(0);
    assert!(
        head.starts_with("GET /v1/namespaces/shop/execrequests/bound/u-1/log?tailLines=5&stream=Stdout "),
        "{head}"
    );
    until("the place to be given back", || lab.metrics.streams.get() == 0).await;
}

/// A call of the log, at the agent itself.
async fn call(agents: &Agents, endpoint: &Endpoint) -> Result<(), CallError> {
    let target = Target::new("shop".into(), "bound".into()).expect("a target");
    let who = Requester::default();
    let call = Call {
        target: &target,
        uid: "u-1".into(),
        subresource: "log",
        query: String::new(),
        who: &who,
        client: None,
        upgrade: vec![],
    };
    agents.call(endpoint, &call).await.map(drop)
}

#[tokio::test]
async fn each_agent_hears_a_token_for_its_own_node_and_nobody_else_hears_any() {
    let lab = Lab::new().await;
    for _ in 0..2 {
        drop(lab.attached("jane").await);
    }
    let certificate = CertificateDer::from_pem_slice(lab.agent.certificate.as_bytes()).expect("PEM");
    let agents = |account| Agents::new(Arc::new(default_provider()), tokens(&lab.client, account), TaskTracker::new());
    let endpoint = Endpoint { node: "n2".into(), address: lab.agent.address, certificate };
    call(&agents(ACCOUNT), &endpoint).await.expect("an answer");
    let heads = lab.agent.heads();
    for (head, token) in heads.iter().zip(["n1#1", "n1#1", "n2#2"]) {
        assert!(head.contains(&format!("Bearer streams.execlet.dev/{token}\r\n")), "{token}: {head}");
    }
    assert_eq!(heads.len(), 3);

    // Another agent at that address, with a certificate of its own.
    let other = StandIn::start().await;
    let endpoint = Endpoint { address: other.address, ..endpoint };
    let error = call(&agents(ACCOUNT), &endpoint).await.expect_err("a stranger");
    assert!(error.to_string().contains("not the one in the agent's Lease"), "{error}");
    let error = call(&agents("another"), &endpoint).await.expect_err("an account that has no tokens");
    assert!(error.to_string().contains("no token for the agent on node n2"), "{error}");
    assert!(other.heads().is_empty());
}

#[tokio::test]
async fn a_token_that_an_agent_does_not_take_any_more_is_replaced_once() {
    let lab = Lab::new().await;
    drop(lab.attached("jane").await);
    *lab.agent.revoked.lock() = Some("n1#1\r\n".to_owned());
    drop(lab.attached("jane").await);
    drop(lab.attached("jane").await);
    lab.agent.answers(UNAUTHORIZED);
    refused(&lab.attach("bound", "stdout=true", "").await, 500, "the agent answers 401");
    let heads = lab.agent.heads();
    let numbers: Vec<&str> = heads.iter().filter_map(|head| head.split("n1#").nth(1)?.lines().next()).collect();
    assert_eq!(numbers, ["1", "1", "2", "2", "2", "3"]);
}
