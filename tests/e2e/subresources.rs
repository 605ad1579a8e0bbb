//! The aggregated API, as the API server and its clients see it: attach and log behind an `APIService`.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use k8s_openapi::jiff::Timestamp;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::client::TlsStream;

use crate::{
    follower::{self, Follower},
    lab::{
        Lab, NAMESPACE, PATIENCE, cluster, helm, kubectl, kubectl_raw, kubectl_with, run, text, unique, wait_for,
        wait_within,
    },
    leading,
    leading::managers_rolled_out,
    measured, node,
    stand_in::{ATTACH, Caller, StandIn},
    subject::{Subject, bind},
};

const API: &str = "/apis/subresources.execlet.dev/v1alpha1";
const API_SERVICE: &str = "v1alpha1.subresources.execlet.dev";

fn path(lab: &Lab, request: &str, rest: &str) -> String {
    format!("{API}/namespaces/{}/execrequests/{request}/{rest}", lab.namespace)
}

fn available() -> bool {
    let condition = "jsonpath={.status.conditions[?(@.type==\"Available\")].status}";
    text(&kubectl_raw(&["get", "apiservice", API_SERVICE, "-o", condition]).stdout) == "True"
}

fn managers() -> Vec<Value> {
    measured::living("manager")
}

/// Whether what is sent comes back.
async fn echoes(stream: &mut TlsStream<TcpStream>) -> bool {
    let mut echo = [0; 4];
    let echoing = async {
        stream.write_all(b"ping").await?;
        stream.read_exact(&mut echo).await
    };
    matches!(timeout(Duration::from_secs(10), echoing).await, Ok(Ok(_))) && &echo == b"ping"
}

#[tokio::test]
async fn discovery_is_served_through_the_api_server() {
    let lab = Lab::new().await;
    wait_for("the APIService to be available", async || available().then_some(())).await;
    let list: Value = serde_json::from_str(&kubectl(&["get", "--raw", API])).expect("JSON");
    assert_eq!(list["resources"][0]["name"], "execrequests/attach");
    assert_eq!(list["resources"][1]["name"], "execrequests/log");
    wait_for("the API server to know the version", async || {
        kubectl(&["api-versions"]).contains("subresources.execlet.dev/v1alpha1").then_some(())
    })
    .await;
    let all: Value =
        serde_json::from_str(&text(&run("kubectl", &["get", "--raw", "/apis/subresources.execlet.dev"], "").stdout))
            .expect("JSON");
    assert_eq!(all["preferredVersion"]["version"], "v1alpha1");
    let document = wait_for("the OpenAPI document", async || {
        let answer = kubectl_raw(&["get", "--raw", "/openapi/v3/apis/subresources.execlet.dev/v1alpha1"]);
        answer.status.success().then(|| text(&answer.stdout))
    })
    .await;
    assert!(document.contains("execrequests/{name}/attach"), "{document}");
    // No resource of its own, so that the requests are found by their short and their whole name.
    let named = kubectl(&["api-resources", "--api-group=subresources.execlet.dev", "--no-headers"]);
    assert_eq!(named.trim(), "");
    for name in ["xr", "execrequests", "execrequest"] {
        lab.kubectl(&["get", name]);
    }
}

