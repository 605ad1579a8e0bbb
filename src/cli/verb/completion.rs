//! Completion by way of kubectl: for `kubectl execlet ...` it runs
//! `kubectl_complete-execlet` with the words typed so far, and reads one
//! suggestion a line and a last line `:DIRECTIVE` of cobra's.
//!
//! What there is to complete is read off the definition of the command line.

use clap::{Arg, Command};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{Api, ResourceExt, api::ListParams};

use super::{get, run::pod_name};
use crate::cli::{
    cluster::connection::Cluster, cluster::connection::ConnectionArgs, error::Error, exit::Exit, say::print,
};

/// Names of the executable that kubectl runs to complete.
pub const EXECUTABLE: &str = "kubectl_complete-execlet";
/// Cobra's directive: suggest no files.
const NO_FILES: u8 = 4;
/// Cobra's directive: files are fine.
const FILES: u8 = 0;

/// Print the executable that completes `kubectl execlet`, to be put on the PATH as kubectl_complete-execlet.
#[derive(Clone, Debug, clap::Args)]
pub struct CompletionArgs {}

/// The executable, where it is no link to the plugin.
const SCRIPT: &str = "#!/bin/sh\n# Completes `kubectl execlet`: kubectl runs it, by its name on the PATH.\nexec kubectl-execlet __complete \"$@\"\n";

/// Prints the executable.
pub fn script() -> Result<Exit, Error> {
    print::out(SCRIPT).map(|()| Exit::SUCCESS)
}

/// What may stand where the cursor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// One of these words, each with what it means.
    Words(Vec<(String, String)>),
    /// A pod.
    Pod,
    /// A container of that pod.
    Container(Option<String>),
    /// A request.
    Request,
    /// A namespace.
    Namespace,
    /// A context of the kubeconfig.
    Context,
    /// A cluster of the kubeconfig.
    Cluster,
    /// A user of the kubeconfig.
    User,
    /// A file.
    File,
    /// Something that nobody can guess.
    Nothing,
}

/// What may stand at the last of the words.
pub fn wanted(definition: &Command, words: &[String]) -> Wanted {
    let (last, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", words),
    };
    let mut verb: Option<&Command> = None;
    let mut positional = Vec::new();
    let mut open: Option<&Arg> = None;
    for word in before {
        if open.take().is_some() {
            continue;
        }
        if word == "--" {
            return Wanted::Nothing;
        }
        if word.starts_with('-') && word.len() > 1 {
            open = flag_of(definition, verb, word).filter(|flag| takes_value(flag) && !word.contains('='));
        } else if let Some(found) = definition.find_subcommand(word).filter(|_| verb.is_none()) {
            verb = Some(found);
        } else {
            positional.push(word.as_str());
        }
    }
    if let Some(flag) = open {
        return value_of(flag, &positional);
    }
    if last.starts_with('-') {
        return Wanted::Words(flags(definition, verb));
    }
    match verb {
        None => Wanted::Words(
            definition
                .get_subcommands()
                .filter(|verb| !verb.is_hide_set())
                .map(|verb| about(verb.get_name(), verb.get_about()))
                .collect(),
        ),
        Some(verb) => match (verb.get_name(), positional.len()) {
            ("run", 0) => Wanted::Pod,
            ("attach" | "logs" | "wait", 0) | ("get" | "describe" | "cancel", _) => Wanted::Request,
            ("replay", 0) => Wanted::File,
            _ => Wanted::Nothing,
        },
    }
}

fn value_of(flag: &Arg, positional: &[&str]) -> Wanted {
    let values = flag.get_possible_values();
    if !values.is_empty() {
        let words = values.iter().filter(|value| !value.is_hide_set());
        return Wanted::Words(words.map(|value| about(value.get_name(), value.get_help())).collect());
    }
    match flag.get_long().unwrap_or_default() {
        "namespace" => Wanted::Namespace,
        "container" => Wanted::Container(positional.first().and_then(|pod| pod_name(pod).ok())),
        "context" => Wanted::Context,
        "cluster" => Wanted::Cluster,
        "user" => Wanted::User,
        "kubeconfig" | "record" | "certificate-authority" | "client-certificate" | "client-key" => Wanted::File,
        _ => Wanted::Nothing,
    }
}

