//! Verifies a chain: lines in, findings out.
//!
//! Each line vouches for its predecessor. Of two lines with the same number the
//! genuine one is that for which a later line or the published head vouches.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{
    chain::{self, Head, Link, NO_LINE},
    event::{Event, Verb},
    finding::{Finding, Wrong},
    key,
};
use crate::core::digest::sha256;

/// A file of a chain is named after the number of its first line.
pub const FILE_PREFIX: &str = "audit-";
pub const FILE_SUFFIX: &str = ".jsonl";

/// The name of the file that starts with this line; sorts by line number.
pub fn file_name(first: u64) -> String {
    format!("{FILE_PREFIX}{first:012}{FILE_SUFFIX}")
}

pub fn first_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix(FILE_PREFIX)?.strip_suffix(FILE_SUFFIX)?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?
}

/// The same, of a path.
pub fn first_in(path: &Path) -> Option<u64> {
    first_of(path.file_name()?.to_str()?)
}

#[derive(Clone, Debug)]
pub struct File {
    pub name: String,
    /// The number its first line must have, if the file's name tells it.
    pub first: Option<u64>,
    pub text: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    file: usize,
    /// From 1 on.
    line: usize,
}

#[derive(Clone, Debug)]
pub struct Report {
    pub writer: String,
    /// Number of the first line: more than 1 if older files are gone.
    pub first: u64,
    pub head: Head,
    pub starts: usize,
    /// How often a crash truncated a line and the writer reported it.
    pub cuts: usize,
    /// How many records the writer reports it could not write.
    pub lost: u64,
    /// The highest number at which a published head is in the chain. It vouches for every line up to there.
    pub vouched: Option<u64>,
    /// Whether all published heads are older than the first line, and so prove nothing.
    pub head_is_older: bool,
    pub findings: Vec<Finding>,
    pub events: Vec<Event>,
}

struct Line {
    place: Place,
    event: Event,
    link: Link,
    sha256: String,
    garbage: Garbage,
}

/// Verifies the files of one chain, in order. `heads` are those that its writer has published, at one time or
/// another: each must be in it. `None` if the files hold no record.
pub fn verify<'a>(files: &[File], heads: impl IntoIterator<Item = &'a Head>) -> Option<Report> {
    let (lines, rest) = read(files);
    let heads: Vec<&Head> = heads.into_iter().collect();
    let mut walk = Walk::new(&lines, &heads)?;
    for line in &lines {
        walk.garbage(line);
        walk.step(line);
    }
    if let Some((place, _, ended)) = rest.first() {
        walk.findings.insert(*place, (None, if *ended { Wrong::NotARecord } else { Wrong::CutOff }));
    }
    walk.check_first(files);
    let (mut vouched, mut older) = (None, 0);
    for head in &heads {
        match walk.check_head(head) {
            Reached::Yes => vouched = vouched.max(Some(head.sequence)),
            Reached::Older => older += 1,
            Reached::No => {}
        }
    }
    let findings = walk.findings.into_iter().map(|(place, (sequence, wrong))| Finding {
        file: files.get(place.file).map(|file| file.name.clone()).unwrap_or_default(),
        line: place.line,
        sequence,
        wrong,
    });
    let number = |line: &&Line, key| line.event.note(key).and_then(|number| number.parse::<u64>().ok());
    Some(Report {
        findings: findings.collect(),
        writer: walk.writer,
        first: lines.first()?.link.sequence,
        head: walk.last?.1,
        starts: lines.iter().filter(|line| line.event.verb == Verb::Opened).count(),
        cuts: walk.cuts,
        lost: lines.iter().filter_map(|line| number(&line, key::LOST)).sum(),
        vouched,
        head_is_older: !heads.is_empty() && older == heads.len(),
        events: lines.into_iter().map(|line| line.event).collect(),
    })
}

/// Unreadable lines, and whether each has its line end.
type Garbage = Vec<(Place, Vec<u8>, bool)>;

