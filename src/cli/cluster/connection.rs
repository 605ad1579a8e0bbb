//! kubectl's connection flags, and the client that they make.
//!
//! They are written over the entries of the kubeconfig before it is loaded, as
//! kubectl does, so that all that a kubeconfig can do still works.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use kube::{
    Client, Config,
    config::{
        AuthInfo, Cluster as KubeCluster, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster,
        NamedContext,
    },
};

use crate::cli::{
    error::{Error, names},
    say::{duration, shell::shell_words},
};

/// Name of what the flags alone make, where there is no kubeconfig.
const BY_FLAGS: &str = "flags";
/// Name of what a pod is given, where there is no kubeconfig.
const IN_CLUSTER: &str = "in-cluster";
/// How long one call may take, unless --request-timeout says otherwise.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The flags that kubectl has for every command.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Connection, as for kubectl")]
pub struct ConnectionArgs {
    /// Path to the kubeconfig file.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,

    /// Cluster of the kubeconfig.
    #[arg(long, global = true, value_name = "NAME")]
    pub cluster: Option<String>,

    /// User of the kubeconfig; for the user inside the container see run's --run-as.
    #[arg(long, global = true, value_name = "NAME")]
    pub user: Option<String>,

    /// Namespace; default: that of the context.
    #[arg(long, short = 'n', global = true, value_name = "NAME")]
    pub namespace: Option<String>,

    /// Address of the API server.
    #[arg(long, short = 's', global = true, value_name = "URL")]
    pub server: Option<String>,

    /// Bearer token.
    #[arg(long, global = true, value_name = "TOKEN")]
    pub token: Option<String>,

    /// User to impersonate.
    #[arg(long = "as", global = true, value_name = "NAME")]
    pub impersonate: Option<String>,

    /// Group to impersonate; may be given more than once.
    #[arg(long = "as-group", global = true, value_name = "NAME")]
    pub impersonate_groups: Vec<String>,

    /// UID to impersonate.
    #[arg(long = "as-uid", global = true, value_name = "UID")]
    pub impersonate_uid: Option<String>,

    /// Extra attribute KEY=VALUE to impersonate; may be given more than once, also for one key.
    #[arg(long = "as-user-extra", global = true, value_name = "KEY=VALUE")]
    pub impersonate_extra: Vec<Extra>,

    /// How long a single call may take (30s by default; 0: as long as it likes). Streams and waits have no limit by it.
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration::parse)]
    pub request_timeout: Option<Duration>,

    /// Do not verify the server's certificate.
    #[arg(long, global = true)]
    pub insecure_skip_tls_verify: bool,

    /// File with the certificates that sign the server's.
    #[arg(long, global = true, value_name = "FILE")]
    pub certificate_authority: Option<String>,

    /// File with the client's certificate.
    #[arg(long, global = true, value_name = "FILE")]
    pub client_certificate: Option<String>,

    /// File with the client's key.
    #[arg(long, global = true, value_name = "FILE")]
    pub client_key: Option<String>,

    /// Name to expect in the server's certificate.
    #[arg(long, global = true, value_name = "NAME")]
    pub tls_server_name: Option<String>,

    /// For habit's sake: the plugin never asks for compressed answers.
    #[arg(long, global = true)]
    pub disable_compression: bool,
}

/// `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra {
    key: String,
    value: String,
}

impl FromStr for Extra {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self { key: key.to_owned(), value: value.to_owned() }),
            Some(_) | None => Err("write KEY=VALUE".to_owned()),
        }
    }
}

/// A cluster that can be spoken to, and the namespace that is meant.
#[derive(Clone)]
pub struct Cluster {
    /// The client.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
    /// Address of the API server, for messages.
    server: String,
    /// How long a single call may take.
    timeout: Option<Duration>,
    /// The flags that lead to it, for commands that are told to the user; each after a blank.
    flags: String,
}