fn flag_of<'a>(definition: &'a Command, verb: Option<&'a Command>, word: &str) -> Option<&'a Arg> {
    let name = word.split('=').next().unwrap_or_default();
    arguments(definition, verb).find(|flag| match name.strip_prefix("--") {
        Some(long) => {
            flag.get_long() == Some(long) || flag.get_visible_aliases().is_some_and(|all| all.contains(&long))
        }
        // Of a bundle such as -it the last may take a value.
        None => flag.get_short().is_some() && flag.get_short() == name.chars().last(),
    })
}

fn arguments<'a>(definition: &'a Command, verb: Option<&'a Command>) -> impl Iterator<Item = &'a Arg> {
    verb.into_iter().flat_map(Command::get_arguments).chain(definition.get_arguments())
}

fn takes_value(flag: &Arg) -> bool {
    flag.get_action().takes_values()
}

fn flags(definition: &Command, verb: Option<&Command>) -> Vec<(String, String)> {
    let shown = arguments(definition, verb).filter(|flag| !flag.is_hide_set());
    shown.filter_map(|flag| flag.get_long().map(|long| about(&format!("--{long}"), flag.get_help()))).collect()
}

fn about(word: &str, help: Option<&clap::builder::StyledStr>) -> (String, String) {
    (
        word.to_owned(),
        help.map(|help| help.to_string().lines().next().unwrap_or_default().to_owned()).unwrap_or_default(),
    )
}

/// Prints the lines for kubectl.
pub async fn complete(definition: &Command, connection: &ConnectionArgs, words: &[String]) -> Result<Exit, Error> {
    let wanted = wanted(definition, words);
    let directive = if wanted == Wanted::File { FILES } else { NO_FILES };
    let typed = words.last().map(String::as_str).unwrap_or_default();
    // Completion that fails suggests nothing: there is nowhere to say why.
    let all = suggestions(wanted, connection).await.unwrap_or_default();
    let mut text = String::new();
    for (word, meaning) in all.iter().filter(|(word, _)| word.starts_with(typed)) {
        text += word;
        if !meaning.is_empty() {
            text += "\t";
            text += meaning;
        }
        text += "\n";
    }
    print::out(&format!("{text}:{directive}\n")).map(|()| Exit::SUCCESS)
}

async fn suggestions(wanted: Wanted, connection: &ConnectionArgs) -> Result<Vec<(String, String)>, Error> {
    let bare = |names: Vec<String>| names.into_iter().map(|name| (name, String::new())).collect();
    let kubeconfig = || connection.kubeconfig().map(Option::unwrap_or_default);
    Ok(match wanted {
        Wanted::Words(words) => words,
        Wanted::File | Wanted::Nothing | Wanted::Container(None) => Vec::new(),
        Wanted::Context => bare(kubeconfig()?.contexts.into_iter().map(|entry| entry.name).collect()),
        Wanted::Cluster => bare(kubeconfig()?.clusters.into_iter().map(|entry| entry.name).collect()),
        Wanted::User => bare(kubeconfig()?.auth_infos.into_iter().map(|entry| entry.name).collect()),
        Wanted::Namespace => {
            let cluster = connection.connect().await?;
            let api: Api<Namespace> = Api::all(cluster.client.clone());
            let params = ListParams::default();
            let list = cluster.call("listing namespaces", api.list_metadata(&params)).await?;
            bare(list.items.iter().map(ResourceExt::name_any).collect())
        }
        Wanted::Pod => {
            let cluster = connection.connect().await?;
            let params = ListParams::default();
            let pods = pods(&cluster);
            let list = cluster.call("listing pods", pods.list_metadata(&params)).await?;
            bare(list.items.iter().map(ResourceExt::name_any).collect())
        }
        Wanted::Container(Some(pod)) => {
            let cluster = connection.connect().await?;
            let pod = cluster.call("getting the pod", pods(&cluster).get(&pod)).await?;
            bare(pod.spec.map(|spec| spec.containers).unwrap_or_default().into_iter().map(|one| one.name).collect())
        }
        Wanted::Request => bare(get::names(&connection.connect().await?).await?),
    })
}

fn pods(cluster: &Cluster) -> Api<Pod> {
    Api::namespaced(cluster.client.clone(), &cluster.namespace)
}
