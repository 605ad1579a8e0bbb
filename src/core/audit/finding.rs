//! What can be wrong with a line of a chain.

use std::fmt;

use super::chain::Head;

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is no record: changed, or cut off.
    NotARecord,
    /// Its end is missing, and no line follows.
    CutOff,
    /// It is not the line that was written.
    Changed,
    /// Lines are missing before it.
    Missing {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// It stands in another place than it was written in.
    OutOfOrder,
    /// There is another line of this number, which is the true one as far as can be seen.
    Inserted,
    /// Another writer wrote it.
    Foreign(String),
    /// The chain begins anew: what was before it is not vouched for.
    BeganAnew,
    /// Lines are missing after it: that was the head.
    TailMissing(Head),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotARecord => f.write_str("not a record: changed, or cut off"),
            Self::CutOff => f.write_str("truncated: its end is missing"),
            Self::Changed => f.write_str("changed: it is not the line that was written"),
            Self::Missing { from, to } if from == to => write!(f, "dropped: line {from} is missing before it"),
            Self::Missing { from, to } => write!(f, "dropped: lines {from} to {to} are missing before it"),
            Self::OutOfOrder => f.write_str("reordered: it was written in another place"),
            Self::Inserted => f.write_str("inserted: another line has this number"),
            Self::Foreign(writer) => write!(f, "foreign: it was written by {writer}"),
            Self::BeganAnew => f.write_str("began anew: nothing vouches for what was before it"),
            Self::TailMissing(head) => {
                write!(f, "truncated: the chain went on to line {}, which is missing or not the same", head.sequence)
            }
        }
    }
}

/// A bad line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// The line in it, from 1 on.
    pub line: usize,
    /// The number that it has in the chain, as far as it can be read.
    pub sequence: Option<u64>,
    /// What is wrong.
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
