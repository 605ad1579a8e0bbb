//! Completion through kubectl: for `kubectl execlet ...` it runs
//! `kubectl_complete-execlet` with the words typed so far, and reads one
//! suggestion from each line and from the last one a `:DIRECTIVE` of cobra's.
//!
//! What can be completed comes from the definition of the command line.

use std::fmt::Debug;

use clap::{Arg, Command};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{Api, api::ListParams};
use serde::de::DeserializeOwned;

use crate::{
    cli::{
        cluster::{connection::Cluster, flags::ConnectionArgs},
        error::Error,
        exit::Exit,
        say::{page::Page, print},
        typed::pod_name,
    },
    core::printable::is_printable,
};

/// The name of the executable that kubectl runs to complete.
pub const EXECUTABLE: &str = "kubectl_complete-execlet";
/// The executable, where it is not a link to the plugin.
const SCRIPT: &str = "#!/bin/sh
# Completes `kubectl execlet`: kubectl runs it, by its name on the PATH.
exec kubectl-execlet __complete \"$@\"
";
/// Cobra's directive: suggest no files.
const NO_FILES: u8 = 4;
/// Cobra's directive: suggest files too.
const FILES: u8 = 0;

/// Print a script that completes `kubectl execlet`: save it on the PATH as kubectl_complete-execlet.
#[derive(Clone, Debug, clap::Args)]
pub struct CompletionArgs {}

/// Prints the script.
pub fn script() -> Result<Exit, Error> {
    print::out(&Page::ours(SCRIPT))
}

/// A suggestion, and what it means.
type Suggestion = (String, String);

/// What may stand at the cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// One of these.
    Words(Vec<Suggestion>),
    Pod,
    /// A container of this pod.
    Container(Option<String>),
    /// A request, or a batch.
    Object,
    Batch,
    Namespace,
    Context,
    Cluster,
    User,
    File,
    /// Nothing that can be guessed.
    Nothing,
}

/// What may stand in place of the last word.
pub fn wanted(definition: &Command, words: &[String]) -> Wanted {
    let (last, before) = words.split_last().map_or(("", words), |(last, before)| (last.as_str(), before));
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
            open =
                flag_of(definition, verb, word).filter(|flag| flag.get_action().takes_values() && !word.contains('='));
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
        None => {
            let verbs = definition.get_subcommands().filter(|verb| !verb.is_hide_set());
            Wanted::Words(verbs.map(|verb| about(verb.get_name(), verb.get_about())).collect())
        }
        Some(verb) => match (verb.get_name(), positional.len()) {
            ("run", _) => Wanted::Pod,
            ("attach" | "logs" | "wait", 0) | ("get" | "describe" | "cancel", _) => Wanted::Object,
            ("approve" | "report" | "resume" | "rerun", 0) => Wanted::Batch,
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

fn flags(definition: &Command, verb: Option<&Command>) -> Vec<Suggestion> {
    let shown = arguments(definition, verb).filter(|flag| !flag.is_hide_set());
    shown.filter_map(|flag| flag.get_long().map(|long| about(&format!("--{long}"), flag.get_help()))).collect()
}

/// A word with the first line of its help.
fn about(word: &str, help: Option<&clap::builder::StyledStr>) -> Suggestion {
    let help = help.map(ToString::to_string).unwrap_or_default();
    (word.to_owned(), help.lines().next().unwrap_or_default().to_owned())
}

/// Prints the suggestions as kubectl reads them.
pub async fn complete(definition: &Command, connection: &ConnectionArgs, words: &[String]) -> Result<Exit, Error> {
    let wanted = wanted(definition, words);
    let directive = if wanted == Wanted::File { FILES } else { NO_FILES };
    let typed = words.last().map(String::as_str).unwrap_or_default();
    // A completion that fails suggests nothing: there is nowhere to say why.
    let all = suggestions(wanted, connection).await.unwrap_or_default();
    // What a shell cannot be given as it is, it is not given.
    let fit = |word: &str| word.starts_with(typed) && word.chars().all(is_printable);
    let lines = all.iter().filter(|(word, _)| fit(word)).fold(Page::default(), |page, (word, meaning)| {
        if meaning.is_empty() { page.line(word) } else { page.text(word).tab().line(meaning) }
    });
    print::out(&lines.line(&format!(":{directive}")))
}

async fn suggestions(wanted: Wanted, connection: &ConnectionArgs) -> Result<Vec<Suggestion>, Error> {
    let kubeconfig = || connection.kubeconfig().map(Option::unwrap_or_default);
    let names: Vec<String> = match wanted {
        Wanted::Words(words) => return Ok(words),
        Wanted::File | Wanted::Nothing | Wanted::Container(None) => Vec::new(),
        Wanted::Context => kubeconfig()?.contexts.into_iter().map(|entry| entry.name).collect(),
        Wanted::Cluster => kubeconfig()?.clusters.into_iter().map(|entry| entry.name).collect(),
        Wanted::User => kubeconfig()?.auth_infos.into_iter().map(|entry| entry.name).collect(),
        Wanted::Namespace => {
            let cluster = connection.connect().await?;
            list::<Namespace>(&cluster, &Api::all(cluster.client.clone())).await?
        }
        Wanted::Pod => {
            let cluster = connection.connect().await?;
            list(&cluster, &pods(&cluster)).await?
        }
        Wanted::Object => {
            let cluster = connection.connect().await?;
            let requests = list(&cluster, &cluster.requests()).await?;
            // An installation may have no batches yet.
            let batches = batches(&cluster).await.unwrap_or_default();
            requests.into_iter().chain(batches).collect()
        }
        Wanted::Batch => batches(&connection.connect().await?).await?,
        Wanted::Container(Some(pod)) => {
            let cluster = connection.connect().await?;
            let pod = cluster.call("getting the pod", pods(&cluster).get(&pod)).await?;
            pod.spec.map(|spec| spec.containers).unwrap_or_default().into_iter().map(|one| one.name).collect()
        }
    };
    Ok(names.into_iter().map(|name| (name, String::new())).collect())
}

/// As they are typed.
async fn batches(cluster: &Cluster) -> Result<Vec<String>, Error> {
    let names = list(cluster, &cluster.batches()).await?;
    Ok(names.into_iter().map(|name| format!("xb/{name}")).collect())
}

fn pods(cluster: &Cluster) -> Api<Pod> {
    Api::namespaced(cluster.client.clone(), &cluster.namespace)
}

async fn list<K: Clone + DeserializeOwned + Debug>(cluster: &Cluster, api: &Api<K>) -> Result<Vec<String>, Error> {
    let list = cluster.call("listing names", api.list_metadata(&ListParams::default())).await?;
    Ok(list.items.into_iter().filter_map(|item| item.metadata.name).collect())
}
