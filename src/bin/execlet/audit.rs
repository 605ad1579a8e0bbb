//! `execlet audit`: reads what agents and managers have recorded.

#![allow(clippy::doc_markdown, reason = "some comments are what `--help` prints, which knows no Markdown")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use execlet::{
    api::{ExecRequest, Requester, names},
    core::{
        audit::{
            chain::{Head, published},
            complete::complete,
            event::{Event, Verb},
            key,
            verify::{File, Report, first_of, verify},
        },
        printable::one_line,
    },
    infra::print::{Out, line},
};
use serde::Deserialize as _;

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check that no line was changed, dropped, moved, inserted or truncated. Exits with 1 if one was.
    Verify(VerifyArgs),
    /// Print who ran what, where, when, why and with which outcome, one line per request.
    Show(ShowArgs),
}

#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// Files or directories. The files of one directory are one chain, in the order of their names.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,

    /// The head that the chain must have reached, as SEQUENCE:SHA256.
    #[arg(long)]
    pub head: Option<Head>,

    /// Leases with published heads, as printed by `kubectl get lease -o yaml` or `-o json`.
    #[arg(long)]
    pub lease: Vec<PathBuf>,

    /// Also check that each request has all of its records. Pass all chains at once.
    #[arg(long)]
    pub complete: bool,

    /// Requests to compare the records with, as printed by `kubectl get execrequests -A -o json`, or one
    /// per line. Implies --complete.
    #[arg(long)]
    pub requests: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// Files or directories.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
}

pub fn run(command: &AuditCommand) -> Result<ExitCode> {
    let mut out = Out::new();
    let code = match command {
        AuditCommand::Verify(args) => check(args, &mut out),
        AuditCommand::Show(args) => show(args, &mut out),
    }?;
    out.flush()?;
    Ok(code)
}

fn check(args: &VerifyArgs, out: &mut impl Write) -> Result<ExitCode> {
    let mut heads = BTreeMap::new();
    for path in &args.lease {
        heads.extend(heads_of(path)?);
    }
    let chains = chains(&args.paths)?;
    if args.head.is_some() && chains.len() > 1 {
        bail!(
            "--head is for one chain, and these are {}: pass the files of one directory, or use --lease",
            chains.len()
        );
    }
    let (mut wrong, mut events, mut read) = (false, Vec::new(), BTreeSet::new());
    for (directory, files) in &chains {
        // The first pass tells the writer, and so the head to check against.
        let bare = verify(files, args.head.as_ref()).with_context(|| format!("{}: no records", directory.display()))?;
        let head = args.head.as_ref().or_else(|| heads.get(&bare.writer));
        let report = verify(files, head).unwrap_or(bare);
        wrong |= !report.findings.is_empty();
        say(&report, files.len(), head, out)?;
        read.insert(report.writer);
        events.extend(report.events);
    }
    for (writer, head) in heads.iter().filter(|(writer, _)| !read.contains(*writer)) {
        line(out, &format!("{writer}: its chain is missing: it reached line {}", head.sequence))?;
        wrong |= args.complete;
    }
    if args.complete || !args.requests.is_empty() {
        let mut requests = Vec::new();
        for path in &args.requests {
            requests.extend(requests_of(path)?);
        }
        let result = complete(&events, &requests);
        for gap in &result.gaps {
            line(out, &gap.to_string())?;
        }
        let (recorded, compared) = (result.recorded, result.compared);
        writeln!(
            out,
            "{recorded} requests have records, {compared} finished requests were compared, {} gaps",
            result.gaps.len()
        )?;
        wrong |= !result.gaps.is_empty();
    }
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Prints the bad lines, then a summary of the chain.
fn say(report: &Report, files: usize, head: Option<&Head>, out: &mut impl Write) -> io::Result<()> {
    for finding in &report.findings {
        line(out, &finding.to_string())?;
    }
    let Report { writer, first, starts, cuts, lost, events, .. } = report;
    let state = if report.findings.is_empty() { "intact" } else { "NOT INTACT" };
    let against = match head {
        Some(_) if report.head_is_older => ", the published head is older than its first line",
        Some(_) => ", checked against the published head",
        None => ", no head to check against",
    };
    let summary = format!(
        "{writer}: {state}: {} records in {files} files, from line {first}, {starts} starts, {cuts} reported cuts, {lost} lost{against}; head {}",
        events.len(),
        report.head,
    );
    line(out, &summary)
}

/// The files of each directory, in the order of their names.
fn chains(paths: &[PathBuf]) -> Result<BTreeMap<PathBuf, Vec<File>>> {
    let mut chains: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for path in paths {
        let mut found = Vec::new();
        collect(path, true, &mut found).with_context(|| format!("cannot read {}", path.display()))?;
        for file in found {
            let directory = file.parent().unwrap_or(Path::new("")).to_owned();
            chains.entry(directory).or_default().push(file);
        }
    }
    let read = |path: &PathBuf| {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let first = path.file_name().and_then(|name| name.to_str()).and_then(first_of);
        Ok(File { name: path.display().to_string(), first, text })
    };
    if chains.is_empty() {
        bail!("found no audit log: its files are named audit-NUMBER.jsonl");
    }
    let mut all = BTreeMap::new();
    for (directory, mut paths) in chains {
        paths.sort_unstable();
        paths.dedup();
        all.insert(directory, paths.iter().map(read).collect::<Result<Vec<_>>>()?);
    }
    Ok(all)
}

/// Takes any file that was given by name, but of a directory only audit logs.
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

/// The heads in a Lease or a list of Leases.
fn heads_of(path: &Path) -> Result<BTreeMap<String, Head>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut heads = BTreeMap::new();
    for document in serde_yaml_ng::Deserializer::from_str(&text) {
        let object = serde_json::Value::deserialize(document).with_context(|| path.display().to_string())?;
        let leases = object["items"].as_array().cloned().unwrap_or_else(|| vec![object]);
        for lease in leases {
            let annotation = lease["metadata"]["annotations"][names::AUDIT_HEADS_ANNOTATION].as_str();
            for own in published(annotation.unwrap_or_default()) {
                let head =
                    own.head.parse().with_context(|| format!("{}: the head of {}", path.display(), own.writer))?;
                heads.insert(own.writer, head);
            }
        }
    }
    if heads.is_empty() {
        bail!("{}: it has no Lease with the annotation {}", path.display(), names::AUDIT_HEADS_ANNOTATION);
    }
    Ok(heads)
}

/// The requests in a list, or in a sequence of JSON objects.
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
            requests
                .push(serde_json::from_value(item).with_context(|| format!("{}: not an ExecRequest", path.display()))?);
        }
    }
    Ok(requests)
}

/// One line per request, in the order of their first records.
fn show(args: &ShowArgs, out: &mut impl Write) -> Result<ExitCode> {
    let mut events = Vec::new();
    for (directory, files) in chains(&args.paths)? {
        events.extend(verify(&files, None).with_context(|| format!("{}: no records", directory.display()))?.events);
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
        // Before the widths are taken.
        *cell = one_line(cell);
    }
    let widths: Vec<usize> =
        (0..8).map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        line(out, cells.collect::<Vec<_>>().join("   ").trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Who claims to have created the request, where no policy vouches for it.
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
