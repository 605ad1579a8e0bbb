//! Who may view what, and what is recorded of it.

use std::{sync::atomic::Ordering, time::Duration};

use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::lab::{Lab, PATH, TOKEN, within};
use crate::core::audit::{event::Verb, key};

#[tokio::test(flavor = "multi_thread")]
async fn only_the_managers_token_opens_anything() {
    let lab = Lab::open(json!({})).await;
    for (path, token, expected) in [
        (format!("{PATH}/log"), "", 401),
        (format!("{PATH}/attach?stdout=true"), "", 401),
        (format!("{PATH}/log"), "Bearer bad", 401),
        (format!("{PATH}/log"), "Basic good", 401),
        (format!("{PATH}/log"), "Bearer pod", 403),
        (format!("{PATH}/log"), TOKEN, 200),
        ("/metrics".to_owned(), "", 404),
        ("/v1/namespaces/shop/execrequests/dump/another/log".to_owned(), TOKEN, 404),
        ("/v1/namespaces/shop/execrequests/other/0b5c/log".to_owned(), TOKEN, 404),
        (format!("{PATH}/log?tailLines=many"), TOKEN, 400),
        (format!("{PATH}/log?tailLines=1000001"), TOKEN, 400),
        (format!("{PATH}/log?stream=stdout"), TOKEN, 400),
        (format!("{PATH}/log?sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z"), TOKEN, 400),
        (format!("{PATH}/attach?stdout=true"), TOKEN, 400),
    ] {
        let (code, answer) = lab.get(&path, token).await;
        assert_eq!(code, expected, "{path} {token}: {answer}");
        assert!(code == 200 || answer.contains(r#""kind":"Status""#), "{answer}");
    }
    assert!(lab.asked.load(Ordering::Relaxed) <= 3, "the API server is asked once for each token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_the_agent_of_another_node_opens_nothing() {
    let lab = Lab::open(json!({})).await;
    let replayed = "Bearer replayed";
    let (code, answer) = lab.get(&format!("{PATH}/log"), replayed).await;
    assert_eq!(code, 401, "{answer}");
    assert_eq!(lab.try_attach("stdout=true", &[("authorization", replayed)]).await.err(), Some(401));
    assert_eq!(lab.get(&format!("{PATH}/log"), TOKEN).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_another_node_is_not_served() {
    let lab = Lab::open(json!({})).await;
    lab.request.lock().status.as_mut().expect("a status").node_name = Some("n2".into());
    assert_eq!(lab.get(&format!("{PATH}/log"), TOKEN).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_before_the_upgrade() {
    let lab = Lab::open(json!({})).await;
    for (query, headers, expected) in [
        ("", &[][..], 400),
        ("tty=true", &[], 400),
        ("stdout=true&stderr=true&tty=true", &[], 400),
        ("stdout=true&tty=true", &[], 400),
        ("stdin=true&stdout=true", &[], 400),
        ("stdout=true", &[("sec-websocket-protocol", "v3.channel.k8s.io")], 400),
        ("stdout=true", &[("sec-websocket-version", "8")], 400),
        ("stdout=true", &[("origin", "https://example.org")], 403),
        ("stdout=true", &[("authorization", "Bearer pod")], 403),
    ] {
        assert_eq!(lab.try_attach(query, headers).await.err(), Some(expected), "{query} {headers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_attaches_is_on_record_with_all_that_is_known_and_goes_on_record_too() {
    let lab = Lab::open(json!({"stdin": {"attach": {}}, "reason": "INC-1"})).await;
    let command = lab.command(0);
    let first = lab.attach("stdin=true&stdout=true").await;
    assert!(command.hub.input.is_held());
    for _ in 0..3 {
        assert_eq!(lab.try_attach("stdin=true&stdout=true", &[]).await.err(), Some(409));
    }
    let attached = lab.recorded();
    assert_eq!(attached.len(), 1, "whoever asks in vain leaves no record");
    for (key, value) in [
        (key::POD, "db"),
        (key::NODE, "n1"),
        (key::COMMAND, r#"["cat"]"#),
        (key::REQUEST_REASON, "INC-1"),
        (key::STDIN, "true"),
    ] {
        assert_eq!(attached[0].note(key), Some(value), "{key}");
    }
    drop(first);
    within("the record of its going", async {
        while lab.recorded().len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let [attached, detached] = &lab.recorded()[..] else { panic!("two records") };
    assert_eq!((attached.verb, detached.verb), (Verb::Attached, Verb::Detached));
    assert_eq!(attached.note(key::SESSION), detached.note(key::SESSION));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_at_any_moment_is_recorded_to_have_gone() {
    let lab = Lab::open(json!({"stdin": {"attach": {}}})).await;
    let command = lab.command(0);
    let request = format!(
        "GET {PATH}/attach?stdin=true HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: {TOKEN}\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
    );
    for pause in 0..20 {
        let mut connection = lab.connect().await;
        connection.write_all(request.as_bytes()).await.expect("sent");
        tokio::time::sleep(Duration::from_micros(pause * 100)).await;
    }
    within("all to be gone", async {
        loop {
            let recorded = lab.recorded();
            let of = |verb| recorded.iter().filter(|event| event.verb == verb).count();
            if of(Verb::Attached) > 0 && of(Verb::Attached) == of(Verb::Detached) && !command.hub.input.is_held() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
