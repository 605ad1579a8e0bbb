//! Connections that are never finished, vanish, or ask for too much.

use std::{net::SocketAddr, time::Duration};

use futures::SinkExt as _;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use tokio_tungstenite::tungstenite::Message;

use super::lab::{Lab, PATH, TOKEN, within};
use crate::{agent::serve::limits, wire::OutputStream};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_is_not_counted_among_those_sent_away() {
    let lab = Lab::open(json!({})).await;
    let _command = lab.command(0);
    let gone = async |records| {
        within("the record of its going", async {
            while lab.recorded().len() < records {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    };
    // With the end of TLS and without a close, and without either.
    let mut polite = lab.attach("stdout=true").await;
    polite.socket.get_mut().shutdown().await.expect("the end of TLS");
    gone(2).await;
    drop(lab.attach("stdout=true").await);
    gone(4).await;
    assert_eq!(lab.metrics.viewers_cut.get(), 0);
    let mut bad = lab.attach("stdout=true").await;
    bad.socket.send(Message::Text("hello".into())).await.expect("sent");
    bad.end().await;
    gone(6).await;
    assert_eq!(lab.metrics.viewers_cut.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_are_never_finished_keep_nobody_out() {
    let lab = Lab::open(json!({})).await;
    let mut open = Vec::new();
    for _ in 0..300 {
        open.push(TcpStream::connect(lab.address).await.expect("a connection"));
    }
    let mut half = lab.connect().await;
    half.write_all(b"GET /v1/names").await.expect("sent");
    assert_eq!(lab.get(&format!("{PATH}/log"), TOKEN).await.0, 200);
    let mut rest = Vec::new();
    within("the server to lose patience", half.read_to_end(&mut rest)).await.ok();
    let mut all = open.pop().expect("one");
    assert_eq!(within("the server to lose patience", all.read(&mut [0])).await.unwrap_or(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_handshakes_from_several_addresses_keep_nobody_out() {
    let lab = Lab::open(json!({})).await;
    let mut command = lab.command(0);
    let mut viewer = lab.attach("stdout=true").await;
    let mut half_open = Vec::new();
    for number in 0..limits::CONNECTIONS {
        let socket = TcpSocket::new_v4().expect("a socket");
        let last = if number % 2 == 0 { 2 } else { 3 };
        socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).expect("an address");
        let mut socket = socket.connect(lab.address).await.expect("a connection");
        // The begin of a TLS record, and no more. The oldest are closed meanwhile.
        socket.write_all(&[22, 3, 1]).await.ok();
        half_open.push(socket);
    }
    assert_eq!(lab.get(&format!("{PATH}/log"), TOKEN).await.0, 200);
    command.write(OutputStream::Stdout, b"x").await;
    viewer.until(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_a_head_is_refused() {
    let lab = Lab::open(json!({})).await;
    let head = format!("GET {PATH}/log HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(2 * limits::HEAD_BYTES));
    assert!(matches!(lab.say(&head).await.0, 431 | 0));
    assert_eq!(lab.get(&format!("{PATH}/log"), TOKEN).await.0, 200);
}