fn read(files: &[File]) -> (Vec<Line>, Garbage) {
    let (mut lines, mut garbage) = (Vec::new(), Vec::new());
    for (file, File { text, .. }) in files.iter().enumerate() {
        for (index, text) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let place = Place { file, line: index + 1 };
            let (bare, ended) = text.strip_suffix(b"\n").map_or((text, false), |bare| (bare, true));
            match chain::parse(bare).filter(|_| ended) {
                Some((event, link)) => {
                    let garbage = std::mem::take(&mut garbage);
                    lines.push(Line { place, event, link, sha256: sha256(bare), garbage });
                }
                None => garbage.push((place, bare.to_vec(), ended)),
            }
        }
    }
    (lines, garbage)
}

/// Whether a published head is in the chain.
enum Reached {
    Yes,
    /// It is older than the first line.
    Older,
    /// That is a finding.
    No,
}

struct Walk<'a> {
    writer: String,
    /// Digests for which a line or the published head vouches.
    vouched: BTreeSet<&'a str>,
    by_sequence: BTreeMap<u64, Vec<&'a Line>>,
    first: &'a Line,
    final_line: &'a Line,
    /// The last line that was in its place.
    last: Option<(Place, Head)>,
    /// Numbers and digests of the accepted lines.
    passed: BTreeMap<u64, String>,
    /// Digests for which the accepted lines vouch.
    named: BTreeSet<&'a str>,
    cuts: usize,
    findings: BTreeMap<Place, (Option<u64>, Wrong)>,
}

