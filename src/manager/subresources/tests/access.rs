//! Who is let in, and what is refused.

use super::lab::{ATTACH, Lab, PATH, answer, authority, refused, sign};

#[tokio::test]
async fn without_the_front_proxys_certificate_nobody_is_anybody() {
    let lab = Lab::new().await;
    let stranger = authority("front-proxy-ca");
    for (identity, words) in [
        (None, "no client certificate"),
        (Some(sign(&stranger, "front-proxy-client")), "not the front proxy's"),
        (Some(sign(&lab.proxy, "mallory")), "no allowed name"),
    ] {
        for target in ["/apis", &format!("{PATH}/bound/log"), &format!("{PATH}/bound/attach?stdout=true"), "/nothing"] {
            let identity = identity.as_ref().map(|(certificate, key)| (certificate.clone(), key.clone_key()));
            let stream = lab.connect_as(identity).await;
            let headers = "X-Remote-User: admin\r\nX-Remote-Group: system:masters\r\n";
            refused(&answer(stream, &format!("GET {target}"), headers).await, 401, words);
        }
    }
    let stream = lab.connect_as(None).await;
    assert_eq!(answer(stream, "GET /readyz", "").await.0, 200, "health is for everybody");
    assert!(lab.agent.heads().is_empty());
}

#[tokio::test]
async fn discovery_asks_nobody() {
    let lab = Lab::new().await;
    for target in ["/apis", "/apis/subresources.execlet.dev", "/apis/subresources.execlet.dev/v1alpha1", "/openapi/v2"]
    {
        let stream = lab.connect().await;
        let (code, body) = answer(stream, &format!("GET {target}"), "X-Remote-User: nobody\r\n").await;
        assert_eq!(code, 200, "{target}: {body}");
    }
    refused(&lab.ask("/apis/other", "").await, 404, "could not find");
}

#[tokio::test]
async fn who_lacks_a_right_is_told_which() {
    let lab = Lab::new().await;
    let ask = async |user: &str, target: String, more: &str| {
        answer(lab.connect().await, &format!("GET {PATH}/{target}"), &format!("X-Remote-User: {user}\r\n{more}")).await
    };
    let answer = ask("nobody", "bound/attach?stdout=true".into(), ATTACH).await;
    refused(&answer, 403, r#"User "nobody" cannot create resource "execrequests/attach""#);
    // Whether there is such a request is not for everybody to know.
    refused(&ask("nobody", "missing/attach?stdout=true".into(), ATTACH).await, 403, "cannot create");
    refused(&ask("nobody", "bound/log".into(), "").await, 403, r#"cannot get resource "execrequests/log""#);
    let answer = ask("joe", "bound/attach?stdin=true".into(), ATTACH).await;
    refused(
        &answer,
        403,
        r#"User "joe" cannot create resource "pods/exec" in API group "" in the namespace "shop" for "db-0""#,
    );
    assert_eq!(ask("joe", "bound/attach?stdout=true".into(), ATTACH).await.0, 101);
    assert_eq!(lab.agent.heads().len(), 1);
}

#[tokio::test]
async fn nonsense_is_refused_before_anybody_is_asked() {
    let lab = Lab::new().await;
    let origin = "Origin: https://evil.example\r\n";
    refused(&lab.attach("bound", "stdout=true", origin).await, 403, "a web page of another host");
    refused(&lab.ask(&format!("{PATH}/bound/log"), origin).await, 403, "a web page of another host");
    refused(&lab.ask(&format!("{PATH}/bound/attach?stdout=true"), "").await, 400, "WebSocket");
    let spdy = ATTACH.replace("websocket\r\n", "SPDY/3.1\r\n");
    refused(&lab.ask(&format!("{PATH}/bound/attach?stdout=true"), &spdy).await, 400, "SPDY");
    refused(&lab.attach("bound", "", "").await, 400, "at least one of");
    refused(&lab.attach("a%2fb", "stdout=true", "").await, 400, "not a name");
    refused(&lab.attach("..%2f..", "stdout=true", "").await, 400, "not a name");
    refused(&lab.ask(&format!("{PATH}/bound/log?tailLines=x"), "").await, 400, "tailLines=x");
    let stream = lab.connect().await;
    refused(&answer(stream, &format!("POST {PATH}/bound/log"), "X-Remote-User: jane\r\n").await, 405, "POST");
    let long = format!("X-Long: {}\r\n", "x".repeat(300_000));
    assert_eq!(lab.ask("/apis", &long).await.0, 431);
    assert!(lab.agent.heads().is_empty());
}

/// Headers that only look like the front proxy's are of no use to a client of the API server: it takes
/// them away. This holds that we read no others.
#[tokio::test]
async fn only_the_headers_that_the_cluster_names_are_read() {
    let lab = Lab::new().await;
    let stream = lab.connect().await;
    let answer = answer(stream, "GET /apis", "X-User: jane\r\nImpersonate-User: jane\r\n").await;
    refused(&answer, 401, "names no user");
}