// The stand-in runs beside kubectl.
#[tokio::test(flavor = "multi_thread")]
async fn an_attached_client_reaches_the_agent_as_whom_the_api_server_knows() {
    let lab = Lab::new().await;
    let agent = StandIn::start().await;
    let request = agent.request(&lab).await;
    let forged = "X-Remote-User: mallory\r\nX-Remote-Uid: 0\r\nX-Remote-Group: forged\r\nX-Remote-Extra-Forged: forged\r\nX-Execlet-User: forged\r\n";
    let target = path(&lab, &request, "attach?stdin=true&stdout=true");
    let (code, mut stream) = Caller::admin().call(&target, &format!("{ATTACH}{forged}")).await.expect("an answer");
    assert_eq!(code, 101);
    assert!(echoes(&mut stream).await);

    let head = agent.seen.lock().expect("no panic")[0].head.to_ascii_lowercase();
    let header = |name: &str| {
        let prefix = format!("{name}: ");
        head.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_else(|| panic!("{name}: {head}"))
    };
    header("x-execlet-client").parse::<std::net::IpAddr>().expect("the client's address");
    let seen = agent.seen.lock().expect("no panic")[0].head.clone();
    let token = seen.lines().find_map(|line| line.split_once("Bearer ")).expect("a token").1;
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("claims")).expect("base64");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    assert_eq!(claims["aud"], json!([format!("streams.execlet.dev/{}", agent.node)]), "for this agent alone");
    assert_eq!(claims["exp"].as_i64().zip(claims["iat"].as_i64()).map(|(end, begin)| end - begin), Some(600));
    let pods: Vec<Value> = managers().into_iter().map(|manager| manager["metadata"]["uid"].clone()).collect();
    assert!(pods.contains(&claims["kubernetes.io"]["pod"]["uid"]), "it ends with its pod: {claims}");
    let user = seen
        .lines()
        .find_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("x-execlet-user")));
    let user = STANDARD.decode(user.expect("a user").1).expect("base64");
    let user: Value = serde_json::from_slice(&user).expect("JSON");
    assert_eq!(user["username"], "kubernetes-admin");
    assert_eq!(user["uid"], "", "a client cannot give itself a UID");
    let (groups, extra) = (user["groups"].to_string(), user["extra"].to_string());
    assert!(groups.contains("system:masters") && !groups.contains("forged") && !extra.contains("forged"), "{user}");

    let log = kubectl(&["get", "--raw", &path(&lab, &request, "log?tailLines=1")]);
    assert_eq!(log, "hello\n");
}

#[tokio::test]
async fn curl_follows_a_log_with_the_token_of_whoever_may_read_it() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let request = follower::lines(&lab, "web");
    let followed = path(&lab, &request, "log?follow=true");
    lab.kubectl(&["create", "serviceaccount", "ci"]);
    let ci = Subject::account(&lab.namespace, "ci", &[]);
    let refused = Follower::of(&mut ci.curl(&followed)).end().await;
    assert_ne!(refused.code, 0);
    let refused: Value = serde_json::from_slice(&refused.stdout).expect("a Status");
    assert_eq!((&refused["kind"], &refused["code"]), (&json!("Status"), &json!(403)), "{refused}");
    let (viewer, account) =
        (json!({"kind": "ClusterRole", "name": "view"}), json!({"kind": "ServiceAccount", "name": "ci"}));
    bind(&lab.namespace, "ci", &viewer, &account);
    let may = || ci.can(&lab.namespace, "get", "execrequests.subresources.execlet.dev/log");
    wait_for("the right to read", async || may().then_some(())).await;
    let curl = Follower::of(&mut ci.curl(&followed));
    curl.shows_more_than(curl.lines() + 5).await;
    lab.go("web");
    let heard = curl.end().await;
    assert_eq!(heard.code, 0, "{}", text(&heard.stderr));
    follower::are_whole(&heard.stdout);
}

