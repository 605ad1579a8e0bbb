//! `get`: requests, in the API server's own columns.

use hyper::{Request, header::ACCEPT};
use k8s_openapi::serde_json::Value;
use kube::{ResourceExt, api::ListParams};

use crate::{
    api::ExecRequest,
    cli::{
        cluster::connection::Cluster,
        cluster::requests::Requests,
        error::Error,
        exit::Exit,
        say::print::{self, Format, full_name},
    },
};

/// List requests, or show some.
#[derive(Clone, Debug, clap::Args)]
pub struct GetArgs {
    /// Names of the requests; default: all of the namespace.
    #[arg(value_name = "NAME", value_parser = request_name)]
    pub names: Vec<String>,

    /// How to print them; a table by default.
    #[arg(long, short = 'o', value_name = "FORMAT", value_enum)]
    pub output: Option<Columns>,

    /// Only those with these labels.
    #[arg(long, short = 'l', value_name = "SELECTOR", conflicts_with = "names")]
    pub selector: Option<String>,

    /// Only those with these fields: status.phase, status.nodeName, status.completionTime.
    #[arg(long, value_name = "SELECTOR", conflicts_with = "names")]
    pub field_selector: Option<String>,

    /// Of all namespaces.
    #[arg(long, short = 'A', conflicts_with = "names")]
    pub all_namespaces: bool,
}

/// How they are printed.
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

/// Reads `NAME`, `xr/NAME` or `execrequest.execlet.dev/NAME`, as kubectl prints it.
///
/// # Errors
/// With words for the user.
pub fn request_name(text: &str) -> Result<String, String> {
    const KINDS: [&str; 5] =
        ["xr", "execrequest", "execrequests", "execrequest.execlet.dev", "execrequests.execlet.dev"];
    match text.split_once('/') {
        None if text.is_empty() => Err("the name is empty".to_owned()),
        None => Ok(text.to_owned()),
        Some((kind, name)) if KINDS.contains(&kind) && !name.is_empty() && !name.contains('/') => Ok(name.to_owned()),
        Some((kind, _)) => Err(format!("a {kind} is no request: give NAME or xr/NAME")),
    }
}

/// Prints them.
///
/// # Errors
/// When they cannot be read.
pub async fn run(cluster: &Cluster, args: GetArgs) -> Result<Exit, Error> {
    let text = match args.output {
        None => table(cluster, &args, false).await?,
        Some(Columns::Wide) => table(cluster, &args, true).await?,
        Some(Columns::Json) => objects(cluster, &args, Format::Json).await?,
        Some(Columns::Yaml) => objects(cluster, &args, Format::Yaml).await?,
        Some(Columns::Name) => objects(cluster, &args, Format::Name).await?,
    };
    if text.is_empty() {
        let place = if args.all_namespaces { "any" } else { cluster.namespace.as_str() };
        eprintln!("execlet: no requests found in {place} namespace");
    }
    print::out(&text)?;
    Ok(Exit::SUCCESS)
}

async fn objects(cluster: &Cluster, args: &GetArgs, format: Format) -> Result<String, Error> {
    let requests = Requests::new(cluster);
    let mut found = Vec::new();
    for name in &args.names {
        found.push(requests.get(name).await?);
    }
    if args.names.is_empty() {
        let mut params = ListParams::default();
        params.label_selector.clone_from(&args.selector);
        params.field_selector.clone_from(&args.field_selector);
        let api = if args.all_namespaces { kube::Api::all(cluster.client.clone()) } else { requests.api.clone() };
        found = cluster.call("listing requests", api.list(&params)).await?.items;
    }
    match (format, found.as_slice()) {
        (Format::Name, all) => Ok(all.iter().map(|request| full_name(request) + "\n").collect()),
        (_, [one]) if args.names.len() == 1 => print::object(one, format),
        (_, all) => {
            let encoded = |request: &ExecRequest| {
                serde_json::to_value(request).map(print::tidy).map_err(|error| Error::Show(error.to_string()))
            };
            let items = all.iter().map(encoded).collect::<Result<Vec<Value>, Error>>()?;
            print::encode(&serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items}), format)
        }
    }
}

