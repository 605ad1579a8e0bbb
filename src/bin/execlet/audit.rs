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
            anchor::Anchors,
            chain::Head,
            complete::{Completeness, complete},
            event::{Event, Verb},
            examine::{Against, Found, examine},
            key,
            verify::{File, Report, first_in, verify},
        },
        printable::one_line,
    },
    infra::print::{Out, line},
};
use serde::Deserialize as _;

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check that no line was changed, dropped, moved, inserted or truncated. Exits with 1 if one was, or if
    /// a chain that a Lease names is not there, or if no Lease that was given names a chain that is.
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
    #[arg(long, conflicts_with = "lease")]
    pub head: Option<Head>,

    /// Leases with published heads, as printed by `kubectl get lease -o yaml` or `-o json`.
    /// All of them hold, those of earlier times too.
    #[arg(long)]
    pub lease: Vec<PathBuf>,

    /// Whose chains are to be verified, as agent/NODE or manager/POD [default: of all that the Leases name]
    #[arg(long, requires = "lease")]
    pub writer: Vec<String>,

    /// Accept chains of writers that no Lease names, such as managers of long ago. They prove nothing.
    #[arg(long, requires = "lease")]
    pub allow_unanchored: bool,

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
    let mut anchors = Anchors::default();
    for path in &args.lease {
        add_leases(path, &mut anchors)?;
    }
    if !args.writer.is_empty() {
        anchors.only(args.writer.iter().cloned().collect());
    }
    let chains = chains(&args.paths)?;
    let against = match &args.head {
        Some(_) if chains.len() > 1 => bail!(
            "--head is for one chain, and these are {}: pass the files of one directory, or use --lease",
            chains.len()
        ),
        Some(head) => Against::Head(head),
        None if args.lease.is_empty() => Against::Nothing,
        None => Against::Anchors { anchors: &anchors, allow_unanchored: args.allow_unanchored },
    };
    let examined = examine(chains, against);
    for (found, report) in &examined.chains {
        say(report, found.files.len(), out)?;
    }
    for fault in &examined.faults {
        line(out, &fault.to_string())?;
    }
    let mut wrong = examined.is_wrong();
    if args.complete || !args.requests.is_empty() {
        let events = examined.chains.into_iter().flat_map(|(_, report)| report.events).collect::<Vec<_>>();
        wrong |= check_requests(&args.requests, &events, out)?;
    }
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Whether a request lacks records.
fn check_requests(exports: &[PathBuf], events: &[Event], out: &mut impl Write) -> Result<bool> {
    let mut requests = Vec::new();
    for path in exports {
        requests.extend(requests_of(path)?);
    }
    let Completeness { recorded, compared, unfinished, gaps } = complete(events, &requests);
    for gap in &gaps {
        line(out, &gap.to_string())?;
    }
    writeln!(
        out,
        "{recorded} requests have records, {compared} finished requests were compared, {unfinished} had not finished, {} gaps",
        gaps.len()
    )?;
    Ok(!gaps.is_empty())
}

/// Prints the bad lines, then a summary of the chain.
fn say(report: &Report, files: usize, out: &mut impl Write) -> io::Result<()> {
    for finding in &report.findings {
        line(out, &finding.to_string())?;
    }
    let Report { writer, first, starts, cuts, lost, events, head, .. } = report;
    let state = if report.findings.is_empty() { "intact" } else { "NOT INTACT" };
    let against = match report.vouched {
        Some(line) => format!(
            ", checked against the published head (line {line}; {} records after it that nothing vouches for yet)",
            head.sequence - line
        ),
        None => ", no head to check against: whole in itself, and nothing vouches for it".to_owned(),
    };
    let gone = match first {
        1 => String::new(),
        _ => " (the lines before it are not here: rotated, or removed)".to_owned(),
    };
    let summary = format!(
        "{}: {state}: {} records in {files} files, from line {first}{gone}, {starts} starts, {cuts} reported cuts, {lost} lost{against}; head {head}",
        // Letters of other alphabets look like those of a name.
        writer.escape_default(),
        events.len(),
    );
    line(out, &summary)
}

/// The files of each directory, in the order of their names. What was given twice is read once.
fn chains(paths: &[PathBuf]) -> Result<Vec<Found>> {
    let mut chains: BTreeMap<PathBuf, BTreeSet<PathBuf>> = BTreeMap::new();
    for path in paths {
        let mut files = Vec::new();
        collect(path, true, &mut files).with_context(|| format!("cannot read {}", path.display()))?;
        if files.is_empty() {
            bail!("{}: found no audit log: its files are named audit-NUMBER.jsonl", path.display());
        }
        for file in files {
            let file = file.canonicalize().with_context(|| format!("cannot read {}", file.display()))?;
            let directory = file.parent().unwrap_or(Path::new("")).to_owned();
            chains.entry(directory).or_default().insert(file);
        }
    }
    let read = |path: &PathBuf| {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(File { name: path.display().to_string(), first: first_in(path), text })
    };
    let chains = chains.iter().map(|(directory, files)| {
        let files = files.iter().map(read).collect::<Result<Vec<_>>>()?;
        Ok(Found { directory: directory.display().to_string(), files })
    });
    chains.collect()
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

/// Takes the heads in a file of Leases.
fn add_leases(path: &Path, anchors: &mut Anchors) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut of_this = Anchors::default();
    for document in serde_yaml_ng::Deserializer::from_str(&text) {
        let object = serde_json::Value::deserialize(document).with_context(|| path.display().to_string())?;
        of_this.add(&object).with_context(|| path.display().to_string())?;
        anchors.add(&object).with_context(|| path.display().to_string())?;
    }
    if of_this.writers().next().is_none() {
        bail!("{}: it has no Lease with the annotation {}", path.display(), names::AUDIT_HEADS_ANNOTATION);
    }
    Ok(())
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
            let request: ExecRequest =
                serde_json::from_value(item).with_context(|| format!("{}: not an ExecRequest", path.display()))?;
            if request.metadata.uid.is_none() {
                bail!("{}: an ExecRequest has no UID, so its records cannot be found", path.display());
            }
            requests.push(request);
        }
    }
    Ok(requests)
}

/// One line per request, in the order of their first records.
fn show(args: &ShowArgs, out: &mut impl Write) -> Result<ExitCode> {
    let mut events = Vec::new();
    for Found { directory, files } in chains(&args.paths)? {
        events.extend(verify(&files, None).with_context(|| format!("{directory}: no records"))?.events);
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
