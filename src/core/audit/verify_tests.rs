use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::core::{
    audit::{chain::Chain, redact::CommandDetail, subject::Subject},
    ids::{ContainerRef, ExecRef, RequestKey},
};

const WRITER: &str = "agent/n1";

/// An event that differs from those of other numbers.
fn event(number: usize) -> Event {
    let key = RequestKey { namespace: "shop".into(), name: format!("r-{number}"), uid: format!("u-{number}").into() };
    let container = ContainerRef { id: "c".into(), started_at: None };
    let exec = ExecRef { id: format!("e-{number}").into(), container };
    Subject::known_by_key(&key, CommandDetail::Full).started(&exec, Timestamp::UNIX_EPOCH)
}

fn opened(notes: BTreeMap<String, String>) -> Event {
    Event::of_writer(Verb::Opened, WRITER, Timestamp::UNIX_EPOCH, notes)
}

/// The lines of a chain, with their line ends.
fn lines(count: usize) -> Vec<Vec<u8>> {
    let mut chain = Chain::new(WRITER, Head::start());
    (0..count).map(|number| line(&mut chain, &event(number))).collect()
}

fn line(chain: &mut Chain, event: &Event) -> Vec<u8> {
    let mut line = chain.add(event).expect("a line");
    line.push(b'\n');
    line
}

fn head_of(lines: &[Vec<u8>]) -> Head {
    let text = lines.last().expect("a line").strip_suffix(b"\n").expect("a line end");
    Head { sequence: chain::parse(text).expect("a record").1.sequence, sha256: sha256(text) }
}

fn file(name: &str, lines: &[Vec<u8>]) -> File {
    File { name: name.to_owned(), first: first_of(name), text: lines.concat() }
}

fn checked(lines: &[Vec<u8>], head: Option<&Head>) -> Report {
    verify(&[file("audit-000000000001.jsonl", lines)], head).expect("records")
}

/// The first bad line, and what is wrong with it.
fn first_bad(lines: &[Vec<u8>], head: Option<&Head>) -> (usize, Wrong) {
    let report = checked(lines, head);
    let finding = report.findings.into_iter().next().expect("a finding");
    (finding.line, finding.wrong)
}

/// Changes a line without making it anything but a record.
fn changed(line: &[u8]) -> Vec<u8> {
    String::from_utf8(line.to_vec()).expect("text").replace("namespaces/shop", "namespaces/shap").into_bytes()
}

#[test]
fn a_chain_that_is_whole_is_found_so() {
    let lines = lines(5);
    let report = checked(&lines, Some(&head_of(&lines)));
    assert_eq!((report.findings, report.first, report.head), (vec![], 1, head_of(&lines)));
    assert_eq!((report.writer.as_str(), report.events.len()), (WRITER, 5));
    assert!(verify(&[], None).is_none() && verify(&[file("empty", &[])], None).is_none());
}

#[test]
fn a_chain_goes_on_over_files_and_may_have_lost_its_oldest() {
    let lines = lines(9);
    let files = |from: usize| {
        let all = [(1, &lines[..3]), (4, &lines[3..7]), (8, &lines[7..])];
        all.map(|(first, lines)| file(&file_name(first), lines)).split_off_from(from)
    };
    for from in 0..3 {
        let report = verify(&files(from), Some(&head_of(&lines))).expect("records");
        assert_eq!(report.findings, vec![], "from file {from}");
        assert!(!report.head_is_older);
    }
    let old = head_of(&lines[..2]);
    let report = verify(&files(1), Some(&old)).expect("records");
    assert!(report.head_is_older && report.findings.is_empty(), "{:?}", report.findings);
    let without_the_middle = [files(0).remove(0), files(0).remove(2)];
    let report = verify(&without_the_middle, None).expect("records");
    assert_eq!(report.findings[0].wrong, Wrong::Missing { from: 4, to: 7 });
    assert_eq!(report.findings[0].file, "audit-000000000008.jsonl");
}

trait SplitOffFrom {
    fn split_off_from(self, at: usize) -> Vec<File>;
}

impl<const N: usize> SplitOffFrom for [File; N] {
    fn split_off_from(self, at: usize) -> Vec<File> {
        Vec::from(self).split_off(at)
    }
}

#[test]
fn lines_missing_at_the_beginning_of_a_file_are_found_by_its_name() {
    assert_eq!(first_bad(&lines(5)[2..], None), (1, Wrong::Missing { from: 1, to: 2 }));
}

