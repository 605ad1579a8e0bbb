//! `report`: what a batch did, as one file for a ticket.

use std::{io, path::PathBuf};

use k8s_openapi::jiff::Timestamp;

use crate::{
    api::{ExecBatch, ExecRequest},
    cli::{
        cluster::connection::Cluster,
        error::Error,
        exit::Exit,
        report::{
            csv::csv,
            html::html,
            markdown::markdown,
            value::{Audit, Report},
        },
        say::{page::Page, print},
        typed::batch_name,
    },
    core::audit::{complete::Export, examine::Against, verdict::verdict},
    infra::audit::given::{self, NotGiven},
};

/// Report what a batch did: one page to open, to print, or to keep with a change.
#[derive(Clone, Debug, clap::Args)]
pub struct ReportArgs {
    /// Name of the batch, as NAME or xb/NAME.
    #[arg(value_name = "NAME", value_parser = batch_name)]
    pub name: String,

    /// Output format.
    #[arg(long, short = 'o', value_name = "FORMAT", value_enum, default_value = "html")]
    pub output: ReportFormat,

    /// Audit logs, as files or directories: the report says whether they are intact, and have every record of the
    /// batch. The exit code is 1 if not. Give those of all agents and managers.
    #[arg(long, value_name = "PATH")]
    pub audit: Vec<PathBuf>,

    /// Leases with the published heads of the audit logs, as `kubectl get leases -o yaml` prints them.
    #[arg(long, value_name = "FILE", requires = "audit")]
    pub lease: Vec<PathBuf>,

    /// Accept audit logs that no Lease names, such as those of managers of long ago. They prove nothing.
    #[arg(long, requires = "lease")]
    pub allow_unanchored: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportFormat {
    /// A page for a browser, in one file.
    Html,
    /// All of it as data.
    Json,
    /// Markdown.
    Md,
    /// A table with one line for each target.
    Csv,
}

pub async fn run(cluster: &Cluster, args: ReportArgs) -> Result<Exit, Error> {
    let batch = cluster.batch(&args.name).await?;
    let mut children = Vec::new();
    cluster.children(&batch, |child| children.push(child)).await?;
    let mut report = Report::of(&batch, &children, Timestamp::now())
        .map_err(|error| Error::Message(format!("the status of xb/{} cannot be read: {error}", args.name)))?;
    if !args.audit.is_empty() {
        report.audit = Some(audited(&args, batch, children).map_err(|error| Error::Message(error.to_string()))?);
    }
    let intact = report.audit.as_ref().is_none_or(|audit| audit.intact);
    match args.output {
        ReportFormat::Json => {
            print::out(&Page::json(&serde_json::to_value(&report).map_err(Error::output)?)?)?;
        }
        ReportFormat::Html => write(&html(&report))?,
        ReportFormat::Md => write(&markdown(&report))?,
        ReportFormat::Csv => write(&csv(&report))?,
    }
    Ok(if intact { Exit::SUCCESS } else { Exit::NOT_SUCCESS })
}

/// What these formats have of others is safe in them.
fn write(text: &str) -> Result<(), Error> {
    print::write(io::stdout().lock(), text.as_bytes()).map(drop)
}

/// As `execlet audit verify --complete` of this batch.
fn audited(args: &ReportArgs, batch: ExecBatch, requests: Vec<ExecRequest>) -> Result<Audit, NotGiven> {
    let (chains, anchors) = (given::chains(&args.audit)?, given::anchors(&args.lease)?);
    let against = if args.lease.is_empty() {
        Against::Nothing
    } else {
        Against::Anchors { anchors: &anchors, allow_unanchored: args.allow_unanchored }
    };
    let uid = batch.metadata.uid.clone();
    let export = Export { requests, batches: vec![batch] };
    let verdict = verdict(chains, against, Some(&export), uid.as_deref());
    Ok(Audit { intact: !verdict.wrong, anchored: !args.lease.is_empty(), lines: verdict.lines })
}