async fn table(cluster: &Cluster, args: &GetArgs, wide: bool) -> Result<String, Error> {
    let folder = if args.all_namespaces {
        "/apis/execlet.dev/v1alpha1/execrequests".to_owned()
    } else {
        format!("/apis/execlet.dev/v1alpha1/namespaces/{}/execrequests", cluster.namespace)
    };
    let paths: Vec<String> = match args.names.as_slice() {
        [] => {
            let mut query = Vec::new();
            for (name, value) in [("labelSelector", &args.selector), ("fieldSelector", &args.field_selector)] {
                if let Some(value) = value {
                    query.push(format!("{name}={}", escape(value)));
                }
            }
            vec![format!("{folder}?{}", query.join("&"))]
        }
        names => names.iter().map(|name| format!("{folder}/{}", escape(name))).collect(),
    };
    let mut all: Option<Value> = None;
    for path in paths {
        let mut request = Request::new(Vec::new());
        *request.uri_mut() = path.parse().map_err(|_| Error::Usage(format!("{path} cannot be asked for")))?;
        let accept = hyper::header::HeaderValue::from_static("application/json;as=Table;v=v1;g=meta.k8s.io");
        request.headers_mut().insert(ACCEPT, accept);
        let mut table: Value = cluster.call("getting requests", cluster.client.request(request)).await?;
        match &mut all {
            None => all = Some(table),
            Some(all) => {
                let rows = table["rows"].as_array_mut().map(std::mem::take).unwrap_or_default();
                if let Some(into) = all["rows"].as_array_mut() {
                    into.extend(rows);
                }
            }
        }
    }
    Ok(all.map(|table| lay_out(&table, wide, args.all_namespaces)).unwrap_or_default())
}

/// A `meta.k8s.io/v1` Table as text; nothing if it has no rows.
fn lay_out(table: &Value, wide: bool, namespaces: bool) -> String {
    let empty = Vec::new();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_else(|| empty.clone());
    let columns = list(&table["columnDefinitions"]);
    let shown: Vec<usize> =
        (0..columns.len()).filter(|at| wide || columns[*at]["priority"].as_i64().unwrap_or(0) == 0).collect();
    let mut lines = Vec::new();
    for row in list(&table["rows"]) {
        let cells = list(&row["cells"]);
        let cell = |at: &usize| match cells.get(*at) {
            Some(Value::String(text)) => text.clone(),
            None | Some(Value::Null) => String::new(),
            Some(other) => other.to_string(),
        };
        let namespace = row["object"]["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        lines.push(namespaces.then_some(namespace).into_iter().chain(shown.iter().map(cell)).collect::<Vec<_>>());
    }
    if lines.is_empty() {
        return String::new();
    }
    let name = |at: &usize| columns[*at]["name"].as_str().unwrap_or_default().to_uppercase();
    lines.insert(0, namespaces.then(|| "NAMESPACE".to_owned()).into_iter().chain(shown.iter().map(name)).collect());
    let count = lines[0].len();
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let text = |line: &Vec<String>| {
        let cells: Vec<String> =
            line.iter().enumerate().map(|(at, cell)| format!("{cell:<width$}", width = widths[at])).collect();
        cells.join("   ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(text).collect()
}

/// Percent-encodes what a query or a segment of a path may not hold.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.extend(["%", &format!("{byte:02X}")]);
        }
    }
    escaped
}

/// Names of the requests of a namespace, for completion.
///
/// # Errors
/// When they cannot be listed.
pub async fn names(cluster: &Cluster) -> Result<Vec<String>, Error> {
    let requests = Requests::new(cluster);
    let params = ListParams::default();
    let listed = requests.api.list_metadata(&params);
    Ok(cluster.call("listing requests", listed).await?.items.iter().map(ResourceExt::name_any).collect())
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
        assert_eq!(lay_out(&table(), false, false), "NAME     EXIT\none      3\nlonger\n");
        assert_eq!(
            lay_out(&table(), true, true),
            "NAMESPACE   NAME     EXIT   NODE\nshop        one      3      n1\na           longer          n2\n"
        );
        assert_eq!(lay_out(&json!({"columnDefinitions": [{"name": "Name"}], "rows": []}), false, false), "");
    }

    #[test]
    fn names_are_taken_as_kubectl_prints_them() {
        for text in ["r", "xr/r", "execrequest/r", "execrequest.execlet.dev/r"] {
            assert_eq!(request_name(text).as_deref(), Ok("r"), "{text}");
        }
        for text in ["", "xr/", "pod/r", "xr/a/b"] {
            assert!(request_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_selector_is_escaped() {
        assert_eq!(escape("status.phase=Running,a!=b c"), "status.phase%3DRunning%2Ca%21%3Db%20c");
    }
}
