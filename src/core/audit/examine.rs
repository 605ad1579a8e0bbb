//! Examines everything that was given to a verification: which chains there are, which anchor is whose, and
//! what has none. The anchors say what must be there, never the log.

use std::{collections::BTreeMap, fmt};

use super::{
    anchor::{Anchors, is_writer},
    chain::Head,
    verify::{File, Report, verify},
};

/// The files of one directory, which are one chain.
#[derive(Clone, Debug)]
pub struct Found {
    pub directory: String,
    pub files: Vec<File>,
}

/// Against what the chains are held.
#[derive(Clone, Copy, Debug)]
pub enum Against<'a> {
    /// Nothing: whether each is whole in itself.
    Nothing,
    /// This head, which is of the only chain.
    Head(&'a Head),
    Anchors {
        anchors: &'a Anchors,
        /// Chains of writers that no anchor names are let through.
        allow_unanchored: bool,
    },
}

/// What is wrong beside the lines of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    NoRecords { directory: String },
    NoWriter { directory: String, writer: String },
    Twice { writer: String, directories: Vec<String> },
    Unanchored { directory: String, writer: String },
    HeadIsOlder { writer: String, first: u64, latest: u64 },
    Missing { writer: String, latest: u64 },
    NoHead { writer: String },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRecords { directory } => write!(f, "{directory}: it has no record of an audit log"),
            Self::NoWriter { directory, writer } => write!(
                f,
                "{directory}: \"{}\" is the name of no agent and no manager: somebody else made this chain",
                writer.escape_default()
            ),
            Self::Twice { writer, directories } => write!(
                f,
                "{writer}: it has one chain, and {} have one each: give the genuine one alone",
                directories.join(" and ")
            ),
            Self::Unanchored { directory, writer } => write!(
                f,
                "{directory}: no Lease names \"{}\": nothing vouches for this chain; to accept that: --allow-unanchored",
                writer.escape_default()
            ),
            Self::HeadIsOlder { writer, first, latest } => write!(
                f,
                "{writer}: nothing vouches for its chain: that begins with line {first}, and the published head is line \
                 {latest}: take a Lease of the time of the log"
            ),
            Self::Missing { writer, latest } => write!(
                f,
                "{writer}: its chain is missing: it reached line {latest}. Give its directory too, or say with --writer \
                 whose chains are to be verified"
            ),
            Self::NoHead { writer } => {
                write!(f, "{writer}: no Lease that was given has its head: nothing would vouch for its chain")
            }
        }
    }
}

#[derive(Debug, Default)]
pub struct Examined {
    pub chains: Vec<(Found, Report)>,
    pub faults: Vec<Fault>,
}

impl Examined {
    pub fn is_wrong(&self) -> bool {
        !self.faults.is_empty() || self.chains.iter().any(|(_, report)| !report.findings.is_empty())
    }
}

pub fn examine(all: Vec<Found>, against: Against<'_>) -> Examined {
    let mut examined = Examined::default();
    let mut by_writer: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for found in all {
        let Some(report) = held_against(&found.files, against) else {
            examined.faults.push(Fault::NoRecords { directory: found.directory });
            continue;
        };
        by_writer.entry(report.writer.clone()).or_default().push(found.directory.clone());
        examined.faults.extend(fault_of(&found, &report, against));
        examined.chains.push((found, report));
    }
    if let Against::Anchors { anchors, .. } = against {
        let missing = anchors.writers().filter(|(writer, _)| !by_writer.contains_key(*writer));
        examined.faults.extend(missing.map(|(writer, latest)| Fault::Missing { writer: writer.to_owned(), latest }));
        examined.faults.extend(anchors.silent().map(|writer| Fault::NoHead { writer: writer.to_owned() }));
    }
    let twice = by_writer.into_iter().filter(|(_, directories)| directories.len() > 1);
    examined.faults.extend(twice.map(|(writer, directories)| Fault::Twice { writer, directories }));
    examined
}

fn held_against(files: &[File], against: Against<'_>) -> Option<Report> {
    match against {
        Against::Nothing => verify(files, None),
        Against::Head(head) => verify(files, [head]),
        Against::Anchors { anchors, .. } => {
            // The first pass tells the writer, and so the heads that its chain must have.
            let heads = anchors.of(&verify(files, None)?.writer);
            verify(files, &heads)
        }
    }
}

fn fault_of(found: &Found, report: &Report, against: Against<'_>) -> Option<Fault> {
    let (directory, writer) = (found.directory.clone(), report.writer.clone());
    if !is_writer(&writer) {
        return Some(Fault::NoWriter { directory, writer });
    }
    let latest = match against {
        Against::Nothing => return None,
        Against::Head(head) => head.sequence,
        Against::Anchors { anchors, allow_unanchored } => match anchors.of(&writer).last() {
            Some(head) => head.sequence,
            None => return (!allow_unanchored).then_some(Fault::Unanchored { directory, writer }),
        },
    };
    report.head_is_older.then_some(Fault::HeadIsOlder { writer, first: report.first, latest })
}
