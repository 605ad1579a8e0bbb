//! A credential plugin of the kubeconfig (`exec`), which is a program that we run.
//!
//! kube would run it, too: once for each part of a client, and with our standard input, which may be the command's.

use std::{
    io,
    process::{Command, Stdio},
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{Request, Response, StatusCode};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Client, Config,
    client::{AuthError, Body},
    config::{ExecConfig, ExecInteractiveMode},
};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::{sync::Mutex as Turn, task::spawn_blocking};

use crate::cli::{
    error::{Error, explain},
    say::terminal,
};

/// What it prints.
#[derive(Deserialize)]
struct Printed {
    status: Option<Credential>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Credential {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    expiration_timestamp: Option<String>,
}

impl Credential {
    /// A certificate, and its key.
    fn identity(&self) -> Option<(&str, &str)> {
        self.client_certificate_data.as_deref().zip(self.client_key_data.as_deref())
    }

    fn until(&self) -> Result<Option<Timestamp>, String> {
        let read = |text: &String| text.parse().map_err(|error| format!("expirationTimestamp {text:?}: {error}"));
        self.expiration_timestamp.as_ref().map(read).transpose()
    }
}

/// A client with a credential that was printed.
#[derive(Clone)]
struct Held {
    client: Client,
    until: Option<Timestamp>,
    /// Of the credentials so far.
    number: u64,
}

struct Source {
    /// Of each client, without its credential.
    config: Config,
    plugin: ExecConfig,
    held: Mutex<Option<Held>>,
    /// Of whoever runs it: one at a time, and the next one finds what it has printed.
    turn: Turn<()>,
}

/// A client that has its credential from what its configuration names: from a credential plugin, if there is one.
pub async fn client(mut config: Config) -> Result<Client, Error> {
    let user = &mut config.auth_info;
    let other = user.auth_provider.is_some() || user.token.is_some() || user.token_file.is_some();
    let plugin = user.exec.take().filter(|_| !other && (user.username.is_none() || user.password.is_none()));
    let Some(plugin) = plugin else {
        return Client::try_from(config).map_err(|error| Error::Client(explain(&error)));
    };
    let namespace = config.default_namespace.clone();
    let source = Arc::new(Source { config, plugin, held: Mutex::default(), turn: Turn::default() });
    // Now, while standard input is nobody's yet.
    source.credential(None).await.map_err(Error::Client)?;
    let service = tower::service_fn(move |request: Request<Body>| Arc::clone(&source).send(request));
    Ok(Client::new(service, namespace))
}

impl Source {
    async fn send(self: Arc<Self>, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let held = self.credential(None).await.map_err(unavailable)?;
        let (parts, body) = request.into_parts();
        let again = body.try_clone().map(|body| Request::from_parts(parts.clone(), body));
        let response = held.client.send(Request::from_parts(parts, body)).await?;
        // It was withdrawn before its time, and nothing was done: with another one it may be.
        let Some(again) = again.filter(|_| response.status() == StatusCode::UNAUTHORIZED) else { return Ok(response) };
        let held = self.credential(Some(held.number)).await.map_err(unavailable)?;
        held.client.send(again).await
    }

    /// The credential that is valid, and not the `refused` one.
    async fn credential(self: &Arc<Self>, refused: Option<u64>) -> Result<Held, String> {
        if let Some(held) = self.valid(refused) {
            return Ok(held);
        }
        let source = Arc::clone(self);
        // Whoever waits for it may be out of time; what it prints is the next one's.
        let renewing = tokio::spawn(async move {
            let _turn = source.turn.lock().await;
            if let Some(held) = source.valid(refused) {
                return Ok(held);
            }
            let plugin = source.plugin.clone();
            let number = source.held.lock().as_ref().map_or(0, |held| held.number + 1);
            let credential = spawn_blocking(move || run(&plugin)).await.map_err(|error| error.to_string())??;
            let until = credential.until()?;
            let client = source.client(&credential).map_err(|error| explain(&error))?;
            let held = Held { client, until, number };
            *source.held.lock() = Some(held.clone());
            Ok(held)
        });
        renewing.await.map_err(|error| error.to_string())?
    }

