//! Output: whole, apart, and the same as the engine gives.

use execlet::api::StreamStatus;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    lab::{Lab, container_id},
    node,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn is_of(stream: &StreamStatus, bytes: &[u8]) {
    assert_eq!(stream.bytes, i64::try_from(bytes.len()).unwrap());
    assert_eq!(stream.sha256.as_deref(), Some(sha256(bytes).as_str()));
}

#[tokio::test]
async fn output_equals_that_of_the_engine_to_the_last_byte() {
    let lab = Lab::new().await;
    let id = container_id(&lab.pod("web", "n1").await, "main");
    for script in [
        "printf x",
        "head -c 65536 /dev/zero | tr '\\0' a",
        "printf 'one\\ntwo'",
        "head -c 300000 /bin/busybox",
        "printf '\\377\\376\\000'",
        "seq 1 20000; seq 1 20000 >&2",
        "true",
    ] {
        let stdout = node::exec("n1", &id, &["sh", "-c", &format!("{script} 2>/dev/null")]);
        let stderr = node::exec("n1", &id, &["sh", "-c", &format!("{script} 2>&1 >/dev/null")]);
        let done = lab.sh("web", script).await;
        done.ended_with(0);
        let output = done.status.output.as_ref().expect("output");
        is_of(&output.stdout, &stdout);
        is_of(&output.stderr, if script.contains(">&2") { &stderr } else { b"" });
        assert!(output.complete, "{script}: {:?}", output.incomplete_reason);
        if !stdout.is_empty() {
            let [spooled, _] = lab.spool(&done.request);
            assert_eq!(sha256(&spooled), sha256(&stdout), "the log on the node after {script}");
        }
    }
}

#[tokio::test]
async fn a_hundred_mebibytes_arrive_whole() {
    let lab = Lab::new().await;
    let id = container_id(&lab.pod("web", "n2").await, "main");
    let script = "head -c 104857600 /dev/urandom > /tmp/big; cat /tmp/big; sha256sum /tmp/big >&2";
    let done = lab
        .run(json!({
            "target": {"podName": "web"}, "command": ["sh", "-c", script],
            "output": {"spoolBytes": 1_073_741_824_i64, "tailBytes": 16},
        }))
        .await;
    done.ended_with(0);
    let output = done.status.output.as_ref().expect("output");
    assert_eq!((output.stdout.bytes, output.complete), (100 << 20, true), "{:?}", output.incomplete_reason);
    let told = output.stderr.tail.as_deref().unwrap_or_default();
    assert!(output.stdout.truncated);
    let whole = node::exec("n2", &id, &["sha256sum", "/tmp/big"]);
    let digest = String::from_utf8_lossy(&whole).split(' ').next().unwrap_or_default().to_owned();
    assert_eq!(output.stdout.sha256.as_deref(), Some(digest.as_str()), "stderr says {told}");
    let [spooled, _] = lab.spool(&done.request);
    assert_eq!(sha256(&spooled), digest, "the log on the node");
}

#[tokio::test]
async fn the_tail_is_text_where_it_can_be_and_base64_where_it_cannot() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let spec = |script: &str, tail: i32| json!({"target": {"podName": "web"}, "command": ["sh", "-c", script], "output": {"tailBytes": tail}});
    let text = lab.run(spec("seq 1 1000", 9)).await.status.output.expect("output").stdout;
    assert_eq!((text.tail.as_deref(), text.truncated, text.tail_base64), (Some("999\n1000\n"), true, None));
    let binary = lab.run(spec("printf '\\377\\000'", 9)).await.status.output.expect("output").stdout;
    assert_eq!((binary.tail, binary.tail_base64.as_deref(), binary.truncated), (None, Some("/wA="), false));
    let none = lab.run(spec("echo x", 0)).await.status.output.expect("output").stdout;
    assert_eq!((none.tail, none.tail_base64, none.bytes), (None, None, 2));
}

#[tokio::test]
async fn the_largest_tails_of_the_worst_bytes_fit_into_a_status() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let script = "head -c 100000 /dev/zero | tr '\\0' '\\001' | tee /dev/stderr";
    let done = lab
        .run(json!({"target": {"podName": "web"}, "command": ["sh", "-c", script], "output": {"tailBytes": 65536}}))
        .await;
    done.ended_with(0);
    let output = done.status.output.expect("output");
    assert_eq!(output.stdout.tail_base64.map(|tail| tail.len()), Some(87_384));
    assert_eq!(output.stderr.tail_base64.map(|tail| tail.len()), Some(87_384));
}

#[tokio::test]
async fn output_beyond_the_spools_limit_is_counted_and_digested_and_not_called_complete() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let done = lab
        .run(json!({
            "target": {"podName": "web"}, "command": ["sh", "-c", "seq 1 100000; exit 6"], "output": {"spoolBytes": 10_000},
        }))
        .await;
    done.ended_with(6);
    let output = done.status.output.as_ref().expect("output");
    assert_eq!((output.complete, output.incomplete_reason.as_deref()), (false, Some("SpoolLimit")));
    let all = (1..=100_000).fold(String::new(), |all, n| all + &n.to_string() + "\n");
    is_of(&output.stdout, all.as_bytes());
    let [spooled, _] = lab.spool(&done.request);
    assert!(!spooled.is_empty() && spooled.len() < 10_000, "{}", spooled.len());
    assert!(all.as_bytes().starts_with(&spooled), "what is kept is the beginning");
}
