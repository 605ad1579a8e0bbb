//! kubectl's connection flags, and the client that they make.
//!
//! They are written over the entries of the kubeconfig before it is loaded, as
//! kubectl does, so that all that a kubeconfig can do still works.

use std::{path::PathBuf, time::Duration};

use kube::{
    Client, Config,
    config::{AuthInfo, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext},
};

use super::{
    duration,
    error::{Error, names},
};

/// Name of what the flags alone make, where there is no kubeconfig.
const BY_FLAGS: &str = "flags";
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
}

impl ConnectionArgs {
    /// The client for what the flags and the kubeconfig say.
    ///
    /// # Errors
    /// When they do not lead to an API server.
    pub async fn connect(&self) -> Result<Cluster, Error> {
        let config = match self.merged()? {
            Some(kubeconfig) => {
                let options = KubeConfigOptions {
                    context: self.context.clone().or_else(|| kubeconfig.current_context.clone()),
                    cluster: self.cluster.clone(),
                    user: self.user.clone(),
                };
                Config::from_custom_kubeconfig(kubeconfig, &options)
                    .await
                    .map_err(|error| Error::Kubeconfig(Box::new(error)))?
            }
            None => Config::incluster().map_err(|_| Error::NoCluster)?,
        };
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|error| Error::Client(super::error::explain(&error)))?;
        let timeout = match self.request_timeout {
            None => Some(CALL_TIMEOUT),
            Some(Duration::ZERO) => None,
            Some(given) => Some(given),
        };
        Ok(Cluster { client, namespace, server, timeout })
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

    /// The kubeconfig with the flags written over it; `None` if there is neither.
    fn merged(&self) -> Result<Option<Kubeconfig>, Error> {
        let mut config = match self.kubeconfig()?.filter(|config| !config.contexts.is_empty()) {
            Some(config) => config,
            None if self.server.is_some() => by_flags(),
            None => return Ok(None),
        };
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
        Ok(Some(config))
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
    }
}

impl Cluster {
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
        answered.map_err(|source| match super::error::unreachable(&source) {
            Some(why) => Error::Unreachable { what: what.into(), server: self.server.clone(), why },
            None => Error::Call { what: what.into(), source: Box::new(source) },
        })
    }
}

fn by_flags() -> Kubeconfig {
    let context = Context { cluster: BY_FLAGS.into(), user: Some(BY_FLAGS.into()), ..Context::default() };
    Kubeconfig {
        clusters: vec![NamedCluster { name: BY_FLAGS.into(), ..NamedCluster::default() }],
        contexts: vec![NamedContext { name: BY_FLAGS.into(), context: Some(context), ..NamedContext::default() }],
        current_context: Some(BY_FLAGS.into()),
        ..Kubeconfig::default()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

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
        args.merged().map(|config| config.expect("a kubeconfig"))
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
