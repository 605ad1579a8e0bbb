use std::collections::BTreeMap;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::ring::default_provider;

use super::*;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate"))
    }

    fn sign(&self, name: &str) -> Vec<CertificateDer<'static>> {
        self.sign_as(name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign_as(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Vec<CertificateDer<'static>> {
        let mut params = params(name);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a key");
        vec![params.signed_by(&key, &self.0).expect("a certificate").der().clone()]
    }
}

/// Valid from 1975 to 4096, as rcgen's own.
fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn config(authority: &Authority, allowed: &str) -> ConfigMap {
    let data = BTreeMap::from([
        ("requestheader-client-ca-file", authority.0.pem()),
        ("requestheader-allowed-names", allowed.to_owned()),
        ("requestheader-username-headers", r#"["X-Remote-User"]"#.to_owned()),
        ("requestheader-group-headers", r#"["X-Remote-Group"]"#.to_owned()),
        ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#.to_owned()),
    ]);
    let data = data.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    ConfigMap { data: Some(data), ..ConfigMap::default() }
}

fn parse(config: &ConfigMap) -> Result<FrontProxy, Unusable> {
    FrontProxy::parse(config, &Arc::new(default_provider()))
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time")
}

fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in of {
        headers.append(*name, value.parse().expect("a value"));
    }
    headers
}

const JANE: [(&str, &str); 1] = [("x-remote-user", "jane")];

#[test]
fn the_front_proxy_speaks_for_whom_its_headers_name() {
    let authority = Authority::new("front-proxy-ca");
    let front_proxy = parse(&config(&authority, r#"["front-proxy-client"]"#)).expect("usable");
    let headers = headers(&[
        ("x-remote-user", "jane"),
        ("x-remote-uid", "42"),
        ("x-remote-group", "devs"),
        ("x-remote-group", "system:authenticated"),
        ("x-remote-extra-example.org%2froles", "a"),
        ("x-remote-extra-example.org%2froles", "b"),
        ("x-forwarded-for", "10.0.0.1"),
    ]);
    let chain = authority.sign("front-proxy-client");
    let jane = front_proxy.authenticate(&chain, &headers, now()).expect("admitted");
    assert_eq!(
        jane,
        Requester {
            username: "jane".into(),
            uid: "42".into(),
            groups: vec!["devs".into(), "system:authenticated".into()],
            extra: BTreeMap::from([("example.org/roles".into(), vec!["a".into(), "b".into()])]),
        }
    );
}

#[test]
fn names_in_any_script_are_whole_and_what_is_no_text_is_refused() {
    let authority = Authority::new("front-proxy-ca");
    let front_proxy = parse(&config(&authority, "[]")).expect("usable");
    let chain = authority.sign("x");
    let whole = [
        ("x-remote-user", "jürgen".as_bytes()),
        ("x-remote-uid", "№ 42".as_bytes()),
        ("x-remote-group", "operators".as_bytes()),
        ("x-remote-group", "разработчики".as_bytes()),
        ("x-remote-extra-b%C3%BCro", "東京".as_bytes()),
    ];
    let headers = |of: &[(&'static str, &[u8])]| {
        let mut headers = HeaderMap::new();
        for (name, value) in of {
            let name = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()).expect("a name");
            headers.append(name, HeaderValue::from_bytes(value).expect("a value"));
        }
        headers
    };
    assert_eq!(
        front_proxy.authenticate(&chain, &headers(&whole), now()).expect("admitted"),
        Requester {
            username: "jürgen".into(),
            uid: "№ 42".into(),
            groups: vec!["operators".into(), "разработчики".into()],
            extra: BTreeMap::from([("büro".into(), vec!["東京".into()])]),
        }
    );
    for (name, value) in [
        ("x-remote-user", &b"j\xfcrgen"[..]),
        ("x-remote-uid", b"\xff"),
        ("x-remote-group", b"operators\xff"),
        ("x-remote-extra-a", b"\xff"),
        ("x-remote-extra-a%ff", b"a"),
    ] {
        let headers = headers(&[&[(name, value)], &whole[..]].concat());
        let refusal = front_proxy.authenticate(&chain, &headers, now()).expect_err(name);
        let words = format!("header {name} is not UTF-8");
        assert!(refusal.code == StatusCode::UNAUTHORIZED && refusal.message.contains(&words), "{name}: {refusal:?}");
    }
}

#[test]
fn forged_headers_without_the_front_proxys_certificate_are_nobodys() {
    let authority = Authority::new("front-proxy-ca");
    let front_proxy = parse(&config(&authority, r#"["front-proxy-client"]"#)).expect("usable");
    // Of the same name, as whoever makes an authority of their own can call it.
    let other = Authority::new("front-proxy-ca");
    let expired = Timestamp::from_second(200_000_000_000).expect("a time");
    for (chain, at, why) in [
        (vec![], now(), "no client certificate"),
        (other.sign("front-proxy-client"), now(), "not the front proxy's"),
        (authority.sign("jane"), now(), "no allowed name"),
        (authority.sign_as("front-proxy-client", ExtendedKeyUsagePurpose::ServerAuth), now(), "not the front proxy's"),
        (authority.sign("front-proxy-client"), expired, "not the front proxy's"),
    ] {
        let refusal = front_proxy.authenticate(&chain, &headers(&JANE), at).expect_err(why);
        assert!(refusal.code == StatusCode::UNAUTHORIZED && refusal.message.contains(why), "{why}: {refusal:?}");
    }
}

#[test]
fn without_allowed_names_every_name_of_the_authority_is_the_front_proxy() {
    let authority = Authority::new("front-proxy-ca");
    let front_proxy = parse(&config(&authority, "[]")).expect("usable");
    assert!(front_proxy.authenticate(&authority.sign("whoever"), &headers(&JANE), now()).is_ok());
}

#[test]
fn a_front_proxy_that_names_no_user_asks_for_nobody() {
    let authority = Authority::new("front-proxy-ca");
    let front_proxy = parse(&config(&authority, "[]")).expect("usable");
    for headers in [headers(&[]), headers(&[("x-remote-user", "")]), headers(&[("x-remote-group", "system:masters")])] {
        assert!(front_proxy.authenticate(&authority.sign("x"), &headers, now()).is_err());
    }
}

#[test]
fn a_config_that_does_not_say_whom_to_trust_is_unusable() {
    let authority = Authority::new("front-proxy-ca");
    for (key, value) in [
        ("requestheader-client-ca-file", None),
        ("requestheader-client-ca-file", Some("")),
        ("requestheader-client-ca-file", Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
        ("requestheader-username-headers", None),
        ("requestheader-username-headers", Some("[]")),
        ("requestheader-username-headers", Some("X-Remote-User")),
        ("requestheader-group-headers", Some(r#"["no header"]"#)),
        // As if any name were allowed: better none.
        ("requestheader-allowed-names", Some("front-proxy-client")),
    ] {
        let mut config = config(&authority, "[]");
        let data = config.data.as_mut().expect("data");
        match value {
            Some(value) => drop(data.insert(key.to_owned(), value.to_owned())),
            None => drop(data.remove(key)),
        }
        assert!(parse(&config).is_err(), "{key}: {value:?}");
    }
}
