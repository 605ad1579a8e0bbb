//! `get`: requests and batches, in the API server's own columns.

use hyper::{
    Request,
    header::{ACCEPT, HeaderValue},
};
use k8s_openapi::serde_json::Value;
use kube::{
    Api, Resource,
    api::{GetParams, ListParams},
};
use serde::Serialize;

use crate::{
    api::{ExecBatch, ExecRequest},
    cli::{
        cluster::connection::Cluster,
        error::Error,
        exit::Exit,
        follow::followed::Followed,
        say::{
            page::Page,
            print::{self, Format, full_name},
            speech::Speech,
        },
        typed::{Name, object_name},
    },
    core::printable::one_line,
};

/// List requests or batches, or show some of them.
#[derive(Clone, Debug, clap::Args)]
pub struct GetArgs {
    /// Names of the requests, or xb/NAME of batches (default: all requests of the namespace).
    #[arg(value_name = "NAME", value_parser = object_name)]
    pub names: Vec<Name>,

    /// List batches, not requests.
    #[arg(long, conflicts_with = "names")]
    pub batches: bool,

    /// Output format (default: a table).
    #[arg(long, short = 'o', value_name = "FORMAT", value_enum)]
    pub output: Option<Columns>,

    /// Only those with these labels.
    #[arg(long, short = 'l', value_name = "SELECTOR", conflicts_with = "names")]
    pub selector: Option<String>,

    /// Only those with these fields: status.phase, status.completionTime; of requests also status.nodeName and spec.batch.uid.
    #[arg(long, value_name = "SELECTOR", conflicts_with = "names")]
    pub field_selector: Option<String>,

    /// In all namespaces.
    #[arg(long, short = 'A', conflicts_with = "names")]
    pub all_namespaces: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Columns {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Names alone.
    Name,
    /// A table with more columns.
    Wide,
}

impl GetArgs {
    fn list_params(&self) -> ListParams {
        ListParams {
            label_selector: self.selector.clone(),
            field_selector: self.field_selector.clone(),
            ..ListParams::default()
        }
    }
}

pub async fn run(cluster: &Cluster, args: GetArgs) -> Result<Exit, Error> {
    let page = match args.output {
        None => table(cluster, &args, false).await?,
        Some(Columns::Wide) => table(cluster, &args, true).await?,
        Some(Columns::Json) => objects(cluster, &args, Format::Json).await?,
        Some(Columns::Yaml) => objects(cluster, &args, Format::Yaml).await?,
        Some(Columns::Name) => objects(cluster, &args, Format::Name).await?,
    };
    if page.is_empty() {
        let place = if args.all_namespaces { "any" } else { cluster.namespace.as_str() };
        let what = if args.batches { "batches" } else { "requests" };
        Speech::new(true).say(&format!("no {what} found in {place} namespace"));
    }
    print::out(&page)
}

async fn objects(cluster: &Cluster, args: &GetArgs, format: Format) -> Result<Page, Error> {
    let mut found = Vec::new();
    for name in &args.names {
        found.push(match name {
            Name::Request(name) => Found::of(&cluster.get(name).await?)?,
            Name::Batch(name) => Found::of(&cluster.batch(name).await?)?,
        });
    }
    if args.names.is_empty() {
        found = if args.batches {
            list::<ExecBatch>(cluster, args).await?
        } else {
            list::<ExecRequest>(cluster, args).await?
        };
    }
    match (format, found.as_slice()) {
        (Format::Name, all) => Ok(all.iter().fold(Page::default(), |page, found| page.line(&found.name))),
        (_, [one]) if args.names.len() == 1 => print::encode(&one.value, format),
        (_, all) => {
            let items: Vec<&Value> = all.iter().map(|found| &found.value).collect();
            print::encode(&serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items}), format)
        }
    }
}

/// An object as it is printed.
struct Found {
    name: String,
    value: Value,
}

impl Found {
    fn of<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Result<Self, Error> {
        Ok(Self { name: full_name(object), value: print::value(object)? })
    }
}

async fn list<K: Followed + Serialize>(cluster: &Cluster, args: &GetArgs) -> Result<Vec<Found>, Error> {
    let client = cluster.client.clone();
    let api: Api<K> = if args.all_namespaces { Api::all(client) } else { Api::namespaced(client, &cluster.namespace) };
    let what = format!("listing {}", K::plural(&()));
    cluster.call(what, api.list(&args.list_params())).await?.items.iter().map(Found::of).collect()
}

async fn table(cluster: &Cluster, args: &GetArgs, wide: bool) -> Result<Page, Error> {
    let (mut requests, mut batches) = (Value::Null, Value::Null);
    for (of_batches, mut call) in calls(cluster, args)? {
        let all = if of_batches { &mut batches } else { &mut requests };
        let accept = HeaderValue::from_static("application/json;as=Table;v=v1;g=meta.k8s.io");
        call.headers_mut().insert(ACCEPT, accept);
        let mut table: Value = cluster.call("getting the table", cluster.client.request(call)).await?;
        match all["rows"].as_array_mut() {
            Some(rows) => rows.append(table["rows"].as_array_mut().unwrap_or(&mut Vec::new())),
            None => *all = table,
        }
    }
    let pages = [requests, batches].map(|table| lay_out(&table, wide, args.all_namespaces));
    let [requests, batches] = pages;
    let between = if requests.is_empty() || batches.is_empty() { Page::default() } else { Page::ours("\n") };
    Ok(requests.then(&between).then(&batches))
}

