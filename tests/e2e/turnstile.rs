//! An admission webhook that holds the creation of requests of one plan, as a slow one would, until it is told to let them
//! pass. So a test knows that they are on their way and not yet there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::server::TlsStream;

use crate::{
    lab::{Lab, kubectl_raw, kubectl_with, text, unique, wait_for},
    stand_in::{head_of, host_address, identity},
    subject::request,
};

/// Of each plan, the indexes whose creation has come; 0 has those of no batch.
type Arrived = Arc<Mutex<BTreeMap<i64, BTreeSet<i64>>>>;

pub struct Turnstile {
    name: String,
    arrived: Arrived,
    open: watch::Sender<bool>,
}

impl Turnstile {
    /// In the lab's namespace, for at most 30 s: no webhook may take longer.
    pub async fn holding(lab: &Lab, plan: i64) -> Self {
        let address = host_address();
        let (acceptor, certificate) = identity(&address.to_string());
        let listener = TcpListener::bind((address, 0)).await.expect("a port");
        let url = format!("https://{}/", listener.local_addr().expect("an address"));
        let it = Self { name: unique("turnstile"), arrived: Arrived::default(), open: watch::channel(false).0 };
        let (arrived, open) = (Arc::clone(&it.arrived), it.open.subscribe());
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("a connection");
                let (acceptor, arrived, open) = (acceptor.clone(), Arc::clone(&arrived), open.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(socket).await {
                        answer(stream, plan, &arrived, open).await;
                    }
                });
            }
        });
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": it.name},
            "webhooks": [{
                "name": "turnstile.execlet.test", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "timeoutSeconds": 30, "failurePolicy": "Fail",
                "clientConfig": {"url": url, "caBundle": STANDARD.encode(certificate)},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}},
                "rules": [{"apiGroups": ["execlet.dev"], "apiVersions": ["*"], "operations": ["CREATE"],
                    "resources": ["execrequests"], "scope": "*"}],
            }],
        });
        let created = kubectl_with(&["create", "-f", "-"], &configuration.to_string());
        assert!(created.status.success(), "{}", text(&created.stderr));
        // The API server calls it a moment later.
        let probe = request(&lab.namespace, "probe", json!({"target": {"podName": "none"}, "command": ["true"]}));
        wait_for("the webhook to be called", async || {
            kubectl_with(&["create", "--dry-run=server", "-f", "-"], &probe);
            (!it.arrived(0).is_empty()).then_some(())
        })
        .await;
        it
    }

    /// The indexes of this plan whose creation has come.
    pub fn arrived(&self, plan: i64) -> BTreeSet<i64> {
        self.arrived.lock().get(&plan).cloned().unwrap_or_default()
    }

    /// Lets pass what is held, and what comes later.
    pub fn open(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Turnstile {
    fn drop(&mut self) {
        kubectl_raw(&["delete", "validatingwebhookconfiguration", &self.name]);
    }
}

/// One question a connection.
async fn answer(mut stream: TlsStream<TcpStream>, held: i64, arrived: &Arrived, mut open: watch::Receiver<bool>) {
    let request = head_of(&mut stream).await.to_lowercase();
    let length = request.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    if stream.read_exact(&mut body).await.is_err() {
        return;
    }
    let review: Value = serde_json::from_slice(&body).expect("an AdmissionReview");
    let place = &review["request"]["object"]["spec"]["batch"];
    let [plan, index] = ["plan", "index"].map(|field| place[field].as_i64().unwrap_or(0));
    arrived.lock().entry(plan).or_default().insert(index);
    if plan == held {
        // Its sender goes only with the test.
        open.wait_for(|open| *open).await.ok();
    }
    let response = json!({"uid": review["request"]["uid"], "allowed": true});
    let answer =
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).to_string();
    let status = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length:";
    stream.write_all(format!("{status} {}\r\n\r\n{answer}", answer.len()).as_bytes()).await.ok();
    stream.shutdown().await.ok();
}
