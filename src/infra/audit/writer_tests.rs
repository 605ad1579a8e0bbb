use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use super::*;
use crate::{
    core::{
        audit::{
            finding::Wrong,
            redact::CommandDetail,
            subject::Subject,
            verify::{File, Report, file_name, first_of, verify},
        },
        ids::{ContainerRef, ExecRef, RequestKey},
    },
    infra::clock::SystemClock,
};

const WRITER: &str = "agent/n1";
const LARGE: Retention = Retention { file_bytes: 1 << 20, files: 4 };

fn event(number: usize) -> Event {
    let key = RequestKey { namespace: "shop".into(), name: format!("r-{number}"), uid: format!("u-{number}").into() };
    let container = ContainerRef { id: "c".into(), started_at: None };
    let exec = ExecRef { id: format!("e-{number}").into(), container };
    Subject::known_by_key(&key, CommandDetail::Full).started(&exec, SystemClock.now())
}

/// Waits until the writer before has let go of the lock, which its thread does when it ends.
fn free(path: &Path) {
    let begun = Instant::now();
    while let Err(error) = Folder::open(path, LARGE) {
        assert!(begun.elapsed() < PATIENCE, "{error}");
        thread::yield_now();
    }
}

fn begin(path: &Path, retention: Retention) -> Log {
    begin_knowing(path, retention, None)
}

fn begin_knowing(path: &Path, retention: Retention, published: Option<&Head>) -> Log {
    free(path);
    let sink = Sink::Folder(path.to_owned(), retention);
    Log::begin(sink, WRITER, Arc::new(SystemClock), published).expect("a writer")
}

fn names(path: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut all: Vec<PathBuf> = all.filter(|path| path.extension().is_some()).collect();
    all.sort_unstable();
    all
}

fn read(path: &Path, head: Option<&Head>) -> Report {
    let files: Vec<File> = names(path)
        .into_iter()
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            File { first: first_of(&name), name, text: fs::read(path).expect("a file") }
        })
        .collect();
    verify(&files, head).expect("records")
}

async fn add(log: &Log, number: usize) -> Result<(), Unavailable> {
    log.add(event(number), Otherwise::Drop).await
}

/// A log of an earlier writer, and the head that it had published.
async fn with_five_records(path: &Path) -> Head {
    let log = begin(path, LARGE);
    for number in 0..5 {
        add(&log, number).await.expect("written");
    }
    log.head()
}

#[tokio::test]
async fn what_was_added_is_a_whole_chain_that_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let head = with_five_records(folder.path()).await;
    let log = begin_knowing(folder.path(), LARGE, Some(&head));
    add(&log, 5).await.expect("written");
    let report = read(folder.path(), Some(&log.head()));
    assert_eq!((report.findings, report.starts, report.head.sequence), (vec![], 2, 8));
    let mode = fs::metadata(&names(folder.path())[0]).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

/// Otherwise the writer itself would vouch for it from then on.
#[tokio::test]
async fn a_log_that_was_made_anew_after_the_published_head_is_told_by_the_writer_that_goes_on_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let head = with_five_records(folder.path()).await;
    free(folder.path());
    for name in names(folder.path()) {
        fs::remove_file(name).expect("removed");
    }
    let mut chain = Chain::new(WRITER, Head { sequence: head.sequence, sha256: "7".repeat(64) });
    let forged: Vec<u8> =
        (90..93).flat_map(|number| [chain.add(&event(number)).expect("a line"), b"\n".to_vec()].concat()).collect();
    fs::write(folder.path().join(file_name(head.sequence + 1)), forged).expect("written");
    let log = begin_knowing(folder.path(), LARGE, Some(&head));
    add(&log, 5).await.expect("written");
    let report = read(folder.path(), Some(&log.head()));
    let found: Vec<&Wrong> = report.findings.iter().map(|finding| &finding.wrong).collect();
    assert_eq!((found, report.first), (vec![&Wrong::TailMissing(head)], 7));
}

#[tokio::test]
async fn many_at_once_are_all_written_and_each_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = begin(folder.path(), LARGE);
    let adding = (0..200).map(|number| {
        let log = log.clone();
        tokio::spawn(async move { add(&log, number).await })
    });
    for added in adding.collect::<Vec<_>>() {
        added.await.expect("no panic").expect("written");
    }
    let report = read(folder.path(), Some(&log.head()));
    assert_eq!((report.findings, report.events.len()), (vec![], 201));
}