/// Whether it is for batches, and the call.
type Call = (bool, Request<Vec<u8>>);

/// The calls that get what was asked for.
fn calls(cluster: &Cluster, args: &GetArgs) -> Result<Vec<Call>, Error> {
    let namespace = (!args.all_namespaces).then_some(cluster.namespace.as_str());
    let url = |batches: bool| {
        let path = if batches { ExecBatch::url_path(&(), namespace) } else { ExecRequest::url_path(&(), namespace) };
        kube::core::Request::new(path)
    };
    let get = |name: &Name| {
        let of_batches = matches!(name, Name::Batch(_));
        url(of_batches).get(name.as_str(), &GetParams::default()).map(|call| (of_batches, call))
    };
    let calls: Result<Vec<_>, _> = match args.names.as_slice() {
        [] => url(args.batches).list(&args.list_params()).map(|call| vec![(args.batches, call)]),
        names => names.iter().map(get).collect(),
    };
    calls.map_err(|error| cluster.failed("getting the table", kube::Error::BuildRequest(error)))
}

/// A `meta.k8s.io/v1` Table as text; empty if it has no rows.
fn lay_out(table: &Value, wide: bool, namespaces: bool) -> Page {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let columns = list(&table["columnDefinitions"]);
    let shown: Vec<usize> =
        (0..columns.len()).filter(|at| wide || columns[*at]["priority"].as_i64().unwrap_or(0) == 0).collect();
    let mut lines = Vec::new();
    for row in list(&table["rows"]) {
        let cell = |at: &usize| match &row["cells"][*at] {
            // Before the widths are taken.
            Value::String(text) => one_line(text),
            Value::Null => String::new(),
            other => one_line(&other.to_string()),
        };
        let namespace = row["object"]["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        lines.push(namespaces.then_some(namespace).into_iter().chain(shown.iter().map(cell)).collect::<Vec<_>>());
    }
    if lines.is_empty() {
        return Page::default();
    }
    let name = |at: &usize| columns[*at]["name"].as_str().unwrap_or_default().to_uppercase();
    lines.insert(0, namespaces.then(|| "NAMESPACE".to_owned()).into_iter().chain(shown.iter().map(name)).collect());
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let text = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned()
    };
    lines.iter().fold(Page::default(), |page, line| page.line(&text(line)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table() -> Value {
        json!({
            "columnDefinitions": [
                {"name": "Name", "priority": 0}, {"name": "Exit", "priority": 0}, {"name": "Node", "priority": 1},
            ],
            "rows": [
                {"cells": ["one", 3, "n1"], "object": {"metadata": {"namespace": "shop"}}},
                {"cells": ["longer", null, "n2"], "object": {"metadata": {"namespace": "a"}}},
            ],
        })
    }

    #[test]
    fn the_columns_are_the_servers() {
        let lay_out = |table: &Value, wide, namespaces| lay_out(table, wide, namespaces).as_str().to_owned();
        assert_eq!(lay_out(&table(), false, false), "NAME     EXIT\none      3\nlonger\n");
        assert_eq!(
            lay_out(&table(), true, true),
            "NAMESPACE   NAME     EXIT   NODE\nshop        one      3      n1\na           longer          n2\n"
        );
        assert_eq!(lay_out(&json!({"columnDefinitions": [{"name": "Name"}], "rows": []}), false, false), "");
        let mut forged = table();
        forged["rows"][0]["cells"][0] = json!("one\n\u{1b}[1Atwo");
        assert_eq!(lay_out(&forged, false, false), "NAME              EXIT\none\\n\\x1b[1Atwo   3\nlonger\n");
        forged["rows"][1]["cells"][0] = json!(["\u{202e}", "of two"]);
        assert_eq!(
            lay_out(&forged, false, false),
            "NAME                    EXIT\none\\n\\x1b[1Atwo         3\n[\"\\u{202e}\",\"of two\"]\n"
        );
    }

    #[tokio::test]
    async fn a_selector_is_escaped() {
        let (cluster, _) = crate::cli::follow::scripted::cluster(|_| None);
        let args = GetArgs {
            names: Vec::new(),
            batches: false,
            output: None,
            selector: None,
            field_selector: Some("status.phase=Running,a!=b c".to_owned()),
            all_namespaces: false,
        };
        let calls = calls(&cluster, &args).expect("calls");
        let uris: Vec<String> = calls.iter().map(|(_, call)| call.uri().to_string()).collect();
        let base = "/apis/execlet.dev/v1alpha1/namespaces/shop/execrequests";
        assert_eq!(uris, [format!("{base}?&fieldSelector=status.phase%3DRunning%2Ca%21%3Db+c")]);
    }
}
