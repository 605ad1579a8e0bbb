//! How many streams and connections there may be, and how they end.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::lab::{ATTACH, FLOODS, GOES_ON, Lab, PATH, PATIENCE, SWITCHED, answer, head_of, refused, until};

/// More than the kernel holds for four connections in a row, and less than what comes within a second without a bound.
const HELD_AT_MOST: usize = 48 << 20;

#[tokio::test]
async fn as_many_streams_as_may_be_and_no_more() {
    let lab = Lab::with(3, Duration::from_millis(200)).await;
    let first = lab.attached("jane").await;
    let _second = lab.attached("jane").await;
    refused(&lab.attach("bound", "stdout=true", "").await, 429, "the limit");
    let _third = lab.attached("joe").await;
    let stream = lab.connect().await;
    let headers = format!("X-Remote-User: joe\r\n{ATTACH}");
    let answer = answer(stream, &format!("GET {PATH}/bound/attach?stdout=true"), &headers).await;
    refused(&answer, 429, "this manager already carries 3 streams");
    drop(first);
    until("a free place", || lab.metrics.streams.get() == 2).await;
    drop(lab.attached("jane").await);
}

#[tokio::test]
async fn neither_logs_nor_attached_clients_take_the_places_of_discovery() {
    let lab = Lab::of(10, Duration::from_millis(200), 1).await;
    let _attached = (lab.attached("jane").await, lab.attached("joe").await);
    lab.agent.answers(&format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{GOES_ON}"));
    let mut logs = Vec::new();
    for user in ["jane", "joe"] {
        let mut stream = lab.connect().await;
        let call = format!("GET {PATH}/bound/log?follow=true HTTP/1.1\r\nHost: a\r\nX-Remote-User: {user}\r\n\r\n");
        stream.write_all(call.as_bytes()).await.expect("written");
        let head = head_of(&mut stream).await.to_ascii_lowercase();
        // It has no place any more for another call.
        assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
        logs.push(stream);
    }
    assert_eq!(lab.metrics.streams.get(), 4);
    assert_eq!(lab.ask("/apis", "").await.0, 200);
}

#[tokio::test]
async fn of_what_a_client_does_not_read_no_more_is_held_than_buffers_take() {
    let log = "HTTP/1.1 200 OK\r\nContent-Type: text/plain".to_owned();
    for (head, query, headers) in
        [(log, "log?follow=true", ""), (SWITCHED.trim_end().to_owned(), "attach?stdout=true", ATTACH)]
    {
        let lab = Lab::new().await;
        lab.agent.answers(&(head + FLOODS));
        let mut stream = lab.connect().await;
        let call = format!("GET {PATH}/bound/{query} HTTP/1.1\r\nHost: a\r\nX-Remote-User: jane\r\n{headers}\r\n");
        stream.write_all(call.as_bytes()).await.expect("written");
        let answer = head_of(&mut stream).await;
        let taken = || lab.agent.taken.load(Ordering::Relaxed);
        until("the flood to begin", || taken() > 0).await;
        let mut before = 0;
        while taken() > before {
            before = taken();
            assert!(before < HELD_AT_MOST, "{query}: {before} bytes were taken of what nobody reads: {answer}");
            sleep(Duration::from_millis(500)).await;
        }
    }
}

#[tokio::test]
async fn half_open_handshakes_by_the_thousand_keep_out_nobody() {
    let lab = Lab::new().await;
    let mut half_open = Vec::new();
    for _ in 0..1500 {
        let mut socket = TcpStream::connect(lab.address).await.expect("connected");
        // The begin of a TLS record, and no more. The oldest are closed meanwhile.
        socket.write_all(&[22, 3, 1]).await.ok();
        half_open.push(socket);
    }
    assert_eq!(lab.ask("/apis", "").await.0, 200);
    // And strangers who do shake hands, and say nothing.
    let mut silent = Vec::new();
    for _ in 0..80 {
        silent.extend(lab.try_connect(None).await.ok());
    }
    assert_eq!(lab.ask("/apis", "").await.0, 200);
}

#[tokio::test]
async fn told_to_stop_it_keeps_who_is_attached_and_takes_nobody_new() {
    let lab = Lab::new().await;
    let mut attached = lab.attached("jane").await;
    let mut waiting = lab.connect().await;
    lab.stop.cancel();
    let refused = async || lab.try_connect(None).await.is_err();
    let end = Instant::now() + PATIENCE;
    while !refused().await {
        assert!(Instant::now() < end, "still listening");
    }
    let mut rest = Vec::new();
    timeout(PATIENCE, waiting.read_to_end(&mut rest)).await.expect("a connection without a call is closed").ok();
    attached.write_all(b"still").await.expect("written");
    let mut echo = [0; 5];
    attached.read_exact(&mut echo).await.expect("an echo");
    lab.cut.cancel();
    timeout(PATIENCE, attached.read_to_end(&mut rest)).await.expect("cut").ok();
    until("nothing to be left", || lab.joined.is_empty()).await;
}