impl ConnectionArgs {
    /// The client for what the flags and the kubeconfig say.
    ///
    /// # Errors
    /// When they do not lead to an API server.
    pub async fn connect(&self) -> Result<Cluster, Error> {
        let mut config = match self.kubeconfig()?.filter(|config| !config.contexts.is_empty()) {
            Some(config) => self.load(config).await?,
            // A pod's own token is not for whatever server is named.
            None if self.server.is_some() => {
                self.load(alone(BY_FLAGS, KubeCluster::default(), AuthInfo::default(), None)).await?
            }
            None => self.in_pod(Config::incluster().map_err(|_| Error::NoCluster)?).await?,
        };
        // It would repeat a creation too, of which it is not known whether it was done.
        config.default_retry = false;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|error| Error::Client(crate::cli::error::explain(&error)))?;
        let timeout = match self.request_timeout {
            None => Some(CALL_TIMEOUT),
            Some(Duration::ZERO) => None,
            Some(given) => Some(given),
        };
        Ok(Cluster { client, namespace, server, timeout, flags: self.flags() })
    }

    /// What of the flags leads to the same cluster, namespace and user; a token is nobody's to read.
    fn flags(&self) -> String {
        let single = [
            ("--kubeconfig", self.kubeconfig.as_deref().map(text)),
            ("--context", self.context.clone()),
            ("--cluster", self.cluster.clone()),
            ("--user", self.user.clone()),
            ("-n", self.namespace.clone()),
            ("--server", self.server.clone()),
            ("--as", self.impersonate.clone()),
            ("--as-uid", self.impersonate_uid.clone()),
            ("--certificate-authority", self.certificate_authority.clone()),
            ("--client-certificate", self.client_certificate.clone()),
            ("--client-key", self.client_key.clone()),
            ("--tls-server-name", self.tls_server_name.clone()),
        ];
        let mut words: Vec<String> = Vec::new();
        for (flag, value) in single {
            words.extend(value.into_iter().flat_map(|value| [flag.to_owned(), value]));
        }
        for group in &self.impersonate_groups {
            words.extend(["--as-group".to_owned(), group.clone()]);
        }
        for Extra { key, value } in &self.impersonate_extra {
            words.extend(["--as-user-extra".to_owned(), format!("{key}={value}")]);
        }
        words.extend(self.insecure_skip_tls_verify.then(|| "--insecure-skip-tls-verify".to_owned()));
        if words.is_empty() { String::new() } else { format!(" {}", shell_words(&words)) }
    }

    /// The kubeconfig, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn kubeconfig(&self) -> Result<Option<Kubeconfig>, Error> {
        let wrong = |error| Error::Kubeconfig(Box::new(error));
        if let Some(path) = &self.kubeconfig {
            return Kubeconfig::read_from(path).map(Some).map_err(wrong);
        }
        if let Some(found) = Kubeconfig::from_env().map_err(wrong)? {
            return Ok(Some(found));
        }
        let default = std::env::home_dir().map(|home| home.join(".kube").join("config"));
        match default.filter(|path| path.exists()) {
            Some(path) => Kubeconfig::read_from(path).map(Some).map_err(wrong),
            None => Ok(None),
        }
    }

    /// What the flags make of what a pod has to reach its API server.
    async fn in_pod(&self, pod: Config) -> Result<Config, Error> {
        let cluster = KubeCluster {
            server: Some(pod.cluster_url.to_string()),
            certificate_authority: pod.root_cert_file.as_deref().map(text),
            ..KubeCluster::default()
        };
        let mut config = self.load(alone(IN_CLUSTER, cluster, pod.auth_info, Some(pod.default_namespace))).await?;
        // There is no proxy on the way to it, whatever the environment says.
        config.proxy_url = pod.proxy_url;
        Ok(config)
    }

    /// What the flags make of a kubeconfig.
    async fn load(&self, config: Kubeconfig) -> Result<Config, Error> {
        let kubeconfig = self.write_over(config)?;
        let options = KubeConfigOptions {
            context: self.context.clone().or_else(|| kubeconfig.current_context.clone()),
            cluster: self.cluster.clone(),
            user: self.user.clone(),
        };
        let loaded = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        loaded.map_err(|error| Error::Kubeconfig(Box::new(error)))
    }

    /// Writes the flags over the entries of the context that is meant.
    fn write_over(&self, mut config: Kubeconfig) -> Result<Kubeconfig, Error> {
        let wanted = self.context.clone().or_else(|| config.current_context.clone());
        let Some(wanted) = wanted else {
            let known = names(&config.contexts);
            return Err(Error::Usage(format!("the kubeconfig has no current context: give --context, one of {known}")));
        };
        let Some(context) = config.contexts.iter().find(|c| c.name == wanted).and_then(|c| c.context.clone()) else {
            let known = names(&config.contexts);
            return Err(Error::Usage(format!("the kubeconfig has no context {wanted:?}: it has {known}")));
        };
        let cluster = self.cluster.clone().unwrap_or(context.cluster);
        if let Some(entry) = config.clusters.iter_mut().find(|entry| entry.name == cluster) {
            self.write_cluster(entry);
        }
        let user = self.user.clone().or(context.user).unwrap_or_default();
        match config.auth_infos.iter_mut().find(|entry| entry.name == user) {
            Some(entry) => self.write_user(entry.auth_info.get_or_insert_default()),
            None if self.user.is_some() => {
                let known: Vec<&str> = config.auth_infos.iter().map(|entry| entry.name.as_str()).collect();
                return Err(Error::Usage(format!(
                    "the kubeconfig has no user {user:?}: it has {}. For the user inside the container: --run-as",
                    known.join(", ")
                )));
            }
            None => {
                let mut entry = AuthInfo::default();
                self.write_user(&mut entry);
                config.auth_infos.push(NamedAuthInfo {
                    name: user,
                    auth_info: Some(entry),
                    ..NamedAuthInfo::default()
                });
            }
        }
        Ok(config)
    }

    fn write_cluster(&self, entry: &mut NamedCluster) {
        let cluster = entry.cluster.get_or_insert_default();
        if let Some(server) = &self.server {
            cluster.server = Some(server.clone());
        }
        if self.insecure_skip_tls_verify {
            cluster.insecure_skip_tls_verify = Some(true);
            cluster.certificate_authority = None;
            cluster.certificate_authority_data = None;
        }
        if let Some(file) = &self.certificate_authority {
            cluster.certificate_authority = Some(file.clone());
            cluster.certificate_authority_data = None;
        }
        if let Some(name) = &self.tls_server_name {
            cluster.tls_server_name = Some(name.clone());
        }
    }

    fn write_user(&self, user: &mut AuthInfo) {
        if let Some(token) = &self.token {
            user.token = Some(token.clone().into());
            // One way to say who one is, as for kubectl.
            user.token_file = None;
            user.exec = None;
            user.auth_provider = None;
        }
        if let Some(file) = &self.client_certificate {
            user.client_certificate = Some(file.clone());
            user.client_certificate_data = None;
        }
        if let Some(file) = &self.client_key {
            user.client_key = Some(file.clone());
            user.client_key_data = None;
        }
        if let Some(name) = &self.impersonate {
            user.impersonate = Some(name.clone());
        }
        if let Some(uid) = &self.impersonate_uid {
            user.impersonate_uid = Some(uid.clone());
        }
        if !self.impersonate_groups.is_empty() {
            user.impersonate_groups = Some(self.impersonate_groups.clone());
        }
        if !self.impersonate_extra.is_empty() {
            let mut all: HashMap<String, Vec<String>> = HashMap::new();
            for Extra { key, value } in &self.impersonate_extra {
                all.entry(key.clone()).or_default().push(value.clone());
            }
            user.impersonate_user_extra = Some(all);
        }
    }
}

