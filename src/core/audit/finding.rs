//! What can be wrong with a line of a chain.

use std::fmt;

use super::chain::Head;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    NotARecord,
    CutOff,
    Changed,
    Missing { from: u64, to: u64 },
    OutOfOrder,
    Inserted,
    Foreign(String),
    Restarted,
    TailMissing(Head),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotARecord => f.write_str("not a record: changed or truncated"),
            Self::CutOff => f.write_str("truncated: its end is missing"),
            Self::Changed => f.write_str("changed: it is not the line that was written"),
            Self::Missing { from, to } if from == to => write!(f, "dropped: line {from} is missing before it"),
            Self::Missing { from, to } => write!(f, "dropped: lines {from} to {to} are missing before it"),
            Self::OutOfOrder => f.write_str("reordered: it was written in another place"),
            Self::Inserted => f.write_str("inserted: another line has this number"),
            Self::Foreign(writer) => write!(f, "foreign: {} wrote it", writer.escape_default()),
            Self::Restarted => {
                f.write_str("restarted: a new chain starts here, and nothing vouches for what was before it")
            }
            Self::TailMissing(head) => {
                write!(f, "truncated: the chain had reached line {}, which is missing or different", head.sequence)
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub file: String,
    /// From 1 on.
    pub line: usize,
    pub sequence: Option<u64>,
    pub wrong: Wrong,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, sequence, wrong } = self;
        match sequence {
            Some(sequence) => write!(f, "{file}:{line}: sequence {sequence}: {wrong}"),
            None => write!(f, "{file}:{line}: {wrong}"),
        }
    }
}