#[tokio::test]
async fn only_the_api_server_is_believed_who_asks() {
    let _lab = Lab::new().await;
    let pki = text(&cluster(&["kubeconfig", "--path"]).stdout).trim().to_owned();
    let pki = PathBuf::from(pki).with_file_name("pki");
    let read = |name: &str| std::fs::read(pki.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let bundle = kubectl(&["get", "apiservice", API_SERVICE, "-o", "jsonpath={.spec.caBundle}"]);
    let bundle = STANDARD.decode(bundle).expect("base64");
    let other_name = other_name(&pki);
    let managers = managers();
    assert!(!managers.is_empty());
    for manager in managers {
        let address = format!("{}:8443", manager["status"]["podIP"].as_str().expect("an address"));
        let address: SocketAddr = address.parse().expect("an address");
        let name = format!("execlet-subresources.{NAMESPACE}.svc");
        let caller = |identity: Option<(&[u8], &[u8])>| Caller::new(address, &name, &bundle, identity);
        let forged = "X-Remote-User: kubernetes-admin\r\nX-Remote-Group: system:masters\r\n";
        let front_proxy = (read("front-proxy-client.crt"), read("front-proxy-client.key"));
        let admin = (read("admin.crt"), read("admin.key"));
        for (who, identity, expected) in [
            ("the front proxy", Some(&front_proxy), 200),
            ("nobody", None, 401),
            ("an administrator", Some(&admin), 401),
            ("another name of the front proxy's authority", Some(&other_name), 401),
        ] {
            let identity = identity.map(|(certificate, key)| (certificate.as_slice(), key.as_slice()));
            let (code, body) = caller(identity).ask(API, forged).await;
            assert_eq!(code, expected, "{who}: {body}");
        }
    }
}

/// A certificate of the front proxy's authority for somebody else.
fn other_name(pki: &std::path::Path) -> (Vec<u8>, Vec<u8>) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let authority = |name: &str| pki.join(name).to_string_lossy().into_owned();
    std::fs::write(file("ext"), "extendedKeyUsage=clientAuth\n").expect("written");
    let (key, request, certificate) = (file("key"), file("csr"), file("crt"));
    let (ca, ca_key, ext) = (authority("front-proxy-ca.crt"), authority("front-proxy-ca.key"), file("ext"));
    for args in [
        &[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=mallory",
            "-keyout",
            &key,
            "-out",
            &request,
        ][..],
        &[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-set_serial",
            "7",
            "-days",
            "1",
            "-extfile",
            &ext,
            "-out",
            &certificate,
        ],
    ] {
        let made = run("openssl", args, "");
        assert!(made.status.success(), "{}", text(&made.stderr));
    }
    (std::fs::read(&certificate).expect("made"), std::fs::read(&key).expect("made"))
}

