//! kubectl's connection flags.

use std::{path::PathBuf, time::Duration};

use crate::cli::{
    say::{duration, shell::shell_words},
    typed::key_value,
};

/// The flags that kubectl has for every command.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Connection (as for kubectl)")]
pub struct ConnectionArgs {
    /// Path of the kubeconfig file.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig to use.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,

    /// Cluster of the kubeconfig to use.
    #[arg(long, global = true, value_name = "NAME")]
    pub cluster: Option<String>,

    /// User of the kubeconfig to use. For the user inside the container, see --run-as of run.
    #[arg(long, global = true, value_name = "NAME")]
    pub user: Option<String>,

    /// Namespace of the requests (default: the context's).
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

    /// Group to impersonate; can be repeated.
    #[arg(long = "as-group", global = true, value_name = "NAME")]
    pub impersonate_groups: Vec<String>,

    /// UID to impersonate.
    #[arg(long = "as-uid", global = true, value_name = "UID")]
    pub impersonate_uid: Option<String>,

    /// Extra attribute to impersonate; can be repeated, also with the same key.
    #[arg(long = "as-user-extra", global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    pub impersonate_extra: Vec<(String, String)>,

    /// How long a single call may take (default: 30s; 0: no limit). Streams and waits are not limited by it.
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration::parse)]
    pub request_timeout: Option<Duration>,

    /// Do not verify the API server's certificate.
    #[arg(long, global = true)]
    pub insecure_skip_tls_verify: bool,

    /// File with the CA certificates that the API server's certificate is verified with.
    #[arg(long, global = true, value_name = "FILE")]
    pub certificate_authority: Option<String>,

    /// File with the client certificate.
    #[arg(long, global = true, value_name = "FILE")]
    pub client_certificate: Option<String>,

    /// File with the key of the client certificate.
    #[arg(long, global = true, value_name = "FILE")]
    pub client_key: Option<String>,

    /// Name to expect in the API server's certificate.
    #[arg(long, global = true, value_name = "NAME")]
    pub tls_server_name: Option<String>,

    /// No effect, for compatibility with kubectl: responses are never compressed.
    #[arg(long, global = true)]
    pub disable_compression: bool,
}

impl ConnectionArgs {
    /// The flags that lead to the same cluster, namespace and user, without the token.
    pub fn for_shell(&self) -> String {
        let kubeconfig = self.kubeconfig.as_ref().map(|path| path.to_string_lossy().into_owned());
        let single = [
            ("--kubeconfig", &kubeconfig),
            ("--context", &self.context),
            ("--cluster", &self.cluster),
            ("--user", &self.user),
            ("-n", &self.namespace),
            ("--server", &self.server),
            ("--as", &self.impersonate),
            ("--as-uid", &self.impersonate_uid),
            ("--certificate-authority", &self.certificate_authority),
            ("--client-certificate", &self.client_certificate),
            ("--client-key", &self.client_key),
            ("--tls-server-name", &self.tls_server_name),
        ];
        let single = single.into_iter().filter_map(|(flag, value)| Some((flag, value.clone()?)));
        let groups = self.impersonate_groups.iter().map(|group| ("--as-group", group.clone()));
        let extra = self.impersonate_extra.iter().map(|(key, value)| ("--as-user-extra", format!("{key}={value}")));
        let mut words: Vec<String> =
            single.chain(groups).chain(extra).flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
        words.extend(self.insecure_skip_tls_verify.then(|| "--insecure-skip-tls-verify".to_owned()));
        if words.is_empty() { String::new() } else { format!(" {}", shell_words(&words)) }
    }
}