impl<'a> Walk<'a> {
    fn new(lines: &'a [Line], heads: &[&'a Head]) -> Option<Self> {
        let mut writers: BTreeMap<&str, usize> = BTreeMap::new();
        for line in lines {
            *writers.entry(&line.link.writer).or_default() += 1;
        }
        let writer = (*writers.iter().max_by_key(|(_, count)| **count)?.0).to_owned();
        let mut by_sequence: BTreeMap<u64, Vec<&Line>> = BTreeMap::new();
        for line in lines.iter().filter(|line| line.link.writer == writer) {
            by_sequence.entry(line.link.sequence).or_default().push(line);
        }
        let previous = lines.iter().map(|line| line.link.previous.as_str());
        Some(Self {
            vouched: previous.chain(heads.iter().map(|head| head.sha256.as_str())).collect(),
            by_sequence,
            first: lines.iter().find(|line| line.link.writer == writer)?,
            final_line: lines.iter().rfind(|line| line.link.writer == writer)?,
            writer,
            last: None,
            passed: BTreeMap::new(),
            named: BTreeSet::new(),
            cuts: 0,
            findings: BTreeMap::new(),
        })
    }

    fn found(&mut self, line: &Line, wrong: Wrong) {
        self.findings.entry(line.place).or_insert((Some(line.link.sequence), wrong));
    }

    /// Unreadable lines are a finding unless the writer reports them in its next record.
    fn garbage(&mut self, line: &Line) {
        let Some((place, _, _)) = line.garbage.first() else { return };
        let bytes: Vec<&[u8]> = line.garbage.iter().map(|(_, bytes, _)| bytes.as_slice()).collect();
        let notes = chain::cut_notes(&bytes.join(&b'\n'));
        let reported = notes.iter().all(|(key, value)| line.event.note(key) == Some(value));
        if reported && matches!(line.event.verb, Verb::Opened | Verb::Resumed) {
            self.cuts += 1;
        } else {
            self.findings.insert(*place, (None, Wrong::NotARecord));
        }
    }

    fn step(&mut self, line: &'a Line) {
        let Link { writer, sequence, previous } = &line.link;
        if *writer != self.writer {
            return self.found(line, Wrong::Foreign(writer.clone()));
        }
        let Some((before, last)) = self.last.clone() else {
            if *sequence == 1 && previous != NO_LINE {
                self.found(line, Wrong::Changed);
            }
            self.pass(line);
            return self.published(line);
        };
        let (next, linked) = (*sequence == last.sequence + 1, *previous == last.sha256);
        match (next, linked) {
            (true, true) if self.has_genuine_twin(line) => self.found(line, Wrong::Inserted),
            (true, true) => self.pass(line),
            (true, false) if self.twins(line).any(|twin| twin.link.previous == last.sha256) => {
                self.found(line, Wrong::Inserted);
            }
            (true, false) => {
                if self.is_vouched(line) || std::ptr::eq(line, self.final_line) {
                    self.findings.entry(before).or_insert((Some(last.sequence), Wrong::Changed));
                } else {
                    self.found(line, Wrong::Changed);
                }
                self.pass(line);
            }
            (false, true) => {
                self.found(line, Wrong::Changed);
                self.pass(line);
            }
            (false, false) => self.jump(line, &last),
        }
        self.published(line);
    }

    /// A line that is not the next one by its number nor by its link.
    fn jump(&mut self, line: &'a Line, last: &Head) {
        let sequence = line.link.sequence;
        if self.passed.contains_key(&sequence) && !self.starts_chain(line) {
            self.found(line, Wrong::Inserted);
        } else if self.named.contains(line.sha256.as_str()) {
            self.found(line, Wrong::OutOfOrder);
        } else if self.starts_chain(line) {
            self.found(line, Wrong::Restarted);
            self.passed.clear();
            self.pass(line);
        } else if sequence < last.sequence {
            self.found(line, Wrong::OutOfOrder);
        } else {
            let comes_later = self.by_sequence.get(&(last.sequence + 1)).is_some_and(|lines| !lines.is_empty());
            let missing = Wrong::Missing { from: last.sequence + 1, to: sequence - 1 };
            self.found(line, if comes_later { Wrong::OutOfOrder } else { missing });
            self.pass(line);
        }
    }

    fn starts_chain(&self, line: &Line) -> bool {
        let again = self.passed.get(&1).is_some_and(|first| *first == line.sha256);
        line.link.sequence == 1 && line.link.previous == NO_LINE && !again
    }

    fn pass(&mut self, line: &'a Line) {
        self.last = Some((line.place, Head { sequence: line.link.sequence, sha256: line.sha256.clone() }));
        self.passed.insert(line.link.sequence, line.sha256.clone());
        self.named.insert(&line.link.previous);
    }

    fn twins(&self, line: &'a Line) -> impl Iterator<Item = &'a Line> {
        let all = self.by_sequence.get(&line.link.sequence).cloned().unwrap_or_default();
        all.into_iter().filter(|twin| !std::ptr::eq(*twin, line) && twin.place > line.place)
    }

    fn has_genuine_twin(&self, line: &'a Line) -> bool {
        !self.is_vouched(line)
            && self.twins(line).any(|twin| twin.link.previous == line.link.previous && self.is_vouched(twin))
    }

    fn is_vouched(&self, line: &Line) -> bool {
        self.vouched.contains(line.sha256.as_str())
    }

    /// A writer that starts records the head it had published: that line must be there. It says itself if it was not,
    /// because later nobody can tell that from rotation.
    fn published(&mut self, line: &Line) {
        let Some(head) = line.event.note(key::PUBLISHED).and_then(|head| head.parse::<Head>().ok()) else { return };
        let gone = head.sequence >= line.link.sequence;
        let other = self.passed.get(&head.sequence).is_some_and(|sha256| *sha256 != head.sha256);
        let missed = line.event.note(key::PUBLISHED_MISSING).is_some();
        if gone || other || missed {
            self.found(line, Wrong::TailMissing(head));
        }
    }

    /// The first line must have the number in the name of its file.
    fn check_first(&mut self, files: &[File]) {
        let first = self.first;
        let named = files.get(first.place.file).and_then(|file| file.first);
        if let Some(from) = named.filter(|named| *named < first.link.sequence) {
            self.found(first, Wrong::Missing { from, to: first.link.sequence - 1 });
        }
    }

    /// The chain must reach a published head, and contain it.
    fn check_head(&mut self, head: &Head) -> Reached {
        let Some((place, last)) = self.last.clone() else { return Reached::No };
        if head.sequence > last.sequence {
            let missing = Wrong::TailMissing(head.clone());
            self.findings.entry(place).or_insert((Some(last.sequence), missing));
            return Reached::No;
        }
        match self.by_sequence.get(&head.sequence) {
            Some(lines) if lines.iter().all(|line| line.sha256 != head.sha256) => {
                for line in lines.clone() {
                    self.found(line, Wrong::Changed);
                }
                Reached::No
            }
            Some(_) if self.passed.get(&head.sequence) == Some(&head.sha256) => Reached::Yes,
            None if head.sequence < self.first.link.sequence => Reached::Older,
            // It was moved to where it is, or is among the lines that are missing.
            Some(_) | None => Reached::No,
        }
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