#[tokio::test]
async fn files_are_limited_in_size_and_number_and_the_chain_goes_over_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = begin(folder.path(), Retention { file_bytes: 3000, files: 3 });
    for number in 0..60 {
        add(&log, number).await.expect("written");
    }
    let names = names(folder.path());
    assert_eq!(names.len(), 3, "{names:?}");
    for name in &names {
        assert!(fs::metadata(name).expect("a file").len() < 5000, "{name:?}");
    }
    let report = read(folder.path(), Some(&log.head()));
    assert_eq!((report.findings, report.head.sequence), (vec![], 61));
    assert!(report.first > 1);
}

#[tokio::test]
async fn a_line_cut_off_anywhere_does_not_break_the_chain() {
    let folder = tempfile::tempdir().expect("a folder");
    for (number, cut) in [0, 1, 30, 400].into_iter().enumerate() {
        // Once it has the lock, nobody else writes.
        let log = begin(folder.path(), LARGE);
        add(&log, number).await.expect("written");
        let path = names(folder.path()).remove(0);
        let mut text = fs::read(&path).expect("a file");
        let line = text.split_inclusive(|byte| *byte == b'\n').next_back().expect("a line").to_vec();
        text.extend_from_slice(&line[..cut]);
        fs::write(&path, &text).expect("written");
    }
    begin(folder.path(), LARGE).available().await.expect("written");
    let report = read(folder.path(), None);
    assert_eq!((report.findings, report.cuts), (vec![], 3));
}

#[tokio::test]
async fn while_it_cannot_be_written_acts_are_refused_and_what_happened_is_kept_for_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = begin(folder.path(), Retention { file_bytes: 1, files: 8 });
    add(&log, 0).await.expect("written");
    // Every line goes into a file of its own, and the next one's name is taken by a folder.
    let next = folder.path().join("audit-000000000003.jsonl");
    fs::create_dir(&next).expect("a folder");
    assert!(add(&log, 1).await.is_err());
    assert!(log.add(event(2), Otherwise::Keep).await.is_err());
    assert!(log.available().await.is_err());
    fs::remove_dir(&next).expect("removed");
    let begun = Instant::now();
    while log.available().await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "it does not go on");
        tokio::time::sleep(PAUSE / 10).await;
    }
    add(&log, 3).await.expect("written");
    let report = read(folder.path(), Some(&log.head()));
    assert_eq!(report.findings, vec![]);
    assert_eq!(said(&report), ["opened", "u-0", "resumed", "u-2", "u-3"]);
}

fn said(report: &Report) -> Vec<String> {
    let word = |event: &Event| event.uid().map_or_else(|| event.verb.to_string(), |uid| uid.to_string());
    report.events.iter().map(word).collect()
}

/// A log that cannot be written because a folder has the name of its next file, and that folder.
async fn begin_blocked(path: &Path) -> (Log, PathBuf) {
    let log = begin(path, Retention { file_bytes: 1, files: 8 });
    add(&log, 0).await.expect("written");
    let next = path.join("audit-000000000003.jsonl");
    fs::create_dir(&next).expect("a folder");
    assert!(log.add(event(1), Otherwise::Keep).await.is_err());
    (log, next)
}

#[tokio::test]
async fn what_was_kept_is_written_without_waiting_for_the_next_record() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, next) = begin_blocked(folder.path()).await;
    let head = log.head();
    fs::remove_dir(&next).expect("removed");
    let begun = Instant::now();
    while log.head() == head {
        assert!(begun.elapsed() < PATIENCE, "it waits");
        tokio::time::sleep(PAUSE / 10).await;
    }
    assert_eq!(said(&read(folder.path(), Some(&log.head()))), ["opened", "u-0", "resumed", "u-1"]);
}

#[tokio::test]
async fn what_was_kept_is_written_when_the_process_ends() {
    for flushed in [true, false] {
        let folder = tempfile::tempdir().expect("a folder");
        let (log, next) = begin_blocked(folder.path()).await;
        fs::remove_dir(&next).expect("removed");
        if flushed {
            log.flush().await;
        } else {
            drop(log);
            free(folder.path());
        }
        assert_eq!(said(&read(folder.path(), None)), ["opened", "u-0", "resumed", "u-1"], "flushed: {flushed}");
    }
}

/// A clock that stands still, and with it the writer, while somebody has its lock.
struct Stuck(Arc<tokio::sync::Mutex<()>>);

impl Clock for Stuck {
    fn now(&self) -> k8s_openapi::jiff::Timestamp {
        drop(self.0.blocking_lock());
        SystemClock.now()
    }
}