impl Cluster {
    /// A command of kubectl's for this cluster, to be pasted into a shell.
    pub(crate) fn kubectl(&self, command: &str) -> String {
        format!("kubectl{} {command}", self.flags)
    }

    /// A command of the plugin's for this cluster, to be pasted into a shell.
    pub(crate) fn plugin(&self, command: &str) -> String {
        format!("kubectl execlet{} {command}", self.flags)
    }

    /// With an API server that is told what to answer.
    #[cfg(test)]
    pub(crate) fn scripted(client: Client) -> Self {
        let (server, flags) = ("http://scripted".to_owned(), " -n shop".to_owned());
        Self { client, namespace: "shop".to_owned(), server, timeout: Some(CALL_TIMEOUT), flags }
    }

    /// One call, with its deadline and with what it was for.
    ///
    /// # Errors
    /// When the API server refuses, fails or does not answer.
    pub async fn call<T>(
        &self,
        what: impl Into<String>,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        let answered = match self.timeout {
            None => call.await,
            Some(within) => match tokio::time::timeout(within, call).await {
                Ok(answered) => answered,
                Err(_) => return Err(Error::Timeout { what: what.into(), within }),
            },
        };
        answered.map_err(|source| self.failed(what, source))
    }

    /// A call that has failed, with what it was for.
    pub(crate) fn failed(&self, what: impl Into<String>, source: kube::Error) -> Error {
        match crate::cli::error::unreachable(&source) {
            Some(why) => Error::Unreachable { what: what.into(), server: self.server.clone(), why },
            None => Error::Call { what: what.into(), source: Box::new(source) },
        }
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A kubeconfig of one context.
fn alone(name: &str, cluster: KubeCluster, user: AuthInfo, namespace: Option<String>) -> Kubeconfig {
    let context = Context { cluster: name.into(), user: Some(name.into()), namespace, ..Context::default() };
    Kubeconfig {
        clusters: vec![NamedCluster { name: name.into(), cluster: Some(cluster), ..NamedCluster::default() }],
        auth_infos: vec![NamedAuthInfo { name: name.into(), auth_info: Some(user), ..NamedAuthInfo::default() }],
        contexts: vec![NamedContext { name: name.into(), context: Some(context), ..NamedContext::default() }],
        current_context: Some(name.into()),
        ..Kubeconfig::default()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use axum::Router;
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;
    use crate::cli::{cluster::requests::Requests, follow::scripted};

    const KUBECONFIG: &str = r"
apiVersion: v1
kind: Config
current-context: one
clusters:
- {name: c1, cluster: {server: 'https://one:6443', certificate-authority-data: eA==}}
- {name: c2, cluster: {server: 'https://two:6443'}}
users:
- {name: u1, user: {token: secret, tokenFile: /nowhere}}
contexts:
- {name: one, context: {cluster: c1, user: u1, namespace: shop}}
- {name: two, context: {cluster: c2, user: u1}}
";

    fn merged(args: ConnectionArgs) -> Result<Kubeconfig, Error> {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(KUBECONFIG.as_bytes()).expect("written");
        let args = ConnectionArgs { kubeconfig: Some(file.path().to_owned()), ..args };
        args.write_over(args.kubeconfig()?.expect("a kubeconfig"))
    }

    #[tokio::test]
    async fn in_a_pod_the_flags_are_written_over_what_the_pod_has() {
        let authority = tempfile::NamedTempFile::new().expect("a file");
        let path = authority.path().to_string_lossy().into_owned();
        let mut pod = Config::new("https://10.96.0.1".parse().expect("an address"));
        pod.default_namespace = "shop".into();
        pod.root_cert_file = Some("/no/such/ca.crt".into());
        pod.auth_info.token_file = Some("/sa/token".into());
        let extra = |text: &str| text.parse().expect("KEY=VALUE");
        let args = ConnectionArgs {
            impersonate: Some("nobody".into()),
            impersonate_extra: vec![extra("scopes=a"), extra("scopes=b=c")],
            certificate_authority: Some(path),
            tls_server_name: Some("api".into()),
            ..ConnectionArgs::default()
        };
        let config = args.in_pod(pod.clone()).await.expect("a configuration");
        assert_eq!((config.cluster_url.host(), config.default_namespace.as_str()), (Some("10.96.0.1"), "shop"));
        assert_eq!(config.tls_server_name.as_deref(), Some("api"));
        let user = &config.auth_info;
        assert_eq!((user.impersonate.as_deref(), user.token_file.as_deref()), (Some("nobody"), Some("/sa/token")));
        assert_eq!(user.impersonate_user_extra.as_ref().expect("extra")["scopes"], ["a", "b=c"]);

        let args =
            ConnectionArgs { token: Some("other".into()), insecure_skip_tls_verify: true, ..ConnectionArgs::default() };
        let config = args.in_pod(pod.clone()).await.expect("a configuration");
        assert!(config.auth_info.token.is_some() && config.auth_info.token_file.is_none());
        assert!(config.accept_invalid_certs);
        let args = ConnectionArgs { context: Some("prod".into()), ..ConnectionArgs::default() };
        let error = args.in_pod(pod).await.expect_err("no such context");
        assert_eq!(error.to_string(), "the kubeconfig has no context \"prod\": it has in-cluster");
        assert!("scopes".parse::<Extra>().is_err() && "=a".parse::<Extra>().is_err());
    }

    #[tokio::test]
    async fn what_is_told_to_be_typed_next_leads_to_the_same_cluster() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(KUBECONFIG.replace(", certificate-authority-data: eA==", "").as_bytes()).expect("written");
        let args = ConnectionArgs {
            kubeconfig: Some(file.path().to_owned()),
            context: Some("two".into()),
            namespace: Some("shop".into()),
            impersonate: Some("jane doe".into()),
            token: Some("secret".into()),
            ..ConnectionArgs::default()
        };
        let cluster = args.connect().await.expect("a client");
        let path = file.path().display();
        let flags = format!("--kubeconfig {path} --context two -n shop --as 'jane doe'");
        assert_eq!(cluster.plugin("wait r"), format!("kubectl execlet {flags} wait r"));
        assert_eq!(cluster.kubectl("delete xr r"), format!("kubectl {flags} delete xr r"));
        assert_eq!(ConnectionArgs::default().flags(), "");
    }

    #[tokio::test]
    async fn a_creation_of_which_nothing_is_known_is_not_repeated() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = format!("http://{}", listener.local_addr().expect("an address"));
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let answer = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async { http::StatusCode::GATEWAY_TIMEOUT }
        };
        let serving = tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(KUBECONFIG.replace(", certificate-authority-data: eA==", "").as_bytes()).expect("written");
        let args = ConnectionArgs {
            kubeconfig: Some(file.path().to_owned()),
            server: Some(server),
            request_timeout: Some(Duration::from_secs(2)),
            ..ConnectionArgs::default()
        };
        let cluster = args.connect().await.expect("a client");
        let created = Requests::new(&cluster).create(&scripted::request(json!({})), false).await;
        serving.abort();
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        assert_eq!(created.expect_err("no answer that counts").answer(), Some(504));
    }

