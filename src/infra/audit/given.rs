//! What is given to a verification, as files: audit logs, Leases, and objects of the API server.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize as _;
use serde_json::Value;
use thiserror::Error;

use crate::{
    api::names,
    core::audit::{
        anchor::{Anchors, NotAnAnchor},
        complete::Export,
        examine::Found,
        verify::{File, first_in},
    },
};

#[derive(Debug, Error)]
pub enum NotGiven {
    #[error("cannot read {}: {}", .0.display(), .1)]
    Unreadable(PathBuf, io::Error),
    #[error("{}: found no audit log: its files are named audit-NUMBER.jsonl", .0.display())]
    NoLog(PathBuf),
    #[error("{}: {}", .0.display(), .1)]
    NotYaml(PathBuf, serde_yaml_ng::Error),
    #[error("{}: {}", .0.display(), .1)]
    NotAnAnchor(PathBuf, NotAnAnchor),
    #[error("{}: it has no Lease with the annotation {}", .0.display(), names::AUDIT_HEADS_ANNOTATION)]
    NoHead(PathBuf),
    #[error("{}: not JSON: {}", .0.display(), .1)]
    NotJson(PathBuf, serde_json::Error),
    #[error("{}: not an {}: {}", .0.display(), .1, .2)]
    NotAnObject(PathBuf, &'static str, serde_json::Error),
    #[error("{}: an {} has no UID, so its records cannot be found", .0.display(), .1)]
    NoUid(PathBuf, &'static str),
}

/// The files of each directory, in the order of their names. What was given twice is read once.
pub fn chains(paths: &[PathBuf]) -> Result<Vec<Found>, NotGiven> {
    let mut chains: BTreeMap<PathBuf, BTreeSet<PathBuf>> = BTreeMap::new();
    for path in paths {
        let mut files = Vec::new();
        collect(path, true, &mut files).map_err(unreadable(path))?;
        if files.is_empty() {
            return Err(NotGiven::NoLog(path.clone()));
        }
        for file in files {
            let file = file.canonicalize().map_err(unreadable(&file))?;
            let directory = file.parent().unwrap_or(Path::new("")).to_owned();
            chains.entry(directory).or_default().insert(file);
        }
    }
    let read = |path: &PathBuf| {
        let text = fs::read(path).map_err(unreadable(path))?;
        Ok(File { name: path.display().to_string(), first: first_in(path), text })
    };
    let chains = chains.iter().map(|(directory, files)| {
        let files = files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(Found { directory: directory.display().to_string(), files })
    });
    chains.collect()
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> NotGiven {
    let path = path.to_owned();
    move |error| NotGiven::Unreadable(path, error)
}

/// Takes any file that was given by name, but of a directory only audit logs.
fn collect(path: &Path, named: bool, into: &mut Vec<PathBuf>) -> io::Result<()> {
    let meta = if named { fs::metadata(path)? } else { fs::symlink_metadata(path)? };
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), false, into)?;
        }
    } else if named || first_in(path).is_some() {
        // Anything else might never end, or be somewhere else.
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no file", path.display())));
        }
        into.push(path.to_owned());
    }
    Ok(())
}

/// The heads in files of Leases.
pub fn anchors(paths: &[PathBuf]) -> Result<Anchors, NotGiven> {
    let mut anchors = Anchors::default();
    for path in paths {
        let text = fs::read_to_string(path).map_err(unreadable(path))?;
        let mut of_this = Anchors::default();
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let object = Value::deserialize(document).map_err(|error| NotGiven::NotYaml(path.clone(), error))?;
            for anchors in [&mut of_this, &mut anchors] {
                anchors.add(&object).map_err(|error| NotGiven::NotAnAnchor(path.clone(), error))?;
            }
        }
        if of_this.writers().next().is_none() {
            return Err(NotGiven::NoHead(path.clone()));
        }
    }
    Ok(anchors)
}

/// The requests and batches in lists, or in sequences of JSON objects.
pub fn export(paths: &[PathBuf]) -> Result<Export, NotGiven> {
    let mut export = Export::default();
    for path in paths {
        let text = fs::read_to_string(path).map_err(unreadable(path))?;
        for value in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
            let mut value = value.map_err(|error| NotGiven::NotJson(path.clone(), error))?;
            let items = match value["items"].take() {
                Value::Array(items) => items,
                _ => vec![value],
            };
            items.into_iter().try_for_each(|item| add(path, item, &mut export))?;
        }
    }
    Ok(export)
}

fn add(path: &Path, item: Value, export: &mut Export) -> Result<(), NotGiven> {
    let kind = if item["kind"] == "ExecBatch" { "ExecBatch" } else { "ExecRequest" };
    let wrong = |error| NotGiven::NotAnObject(path.to_owned(), kind, error);
    if item["metadata"]["uid"].as_str().is_none() {
        return Err(NotGiven::NoUid(path.to_owned(), kind));
    }
    if kind == "ExecBatch" {
        export.batches.push(serde_json::from_value(item).map_err(wrong)?);
    } else {
        export.requests.push(serde_json::from_value(item).map_err(wrong)?);
    }
    Ok(())
}
