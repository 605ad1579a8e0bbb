//! The log, as it is read.

use std::time::Duration;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::lab::{Lab, PATH, TOKEN, UID, bytes_of, dechunked, kept, within};
use crate::{
    agent::{serve::limits::Pace, streams::ring::Written},
    api::ExecResult,
    wire::{OutputStream, remotecommand::close},
};

/// The request has finished, with this output.
fn finish(lab: &Lab, output: &Value) {
    let mut request = lab.request.lock();
    let status = request.status.as_mut().expect("a status");
    let now = MicroTime(Timestamp::now());
    (status.start_time, status.completion_time) = (Some(now.clone()), Some(now));
    status.result = Some(ExecResult::of_exit_code(0));
    status.output = serde_json::from_value(output.clone()).expect("output");
}

/// What the log says at once, and whether it says that this is all.
async fn whole_log(lab: &Lab, query: &str) -> (String, bool) {
    let (code, answer) = lab.get(&format!("{PATH}/log{query}"), TOKEN).await;
    assert_eq!(code, 200, "{answer}");
    let body = answer.split_once("\r\n\r\n").expect("a head").1;
    (dechunked(body), body.ends_with("0\r\n\r\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_end_the_log_is_replayed_and_the_status_is_that_of_the_object() {
    let lab = Lab::open(json!({})).await;
    {
        let mut command = lab.command(1 << 30);
        command.write(OutputStream::Stdout, b"one\ntwo\n").await;
        command.write(OutputStream::Stderr, b"no\n").await;
        command.end(ExecResult::of_exit_code(3));
        kept(&lab, 100).await;
    }
    {
        let mut request = lab.request.lock();
        let status = request.status.as_mut().expect("a status");
        status.completion_time = Some(MicroTime(Timestamp::now()));
        status.result = Some(ExecResult::of_exit_code(3));
        status.output = serde_json::from_value(json!({"complete": true, "stdout": {"bytes": 8}})).expect("output");
    }
    let (code, _, status, heard) = lab.attach("stdout=true&stderr=true").await.end().await;
    assert_eq!((code, status.expect("a status")["reason"].as_str()), (Some(close::NORMAL), Some("NonZeroExitCode")));
    assert_eq!(
        (heard[&OutputStream::Stdout].as_slice(), heard[&OutputStream::Stderr].as_slice()),
        (&b"one\ntwo\n"[..], &b"no\n"[..])
    );
    for (query, expected) in [
        ("", "one\ntwo\nno\n"),
        ("?tailLines=1", "no\n"),
        ("?tailLines=1&stream=Stdout", "two\n"),
        ("?tailLines=0", ""),
        ("?tailLines=9&follow=true", "one\ntwo\nno\n"),
        ("?limitBytes=5", "one\nt"),
    ] {
        let (code, answer) = lab.get(&format!("{PATH}/log{query}"), TOKEN).await;
        assert_eq!(code, 200);
        assert!(answer.contains("text/plain"), "{answer}");
        let body: String = dechunked(answer.split_once("\r\n\r\n").expect("a head").1);
        assert_eq!(body, expected, "{query}");
    }
    std::fs::remove_dir_all(lab.log().parent().expect("a folder")).expect("removed");
    assert_eq!(lab.get(&format!("{PATH}/log"), TOKEN).await.0, 410, "no silence where there was output");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lacks_something_says_so_also_after_the_end() {
    let lab = Lab::open(json!({})).await;
    let mut command = lab.command(1 << 20);
    command.write(OutputStream::Stdout, b"one\n").await;
    kept(&lab, 40).await;
    drop(command);
    let rows = [
        (json!({"complete": true, "stdout": {"bytes": 4}}), ""),
        (
            json!({"complete": false, "incompleteReason": "SpoolLimit", "stdout": {"bytes": 90}, "stderr": {"bytes": 10}}),
            "[execlet: 96 bytes of output are not kept, and are missing here]\n",
        ),
        (
            json!({"complete": false, "incompleteReason": "StreamLost", "stdout": {"bytes": 4}}),
            "[execlet: an unknown number of bytes of output are not kept, and are missing here]\n",
        ),
    ];
    for (output, said) in rows {
        finish(&lab, &output);
        assert_eq!(whole_log(&lab, "").await, (format!("one\n{said}"), true), "{output}");
        let (code, _, status, heard) = lab.attach("stdout=true&stderr=true").await.end().await;
        assert_eq!((code, status.expect("a status")["status"].as_str()), (Some(close::NORMAL), Some("Success")));
        assert_eq!(heard[&OutputStream::Stdout], b"one\n");
        let told = heard.get(&OutputStream::Stderr).map(|told| String::from_utf8_lossy(told).replace('\r', ""));
        assert_eq!(told.unwrap_or_default(), said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_read_from_the_middle_on_says_what_came_before() {
    let lab = Lab::open(json!({})).await;
    let mut command = lab.command(0);
    for _ in 0..20 {
        command.write(OutputStream::Stdout, &[b'x'; 32 * 1024]).await;
    }
    command.write(OutputStream::Stdout, b"\nlast\n").await;
    let (text, whole) = whole_log(&lab, "").await;
    assert!(whole && text.starts_with("[execlet: ") && text.ends_with("\nlast\n"), "{}", text.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_followed_ends_when_the_command_does_also_if_nobody_hears_it() {
    let lab = Lab::open(json!({})).await;
    let hub = lab.hubs.of(&UID.into());
    hub.log_only(0, Written::UNKNOWN);
    let path = format!("{PATH}/log?follow=true");
    let reading = lab.get(&path, TOKEN);
    tokio::pin!(reading);
    assert!(timeout(Duration::from_millis(300), &mut reading).await.is_err(), "the command goes on");
    hub.conclude(ExecResult::of_exit_code(0));
    assert_eq!(within("the end", reading).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_before_has_logged_is_there_before_the_next_one_has_taken_the_command_up() {
    let lab = Lab::open(json!({})).await;
    lab.request.lock().status.as_mut().expect("a status").exec_id = Some("e".to_owned());
    std::fs::create_dir_all(lab.log().parent().expect("a folder")).expect("a folder");
    std::fs::write(lab.log(), "2026-01-02T03:04:05.000000006Z stdout F before\n").expect("a log");
    assert_eq!(whole_log(&lab, "").await, ("before\n".to_owned(), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_cut_never_ends_as_a_whole_one() {
    // By an agent that ends, and for a reader that takes nothing.
    for stalls in [false, true] {
        let stall = if stalls { Duration::from_millis(300) } else { Pace::default().stall };
        let lab = Lab::paced(json!({}), Pace { stall, ..Pace::default() }).await;
        let mut command = lab.command(1 << 30);
        command.write(OutputStream::Stdout, b"line\n").await;
        let mut reader = lab.connect().await;
        let head = format!("GET {PATH}/log?follow=true HTTP/1.1\r\nHost: a\r\nAuthorization: {TOKEN}\r\n\r\n");
        reader.write_all(head.as_bytes()).await.expect("sent");
        let mut got = Vec::new();
        while !got.windows(5).any(|window| window == b"line\n") {
            within("the beginning", reader.read_buf(&mut got)).await.expect("read");
        }
        if stalls {
            for part in bytes_of(24_000_000).chunks(32_768) {
                command.write(OutputStream::Stdout, part).await;
            }
            within("the cut", async {
                while lab.metrics.viewers.get() > 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
            .await;
        } else {
            lab.shutdown.cancel();
        }
        within("the end", reader.read_to_end(&mut got)).await.ok();
        assert!(!got.ends_with(b"0\r\n\r\n"), "stalls: {stalls}");
    }
}
