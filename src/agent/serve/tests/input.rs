//! What clients send.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

use super::lab::{Lab, bytes_of, within};
use crate::{
    agent::{
        serve::limits::{self, Pace},
        streams::input::Fed,
    },
    api::ExecResult,
    wire::{
        OutputStream,
        remotecommand::{self, Protocol, TerminalSize, close},
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn one_client_holds_the_input_and_what_it_says_arrives_in_order() {
    let lab = Lab::open(json!({"stdin": {"attach": {}}, "tty": true})).await;
    let command = lab.command(1 << 20);
    let mut first = lab.attach("stdin=true&stdout=true&tty=true").await;
    assert_eq!(lab.try_attach("stdin=true&stdout=true", &[]).await.err(), Some(409), "a second one is told");
    let mut watching = lab.attach("stdout=true&tty=true").await;
    command.hub.input.open();
    for part in [&b"\x00he"[..], b"\x00llo", b"\x05noise", b"", b"\xff\x00", b"\x00late"] {
        first.send(part).await;
    }
    let mut heard = Vec::new();
    while let Fed::Bytes(bytes) = within("input", command.hub.input.next()).await {
        heard.extend_from_slice(&bytes);
    }
    assert_eq!(heard, b"hello");
    // Who holds the input has the terminal; who watches has none.
    let mut sizes = command.hub.sizes();
    watching.send(remotecommand::Client::new(Protocol::V5).resize(TerminalSize { width: 1, height: 1 })).await;
    first.send(&b"\x04{\"Width\":80,\"Height\":24}"[..]).await;
    let size = *within("a size", sizes.wait_for(Option::is_some)).await.expect("a size");
    assert_eq!(size, Some(TerminalSize { width: 80, height: 24 }));
    drop(first);
    assert_eq!(within("the end", command.hub.input.next()).await, Fed::Gone);
    within("the input to be free", async {
        while lab.try_attach("stdin=true&stdout=true", &[]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_input_waits_for_the_command_hears_that_all_is_well() {
    let pace = Pace { pong: Duration::from_millis(20), ping: Duration::from_millis(60), ..Pace::default() };
    let pace = Pace { answer: Duration::from_secs(1), ..pace };
    let lab = Lab::paced(json!({"stdin": {"attach": {}}}), pace).await;
    let command = lab.command(0);
    let (mut to, mut from) = lab.attach("stdin=true&stdout=true").await.socket.split();
    let all = bytes_of(2 << 20);
    let sending = tokio::spawn({
        let all = all.clone();
        async move {
            for part in all.chunks(32 * 1024) {
                to.send(Message::Binary([&b"\0"[..], part].concat().into())).await.expect("sent");
            }
            to.send(Message::Ping(Bytes::from_static(b"all"))).await.expect("sent");
            to
        }
    });
    // The command takes nothing for longer than a client that answers no pings is borne.
    let mut unasked = 0;
    while unasked < 75 {
        match within("a pong", from.next()).await.expect("a message").expect("a connection") {
            Message::Pong(payload) => {
                assert!(payload.is_empty(), "what has not arrived is not said to have");
                unasked += 1;
            }
            Message::Binary(_) | Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
    command.hub.input.open();
    let mut got = Vec::new();
    while got.len() < all.len() {
        match within("input", command.hub.input.next()).await {
            Fed::Bytes(bytes) => got.extend_from_slice(&bytes),
            other => panic!("{other:?}"),
        }
    }
    assert!(got == all);
    let _to = within("the last message", sending).await.expect("sent");
    within("the answer to the ping", async {
        while !matches!(from.next().await.expect("a message").expect("a connection"), Message::Pong(payload) if &payload[..] == b"all") {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_messages_end_a_connection_with_the_right_code_and_harm_no_other() {
    let lab = Lab::open(json!({"tty": true})).await;
    let mut command = lab.command(1 << 20);
    let watching = lab.attach("stdout=true").await;
    let large = vec![0_u8; limits::MESSAGE_BYTES + 1];
    for (message, expected) in [
        (Message::Binary(Bytes::from_static(b"\xff")), close::PROTOCOL_ERROR),
        (Message::Binary(Bytes::from_static(b"\xff\x00\x00")), close::PROTOCOL_ERROR),
        (Message::Binary(Bytes::from_static(b"\xff\x05")), close::PROTOCOL_ERROR),
        (Message::Binary(Bytes::from_static(b"\x04{\"Width\":99999}")), close::PROTOCOL_ERROR),
        (Message::Text("hello".into()), close::UNSUPPORTED),
        (Message::Frame(Frame::message(&b"\xff"[..], OpCode::Data(Data::Text), true)), close::UNSUPPORTED),
        (Message::Binary(large.into()), close::TOO_BIG),
    ] {
        let mut bad = lab.attach("stdout=true&tty=true").await;
        bad.socket.send(message).await.expect("sent");
        let (code, _, status, _) = bad.end().await;
        assert_eq!((code, status), (Some(expected), None));
    }
    command.write(OutputStream::Stdout, b"unharmed").await;
    command.end(ExecResult::of_exit_code(0));
    let (code, _, _, heard) = watching.end().await;
    assert_eq!((code, heard[&OutputStream::Stdout].as_slice()), (Some(close::NORMAL), &b"unharmed"[..]));
}