#[tokio::test]
async fn a_stuck_disk_holds_up_only_the_first_and_what_finds_no_place_is_owned_up_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let lock = Arc::new(tokio::sync::Mutex::new(()));
    let sink = Sink::Folder(folder.path().to_owned(), LARGE);
    let log = Log::begin(sink, WRITER, Arc::new(Stuck(Arc::clone(&lock))), None).expect("a writer");
    add(&log, 0).await.expect("written");
    let stuck = lock.lock().await;
    assert!(log.add(event(1), Otherwise::Keep).await.is_err(), "it waits no longer than it may");
    // Each of these would take as long if it waited. Some find no place in the queue.
    let more = QUEUE + 10;
    let all = async {
        for number in 0..more {
            assert!(log.add(event(2 + number), Otherwise::Keep).await.is_err());
        }
    };
    timeout(PATIENCE, all).await.expect("they do not wait");
    drop(stuck);
    log.available().await.expect("it goes on");
    let report = read(folder.path(), Some(&log.head()));
    assert_eq!((report.findings.len(), report.lost), (0, 10), "the rest is there: {}", report.events.len());
    assert_eq!(report.events.iter().filter(|event| event.verb == Verb::Started).count(), 2 + QUEUE);
}

#[tokio::test]
async fn a_second_writer_and_another_ones_log_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = begin(folder.path(), LARGE);
    add(&log, 0).await.expect("written");
    assert_eq!(Folder::open(folder.path(), LARGE).expect_err("locked").kind(), io::ErrorKind::ResourceBusy);
    let sink = Sink::Folder(folder.path().to_owned(), LARGE);
    let second = Log::begin(sink.clone(), WRITER, Arc::new(SystemClock), None).expect("a writer");
    assert!(second.available().await.is_err());
    drop(second);
    drop(log);
    free(folder.path());
    let log = Log::begin(sink, "agent/n2", Arc::new(SystemClock), None).expect("a writer");
    let refused = add(&log, 1).await.expect_err("another one's log");
    assert!(refused.to_string().contains("agent/n1"), "{refused}");
    assert_eq!(read(folder.path(), None).findings, vec![]);
}

/// The process that writes and is killed; it is this test binary itself.
#[tokio::test]
#[ignore = "a part of the test below"]
async fn write_until_killed() {
    let Some(path) = std::env::var_os("EXECLET_AUDIT_TEST_FOLDER") else { return };
    let log = begin(Path::new(&path), Retention { file_bytes: 20_000, files: 50 });
    for number in 0.. {
        let all = (0..8).map(|part| log.add(event(number * 8 + part), Otherwise::Drop));
        futures::future::join_all(all).await;
    }
}

#[tokio::test]
async fn a_writer_that_is_killed_never_breaks_the_chain() {
    let folder = tempfile::tempdir().expect("a folder");
    let me = std::env::current_exe().expect("this program");
    let mut lines = 0;
    for round in 0..25 {
        let mut child = Command::new(&me)
            .args(["--ignored", "--exact", "infra::audit::writer::tests::write_until_killed"])
            .env("EXECLET_AUDIT_TEST_FOLDER", folder.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("a process");
        let begun = Instant::now();
        // In the middle of its writing, each time at another moment.
        while read_count(folder.path()) <= lines + round {
            assert!(begun.elapsed() < PATIENCE, "nothing is written");
            thread::yield_now();
        }
        child.kill().expect("killed");
        child.wait().expect("gone");
        lines = read_count(folder.path());
    }
    begin(folder.path(), LARGE).available().await.expect("written");
    let report = read(folder.path(), None);
    assert_eq!(report.findings, vec![], "{} lines", report.events.len());
    assert_eq!((report.first, report.head.sequence), (1, report.events.len() as u64), "no number is left out");
}

fn read_count(path: &Path) -> usize {
    names(path).iter().map(|path| fs::read(path).expect("a file").split(|byte| *byte == b'\n').count()).sum()
}

/// The lines of the first `sh` block behind the mark in `docs/audit.md`.
fn documented() -> String {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/audit.md")).expect("the document");
    let (_, rest) = text.split_once("<!-- verified by a test").expect("the mark");
    let (_, rest) = rest.split_once("```sh\n").expect("a block");
    rest.split_once("```").expect("its end").0.to_owned()
}

#[tokio::test]
async fn the_commands_in_the_document_verify_a_chain() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = begin(folder.path(), Retention { file_bytes: 3000, files: 9 });
    for number in 0..12 {
        add(&log, number).await.expect("written");
    }
    let run = || {
        let output =
            Command::new("sh").arg("-c").arg(documented()).current_dir(folder.path()).output().expect("a shell");
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
    };
    assert_eq!(run(), (format!("head {}\n", log.head().sha256), true));
    let path = names(folder.path()).remove(1);
    let changed = fs::read_to_string(&path).expect("text").replacen("namespaces/shop", "namespaces/shap", 1);
    fs::write(&path, changed).expect("written");
    let (said, fine) = run();
    assert!(!fine && said.starts_with("broken before: "), "{said}");
}