#[tokio::test]
async fn attach_needs_create_and_input_needs_pods_exec() {
    let lab = Lab::new().await;
    let agent = StandIn::start().await;
    let request = agent.request(&lab).await;
    let mut users = Vec::new();
    for (verbs, exec) in [("get", false), ("get,create", false), ("get,create", true)] {
        let user = unique("user");
        // Not by `kubectl create role`, which wants a resource of that group.
        let verbs: Vec<&str> = verbs.split(',').collect();
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": user, "namespace": lab.namespace},
            "rules": [{"apiGroups": ["subresources.execlet.dev"], "resources": ["execrequests/attach"], "verbs": verbs}],
        });
        let created = kubectl_with(&["create", "-f", "-"], &role.to_string());
        assert!(created.status.success(), "{}", text(&created.stderr));
        let (role, of) = (format!("--role={user}"), format!("--user={user}"));
        lab.kubectl(&["create", "rolebinding", &user, &role, &of]);
        if exec {
            lab.kubectl(&["create", "role", &format!("{user}-exec"), "--verb=create", "--resource=pods/exec"]);
            let role = format!("--role={user}-exec");
            lab.kubectl(&["create", "rolebinding", &format!("{user}-exec"), &role, &of]);
        }
        users.push(user);
    }
    let attach = async |user: &str, query: &str| {
        let target = path(&lab, &request, &format!("attach?{query}"));
        Caller::admin().ask(&target, &format!("Impersonate-User: {user}\r\n{ATTACH}")).await
    };
    let (reader, watcher, commander) = (&users[0], &users[1], &users[2]);
    // The role reaches the API server's authorizer a moment later.
    wait_for("the role to hold", async || (attach(commander, "stdin=true").await.0 == 101).then_some(())).await;

    let (code, body) = attach(reader, "stdout=true").await;
    assert!(code == 403 && body.contains(r#"cannot create resource \"execrequests/attach\""#), "{code} {body}");
    assert_eq!(attach(watcher, "stdout=true").await.0, 101);
    let (code, body) = attach(watcher, "stdin=true").await;
    assert!(code == 403 && body.contains(r#"cannot create resource \"pods/exec\""#), "{code} {body}");
    let (code, body) = attach("nobody", "stdout=true").await;
    assert_eq!(code, 403, "{body}");

    // Input to what runs as another user takes the right to that user too.
    let as_root = agent.request_with(&lab, json!({"user": "0"})).await;
    let attach_root = async |query: &str| {
        let target = path(&lab, &as_root, &format!("attach?{query}"));
        Caller::admin().ask(&target, &format!("Impersonate-User: {commander}\r\n{ATTACH}")).await
    };
    assert_eq!(attach_root("stdout=true").await.0, 101);
    let (code, body) = attach_root("stdin=true").await;
    assert!(code == 403 && body.contains(r#"cannot use resource \"execusers\""#), "{code} {body}");
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "as-root", "namespace": lab.namespace},
        "rules": [{"apiGroups": ["execlet.dev"], "resources": ["execusers"], "resourceNames": ["0"], "verbs": ["use"]}],
    });
    let created = kubectl_with(&["create", "-f", "-"], &role.to_string());
    assert!(created.status.success(), "{}", text(&created.stderr));
    lab.kubectl(&["create", "rolebinding", "as-root", "--role=as-root", &format!("--user={commander}")]);
    wait_for("the role to hold", async || (attach_root("stdin=true").await.0 == 101).then_some(())).await;

    let origin = format!("Origin: https://evil.example\r\n{ATTACH}");
    let (code, body) = Caller::admin().ask(&path(&lab, &request, "attach?stdout=true"), &origin).await;
    assert!(code == 403 && body.contains("a web page of another host"), "{code} {body}");
    let (code, body) = Caller::admin().ask(&path(&lab, "missing", "attach?stdout=true"), ATTACH).await;
    assert!(code == 404 && body.contains("not found"), "{code} {body}");
}

#[tokio::test]
async fn kubernetes_own_roles_reach_attach_and_log() {
    let lab = Lab::new().await;
    for role in ["view", "edit"] {
        lab.kubectl(&["create", "rolebinding", role, &format!("--clusterrole={role}"), &format!("--user={role}er")]);
    }
    for (user, verb, subresource, allowed) in [
        ("viewer", "get", "log", true),
        ("viewer", "create", "attach", false),
        ("viewer", "get", "attach", false),
        ("editer", "get", "log", true),
        ("editer", "create", "attach", true),
        ("editer", "get", "attach", true),
    ] {
        // Not by `kubectl auth can-i`, which wants a resource of that group.
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": {"namespace": lab.namespace, "verb": verb,
                "group": "subresources.execlet.dev", "resource": "execrequests", "subresource": subresource}},
        });
        let asked = ["create", "-f", "-", "-o", "jsonpath={.status.allowed}"];
        let answer = kubectl_with(&asked, &review.to_string());
        assert_eq!(text(&answer.stdout) == "true", allowed, "{user} {verb} {subresource}: {}", text(&answer.stderr));
    }
}

#[tokio::test]
async fn a_client_that_comes_before_the_binding_waits_for_it() {
    let lab = Lab::new().await;
    let agent = StandIn::start().await;
    // Never to be bound: it says in words why not.
    let pod = unique("pending");
    let spec = json!({"nodeSelector": {"nowhere": "true"}, "containers": [crate::lab::container("main")]});
    lab.create_pod(&pod, spec, json!({})).await;
    let name = lab.create(json!({"target": {"podName": pod}, "command": ["true"], "startingDeadlineSeconds": 600}));
    lab.request_when(&name, "to say why it waits", |status| {
        status.conditions.iter().any(|condition| condition.reason == "PodNotRunning")
    })
    .await;
    let answer = lab.kubectl_fails(&["get", "--raw", &path(&lab, &name, "log")]);
    assert!(answer.contains("is not bound to a node yet: PodNotRunning"), "{answer}");
    // Attached before: joined once it is.
    let target = path(&lab, &name, "attach?stdout=true");
    let caller = Caller::admin();
    let attaching = tokio::spawn(async move { caller.call(&target, ATTACH).await });
    agent.bind(&lab, &name).await;
    let (code, mut stream) = attaching.await.expect("no panic").expect("an answer");
    assert_eq!(code, 101);
    assert!(echoes(&mut stream).await);
}

