//! The stream port of an agent, to those who are not the manager, and to a manager that talks nonsense.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use execlet::wire::remotecommand::close;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use crate::{
    agents,
    clients::Client,
    follower::{CODE, are_whole, lines},
    lab::{Lab, NAMESPACE, PATIENCE, kubectl, text, wait_for},
    leading::container,
    measured::living,
    node,
    stand_in::{ATTACH, Caller},
    subject::agent_pod,
};

const NODE: &str = "n1";
/// Of a token for the agent of the node.
const AUDIENCE: &str = "streams.execlet.dev/n1";
/// A message of a client has at most 256 KiB.
const TOO_MUCH: usize = 300 << 10;
/// How long the port may take to give up on somebody who says nothing.
const SILENCE: Duration = Duration::from_secs(30);

fn agent() -> Caller {
    agent_of(NODE)
}

/// The agent of a node, as its Lease shows it.
fn agent_of(node: &str) -> Caller {
    let lease = format!("execlet-agent.{node}");
    let annotation = |name: &str| {
        let path = format!("jsonpath={{.metadata.annotations.execlet\\.dev/{name}}}");
        kubectl(&["get", "lease", &lease, "-n", NAMESPACE, "-o", &path])
    };
    let address = annotation("stream-endpoint").parse().expect("an address");
    Caller::new(address, "execlet-agent", annotation("stream-certificate").as_bytes(), None)
}

fn token(namespace: &str, account: &str, audience: Option<&str>) -> String {
    let audience: Vec<String> = audience.iter().map(|audience| format!("--audience={audience}")).collect();
    let audience: Vec<&str> = audience.iter().map(String::as_str).collect();
    let token = kubectl(&[&["create", "token", account, "-n", namespace], &audience[..]].concat());
    format!("Authorization: Bearer {}\r\n", token.trim())
}

/// All that the agent of the node has logged.
fn log_of_agent() -> String {
    kubectl(&["logs", "-n", NAMESPACE, &agent_pod(NODE)])
}

/// A command that writes all the time, and the path of an attach to it.
async fn running(lab: &Lab) -> (String, String) {
    lab.pod("web", NODE).await;
    let name = lines(lab, "web");
    let request = lab.request_when(&name, "to run", |status| status.exec_id.is_some()).await;
    let uid = request.metadata.uid.expect("a UID");
    let path = format!("/v1/namespaces/{}/execrequests/{name}/{uid}", lab.namespace);
    (name, path)
}

#[tokio::test]
async fn nobody_but_the_manager_is_let_in() {
    let lab = Lab::new().await;
    let (name, path) = running(&lab).await;
    let (before, agent) = (agents::containers(NODE), agent());
    let manager = "execlet-manager";
    for (who, token, expected) in [
        ("nobody", String::new(), 401),
        ("an empty token", "Authorization: Bearer \r\n".to_owned(), 401),
        ("nonsense", "Authorization: Bearer nonsense\r\n".to_owned(), 401),
        ("a password", "Authorization: Basic bWFuYWdlcjpzZWNyZXQ=\r\n".to_owned(), 401),
        ("another pod", token(&lab.namespace, "default", Some(AUDIENCE)), 403),
        ("another pod, as it is", token(&lab.namespace, "default", None), 401),
        ("an agent", token(NAMESPACE, "execlet-agent", Some(AUDIENCE)), 403),
        ("the manager's token for the API server", token(NAMESPACE, manager, None), 401),
    ] {
        for (call, headers) in [("attach?stdin=true&stdout=true", ATTACH), ("log", "")] {
            let (code, body) = agent.ask(&format!("{path}/{call}"), &format!("{token}{headers}")).await;
            assert_eq!(code, expected, "{who}: {call}: {body}");
            assert!(!body.contains("line 1"), "{who}: {call}: {body}");
        }
    }
    let good = token(NAMESPACE, manager, Some(AUDIENCE));
    wait_for("the log", async || {
        let (code, body) = agent.ask(&format!("{path}/log"), &good).await;
        assert_eq!(code, 200, "{body}");
        body.contains("line 1").then_some(())
    })
    .await;
    let (code, _) =
        agent.ask(&format!("{path}/attach?stdout=true"), &format!("{good}{ATTACH}Origin: https://a\r\n")).await;
    assert_eq!(code, 403, "a web page");
    let elsewhere = format!("/v1/namespaces/{}/execrequests/{name}/another-uid/log", lab.namespace);
    assert_eq!(agent.ask(&elsewhere, &good).await.0, 404, "a request that was replaced");
    assert_eq!(agent.ask("/metrics", &good).await.0, 404);
    lab.go("web");
    lab.finished(&name).await.ended_with(CODE);
    assert_eq!(agents::containers(NODE), before, "the agent lives");
    // Each refusal once in the log, and no token of anybody.
    let log = log_of_agent();
    let refused: Vec<&str> = log.lines().filter(|line| line.contains("refused") && line.contains(&path)).collect();
    assert_eq!(refused.len(), 16, "{refused:#?}");
    assert!(!log.contains("nonsense") && !log.contains("bWFuYWdlcjpzZWNyZXQ"), "{log}");
}

