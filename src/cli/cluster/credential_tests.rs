use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use axum::{Router, http::HeaderMap};
use tokio::net::TcpListener;

use super::*;
use crate::cli::cluster::{connection::Cluster, flags::ConnectionArgs};

/// A credential plugin that notes its runs, and prints the next line of what it is to print each time.
struct Plugin {
    folder: tempfile::TempDir,
}

impl Plugin {
    fn new(prints: &[String]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let plugin = Self { folder };
        fs::write(plugin.path("prints"), prints.join("\n") + "\n").expect("written");
        let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\necho \"$KUBERNETES_EXEC_INFO\" >>runs\n\
            sed -n \"$(wc -l <runs)p\" prints\n";
        fs::write(plugin.path("plugin"), script).expect("written");
        fs::set_permissions(plugin.path("plugin"), fs::Permissions::from_mode(0o755)).expect("executable");
        plugin
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What it was asked, each time.
    fn runs(&self) -> Vec<serde_json::Value> {
        let runs = fs::read_to_string(self.path("runs")).unwrap_or_default();
        runs.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    async fn connect(&self, server: &str, mode: &str) -> Result<Cluster, Error> {
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {"exec": {
                "apiVersion": "client.authentication.k8s.io/v1", "command": self.path("plugin"), "interactiveMode": mode,
            }}}],
        });
        fs::write(self.path("config"), kubeconfig.to_string()).expect("written");
        ConnectionArgs { kubeconfig: Some(self.path("config")), ..ConnectionArgs::default() }.connect().await
    }
}

fn token(token: &str, lives: Option<i64>) -> String {
    let until = |seconds: i64| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at = i64::try_from(now.as_secs()).unwrap_or(0) + seconds;
        Timestamp::from_second(at).expect("a time").to_string()
    };
    json!({"kind": "ExecCredential", "status": {"token": token, "expirationTimestamp": lives.map(until)}}).to_string()
}

/// An API server that lets in who has the token `good`, and its address.
async fn server() -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let answer = async |headers: HeaderMap| {
        let good = headers.get("authorization").is_some_and(|value| value == "Bearer good");
        let code = if good { StatusCode::NOT_FOUND } else { StatusCode::UNAUTHORIZED };
        (code, json!({"kind": "Status", "message": "", "reason": "", "code": code.as_u16()}).to_string())
    };
    let serving = axum::serve(listener, Router::new().fallback(answer)).into_future();
    (address, tokio::spawn(async { drop(serving.await) }))
}

async fn answer(cluster: &Cluster) -> Option<u16> {
    cluster.get("r").await.expect_err("no such request").answer()
}

#[tokio::test]
async fn a_credential_plugin_is_run_once_for_as_long_as_its_credential_is_valid() {
    let (address, serving) = server().await;
    for lives in [None, Some(600)] {
        let plugin = Plugin::new(&[token("good", lives)]);
        let cluster = plugin.connect(&address, "Never").await.expect("a client");
        let other = cluster.clone();
        assert_eq!(tokio::join!(answer(&cluster), answer(&other)), (Some(404), Some(404)));
        let runs = plugin.runs();
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0]["spec"], json!({"interactive": false}));
        assert_eq!(runs[0]["apiVersion"], "client.authentication.k8s.io/v1");
    }
    // Once it is over, another one; at the same time for all who need it.
    let plugin = Plugin::new(&[token("good", Some(-1)), token("good", None)]);
    let cluster = plugin.connect(&address, "Never").await.expect("a client");
    assert_eq!(tokio::join!(answer(&cluster), answer(&cluster), answer(&cluster)), (Some(404), Some(404), Some(404)));
    assert_eq!(plugin.runs().len(), 2);
    serving.abort();
}

#[tokio::test]
async fn a_credential_that_is_refused_is_replaced_once() {
    let (address, serving) = server().await;
    let plugin = Plugin::new(&[token("bad", None), token("good", None)]);
    let cluster = plugin.connect(&address, "Never").await.expect("a client");
    assert_eq!((answer(&cluster).await, plugin.runs().len()), (Some(404), 2));
    let plugin = Plugin::new(&[token("bad", None), token("bad", None)]);
    let cluster = plugin.connect(&address, "Never").await.expect("a client");
    assert_eq!((answer(&cluster).await, plugin.runs().len()), (Some(401), 2));
    serving.abort();
}

#[tokio::test]
async fn whoever_is_out_of_time_leaves_the_credential_to_the_next_one() {
    let (address, serving) = server().await;
    let plugin = Plugin::new(&[token("good", Some(-1)), token("good", None)]);
    let cluster = plugin.connect(&address, "Never").await.expect("a client");
    // It is run, but not waited for.
    drop(tokio::time::timeout(Duration::from_millis(1), cluster.get("r")).await);
    assert_eq!((answer(&cluster).await, plugin.runs().len()), (Some(404), 2));
    serving.abort();
}

#[tokio::test]
async fn a_plugin_that_gives_none_is_told_of() {
    for (prints, why) in [
        ("{}", "it printed neither a token nor a certificate with its key"),
        (r#"{"status": {"clientCertificateData": "x"}}"#, "it printed neither a token nor a certificate with its key"),
        ("\u{0}", "it printed something else than an ExecCredential"),
        (r#"{"status": {"token": "x", "expirationTimestamp": "soon"}}"#, "expirationTimestamp \"soon\""),
    ] {
        let plugin = Plugin::new(&[prints.to_owned()]);
        let error = plugin.connect("http://127.0.0.1:1", "Never").await.err().expect("no credential").to_string();
        assert!(error.contains(why), "{prints}: {error}");
    }
    let plugin = Plugin::new(&[]);
    fs::remove_file(plugin.path("plugin")).expect("removed");
    let error = plugin.connect("http://127.0.0.1:1", "Never").await.err().expect("no credential").to_string();
    assert!(error.contains("No such file"), "{error}");
}

#[test]
fn standard_input_is_given_only_where_it_is_a_free_terminal() {
    let plugin =
        |mode: &str| serde_json::from_value(json!({"command": "x", "interactiveMode": mode})).expect("a plugin");
    for (mode, free, given) in [
        ("Never", true, Ok(false)),
        ("Never", false, Ok(false)),
        ("IfAvailable", true, Ok(true)),
        ("IfAvailable", false, Ok(false)),
        ("Always", true, Ok(true)),
        ("Always", false, Err(())),
    ] {
        assert_eq!(interactive(&plugin(mode), free).map_err(drop), given, "{mode} {free}");
    }
    let unsaid = serde_json::from_value(json!({"command": "x"})).expect("a plugin");
    assert_eq!((interactive(&unsaid, true), interactive(&unsaid, false)), (Ok(true), Ok(false)));
}
