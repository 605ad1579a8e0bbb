//! The handshake of a WebSocket (RFC 6455): read from a client, repeated to an agent, answered.
//!
//! A connection is given up to a client only after the agent's answer proved to be to this very
//! handshake: a proxy that joins two connections after any other answer lets a client speak to the
//! agent in the manager's name (CVE-2018-1002105).

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::refusal::Refusal;

const VERSION: &str = "13";
/// In a browser, a client gives its token to the API server as a protocol. Nobody after it is to read it.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handshake {
    key: HeaderValue,
    /// In the client's order.
    protocols: Vec<String>,
}

impl Handshake {
    pub(crate) fn of(method: &Method, headers: &HeaderMap) -> Result<Self, Refusal> {
        let wrong = |message: &str| Err(Refusal::bad_request(message));
        let is_websocket =
            has_token(headers, header::CONNECTION, "upgrade") && has_token(headers, header::UPGRADE, "websocket");
        if *method != Method::GET || !is_websocket {
            return wrong(
                "attach needs a WebSocket (GET with Upgrade: websocket); SPDY, which clients before Kubernetes 1.31 use, is not supported",
            );
        }
        if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
            return wrong("Sec-WebSocket-Version is not 13");
        }
        let key = match headers.get(header::SEC_WEBSOCKET_KEY) {
            Some(key) if STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16) => key.clone(),
            Some(_) | None => return wrong("Sec-WebSocket-Key is not the base64 of 16 bytes"),
        };
        let protocols = list(headers, header::SEC_WEBSOCKET_PROTOCOL)
            .filter(|protocol| !protocol.starts_with(TOKEN_PROTOCOL))
            .map(str::to_owned)
            .collect();
        Ok(Self { key, protocols })
    }

    pub(crate) fn protocols(&self) -> impl Iterator<Item = &str> {
        self.protocols.iter().map(String::as_str)
    }

    /// The headers of the same handshake with an agent. No extension is offered.
    pub(crate) fn request(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = vec![
            (header::CONNECTION, HeaderValue::from_static("Upgrade")),
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION)),
            (header::SEC_WEBSOCKET_KEY, self.key.clone()),
        ];
        if let Ok(protocols) = HeaderValue::try_from(self.protocols.join(", "))
            && !self.protocols.is_empty()
        {
            headers.push((header::SEC_WEBSOCKET_PROTOCOL, protocols));
        }
        headers
    }

    /// Checks that an agent's answer is to this very handshake, and gives the headers of our own answer.
    pub(crate) fn accept(
        &self,
        code: StatusCode,
        headers: &HeaderMap,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        if code != StatusCode::SWITCHING_PROTOCOLS {
            return Err(format!("{code} instead of a WebSocket"));
        }
        if !has_token(headers, header::CONNECTION, "upgrade") || !has_token(headers, header::UPGRADE, "websocket") {
            return Err("101 to something other than a WebSocket".to_owned());
        }
        let expected = self.accept_key();
        if headers.get(header::SEC_WEBSOCKET_ACCEPT).is_none_or(|accept| accept != expected.as_str()) {
            return Err("Sec-WebSocket-Accept is not the answer to this handshake".to_owned());
        }
        if headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS) {
            return Err("an extension was accepted that was not offered".to_owned());
        }
        let mut chosen = list(headers, header::SEC_WEBSOCKET_PROTOCOL);
        let protocol = match (chosen.next(), chosen.next()) {
            (Some(one), None) if self.protocols.iter().any(|offered| offered == one) => Some(one),
            (None, _) if self.protocols.is_empty() => None,
            (None, _) => return Err("no protocol was chosen of those offered".to_owned()),
            (Some(other), _) => return Err(format!("protocol {other:?} was chosen, which was not offered")),
        };
        Ok(self.answer(protocol))
    }

    /// The headers of the 101 that accepts this handshake.
    pub(crate) fn answer(&self, protocol: Option<&str>) -> Vec<(HeaderName, HeaderValue)> {
        let protocol = protocol.map(|protocol| (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::try_from(protocol)));
        let accept = (header::SEC_WEBSOCKET_ACCEPT, HeaderValue::try_from(self.accept_key()));
        let fixed = [
            (header::CONNECTION, HeaderValue::from_static("Upgrade")),
            (header::UPGRADE, HeaderValue::from_static("websocket")),
        ];
        let made = [Some(accept), protocol].into_iter().flatten();
        fixed.into_iter().chain(made.filter_map(|(name, value)| Some((name, value.ok()?)))).collect()
    }

    fn accept_key(&self) -> String {
        derive_accept_key(self.key.as_bytes())
    }
}