    fn valid(&self, refused: Option<u64>) -> Option<Held> {
        let held = self.held.lock().clone()?;
        let over = held.until.is_some_and(|until| until <= Timestamp::now());
        (!over && refused != Some(held.number)).then_some(held)
    }

    fn client(&self, credential: &Credential) -> Result<Client, kube::Error> {
        let mut config = self.config.clone();
        let user = &mut config.auth_info;
        user.token = credential.token.clone().map(Into::into);
        if let Some((certificate, key)) = credential.identity() {
            user.client_certificate_data = Some(BASE64_STANDARD.encode(certificate));
            user.client_key_data = Some(BASE64_STANDARD.encode(key).into());
        }
        Client::try_from(config)
    }
}

fn unavailable(why: String) -> kube::Error {
    kube::Error::Auth(AuthError::AuthExec(why))
}

/// Whether the plugin is given our standard input, as kubectl does: only a terminal, and not the command's.
fn interactive(plugin: &ExecConfig, free: bool) -> Result<bool, &'static str> {
    match plugin.interactive_mode {
        Some(ExecInteractiveMode::Never) => Ok(false),
        Some(ExecInteractiveMode::IfAvailable) | None => Ok(free),
        Some(ExecInteractiveMode::Always) if free => Ok(true),
        Some(ExecInteractiveMode::Always) => Err(
            "it is to be asked for on a terminal (interactiveMode: Always), and standard input is none or the command's",
        ),
    }
}

fn run(plugin: &ExecConfig) -> Result<Credential, String> {
    let name = plugin.command.as_deref().unwrap_or_default();
    let failed = |why: &dyn std::fmt::Display| format!("no credential from {name:?}: {why}");
    let interactive = interactive(plugin, terminal::is_free()).map_err(|why| failed(&why))?;
    let mut spec = json!({"interactive": interactive});
    if let Some(cluster) = plugin.cluster.as_ref().filter(|_| plugin.provide_cluster_info) {
        spec["cluster"] = serde_json::to_value(cluster).map_err(|error| failed(&error))?;
    }
    let version = plugin.api_version.as_deref().unwrap_or("client.authentication.k8s.io/v1");
    let asked = json!({"apiVersion": version, "kind": "ExecCredential", "spec": spec});
    let variables = plugin.env.iter().flatten().filter_map(|entry| Some((entry.get("name")?, entry.get("value")?)));
    let mut command = Command::new(name);
    command.args(plugin.args.iter().flatten()).envs(variables).env("KUBERNETES_EXEC_INFO", asked.to_string());
    command.stdin(if interactive { Stdio::inherit() } else { Stdio::null() });
    // Over a raw terminal it would write across the command's screen.
    command.stderr(if terminal::is_raw() { Stdio::piped() } else { Stdio::inherit() });
    let output = command.output().map_err(|error| match (&plugin.install_hint, error.kind()) {
        (Some(hint), io::ErrorKind::NotFound) => failed(&format_args!("{error}. {hint}")),
        (Some(_) | None, _) => failed(&error),
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(&format_args!("{} {}", output.status, said.trim()).to_string().trim_end()));
    }
    let printed: Printed = serde_yaml_ng::from_slice(&output.stdout)
        .map_err(|error| failed(&format_args!("it printed something else than an ExecCredential: {error}")))?;
    match printed.status {
        Some(credential) if credential.token.is_some() || credential.identity().is_some() => Ok(credential),
        Some(_) | None => Err(failed(&"it printed neither a token nor a certificate with its key")),
    }
}

#[cfg(test)]
#[path = "credential_tests.rs"]
mod tests;
