//! What viewers see.

use std::time::Duration;

use serde_json::json;

use super::lab::{Lab, UID, bytes_of, within, write};
use crate::{
    agent::{
        serve::limits::{self, Pace},
        streams::ring::Kept,
    },
    api::ExecResult,
    core::output::LogState,
    wire::{OutputStream, cri, remotecommand::close},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_late_viewer_has_each_byte_once_while_the_command_writes() {
    let lab = Lab::open(json!({})).await;
    let mut command = lab.command(1 << 30);
    let all = bytes_of(3_000_000);
    let mut attached = Vec::new();
    for (number, part) in all.chunks(7919).enumerate() {
        if number % 90 == 0 {
            let mut late = lab.attach("stdout=true&stderr=true").await;
            attached.push(tokio::spawn(async move {
                late.until(10).await;
                late.end().await
            }));
        }
        command.write(OutputStream::Stdout, part).await;
        command.write(OutputStream::Stderr, &part[..1]).await;
    }
    command.end(ExecResult::of_exit_code(3));
    let stderr: Vec<u8> = all.chunks(7919).map(|part| part[0]).collect();
    assert!(attached.len() > 3);
    for viewer in attached {
        let (code, _, status, heard) = within("the end", viewer).await.expect("a viewer");
        assert_eq!(code, Some(close::NORMAL));
        assert_eq!(status.expect("a status"), serde_json::to_value(ExecResult::of_exit_code(3)).expect("JSON"));
        // Not `assert_eq`, which would print it.
        assert!(heard[&OutputStream::Stdout] == all, "{} of {} bytes", heard[&OutputStream::Stdout].len(), all.len());
        assert!(heard[&OutputStream::Stderr] == stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_stalls_neither_slows_the_command_nor_loses_anything_that_is_kept() {
    let lab = Lab::open(json!({})).await;
    let mut command = lab.command(1 << 30);
    let mut stalled = lab.attach("stdout=true").await;
    command.write(OutputStream::Stdout, b"first").await;
    stalled.until(5).await;
    // More than the sockets and the hub hold.
    let all = bytes_of(24_000_000);
    for part in all.chunks(32_768) {
        command.write(OutputStream::Stdout, part).await;
    }
    command.end(ExecResult::of_exit_code(0));
    let (code, _, status, heard) = stalled.end().await;
    assert_eq!((code, status.expect("a status")["status"].as_str()), (Some(close::NORMAL), Some("Success")));
    assert!(heard[&OutputStream::Stdout][5..] == all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_pauses_at_the_end_loses_neither_the_rest_nor_the_status() {
    let lab = Lab::paced(json!({}), Pace { close: Duration::from_millis(20), ..Pace::default() }).await;
    let mut command = lab.command(1 << 20);
    let mut paused = lab.attach("stdout=true").await;
    command.write(OutputStream::Stdout, b"first").await;
    paused.until(5).await;
    // All of it fits into the sockets: the agent has sent everything long before it was read.
    let rest = bytes_of(100_000);
    command.write(OutputStream::Stdout, &rest).await;
    command.end(ExecResult::of_exit_code(0));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(lab.metrics.viewers.get(), 1, "it is still waited for");
    let (code, _, status, heard) = paused.end().await;
    assert_eq!((code, status.expect("a status")["status"].as_str()), (Some(close::NORMAL), Some("Success")));
    assert!(heard[&OutputStream::Stdout][5..] == rest);
    within("the place", async {
        while lab.metrics.viewers.get() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_loses_what_is_not_kept_is_told_so_and_never_that_all_went_well() {
    let lab = Lab::open(json!({})).await;
    let mut command = lab.command(0);
    let mut stalled = lab.attach("stdout=true").await;
    command.write(OutputStream::Stdout, b"first").await;
    stalled.until(5).await;
    for part in bytes_of(24_000_000).chunks(32_768) {
        command.write(OutputStream::Stdout, part).await;
    }
    command.end(ExecResult::of_exit_code(0));
    let (code, reason, status, _) = stalled.end().await;
    assert_eq!(code, Some(close::POLICY));
    assert!(reason.starts_with("too slow: "), "{reason}");
    assert_eq!(status.expect("a status")["reason"], "Expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_late_to_what_is_not_kept_is_told_how_much_is_missing() {
    let lab = Lab::open(json!({})).await;
    let mut command = lab.command(0);
    for part in bytes_of(1_000_000).chunks(32_768) {
        command.write(OutputStream::Stdout, part).await;
    }
    let late = lab.attach("stdout=true&stderr=true").await;
    command.end(ExecResult::of_exit_code(0));
    let (code, _, _, heard) = late.end().await;
    assert_eq!(code, Some(close::NORMAL));
    let notice = String::from_utf8_lossy(&heard[&OutputStream::Stderr]).into_owned();
    let seen = heard[&OutputStream::Stdout].len();
    assert!(
        seen > 0
            && notice.contains(&format!("{} bytes of output are not kept, and are missing here", 1_000_000 - seen)),
        "{notice}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_after_an_update_to_what_is_not_kept_is_told_how_much_is_missing() {
    const BEFORE: u64 = 100_000;
    let lab = Lab::open(json!({})).await;
    let kept = {
        let mut command = lab.command(5_000);
        for part in bytes_of(100_000).chunks(32_768) {
            command.write(OutputStream::Stdout, part).await;
        }
        within("the limit", async {
            while command.hub.kept().state == LogState::Whole {
                tokio::task::yield_now().await;
            }
        })
        .await;
        command.hub.kept()
    };
    assert!((1..5_000).contains(&kept.output), "{kept:?}");
    // An older agent does not say how much is in the log: then it is said in two parts.
    for (said, notices) in [(kept.output, 1), (BEFORE, 2)] {
        let hub = lab.hubs.of(&UID.into());
        hub.open(BEFORE, Kept { output: said, ..kept });
        for part in bytes_of(100_000).chunks(10_000) {
            write(&hub, OutputStream::Stdout, part).await;
        }
        let late = lab.attach("stdout=true&stderr=true").await;
        hub.close();
        hub.conclude(ExecResult::of_exit_code(0));
        let (code, why, _, heard) = late.end().await;
        assert_eq!(code, Some(close::NORMAL), "{why}");
        let notice = String::from_utf8_lossy(&heard[&OutputStream::Stderr]).into_owned();
        let missing: Vec<u64> =
            notice.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
        assert_eq!(missing.len(), notices, "{notice}");
        let seen = heard[&OutputStream::Stdout].len() as u64;
        assert!(seen > kept.output, "the log, and what is in memory");
        assert_eq!(seen + missing.iter().sum::<u64>(), 2 * BEFORE, "{notice}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_among_many_has_everything_too() {
    let lab = Lab::open(json!({})).await;
    let mut many = Vec::new();
    for _ in 0..=limits::FEW {
        many.push(lab.connect().await);
    }
    let mut command = lab.command(1 << 30);
    let early = lab.attach("stdout=true").await;
    let all = bytes_of(3_000_000);
    for part in all.chunks(32_768) {
        command.write(OutputStream::Stdout, part).await;
    }
    command.end(ExecResult::of_exit_code(0));
    let late = lab.attach("stdout=true").await;
    for viewer in [early, late] {
        let (code, _, status, heard) = viewer.end().await;
        assert_eq!((code, status.expect("a status")["status"].as_str()), (Some(close::NORMAL), Some("Success")));
        assert!(heard[&OutputStream::Stdout] == all, "{} bytes", heard[&OutputStream::Stdout].len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_so_many_viewers_and_no_more() {
    let lab = Lab::open(json!({})).await;
    let _command = lab.command(0);
    let mut viewers = Vec::new();
    for _ in 0..limits::VIEWERS {
        viewers.push(lab.attach("stdout=true").await);
    }
    assert_eq!(lab.try_attach("stdout=true", &[]).await.err(), Some(429));
    viewers.pop();
    within("a place", async {
        while lab.try_attach("stdout=true", &[]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_ends_tells_its_viewers_that_the_command_goes_on() {
    let lab = Lab::open(json!({})).await;
    let mut command = lab.command(0);
    let mut viewer = lab.attach("stdout=true").await;
    command.write(OutputStream::Stdout, b"x").await;
    viewer.until(1).await;
    lab.shutdown.cancel();
    let (code, reason, status, _) = viewer.end().await;
    assert_eq!((code, status), (Some(close::GOING_AWAY), None));
    assert!(reason.contains("attach again"), "{reason}");
    assert_eq!(lab.metrics.viewer_bytes.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_is_told_where_the_past_ends() {
    let lab = Lab::open(json!({})).await;
    // It comes before the command, as whoever runs one does.
    let mut first = lab.attach("stdout=true").await;
    let mut command = lab.command(1 << 20);
    command.write(OutputStream::Stdout, b"past ").await;
    first.until(5).await;
    assert_eq!(first.now, Some(0));
    for (query, past) in [("stdout=true", 5), ("stdout=true", 8)] {
        let mut late = lab.attach(query).await;
        while late.now.is_none() {
            assert!(late.step().await.is_none(), "it ended early");
        }
        command.write(OutputStream::Stdout, b"now").await;
        late.until(past + 3).await;
        assert_eq!(late.now, Some(past), "before anything new is written");
    }
    command.end(ExecResult::of_exit_code(0));
    let (code, ..) = first.end().await;
    assert_eq!(code, Some(close::NORMAL));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_agent_received_is_of_the_past() {
    let lab = Lab::open(json!({})).await;
    let mut text = Vec::new();
    cri::encode(&mut text, OutputStream::Stdout, "2026-01-02T03:04:05.000000006Z", b"past\n");
    std::fs::create_dir_all(lab.log().parent().expect("a folder")).expect("a folder");
    std::fs::write(lab.log(), &text).expect("written");
    let mut viewer = lab.attach("stdout=true").await;
    let hub = lab.hubs.of(&UID.into());
    hub.open(5, Kept { output: 5, file: text.len() as u64, state: LogState::Whole });
    write(&hub, OutputStream::Stdout, b"now").await;
    viewer.until(8).await;
    assert_eq!(viewer.now, Some(5));
}