/// Refuses a web page of another host, to which a browser lends its user's credentials. Only browsers send an
/// Origin.
pub(crate) fn check_origin(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return Ok(()) };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let same = origins.next().is_none()
        && origin.to_str().is_ok_and(|origin| {
            let authority = origin.parse::<Uri>().ok().filter(|uri| uri.scheme_str() == Some("https"));
            let authority = authority.and_then(|uri| uri.authority().map(|authority| authority.as_str().to_owned()));
            authority.zip(host).is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host))
        });
    if same {
        return Ok(());
    }
    Err(Refusal::forbidden(format!("a web page of another host may not call this API: Origin {origin:?}")))
}

/// The elements of a list header, which may be given more than once.
fn list(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|element| !element.is_empty())
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    list(headers, name).any(|element| element.eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in of {
            headers.append(*name, value.parse().expect("a value"));
        }
        headers
    }

    /// The example of RFC 6455, section 1.3, with the protocols of client-go and a token.
    const CLIENT: [(&str, &str); 6] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.c2VjcmV0, v5.channel.k8s.io"),
        ("sec-websocket-protocol", "v4.channel.k8s.io"),
    ];
    const AGENT: [(&str, &str); 4] = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("sec-websocket-protocol", "v4.channel.k8s.io"),
    ];

    fn handshake() -> Handshake {
        Handshake::of(&Method::GET, &headers(&CLIENT)).expect("a handshake")
    }

    #[test]
    fn an_agent_is_asked_the_same_but_for_the_token() {
        let asked: HeaderMap = handshake().request().into_iter().collect();
        assert_eq!(asked["sec-websocket-key"], "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(asked["sec-websocket-protocol"], "v5.channel.k8s.io, v4.channel.k8s.io");
        assert!(!asked.contains_key("sec-websocket-extensions"));
    }

    #[test]
    fn the_answer_to_the_handshake_is_passed_on() {
        let answer = handshake().accept(StatusCode::SWITCHING_PROTOCOLS, &headers(&AGENT)).expect("accepted");
        let answer: HeaderMap = answer.into_iter().collect();
        assert_eq!(answer, {
            let mut expected = headers(&AGENT);
            expected.insert("connection", HeaderValue::from_static("Upgrade"));
            expected
        });
    }

    #[test]
    fn any_other_answer_joins_nothing() {
        let with = |name: &'static str, value: Option<&'static str>| {
            let mut headers = headers(&AGENT);
            headers.remove(name);
            headers.extend(value.map(|value| (Some(HeaderName::from_static(name)), HeaderValue::from_static(value))));
            headers
        };
        let switching = StatusCode::SWITCHING_PROTOCOLS;
        for (code, headers) in [
            (StatusCode::OK, headers(&AGENT)),
            (StatusCode::TEMPORARY_REDIRECT, headers(&AGENT)),
            (switching, with("connection", Some("close"))),
            (switching, with("upgrade", Some("SPDY/3.1"))),
            (switching, with("sec-websocket-accept", None)),
            (switching, with("sec-websocket-accept", Some("c3BvcgBiTxaQ9kYGzzhZRbK+xOo="))),
            (switching, with("sec-websocket-protocol", None)),
            (switching, with("sec-websocket-protocol", Some("v3.channel.k8s.io"))),
            (switching, with("sec-websocket-protocol", Some("v4.channel.k8s.io, v5.channel.k8s.io"))),
            (switching, with("sec-websocket-extensions", Some("permessage-deflate"))),
        ] {
            assert!(handshake().accept(code, &headers).is_err(), "{code} {headers:?}");
        }
    }

    #[test]
    fn what_is_no_websocket_is_told_so() {
        for (name, value) in [
            ("connection", "keep-alive"),
            ("upgrade", "SPDY/3.1"),
            ("sec-websocket-version", "8"),
            ("sec-websocket-key", "c2hvcnQ="),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ"),
        ] {
            let mut headers = headers(&CLIENT);
            headers.insert(name, HeaderValue::from_static(value));
            assert!(Handshake::of(&Method::GET, &headers).is_err(), "{name}: {value}");
        }
        assert!(Handshake::of(&Method::POST, &headers(&CLIENT)).is_err());
    }

    #[test]
    fn a_web_page_of_another_host_is_refused() {
        let check = |origin: &str, host: &str| check_origin(&headers(&[("origin", origin), ("host", host)]));
        assert!(check_origin(&headers(&[("host", "api:6443")])).is_ok(), "no browser");
        assert!(check("https://API:6443", "api:6443").is_ok());
        for origin in
            ["https://evil.example", "http://api:6443", "https://api", "https://api:6443.evil.example", "null", ""]
        {
            assert!(check(origin, "api:6443").is_err(), "{origin:?}");
        }
        let twice = headers(&[("origin", "https://api"), ("origin", "https://evil.example"), ("host", "api")]);
        assert!(check_origin(&twice).is_err());
    }
}
