//! The client that the kubeconfig and the connection flags make.
//!
//! The flags are written over the entries of the kubeconfig before it is loaded, as
//! kubectl does, so that everything that a kubeconfig can do still works.

use std::{collections::HashMap, time::Duration};

use kube::{
    Config,
    config::{
        AuthInfo, Cluster as KubeCluster, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster,
        NamedContext,
    },
};

use super::{
    connection::{CALL_TIMEOUT, Cluster},
    credential,
    flags::ConnectionArgs,
};
use crate::cli::error::Error;

impl ConnectionArgs {
    pub async fn connect(&self) -> Result<Cluster, Error> {
        let mut config = match self.kubeconfig()?.filter(|config| !config.contexts.is_empty()) {
            Some(config) => self.load(config).await?,
            // A pod's own token is not for whatever server is named.
            None if self.server.is_some() => {
                self.load(single_context("flags", KubeCluster::default(), AuthInfo::default(), None)).await?
            }
            None => self.in_pod(Config::incluster().map_err(|_| Error::NoCluster)?).await?,
        };
        // It would also repeat a creation that may have been done.
        config.default_retry = false;
        Ok(Cluster {
            namespace: self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone()),
            server: config.cluster_url.to_string(),
            timeout: Some(self.request_timeout.unwrap_or(CALL_TIMEOUT)).filter(|timeout| *timeout > Duration::ZERO),
            flags: self.for_shell(),
            client: credential::client(config).await?,
        })
    }

    pub fn kubeconfig(&self) -> Result<Option<Kubeconfig>, Error> {
        let default = || std::env::home_dir().map(|home| home.join(".kube/config")).filter(|path| path.exists());
        let read = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path).map(Some),
            None => match Kubeconfig::from_env() {
                Ok(None) => default().map(Kubeconfig::read_from).transpose(),
                found => found,
            },
        };
        read.map_err(|error| Error::Kubeconfig(Box::new(error)))
    }

    /// The flags, written over what a pod has to reach its API server.
    async fn in_pod(&self, pod: Config) -> Result<Config, Error> {
        let cluster = KubeCluster {
            server: Some(pod.cluster_url.to_string()),
            certificate_authority: pod.root_cert_file.map(|path| path.to_string_lossy().into_owned()),
            ..KubeCluster::default()
        };
        let kubeconfig = single_context("in-cluster", cluster, pod.auth_info, Some(pod.default_namespace));
        let mut config = self.load(kubeconfig).await?;
        // There is no proxy on the way to it, whatever the environment says.
        config.proxy_url = pod.proxy_url;
        Ok(config)
    }

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

    fn write_over(&self, mut config: Kubeconfig) -> Result<Kubeconfig, Error> {
        let contexts = || join(config.contexts.iter().map(|context| &context.name));
        let Some(wanted) = self.context.as_ref().or(config.current_context.as_ref()) else {
            let known = contexts();
            return Err(Error::Message(format!(
                "the kubeconfig has no current context: give --context, one of {known}"
            )));
        };
        let found = config.contexts.iter().find(|context| context.name == *wanted);
        let Some(context) = found.and_then(|context| context.context.clone()) else {
            let known = contexts();
            return Err(Error::Message(format!("the kubeconfig has no context {wanted:?}: it has {known}")));
        };
        let cluster = self.cluster.clone().unwrap_or(context.cluster);
        if let Some(entry) = config.clusters.iter_mut().find(|entry| entry.name == cluster) {
            self.write_cluster(entry.cluster.get_or_insert_default());
        }
        let user = self.user.clone().or(context.user).unwrap_or_default();
        if !config.auth_infos.iter().any(|entry| entry.name == user) {
            if self.user.is_some() {
                let known = join(config.auth_infos.iter().map(|entry| &entry.name));
                return Err(Error::Message(format!(
                    "the kubeconfig has no user {user:?}: it has {known}. For the user inside the container: --run-as"
                )));
            }
            config.auth_infos.push(NamedAuthInfo { name: user.clone(), ..NamedAuthInfo::default() });
        }
        if let Some(entry) = config.auth_infos.iter_mut().find(|entry| entry.name == user) {
            self.write_user(entry.auth_info.get_or_insert_default());
        }
        Ok(config)
    }

    fn write_cluster(&self, cluster: &mut KubeCluster) {
        write(&mut cluster.server, self.server.as_ref());
        write(&mut cluster.tls_server_name, self.tls_server_name.as_ref());
        if self.insecure_skip_tls_verify {
            cluster.insecure_skip_tls_verify = Some(true);
            cluster.certificate_authority = None;
            cluster.certificate_authority_data = None;
        }
        if write(&mut cluster.certificate_authority, self.certificate_authority.as_ref()) {
            cluster.certificate_authority_data = None;
        }
    }

    fn write_user(&self, user: &mut AuthInfo) {
        if let Some(token) = &self.token {
            user.token = Some(token.clone().into());
            // Only one way to authenticate, as for kubectl.
            user.token_file = None;
            user.exec = None;
            user.auth_provider = None;
        }
        if write(&mut user.client_certificate, self.client_certificate.as_ref()) {
            user.client_certificate_data = None;
        }
        if write(&mut user.client_key, self.client_key.as_ref()) {
            user.client_key_data = None;
        }
        write(&mut user.impersonate, self.impersonate.as_ref());
        write(&mut user.impersonate_uid, self.impersonate_uid.as_ref());
        write(&mut user.impersonate_groups, Some(&self.impersonate_groups).filter(|groups| !groups.is_empty()));
        let mut extra: HashMap<String, Vec<String>> = HashMap::new();
        for (key, value) in &self.impersonate_extra {
            extra.entry(key.clone()).or_default().push(value.clone());
        }
        write(&mut user.impersonate_user_extra, Some(&extra).filter(|extra| !extra.is_empty()));
    }
}

/// Writes the value of a flag over an entry; `false` if the flag was not given.
fn write<T: Clone>(entry: &mut Option<T>, flag: Option<&T>) -> bool {
    if let Some(value) = flag {
        *entry = Some(value.clone());
    }
    flag.is_some()
}

fn join<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn single_context(name: &str, cluster: KubeCluster, user: AuthInfo, namespace: Option<String>) -> Kubeconfig {
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
    use crate::cli::{follow::scripted, typed::key_value};

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
        let extra = |text: &str| key_value(text).expect("KEY=VALUE");
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
        assert_eq!(ConnectionArgs::default().for_shell(), "");
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
        let created = cluster.create(&scripted::request(json!({})), false).await;
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