#[tokio::test]
async fn what_one_agent_has_heard_of_the_manager_opens_no_other_agent() {
    let lab = Lab::new().await;
    let (name, path) = running(&lab).await;
    let manager = "execlet-manager";
    let of_another = token(NAMESPACE, manager, Some("streams.execlet.dev/n2"));
    // Good where it is meant to be: that agent only has not this request.
    let (code, body) = agent_of("n2").ask(&format!("{path}/log"), &of_another).await;
    assert_eq!(code, 404, "{body}");
    for (who, token) in [
        ("the token of another node's agent", of_another),
        ("the token of the nodes before", token(NAMESPACE, manager, Some("streams.execlet.dev"))),
        ("the token of no node", token(NAMESPACE, manager, Some("streams.execlet.dev/"))),
    ] {
        let forged = format!("{token}X-Execlet-User: {}\r\n", STANDARD.encode(r#"{"username":"kubernetes-admin"}"#));
        for (call, headers) in [("attach?stdout=true", ATTACH), ("log", "")] {
            let (code, body) = agent().ask(&format!("{path}/{call}"), &format!("{forged}{headers}")).await;
            assert_eq!(code, 401, "{who}: {call}: {body}");
            assert!(!body.contains("line 1"), "{who}: {call}: {body}");
        }
    }
    lab.go("web");
    lab.finished(&name).await.ended_with(CODE);
}

/// What is sent over an attach that stands.
enum Said {
    Frame(Message),
    /// As it is, whatever it means.
    Bytes(Vec<u8>),
}

#[tokio::test]
async fn malformed_frames_end_their_connection_and_nothing_else() {
    let lab = Lab::new().await;
    let (name, path) = running(&lab).await;
    let (before, agent) = (agents::containers(NODE), agent());
    let headers = format!("{}{ATTACH}", token(NAMESPACE, "execlet-manager", Some(AUDIENCE)));
    for (what, said, expected) in [
        ("text", Said::Frame(Message::Text("hello".into())), close::UNSUPPORTED),
        ("a CLOSE of nothing", Said::Frame(Message::Binary(vec![255].into())), close::PROTOCOL_ERROR),
        ("a CLOSE of two", Said::Frame(Message::Binary(vec![255, 0, 0].into())), close::PROTOCOL_ERROR),
        ("too much", Said::Frame(Message::Binary(vec![0; TOO_MUCH].into())), close::TOO_BIG),
        ("reserved bits", Said::Bytes(vec![0xf2, 0x80, 0, 0, 0, 0]), close::PROTOCOL_ERROR),
        ("no mask", Said::Bytes(vec![0x82, 1, 0]), close::PROTOCOL_ERROR),
        ("an opcode that is none", Said::Bytes(vec![0x83, 0x80, 0, 0, 0, 0]), close::PROTOCOL_ERROR),
        ("a long ping", Said::Bytes([&[0x89, 0xfe, 1, 0, 0, 0, 0, 0][..], &[0; 256]].concat()), close::PROTOCOL_ERROR),
    ] {
        let (code, mut stream) = agent.call(&format!("{path}/attach?stdout=true"), &headers).await.expect("an answer");
        assert_eq!(code, 101, "{what}");
        let socket = match said {
            Said::Bytes(bytes) => {
                stream.write_all(&bytes).await.expect("sent");
                stream.flush().await.expect("sent");
                WebSocketStream::from_raw_socket(stream, Role::Client, None).await
            }
            Said::Frame(message) => {
                let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
                // What is too long is refused before all of it is sent.
                socket.send(message).await.ok();
                socket
            }
        };
        assert_eq!(closed(socket).await, expected, "{what}");
    }
    // A frame that never ends holds nobody up.
    let (_, mut half) = agent.call(&format!("{path}/attach?stdout=true"), &headers).await.expect("an answer");
    half.write_all(&[0x82, 0xfe, 0xff]).await.expect("sent");
    half.flush().await.expect("sent");
    let (heard, ()) = tokio::join!(Client::KubeRs.attach(&lab, &name, None), async { lab.go("web") });
    assert_eq!(heard.code, CODE);
    are_whole(&heard.stdout);
    lab.finished(&name).await.ended_with(CODE);
    assert_eq!(agents::containers(NODE), before, "the agent lives");
}

/// The code with which a connection is closed; the output before it is passed over.
async fn closed(mut socket: WebSocketStream<TlsStream<TcpStream>>) -> u16 {
    let closing = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    timeout(PATIENCE, closing).await.expect("a close in time")
}

/// A process that is beleaguered: its open files, and what is resident of it, in KiB.
fn cost(pid: &str) -> (usize, usize) {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").count();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("memory");
    (files, resident.trim().trim_end_matches(" kB").parse().expect("a number"))
}

#[tokio::test]
async fn two_thousand_half_open_handshakes_shut_nobody_out_and_leave_nothing_behind() {
    let lab = Lab::alone().await;
    let (name, _) = running(&lab).await;
    let pod = living("manager").into_iter().find(|pod| pod["spec"]["nodeName"] == NODE).expect("a manager");
    let manager = pod["metadata"]["name"].as_str().expect("a name");
    let (_, running_in) = container(manager).expect("it runs");
    let address = pod["status"]["podIP"].as_str().expect("an address");
    let before = agents::containers(NODE);
    for (who, address, pid) in [
        ("the agent", agent().address(), node::pid(NODE, &before[0])),
        ("a manager", format!("{address}:8443").parse().expect("an address"), node::pid(NODE, &running_in)),
    ] {
        let rest = cost(&pid);
        let mut half = Vec::new();
        for _ in 0..2000 {
            // One that is closed at once is as good.
            if let Ok(Ok(mut socket)) = timeout(Duration::from_secs(5), TcpStream::connect(address)).await {
                socket.write_all(&[22, 3, 1]).await.ok();
                half.push(socket);
            }
        }
        let under = cost(&pid);
        assert!(half.len() > 1000, "{who}: {}", half.len());
        // Whoever may come in does, from this very address too.
        let good = token(NAMESPACE, "execlet-manager", Some(AUDIENCE));
        assert_eq!(agent().ask("/v1/namespaces/a/execrequests/a/a/log", &good).await.0, 404, "{who}");
        let spec = json!({"target": {"podName": "web"}, "command": ["sh", "-c", "echo in; exit 3"]});
        let heard = Client::Go.attach(&lab, &lab.create(spec), None).await;
        assert_eq!((heard.code, text(&heard.stdout).as_str()), (3, "in\n"), "{who}: {}", text(&heard.stderr));
        wait_for("the half-open ones to be gone", async || (cost(&pid).0 < rest.0 + 32).then_some(())).await;
        let after = cost(&pid);
        println!(
            "{who}: {} connections; files and KiB at rest {rest:?}, beleaguered {under:?}, after {after:?}",
            half.len()
        );
        assert!(after.1 < rest.1 + (32 << 10) && under.1 < rest.1 + (64 << 10), "{who}: {rest:?} {under:?} {after:?}");
    }
    lab.go("web");
    lab.finished(&name).await.ended_with(CODE);
    assert_eq!(agents::containers(NODE), before, "the agent lives");
    assert_eq!(container(manager).map(|(_, id)| id), Some(running_in), "the manager lives");
    let log = log_of_agent();
    let said = log.lines().filter(|line| line.contains("connections") || line.contains("handshake")).count();
    assert!((1..50).contains(&said), "it is said, but not two thousand times: {said}");
}

#[tokio::test]
async fn who_says_nothing_or_no_tls_is_cut_off() {
    let _lab = Lab::new().await;
    let before = agents::containers(NODE);
    let path = "jsonpath={.metadata.annotations.execlet\\.dev/stream-endpoint}";
    let endpoint = kubectl(&["get", "lease", &format!("execlet-agent.{NODE}"), "-n", NAMESPACE, "-o", path]);
    for said in [&b""[..], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[22, 3, 1], &[0xff; 4096]] {
        let mut socket = TcpStream::connect(&endpoint).await.expect("a connection");
        socket.write_all(said).await.expect("sent");
        let mut rest = Vec::new();
        let ended = timeout(SILENCE, tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut rest)).await;
        assert!(ended.is_ok(), "it is still open after {said:?}");
        assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    }
    assert_eq!(agents::containers(NODE), before, "the agent lives");
}
