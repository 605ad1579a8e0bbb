//! The chain: each line of a writer carries its number and the SHA-256 of the
//! line before it, so that a line cannot be changed, dropped, moved or inserted
//! unless all that follow are made anew, and the head, kept elsewhere, shows that.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{event::Event, key, sha256};

/// `previous` of the first line.
pub const NO_LINE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The last line of a chain: which it is, and its SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number; the first line has 1, and 0 is a chain without a line.
    pub sequence: u64,
    /// SHA-256 of the line, without its line end, in hexadecimal.
    pub sha256: String,
}

impl Head {
    /// Of a chain without a line.
    pub fn start() -> Self {
        Self { sequence: 0, sha256: NO_LINE.to_owned() }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sequence, self.sha256)
    }
}

/// Not a head.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not SEQUENCE:SHA256")]
pub struct NoHead(String);

impl FromStr for Head {
    type Err = NoHead;

    fn from_str(text: &str) -> Result<Self, NoHead> {
        let parts = text.trim().split_once(':');
        let head = parts.and_then(|(sequence, sha256)| {
            let digest = sha256.len() == NO_LINE.len() && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
            Some(Self { sequence: sequence.parse().ok().filter(|_| digest)?, sha256: sha256.to_ascii_lowercase() })
        });
        head.ok_or_else(|| NoHead(text.to_owned()))
    }
}

/// The head of a writer, as it is published in a Lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Whose chain it is.
    pub writer: String,
    /// Its head, as `SEQUENCE:SHA256`.
    pub head: String,
}

/// Heads in one annotation; those that changed longest ago make room for new ones.
const PUBLISHED: usize = 16;

/// The heads in an annotation, the latest last. What cannot be read is no head.
pub fn published(annotation: &str) -> Vec<Published> {
    serde_json::from_str(annotation).unwrap_or_default()
}

/// An annotation with the head of one writer set; `None` if it says so already.
pub fn publish(annotation: &str, writer: &str, head: &Head) -> Option<String> {
    let mut all = published(annotation);
    let own = Published { writer: writer.to_owned(), head: head.to_string() };
    if all.contains(&own) {
        return None;
    }
    all.retain(|other| other.writer != writer);
    all.push(own);
    let excess = all.len().saturating_sub(PUBLISHED);
    serde_json::to_string(&all[excess..]).ok()
}

/// A chain that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    writer: String,
    head: Head,
}

impl Chain {
    /// The chain of `writer`, which has got as far as `head`.
    pub fn new(writer: impl Into<String>, head: Head) -> Self {
        Self { writer: writer.into(), head }
    }

    /// Its last line.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Whose it is.
    pub fn writer(&self) -> &str {
        &self.writer
    }

    /// The next line, without its line end.
    ///
    /// # Errors
    /// When the event cannot be written as JSON.
    pub fn add(&mut self, event: &Event) -> Result<Vec<u8>, serde_json::Error> {
        let sequence = self.head.sequence + 1;
        let links = [
            (key::WRITER, self.writer.clone()),
            (key::SEQUENCE, sequence.to_string()),
            (key::PREVIOUS, self.head.sha256.clone()),
        ];
        let mut event = event.clone();
        event.annotations.extend(links.map(|(key, value)| (key.to_owned(), value)));
        let line = serde_json::to_vec(&event)?;
        self.head = Head { sequence, sha256: sha256(&line) };
        Ok(line)
    }
}

/// Where a line stands in its chain, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Who wrote it.
    pub writer: String,
    /// Its number.
    pub sequence: u64,
    /// SHA-256 of the line before it.
    pub previous: String,
}

impl Link {
    /// The link of a record, if it has one.
    pub fn of(event: &Event) -> Option<Self> {
        Some(Self {
            writer: event.note(key::WRITER)?.to_owned(),
            sequence: event.note(key::SEQUENCE)?.parse().ok().filter(|sequence| *sequence > 0)?,
            previous: event.note(key::PREVIOUS)?.to_owned(),
        })
    }
}

/// A line, without its line end, as a record with its link.
pub fn parse(text: &[u8]) -> Option<(Event, Link)> {
    let event: Event = serde_json::from_slice(text).ok()?;
    let link = Link::of(&event)?;
    Some((event, link))
}

/// Where a file of lines ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End<'a> {
    /// The last line that is a record, if there is one, and who wrote it.
    pub last: Option<(String, Head)>,
    /// What stands behind it: lines whose writing was cut off.
    cut: &'a [u8],
}

impl<'a> End<'a> {
    /// Finds it.
    pub fn of(text: &'a [u8]) -> Self {
        let mut whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        while let Some(line) = text[..whole].strip_suffix(b"\n") {
            let begin = line.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            if let Some((_, link)) = parse(&line[begin..]) {
                let head = Head { sequence: link.sequence, sha256: sha256(&line[begin..]) };
                return Self { last: Some((link.writer, head)), cut: &text[whole..] };
            }
            whole = begin;
        }
        Self { last: None, cut: text }
    }

    /// Whether a line end has to be added before the next line.
    pub fn is_open(&self) -> bool {
        self.cut.last().is_some_and(|byte| *byte != b'\n')
    }

    /// Annotations by which the writer owns up to what was cut off.
    pub fn confession(&self) -> BTreeMap<String, String> {
        let cut = self.cut.strip_suffix(b"\n").unwrap_or(self.cut);
        if self.cut.is_empty() { BTreeMap::new() } else { confession(cut) }
    }
}

/// What a writer says about lines, joined by line ends, whose writing was cut off.
pub fn confession(cut: &[u8]) -> BTreeMap<String, String> {
    let notes = [(key::CUT_BYTES, cut.len().to_string()), (key::CUT_SHA256, sha256(cut))];
    notes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(sequence: u64) -> Head {
        Head { sequence, sha256: sha256(&sequence.to_be_bytes()) }
    }

    #[test]
    fn a_head_is_read_as_it_is_written() {
        assert_eq!(head(7).to_string().parse(), Ok(head(7)));
        for wrong in ["", "7", "7:abc", "x:0", &format!("-1:{NO_LINE}"), &format!("7:{}", "g".repeat(64))] {
            assert!(wrong.parse::<Head>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn heads_of_many_writers_share_an_annotation_and_the_oldest_make_room() {
        let mut annotation = String::new();
        for number in 0..20 {
            annotation = publish(&annotation, &format!("manager/{number}"), &head(number)).expect("news");
        }
        assert_eq!(publish(&annotation, "manager/19", &head(19)), None, "that is no news");
        annotation = publish(&annotation, "manager/5", &head(50)).expect("news");
        let writers: Vec<String> = published(&annotation).into_iter().map(|published| published.writer).collect();
        assert_eq!(writers.len(), PUBLISHED);
        assert_eq!(writers.last().map(String::as_str), Some("manager/5"));
        assert_eq!(writers.first().map(String::as_str), Some("manager/4"), "{writers:?}");
        assert_eq!(published("what somebody else wrote"), []);
    }
}