    #[test]
    fn flags_are_written_over_the_entries_of_the_context() {
        let config = merged(ConnectionArgs {
            context: Some("two".into()),
            server: Some("https://three:6443".into()),
            insecure_skip_tls_verify: true,
            token: Some("other".into()),
            impersonate: Some("alice".into()),
            impersonate_groups: vec!["dev".into(), "ops".into()],
            impersonate_uid: Some("42".into()),
            ..ConnectionArgs::default()
        })
        .expect("merged");
        let server = |at: usize| config.clusters[at].cluster.as_ref().and_then(|c| c.server.clone());
        assert_eq!(server(0).as_deref(), Some("https://one:6443"), "another context's cluster is left alone");
        assert_eq!(server(1).as_deref(), Some("https://three:6443"));
        let user = config.auth_infos[0].auth_info.as_ref().expect("a user");
        assert_eq!((user.token_file.as_deref(), user.impersonate.as_deref()), (None, Some("alice")));
        assert_eq!(user.impersonate_groups.as_deref(), Some(&["dev".to_owned(), "ops".to_owned()][..]));
        assert_eq!(user.impersonate_uid.as_deref(), Some("42"));
    }

    #[test]
    fn a_ca_file_takes_the_place_of_the_data() {
        let args = ConnectionArgs { certificate_authority: Some("/ca.crt".into()), ..ConnectionArgs::default() };
        let config = merged(args).expect("merged");
        let cluster = config.clusters[0].cluster.as_ref().expect("a cluster");
        assert_eq!(cluster.certificate_authority.as_deref(), Some("/ca.crt"));
        assert_eq!(cluster.certificate_authority_data, None);
    }

    #[test]
    fn what_the_kubeconfig_does_not_have_is_said_with_what_it_has() {
        let context = merged(ConnectionArgs { context: Some("three".into()), ..ConnectionArgs::default() });
        assert_eq!(context.unwrap_err().to_string(), "the kubeconfig has no context \"three\": it has one, two");
        let user = merged(ConnectionArgs { user: Some("root".into()), ..ConnectionArgs::default() });
        assert!(user.unwrap_err().to_string().ends_with("it has u1. For the user inside the container: --run-as"));
    }

    #[tokio::test]
    async fn the_namespace_is_the_flags_then_the_contexts() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(KUBECONFIG.replace(", certificate-authority-data: eA==", "").as_bytes()).expect("written");
        let args = ConnectionArgs { kubeconfig: Some(file.path().to_owned()), ..ConnectionArgs::default() };
        assert_eq!(args.connect().await.expect("a client").namespace, "shop");
        let args = ConnectionArgs { namespace: Some("other".into()), ..args };
        assert_eq!(args.connect().await.expect("a client").namespace, "other");
    }
}