#[test]
fn a_line_that_was_cut_off_by_the_end_of_its_writer_is_fine_if_the_next_one_owns_up_to_it() {
    let mut lines = lines(3);
    let mut chain = Chain::new(WRITER, head_of(&lines));
    let cut = &line(&mut chain.clone(), &event(3))[..40];
    let text = [lines.concat(), cut.to_vec()].concat();
    let end = chain::End::of(&text);
    assert_eq!(end.last, Some((WRITER.to_owned(), head_of(&lines))));
    assert!(end.is_open());
    let next = line(&mut chain, &opened(end.cut_notes()));
    lines.extend([[cut, b"\n"].concat(), next]);
    let report = checked(&lines, None);
    assert_eq!((report.findings, report.cuts, report.starts), (vec![], 1, 1));

    lines[3] = b"something else\n".to_vec();
    assert_eq!(first_bad(&lines, None), (4, Wrong::NotARecord));
    lines[4] = line(&mut Chain::new(WRITER, head_of(&lines[..3])), &opened(BTreeMap::new()));
    assert_eq!(first_bad(&lines, None), (4, Wrong::NotARecord), "nobody owns up to it");
}

#[test]
fn a_writer_that_is_cut_off_again_and_again_owns_up_to_all_of_it() {
    let mut text = lines(2).concat();
    for cut in [5, 60] {
        let end = chain::End::of(&text);
        let mut chain = Chain::new(WRITER, end.last.clone().expect("a line").1);
        let mut next = line(&mut chain, &opened(end.cut_notes()));
        if end.is_open() {
            next.insert(0, b'\n');
        }
        text.extend_from_slice(&next[..cut]);
    }
    let end = chain::End::of(&text);
    let mut chain = Chain::new(WRITER, end.last.clone().expect("a line").1);
    let next = line(&mut chain, &opened(end.cut_notes()));
    let whole = [text.clone(), b"\n".to_vec(), next].concat();
    let report = verify(&[File { name: "f".into(), first: None, text: whole }], None).expect("records");
    assert_eq!((report.findings, report.cuts), (vec![], 1));
}

#[test]
fn a_line_without_an_end_is_truncated() {
    let mut lines = lines(3);
    for keep in 1..lines[2].len() - 1 {
        lines[2].pop();
        assert_eq!(first_bad(&lines, None), (3, Wrong::CutOff), "{keep} bytes");
    }
}

#[test]
fn a_restart_in_the_middle_is_seen_and_one_that_begins_anew_is_found() {
    let mut chain = Chain::new(WRITER, Head::start());
    let mut all: Vec<Vec<u8>> = [opened(BTreeMap::new()), event(1), opened(BTreeMap::new()), event(2)]
        .iter()
        .map(|e| line(&mut chain, e))
        .collect();
    let report = checked(&all, None);
    assert_eq!((report.findings, report.starts), (vec![], 2));
    let mut anew = Chain::new(WRITER, Head::start());
    all.push(line(&mut anew, &opened(BTreeMap::from([(key::VERSION.to_owned(), "2".to_owned())]))));
    all.push(line(&mut anew, &event(9)));
    assert_eq!(first_bad(&all, None), (5, Wrong::Restarted));
    assert_eq!(checked(&all, None).findings.len(), 1, "what follows is whole in itself");
}

#[test]
fn a_tail_that_was_cut_while_the_writer_was_away_is_told_by_its_next_start() {
    let whole = lines(5);
    let published = head_of(&whole);
    let mut cut = whole[..3].to_vec();
    let mut chain = Chain::new(WRITER, head_of(&cut));
    let notes = BTreeMap::from([(key::PUBLISHED.to_owned(), published.to_string())]);
    cut.push(line(&mut chain, &opened(notes.clone())));
    cut.extend((0..4).map(|number| line(&mut chain, &event(number))));
    assert_eq!(first_bad(&cut, None), (4, Wrong::TailMissing(published)));

    let mut fine = whole.clone();
    fine.push(line(&mut Chain::new(WRITER, head_of(&whole)), &opened(notes)));
    assert_eq!(checked(&fine, None).findings, vec![]);
}

#[test]
fn a_line_of_another_writer_is_foreign() {
    let mut lines = lines(4);
    lines.insert(2, line(&mut Chain::new("agent/n2", head_of(&lines[..2])), &event(9)));
    assert_eq!(first_bad(&lines, None), (3, Wrong::Foreign("agent/n2".to_owned())));
    assert_eq!(checked(&lines, None).findings.len(), 1);
}

#[test]
fn a_chain_made_anew_from_a_changed_line_on_is_found_by_its_head() {
    let whole = lines(6);
    let mut chain = Chain::new(WRITER, head_of(&whole[..3]));
    let forged: Vec<Vec<u8>> = (0..3).map(|number| line(&mut chain, &event(40 + number))).collect();
    let forged = [whole[..3].to_vec(), forged].concat();
    assert_eq!(checked(&forged, None).findings, vec![], "nothing but the head can show it");
    assert_eq!(first_bad(&forged, Some(&head_of(&whole))), (6, Wrong::Changed));
}

