//! The input of a command: from the request, or from the one client that holds it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use crate::{
    agents,
    clients::{Client, attach_path, attach_status, execlet_with},
    lab::{Lab, PATIENCE, text, wait_for},
    live_restore::LiveRestore,
    node::{self, DOCKER},
    output::sha256,
    stand_in::{ATTACH, Caller},
};

/// Whose certificate the tests have.
const HOLDER: &str = "kubernetes-admin";

/// `cat` in pod `web`, whose input comes from clients.
fn cat(attach: &Value) -> Value {
    json!({"target": {"podName": "web"}, "command": ["sh", "-c", "touch /tmp/ran; cat"], "stdin": {"attach": attach}})
}

/// A client that holds the input until it is dropped.
struct Holder(WebSocketStream<TlsStream<TcpStream>>);

impl Holder {
    async fn attach(lab: &Lab, name: &str) -> Self {
        let path = attach_path(lab, name, true, false);
        let (code, stream) = Caller::admin().call(&path, ATTACH).await.expect("an answer");
        assert_eq!(code, 101);
        Self(WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
    }

    async fn says(&mut self, line: &str) {
        let frame = [&[0], line.as_bytes()].concat();
        self.0.send(Message::Binary(frame.into())).await.expect("sent");
    }

    /// Waits until the command has written it.
    async fn hears(&mut self, line: &str) {
        let mut heard = Vec::new();
        let hearing = async {
            while !text(&heard).contains(line) {
                match self.0.next().await {
                    Some(Ok(Message::Binary(frame))) if frame.first() == Some(&1) => {
                        heard.extend_from_slice(&frame[1..]);
                    }
                    Some(Ok(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
        };
        timeout(PATIENCE, hearing).await.expect("the line in time");
    }
}

#[tokio::test]
async fn what_the_request_has_is_given_whole_and_then_its_end() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let words = "two\nlines, ü\n".repeat(10_000);
    for (stdin, expected) in [
        (json!({"text": "two\nlines, ü"}), "two\nlines, ü".as_bytes()),
        (json!({"text": words}), words.as_bytes()),
        (json!({"text": ""}), b""),
        (json!({"data": STANDARD.encode(&bytes)}), &bytes),
    ] {
        let done = lab.run(json!({"target": {"podName": "web"}, "command": ["cat"], "stdin": stdin})).await;
        done.ended_with(0);
        let output = done.status.output.as_ref().expect("output");
        assert_eq!((output.stdout.sha256.clone(), output.complete), (Some(sha256(expected)), true));
    }
    // Who does not read it is none the worse for it.
    let stdin = json!({"text": words});
    lab.run(json!({"target": {"podName": "web"}, "command": ["sh", "-c", "exit 3"], "stdin": stdin}))
        .await
        .ended_with(3);
    // Nobody else has it to give.
    let name = lab.create(json!({"target": {"podName": "web"}, "command": ["sleep", "5"], "stdin": {"text": "x"}}));
    let (code, body) = Caller::admin().ask(&attach_path(&lab, &name, true, false), ATTACH).await;
    assert!(code == 400 && body.contains("stdin.attach"), "{code} {body}");
}

#[tokio::test]
async fn without_a_client_that_brings_the_input_nothing_ever_starts() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let mut spec = cat(&json!({}));
    spec["startingDeadlineSeconds"] = json!(6);
    let name = lab.create(spec);
    // One that only watches is none.
    let status = attach_status(&lab, &name).await;
    assert_eq!(status.reason.as_deref(), Some("InternalError"), "{status:?}");
    let done = lab.finished(&name).await;
    done.never_ran("StartingDeadlineExceeded");
    assert!(done.message().contains("attach"), "{}", done.message());
    assert_eq!(lab.exec("web", "test -e /tmp/ran").1, 1);
}

#[tokio::test]
async fn one_client_has_the_input_and_whoever_else_wants_it_is_told_who() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let name = lab.create(cat(&json!({})));
    let mut holder = Holder::attach(&lab, &name).await;
    holder.says("first\n").await;
    holder.hears("first").await;
    let (code, body) = Caller::admin().ask(&attach_path(&lab, &name, true, false), ATTACH).await;
    assert!(code == 409 && body.contains(&format!("the input is held by {HOLDER}")), "{code} {body}");
    assert!(body.contains("attach without stdin to watch"), "{body}");
    let plugin = execlet_with(&lab, &["attach", "-i", &name], b"stolen\n".to_vec()).await;
    assert_ne!(plugin.code, 0);
    let said = text(&plugin.stderr);
    assert!(said.contains(&format!("the input is held by {HOLDER}")), "{said}");
    // It goes without having ended it: the command waits for the next one.
    drop(holder);
    let next = wait_for("the input to be free", async || {
        let heard = Client::Go.attach(&lab, &name, Some(b"second\n".to_vec())).await;
        (heard.code == 0).then_some(heard)
    })
    .await;
    assert_eq!(text(&next.stdout), "first\nsecond\n");
    lab.finished(&name).await.ended_with(0);
}

#[tokio::test]
async fn with_cancel_the_command_ends_when_the_client_with_its_input_goes_away() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let name = lab.create(cat(&json!({"onDisconnect": "Cancel"})));
    let mut holder = Holder::attach(&lab, &name).await;
    holder.says("first\n").await;
    holder.hears("first").await;
    drop(holder);
    let done = lab.finished(&name).await;
    assert_eq!((done.reason(), done.condition("Started")), ("Canceled", Some("True")), "{:#?}", done.status);
    assert_eq!(lab.exec("web", "pidof cat").0, b"");
    // Ended is not gone away.
    let name = lab.create(cat(&json!({"onDisconnect": "Cancel"})));
    let heard = Client::Go.attach(&lab, &name, Some(b"whole\n".to_vec())).await;
    assert_eq!((heard.code, text(&heard.stdout).as_str()), (0, "whole\n"), "{}", text(&heard.stderr));
    lab.finished(&name).await.ended_with(0);
}

#[tokio::test]
async fn input_that_a_killed_agent_cut_short_is_not_called_whole() {
    let lab = Lab::alone().await;
    lab.pod("web", &DOCKER).await;
    let name = lab.create(cat(&json!({})));
    let mut holder = Holder::attach(&lab, &name).await;
    holder.says("first\n").await;
    holder.hears("first").await;
    agents::restart(&DOCKER).await;
    // The engine shows `cat` an end of its input, with which it is content.
    let done = lab.soon(&name).await;
    assert_eq!((done.reason(), done.status.exit_code), ("InputLost", Some(0)), "{:#?}", done.status);
    assert_eq!(done.status.phase.to_string(), "Failed");
}

#[tokio::test]
async fn a_command_that_a_killed_engine_cut_off_from_its_input_is_said_to_have_lost_it() {
    let lab = Lab::alone().await;
    lab.pod("web", &DOCKER).await;
    let live = LiveRestore::on(&DOCKER);
    let name = lab.create(cat(&json!({})));
    let mut holder = Holder::attach(&lab, &name).await;
    holder.says("first\n").await;
    holder.hears("first").await;
    node::restart_engine(&DOCKER);
    // It sees no end of its input, and would wait for more for ever.
    wait_for("kubectl exec", async || (lab.exec("web", "kill $(pidof cat)").1 == 0).then_some(())).await;
    let done = lab.soon(&name).await;
    drop(live);
    assert_eq!((done.reason(), done.status.exit_code), ("InputLost", Some(143)), "{:#?}", done.status);
}
