//! `execlet audit`: reads what agents and managers have recorded.

#![allow(clippy::doc_markdown, reason = "some comments are what `--help` prints, which knows no Markdown")]

use std::{collections::BTreeMap, io::Write, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use execlet::{
    api::Requester,
    core::{
        audit::{
            chain::Head,
            event::{Event, Verb},
            examine::{Against, Found},
            key,
            verdict::{of_batch, verdict},
            verify::verify,
        },
        printable::one_line,
    },
    infra::{
        audit::given,
        print::{Out, line},
    },
};

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check that no line was changed, dropped, moved, inserted or truncated. Exits with 1 if one was, or if
    /// a chain that a Lease names is not there, or if no Lease that was given names a chain that is.
    Verify(VerifyArgs),
    /// Print who ran what, where, when, why and with which outcome, one line per request and batch.
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

    /// Also check that each request has all of its records, and that of each batch every target that was released
    /// has, once, and no other. Pass all chains at once.
    #[arg(long)]
    pub complete: bool,

    /// Requests and batches to compare the records with, as printed by `kubectl get execrequests,execbatches -A
    /// -o json`, or one per line. Implies --complete.
    #[arg(long)]
    pub requests: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// Files or directories.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,

    /// Only this batch and its requests: NAME, NAMESPACE/NAME or its UID
    #[arg(long)]
    pub batch: Option<String>,
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
    let mut anchors = given::anchors(&args.lease)?;
    if !args.writer.is_empty() {
        anchors.only(args.writer.iter().cloned().collect());
    }
    let chains = given::chains(&args.paths)?;
    let against = match &args.head {
        Some(_) if chains.len() > 1 => bail!(
            "--head is for one chain, and these are {}: pass the files of one directory, or use --lease",
            chains.len()
        ),
        Some(head) => Against::Head(head),
        None if args.lease.is_empty() => Against::Nothing,
        None => Against::Anchors { anchors: &anchors, allow_unanchored: args.allow_unanchored },
    };
    let export = given::export(&args.requests)?;
    let complete = args.complete || !args.requests.is_empty();
    let verdict = verdict(chains, against, complete.then_some(&export), None);
    for found in &verdict.lines {
        line(out, found)?;
    }
    Ok(if verdict.wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// One line per request and batch, in the order of their first records.
fn show(args: &ShowArgs, out: &mut impl Write) -> Result<ExitCode> {
    let mut events = Vec::new();
    for Found { directory, files } in given::chains(&args.paths)? {
        events.extend(verify(&files, None).with_context(|| format!("{directory}: no records"))?.events);
    }
    if let Some(batch) = &args.batch {
        events = of_batch(events, batch);
    }
    events.sort_by(|one, other| one.stage_timestamp.cmp(&other.stage_timestamp));
    let mut order = Vec::new();
    let mut sets: BTreeMap<String, Vec<&Event>> = BTreeMap::new();
    for event in &events {
        let Some(object) = &event.object_ref else { continue };
        let set = sets.entry(object.uid.clone()).or_default();
        if set.is_empty() {
            order.push(object.uid.clone());
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
    let batch = events.iter().any(|event| event.batch().is_some());
    let name = events.iter().find_map(|event| event.name()).unwrap_or_default();
    let mut own = events.iter().copied().filter(|event| !matches!(event.verb, Verb::Attached | Verb::Detached));
    let proven = own.clone().map(|event| event.user.username.clone()).find(|name| !name.is_empty());
    let user = proven.or_else(|| own.find_map(claimed));
    let outcome = events.iter().rfind(|event| event.verb.is_end()).map(|end| {
        let total = events.iter().find_map(|event| event.note(key::TOTAL));
        let succeeded = end.note(key::SUCCEEDED).zip(total).map(|(count, total)| format!("{count}/{total}"));
        let code = end.note(key::EXIT_CODE).map(str::to_owned).or(succeeded);
        let code = code.map(|code| format!(" {code}")).unwrap_or_default();
        format!("{}{code}", end.note(key::REASON).unwrap_or("-"))
    });
    let place = if batch {
        format!("{} pods/{}", note(key::TOTAL), note(key::CONTAINER))
    } else {
        format!("{}/{}", note(key::POD), note(key::CONTAINER))
    };
    [
        time.unwrap_or_default(),
        user.unwrap_or_else(|| "-".to_owned()),
        if batch { format!("{name} (batch)") } else { name },
        place,
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
