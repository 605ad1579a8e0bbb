//! `execlet audit`: reads what agents and managers have recorded.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use execlet::{
    api::{ExecRequest, Requester, names},
    core::audit::{
        chain::{Head, published},
        complete::complete,
        event::{Event, Verb},
        key,
        verify::{File, Report, first_of, verify},
    },
};
use serde::Deserialize as _;

use super::args::{AuditCommand, ShowArgs, VerifyArgs};

/// Exit code where something is wrong with a log. Errors have 1 too, and say so in words.
const WRONG: u8 = 1;

pub fn run(command: &AuditCommand) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    match command {
        AuditCommand::Verify(args) => check(args, &mut out),
        AuditCommand::Show(args) => show(args, &mut out),
    }
}

fn check(args: &VerifyArgs, out: &mut impl Write) -> Result<ExitCode> {
    let mut heads = BTreeMap::new();
    for path in &args.lease {
        heads.extend(heads_of(path)?);
    }
    let chains = chains(&args.paths)?;
    if args.head.is_some() && chains.len() > 1 {
        bail!("--head is of one chain, and these are {}: give the files of one folder, or --lease", chains.len());
    }
    let (mut wrong, mut events, mut read) = (false, Vec::new(), BTreeSet::new());
    for (folder, files) in &chains {
        // Whose chain it is decides which head it must have: read once without, if that has to be asked.
        let bare = verify(files, args.head.as_ref()).with_context(|| format!("{}: no record", folder.display()))?;
        let head = args.head.as_ref().or_else(|| heads.get(&bare.writer));
        let report = verify(files, head).unwrap_or(bare);
        wrong |= !report.findings.is_empty();
        say(&report, files.len(), head, out)?;
        read.insert(report.writer);
        events.extend(report.events);
    }
    for (writer, head) in heads.iter().filter(|(writer, _)| !read.contains(*writer)) {
        writeln!(out, "{writer}: its chain is not here, and went on to line {}", head.sequence)?;
        wrong |= args.complete;
    }
    if args.complete || !args.requests.is_empty() {
        let mut requests = Vec::new();
        for path in &args.requests {
            requests.extend(requests_of(path)?);
        }
        let result = complete(&events, &requests);
        for gap in &result.gaps {
            writeln!(out, "{gap}")?;
        }
        let (recorded, compared) = (result.recorded, result.compared);
        writeln!(
            out,
            "{recorded} requests have records, {compared} finished ones were compared, {} gaps",
            result.gaps.len()
        )?;
        wrong |= !result.gaps.is_empty();
    }
    Ok(if wrong { ExitCode::from(WRONG) } else { ExitCode::SUCCESS })
}

/// The bad lines, then what the chain is.
fn say(report: &Report, files: usize, head: Option<&Head>, out: &mut impl Write) -> io::Result<()> {
    for finding in &report.findings {
        writeln!(out, "{finding}")?;
    }
    let Report { writer, first, starts, cuts, lost, events, .. } = report;
    let state = if report.findings.is_empty() { "whole" } else { "NOT WHOLE" };
    let against = match head {
        Some(_) if report.head_is_older => ", the published head is older than the first line",
        Some(_) => ", held against the published head",
        None => ", no head to hold it against",
    };
    writeln!(
        out,
        "{writer}: {state}: {} records in {files} files, from {first}, {starts} starts, {cuts} cut lines owned up to, {lost} lost{against}; head {}",
        events.len(),
        report.head,
    )
}

/// The files of each folder, in the order of their names.
fn chains(paths: &[PathBuf]) -> Result<BTreeMap<PathBuf, Vec<File>>> {
    let mut chains: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for path in paths {
        let mut found = Vec::new();
        collect(path, true, &mut found).with_context(|| format!("cannot read {}", path.display()))?;
        for file in found {
            let folder = file.parent().unwrap_or(Path::new("")).to_owned();
            chains.entry(folder).or_default().push(file);
        }
    }
    let read = |path: &PathBuf| {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let first = path.file_name().and_then(|name| name.to_str()).and_then(first_of);
        Ok(File { name: path.display().to_string(), first, text })
    };
    if chains.is_empty() {
        bail!("no file of an audit log is there: they are called audit-NUMBER.jsonl");
    }
    let mut all = BTreeMap::new();
    for (folder, mut paths) in chains {
        paths.sort_unstable();
        paths.dedup();
        all.insert(folder, paths.iter().map(read).collect::<Result<Vec<_>>>()?);
    }
    Ok(all)
}

/// A file that is named is read; in folders only those that are called so.
fn collect(path: &Path, named: bool, into: &mut Vec<PathBuf>) -> io::Result<()> {
    if fs::metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), false, into)?;
        }
    } else if named || path.file_name().and_then(|name| name.to_str()).and_then(first_of).is_some() {
        into.push(path.to_owned());
    }
    Ok(())
}