/// Leader and agents, when dropped.
struct Back;
impl Drop for Back {
    fn drop(&mut self) {
        let none = r#"{"spec":{"template":{"spec":{"nodeSelector":{"nowhere":null}}}}}"#;
        kubectl_raw(&["patch", "daemonset", "execlet-agent", "-n", NAMESPACE, "--type=merge", "-p", none]);
        kubectl_raw(&["delete", "lease", "execlet-manager", "-n", NAMESPACE]);
        kubectl_raw(&["rollout", "status", "daemonset/execlet-agent", "-n", NAMESPACE, "--timeout=180s"]);
    }
}

/// How many managers say that they lead.
fn leaders() -> Option<u64> {
    measured::sum("manager", "execlet_leader")
}

#[tokio::test]
async fn namespaces_go_away_while_there_is_neither_leader_nor_agent() {
    let _lab = Lab::alone().await;
    let back = Back;
    let nowhere = r#"{"spec":{"template":{"spec":{"nodeSelector":{"nowhere":"true"}}}}}"#;
    kubectl(&["patch", "daemonset", "execlet-agent", "-n", NAMESPACE, "--type=merge", "-p", nowhere]);
    kubectl(&[
        "wait",
        "--for=delete",
        "pod",
        "-n",
        NAMESPACE,
        "-l",
        "app.kubernetes.io/component=agent",
        "--timeout=180s",
    ]);
    let nobody = format!(
        r#"{{"spec":{{"holderIdentity":"nobody","leaseDurationSeconds":3600,"renewTime":"{:.6}"}}}}"#,
        k8s_openapi::jiff::Timestamp::now()
    );
    // For as long as it takes every manager to believe it.
    let mut without = 0;
    wait_for("nobody to lead", async || {
        kubectl(&["patch", "lease", "execlet-manager", "-n", NAMESPACE, "--type=merge", "-p", &nobody]);
        without = if leaders() == Some(0) { without + 1 } else { 0 };
        sleep(Duration::from_secs(1)).await;
        (without > 15).then_some(())
    })
    .await;
    assert!(available());
    let namespace = unique("gone");
    kubectl(&["create", "namespace", &namespace]);
    kubectl(&["delete", "namespace", &namespace, "--timeout=180s"]);
    // The Lease said that somebody leads for another hour. It is deleted, made anew, and somebody does.
    drop(back);
    wait_for("a manager to lead", async || (leaders() == Some(1)).then_some(())).await;
}

/// Values of the release as they were, put back when dropped.
pub struct Release(String);

impl Release {
    pub fn found() -> Self {
        Self(helm(&["get", "values", "execlet", "-n", NAMESPACE, "-o", "json"]))
    }

    pub fn with(&self, change: &str) {
        self.upgrade(&["--set", change]);
    }

    fn upgrade(&self, more: &[&str]) {
        let fixed = [
            "upgrade",
            "execlet",
            "charts/execlet",
            "-n",
            NAMESPACE,
            "--wait",
            "--timeout",
            "3m",
            "--reset-values",
            "-f",
            "-",
        ];
        let done = run("helm", &[&fixed, more].concat(), &self.0);
        assert!(done.status.success(), "helm upgrade: {}", text(&done.stderr));
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        self.upgrade(&[]);
    }
}

/// Asks the manager by way of the API server again and again while `work` goes on. Each call is a new
/// connection between the two, and so a handshake; each must be answered.
async fn served_while<T: Send + 'static>(target: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let work = tokio::task::spawn_blocking(work);
    let mut asked = 0;
    while !work.is_finished() {
        let (code, stream) = Caller::admin().call(target, ATTACH).await.expect("an answer");
        drop(stream);
        assert_eq!(code, 404, "after {asked} good answers");
        asked += 1;
    }
    assert!(asked > 5, "{asked}");
    work.await.expect("no panic")
}