proptest! {
    #[test]
    fn a_changed_line_is_found_and_named(count in 2..20usize, at in any::<prop::sample::Index>()) {
        let mut lines = lines(count);
        let head = head_of(&lines);
        let at = at.index(count);
        lines[at] = changed(&lines[at]);
        prop_assert_eq!(first_bad(&lines, Some(&head)), (at + 1, Wrong::Changed));
    }

    /// Whatever byte it is.
    #[test]
    fn a_changed_byte_is_found_in_its_line(
        count in 1..8usize, at in any::<prop::sample::Index>(), byte in any::<prop::sample::Index>(), by in 1..=255u8,
    ) {
        let mut lines = lines(count);
        let head = head_of(&lines);
        let at = at.index(count);
        let byte = byte.index(lines[at].len());
        lines[at][byte] ^= by;
        let text = lines.concat();
        let report = verify(&[File { name: "f".into(), first: None, text }], Some(&head));
        let findings = report.map(|report| report.findings);
        // One line that is no record at all is no chain.
        prop_assert!(findings.is_none_or(|found| found.first().is_some_and(|first| (at..=at + 2).contains(&first.line))));
    }

    #[test]
    fn a_dropped_line_is_found_and_named(count in 2..20usize, at in any::<prop::sample::Index>()) {
        let mut lines = lines(count);
        let head = head_of(&lines);
        let at = at.index(count);
        lines.remove(at);
        let number = at as u64 + 1;
        let expected = if at == count - 1 {
            (at, Wrong::TailMissing(head.clone()))
        } else {
            (at + 1, Wrong::Missing { from: number, to: number })
        };
        prop_assert_eq!(first_bad(&lines, Some(&head)), expected);
    }

    #[test]
    fn two_lines_that_changed_places_are_found_and_named(
        count in 3..20usize, one in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(),
    ) {
        let mut lines = lines(count);
        let head = head_of(&lines);
        let (one, other) = (one.index(count), other.index(count));
        prop_assume!(one != other);
        lines.swap(one, other);
        let (line, wrong) = first_bad(&lines, Some(&head));
        prop_assert_eq!(line, one.min(other) + 1);
        let first = Wrong::Missing { from: 1, to: one.max(other) as u64 };
        prop_assert!(wrong == Wrong::OutOfOrder || (one.min(other) == 0 && wrong == first), "{:?}", wrong);
    }

    #[test]
    fn a_line_that_was_written_twice_is_found_and_named(
        count in 2..20usize, from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(),
    ) {
        let mut lines = lines(count);
        let head = head_of(&lines);
        let from = from.index(count);
        // Behind itself: before itself it would be the other one that is too many.
        let to = from + 1 + to.index(count - from);
        let copy = lines[from].clone();
        lines.insert(to, copy);
        prop_assert_eq!(first_bad(&lines, Some(&head)), (to + 1, Wrong::Inserted));
    }

    /// Made by somebody who knows how: it has the right number and the right link.
    #[test]
    fn a_forged_line_in_the_middle_is_found_and_named(count in 2..20usize, at in any::<prop::sample::Index>()) {
        let mut lines = lines(count);
        let head = head_of(&lines);
        let at = 1 + at.index(count - 1);
        lines.insert(at, line(&mut Chain::new(WRITER, head_of(&lines[..at])), &event(99)));
        prop_assert_eq!(first_bad(&lines, Some(&head)), (at + 1, Wrong::Inserted));
    }

    #[test]
    fn a_truncated_line_is_found_and_named(
        count in 2..20usize, at in any::<prop::sample::Index>(), keep in any::<prop::sample::Index>(),
    ) {
        let mut lines = lines(count);
        let at = at.index(count);
        let keep = keep.index(lines[at].len() - 2) + 1;
        lines[at].truncate(keep);
        if at + 1 < count {
            lines[at].push(b'\n');
        }
        let wrong = if at + 1 < count { Wrong::NotARecord } else { Wrong::CutOff };
        let text = lines.concat();
        let report = verify(&[File { name: "f".into(), first: None, text }], None).expect("records");
        let named: Vec<_> = report.findings.into_iter().map(|finding| (finding.line, finding.wrong)).collect();
        prop_assert_eq!(named.first(), Some(&(at + 1, wrong)));
    }

    #[test]
    fn a_cut_tail_is_found_by_the_head(count in 2..20usize, keep in any::<prop::sample::Index>()) {
        let lines = lines(count);
        let keep = 1 + keep.index(count - 1);
        let head = head_of(&lines);
        prop_assert_eq!(first_bad(&lines[..keep], Some(&head)), (keep, Wrong::TailMissing(head.clone())));
    }

    #[test]
    fn a_whole_chain_is_fine_wherever_its_files_are_cut(count in 1..20usize, cuts in prop::collection::vec(0..20usize, 0..4)) {
        let lines = lines(count);
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| (1..count).contains(cut)).chain([0]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let ends = cuts.iter().skip(1).copied().chain([count]);
        let files: Vec<File> = cuts.iter().zip(ends).map(|(from, to)| file(&file_name(*from as u64 + 1), &lines[*from..to])).collect();
        prop_assert_eq!(verify(&files, Some(&head_of(&lines))).expect("records").findings, vec![]);
    }
}