/// The heads in a Lease, or a list of them.
fn heads_of(path: &Path) -> Result<BTreeMap<String, Head>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut heads = BTreeMap::new();
    for document in serde_yaml_ng::Deserializer::from_str(&text) {
        let object = serde_json::Value::deserialize(document).with_context(|| format!("{}", path.display()))?;
        let leases = object["items"].as_array().cloned().unwrap_or_else(|| vec![object]);
        for lease in leases {
            let annotation = lease["metadata"]["annotations"][names::AUDIT_HEADS_ANNOTATION].as_str();
            for own in published(annotation.unwrap_or_default()) {
                let head = own.head.parse().with_context(|| format!("{}: head of {}", path.display(), own.writer))?;
                heads.insert(own.writer, head);
            }
        }
    }
    if heads.is_empty() {
        bail!("{}: no Lease in it has the annotation {}", path.display(), names::AUDIT_HEADS_ANNOTATION);
    }
    Ok(heads)
}

/// The requests in a list, or one after the other.
fn requests_of(path: &Path) -> Result<Vec<ExecRequest>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut requests = Vec::new();
    for value in serde_json::Deserializer::from_str(&text).into_iter::<serde_json::Value>() {
        let mut value = value.with_context(|| format!("{}: not JSON", path.display()))?;
        let items = match value["items"].take() {
            serde_json::Value::Array(items) => items,
            _ => vec![value],
        };
        for item in items {
            requests.push(serde_json::from_value(item).with_context(|| format!("{}: no ExecRequest", path.display()))?);
        }
    }
    Ok(requests)
}

/// One line for each request, in the order of their first records.
fn show(args: &ShowArgs, out: &mut impl Write) -> Result<ExitCode> {
    let mut events = Vec::new();
    for (folder, files) in chains(&args.paths)? {
        events.extend(verify(&files, None).with_context(|| format!("{}: no record", folder.display()))?.events);
    }
    events.sort_by(|one, other| one.stage_timestamp.cmp(&other.stage_timestamp));
    let mut order = Vec::new();
    let mut sets: BTreeMap<String, Vec<&Event>> = BTreeMap::new();
    for event in &events {
        let Some(uid) = event.uid() else { continue };
        let set = sets.entry(uid.to_string()).or_default();
        if set.is_empty() {
            order.push(uid.to_string());
        }
        set.push(event);
    }
    let mut rows =
        vec![["TIME", "USER", "REQUEST", "POD/CONTAINER", "NODE", "COMMAND", "WHY", "OUTCOME"].map(str::to_owned)];
    rows.extend(order.iter().filter_map(|uid| sets.get(uid)).map(|events| row(events)));
    for cell in rows.iter_mut().flatten() {
        // What somebody wrote into a request must not write to a terminal.
        *cell = cell.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    }
    let widths: Vec<usize> =
        (0..8).map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("   ").trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Who is said to have created the request, where nobody vouches for it.
fn claimed(event: &Event) -> Option<String> {
    let claimed: Requester = serde_json::from_str(event.note(key::CLAIMED_USER)?).ok()?;
    Some(format!("{} (claimed)", claimed.username))
}

fn row(events: &[&Event]) -> [String; 8] {
    let note = |key| events.iter().find_map(|event| event.note(key)).unwrap_or("-");
    let begun = events.iter().find(|event| event.verb == Verb::Started).or(events.first());
    let time = begun.map(|event| event.stage_timestamp.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let object = events.iter().find_map(|event| event.object_ref.as_ref());
    let mut own = events.iter().copied().filter(|event| !matches!(event.verb, Verb::Attached | Verb::Detached));
    let proven = own.clone().map(|event| event.user.username.clone()).find(|name| !name.is_empty());
    let user = proven.or_else(|| own.find_map(claimed));
    let outcome = events.iter().rfind(|event| event.verb.is_end()).map(|end| {
        let code = end.note(key::EXIT_CODE).map(|code| format!(" {code}")).unwrap_or_default();
        format!("{}{code}", end.note(key::REASON).unwrap_or("-"))
    });
    [
        time.unwrap_or_default(),
        user.unwrap_or_else(|| "-".to_owned()),
        object.map(|object| format!("{}/{}", object.namespace, object.name)).unwrap_or_default(),
        format!("{}/{}", note(key::POD), note(key::CONTAINER)),
        note(key::NODE).to_owned(),
        events
            .iter()
            .find_map(|event| event.note(key::COMMAND).or(event.note(key::COMMAND_SHA256)))
            .unwrap_or("-")
            .to_owned(),
        note(key::REQUEST_REASON).to_owned(),
        outcome.unwrap_or_else(|| "-".to_owned()),
    ]
}