fn certificate() -> String {
    kubectl(&["get", "secret", "execlet-subresources", "-n", NAMESPACE, "-o", r"jsonpath={.data.tls\.crt}"])
}

fn certificate_after(before: &str) -> String {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let now = certificate();
        if now != before && !now.is_empty() {
            return now;
        }
        assert!(std::time::Instant::now() < until, "no other certificate in time");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_and_managers_are_replaced_and_nobody_notices() {
    let lab = Lab::alone().await;
    let target = path(&lab, "missing", "attach?stdout=true");
    let release = Release::found();
    let release = served_while(&target, move || {
        release.with("subresources.certificateSeconds=30");
        release
    })
    .await;
    // What is lost is made anew, of the short kind. That cannot go unnoticed.
    let empty = r#"{"data":{"tls.crt":"","tls.key":"","ca.crt":""}}"#;
    kubectl(&["patch", "secret", "execlet-subresources", "-n", NAMESPACE, "--type=merge", "-p", empty]);
    let first = certificate_after("");
    wait_for("both managers to serve it", async || {
        let mut good = 0;
        while good < 20 && matches!(Caller::admin().call(&target, ATTACH).await, Ok((404, _))) {
            good += 1;
        }
        (good == 20).then_some(())
    })
    .await;
    let second = served_while(&target, move || certificate_after(&first)).await;
    let bundle = kubectl(&["get", "apiservice", API_SERVICE, "-o", "jsonpath={.spec.caBundle}"]);
    let bundle = text(&STANDARD.decode(bundle).expect("base64"));
    assert!(bundle.matches("BEGIN CERTIFICATE").count() >= 2, "both authorities are trusted for a while");
    // Also where lives become longer, and the last of the short ones ends soon.
    served_while(&target, move || {
        drop(release);
        certificate_after(&second)
    })
    .await;
}

/// The controllers of cert-manager themselves, for the release's namespace, and the definitions of their resources.
struct CertManager {
    definitions: String,
    controllers: Option<Child>,
    log: PathBuf,
}

impl CertManager {
    /// What it puts into the Secrets stays when the Certificates go.
    const SECRETS: [&str; 2] = ["execlet-subresources-tls", "execlet-subresources-ca"];

    fn install() -> Self {
        let there = kubectl(&["get", "customresourcedefinitions", "-o", "name"]);
        assert!(!there.contains("cert-manager.io"), "this cluster has a cert-manager already: {there}");
        let definitions = run("cert-manager", &["crds"], "");
        assert!(definitions.status.success(), "{}", text(&definitions.stderr));
        let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cert-manager.log");
        let mut it = Self { definitions: text(&definitions.stdout), controllers: None, log };
        let created = kubectl_with(&["create", "-f", "-"], &it.definitions);
        assert!(created.status.success(), "{}", text(&created.stderr));
        for name in text(&created.stdout).lines().filter_map(|line| line.split(' ').next()) {
            kubectl(&["wait", "--for=condition=Established", "--timeout=180s", name]);
        }
        let log = std::fs::File::create(&it.log).expect("a log");
        // They end with their input, should this process be killed.
        let mut controllers = Command::new("cert-manager");
        controllers.arg(NAMESPACE).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        it.controllers = Some(controllers.spawn().expect("cert-manager"));
        it
    }

    /// What it has put into the Secret of the managers.
    fn secret(key: &str) -> String {
        let path = format!("jsonpath={{.data.{}}}", key.replace('.', r"\."));
        let data = kubectl(&["get", "secret", Self::SECRETS[0], "-n", NAMESPACE, "-o", &path]);
        text(&STANDARD.decode(data).expect("base64"))
    }

    /// As `cmctl renew` does.
    fn renew() {
        let issuing = json!({
            "type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "renewed by hand",
            "lastTransitionTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        });
        let patch = json!([{"op": "add", "path": "/status/conditions/-", "value": issuing}]).to_string();
        let of = ["patch", "certificate", "execlet-subresources", "-n", NAMESPACE, "--subresource=status"];
        kubectl(&[&of[..], &["--type=json", "-p", &patch]].concat());
    }
}

impl Drop for CertManager {
    fn drop(&mut self) {
        if let Some(controllers) = &mut self.controllers {
            controllers.kill().ok();
            controllers.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("cert-manager said:\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
        for secret in Self::SECRETS {
            kubectl_raw(&["delete", "secret", secret, "-n", NAMESPACE, "--ignore-not-found"]);
        }
        kubectl_with(&["delete", "--ignore-not-found", "--timeout=180s", "-f", "-"], &self.definitions);
    }
}

/// What the API server trusts the managers for.
fn trusted() -> String {
    let bundle = kubectl(&["get", "apiservice", API_SERVICE, "-o", "jsonpath={.spec.caBundle}"]);
    text(&STANDARD.decode(bundle).expect("base64"))
}

/// Which managers there are, and how often each was started anew.
fn lives() -> Vec<String> {
    let of =
        |pod: &Value| format!("{} {}", pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]);
    managers().iter().map(of).collect()
}

/// The Secrets of the installation, without Helm's.
fn secrets() -> String {
    kubectl(&["get", "secrets", "-n", NAMESPACE, "--field-selector=type!=helm.sh/release.v1", "-o", "name"])
}

/// Whether every manager serves this certificate, of this authority.
async fn serve(certificate: &str, authority: &str) -> bool {
    let name = format!("execlet-subresources.{NAMESPACE}.svc");
    let expected = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM");
    for manager in managers() {
        let address = format!("{}:8443", manager["status"]["podIP"].as_str().expect("an address"));
        let caller = Caller::new(address.parse().expect("an address"), &name, authority.as_bytes(), None);
        if caller.certificate().await.ok().as_ref() != Some(&expected) {
            return false;
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_cert_manager_is_served_and_followed_when_it_is_replaced() {
    let lab = Lab::alone().await;
    lab.pod("web", "n1").await;
    let done = lab.sh("web", "echo hello").await;
    let log = path(&lab, done.request.metadata.name.as_ref().expect("a name"), "log");
    let log = || kubectl(&["get", "--raw", &log]);
    let target = path(&lab, "missing", "attach?stdout=true");
    let secrets_before = secrets();
    // Dropped after the release was put back.
    let cert_manager = CertManager::install();
    let release = Release::found();
    release.with("subresources.certManager.enabled=true");
    for kind in ["certificates.cert-manager.io", "issuers.cert-manager.io"] {
        kubectl(&["wait", "--for=condition=Ready", "--all", "--timeout=180s", "-n", NAMESPACE, kind]);
    }
    let (first, authority) = (CertManager::secret("tls.crt"), CertManager::secret("ca.crt"));
    wait_for("the first certificate to be served", async || serve(&first, &authority).await.then_some(())).await;
    // Beside that of the managers before: the injector only adds.
    wait_for("its authority in the APIService", async || trusted().contains(&authority).then_some(())).await;
    wait_for("the API server to trust it", async || {
        matches!(Caller::admin().call(&target, ATTACH).await, Ok((404, _))).then_some(())
    })
    .await;
    wait_for("the APIService to be available", async || available().then_some(())).await;
    assert_eq!(log(), "hello\n");
    // The managers have no part in it, and no right to.
    let account = format!("--as=system:serviceaccount:{NAMESPACE}:execlet-manager");
    for what in [&["get", "secrets/execlet-subresources"][..], &["patch", "apiservices"]] {
        let asked = kubectl_raw(&[&["auth", "can-i"], what, &["-n", NAMESPACE, &account]].concat());
        assert_eq!(text(&asked.stdout).trim(), "no", "{what:?}");
    }
    // Nobody notices a renewal. The kubelet brings it to the pods within two minutes.
    let lives_before = lives();
    let now = tokio::runtime::Handle::current();
    let before = (first, authority.clone());
    served_while(&target, move || {
        CertManager::renew();
        now.block_on(async {
            let patience = Duration::from_secs(180);
            wait_within(patience, "another certificate to be served", async || {
                let second = CertManager::secret("tls.crt");
                (second != before.0 && serve(&second, &before.1).await).then_some(())
            })
            .await;
        });
    })
    .await;
    assert!(trusted().contains(&authority), "a renewal does not change what is trusted");
    assert_eq!(lives(), lives_before, "a renewal starts no manager anew");
    assert!(available());
    assert_eq!(log(), "hello\n");
    drop(release);
    drop(cert_manager);
    wait_for("the managers' own certificate to be trusted", async || {
        matches!(Caller::admin().call(&target, ATTACH).await, Ok((404, _))).then_some(())
    })
    .await;
    wait_for("cert-manager's authority to be forgotten", async || (!trusted().contains(&authority)).then_some(()))
        .await;
    wait_for("the Secrets to be as before", async || (secrets() == secrets_before).then_some(())).await;
    assert!(!kubectl(&["get", "customresourcedefinitions", "-o", "name"]).contains("cert-manager.io"));
}

#[tokio::test]
async fn a_manager_that_falls_ends_its_own_streams_and_no_others() {
    let lab = Lab::alone().await;
    let agent = StandIn::start().await;
    let request = agent.request(&lab).await;
    let target = path(&lab, &request, "attach?stdin=true&stdout=true");
    let caller = Caller::admin();
    let mut streams = Vec::new();
    // The API server takes one of the managers by chance: until both have some.
    for _ in 0..40 {
        let (code, stream) = caller.call(&target, ATTACH).await.expect("an answer");
        assert_eq!(code, 101);
        let from = agent.seen.lock().expect("no panic").last().expect("seen").from;
        streams.push((from, stream));
        let of_first = streams.iter().filter(|(from, _)| *from == streams[0].0).count();
        if of_first >= 2 && streams.len() - of_first >= 2 {
            break;
        }
    }
    let managers = managers();
    assert_eq!(managers.len(), 2);
    let falling = &managers[0];
    let (node, name) = (falling["spec"]["nodeName"].as_str().unwrap(), falling["metadata"]["name"].as_str().unwrap());
    let address = |manager: &Value| -> Vec<std::net::IpAddr> {
        [&manager["status"]["podIP"], &manager["status"]["hostIP"]]
            .iter()
            .map(|ip| ip.as_str().unwrap().parse().unwrap())
            .collect()
    };
    let falls = address(falling);
    let (_, container) = leading::container(name).expect("its container");
    node::kill(node, &container);
    let mut lived = 0;
    for (from, stream) in &mut streams {
        let still = echoes(stream).await;
        assert_eq!(still, !falls.contains(from), "a stream over {from}; {falls:?} fell");
        lived += usize::from(still);
    }
    assert!(lived > 0 && lived < streams.len(), "{lived} of {}", streams.len());
    // And whoever comes anew is served.
    let (code, mut stream) =
        wait_for("another stream", async || caller.call(&target, ATTACH).await.ok().filter(|(code, _)| *code == 101))
            .await;
    assert_eq!(code, 101);
    assert!(echoes(&mut stream).await);
    // The Deployment may not have noticed yet: until the other one is back the API server asks it too.
    let restarts = |manager: &Value| manager["status"]["containerStatuses"][0]["restartCount"].as_i64();
    let before = restarts(falling);
    wait_within(Duration::from_secs(90), "the manager that fell to be back", async || {
        let found = self::managers().into_iter().find(|manager| manager["metadata"]["name"] == name)?;
        let ready = found["status"]["containerStatuses"][0]["ready"] == true;
        (restarts(&found) > before && ready).then_some(())
    })
    .await;
    managers_rolled_out();
}
