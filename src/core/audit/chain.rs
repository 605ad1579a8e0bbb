//! The chain: each line of a writer carries its number and the SHA-256 of the
//! line before it. Whoever changes, drops, moves or inserts a line must rewrite all
//! that follow, which shows in the head: that is published elsewhere.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{event::Event, key};
use crate::core::digest::sha256;

/// `previous` in the first line.
pub const NO_LINE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The last line of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Counts from 1; 0 for an empty chain.
    pub sequence: u64,
    /// Of the line without its newline, in hexadecimal.
    pub sha256: String,
}

impl Head {
    pub fn start() -> Self {
        Self { sequence: 0, sha256: NO_LINE.to_owned() }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sequence, self.sha256)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not SEQUENCE:SHA256")]
pub struct NotAHead(String);

impl FromStr for Head {
    type Err = NotAHead;

    fn from_str(text: &str) -> Result<Self, NotAHead> {
        let parts = text.trim().split_once(':');
        let head = parts.and_then(|(sequence, sha256)| {
            let digest = sha256.len() == NO_LINE.len() && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
            Some(Self { sequence: sequence.parse().ok().filter(|_| digest)?, sha256: sha256.to_ascii_lowercase() })
        });
        head.ok_or_else(|| NotAHead(text.to_owned()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub writer: String,
    pub head: String,
}

/// How many heads fit in one annotation; new ones replace those that changed longest ago.
const PUBLISHED: usize = 16;

/// The heads in an annotation, the latest last; none if it cannot be read.
pub fn published(annotation: &str) -> Vec<Published> {
    serde_json::from_str(annotation).unwrap_or_default()
}

/// The annotation with this writer's head; `None` if it has it already.
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    writer: String,
    head: Head,
}

impl Chain {
    pub fn new(writer: impl Into<String>, head: Head) -> Self {
        Self { writer: writer.into(), head }
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Makes the next line, without its newline.
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

/// The place in its chain that a line claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub writer: String,
    pub sequence: u64,
    /// SHA-256 of the line before it.
    pub previous: String,
}

impl Link {
    pub fn of(event: &Event) -> Option<Self> {
        Some(Self {
            writer: event.note(key::WRITER)?.to_owned(),
            sequence: event.note(key::SEQUENCE)?.parse().ok().filter(|sequence| *sequence > 0)?,
            previous: event.note(key::PREVIOUS)?.to_owned(),
        })
    }
}

/// Parses a line without its newline; `None` if it is not a record of a chain.
pub fn parse(text: &[u8]) -> Option<(Event, Link)> {
    let event: Event = serde_json::from_slice(text).ok()?;
    let link = Link::of(&event)?;
    Some((event, link))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End<'a> {
    /// The writer of the last record, and the head.
    pub last: Option<(String, Head)>,
    /// What follows it: lines that a crash truncated.
    cut: &'a [u8],
}

impl<'a> End<'a> {
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

    pub fn is_open(&self) -> bool {
        self.cut.last().is_some_and(|byte| *byte != b'\n')
    }

    /// Annotations with which the writer reports what was truncated.
    pub fn cut_notes(&self) -> BTreeMap<String, String> {
        let cut = self.cut.strip_suffix(b"\n").unwrap_or(self.cut);
        if self.cut.is_empty() { BTreeMap::new() } else { cut_notes(cut) }
    }
}

/// Annotations that report these truncated lines, joined by newlines.
pub fn cut_notes(cut: &[u8]) -> BTreeMap<String, String> {
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
