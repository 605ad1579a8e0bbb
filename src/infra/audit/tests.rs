use std::{fs, io, path::Path};

use super::{
    file::Retention,
    published::Before,
    writer::{Log, Sink},
    *,
};
use crate::{
    api::{ExitCodeSource, Reason},
    core::{
        audit::{batch::PlanId, chain::Head},
        ids::ContainerRef,
        outcome::Exit,
    },
    infra::clock::SystemClock,
};

fn audit(folder: &Path, required: bool) -> io::Result<Audit<Log>> {
    let sink = Sink::Folder(folder.to_owned(), Retention { file_bytes: 1 << 20, files: 2 });
    let log = Log::begin(sink, "agent/n1", Arc::new(SystemClock), None)?;
    let policy = Policy { required, ..Policy::default() };
    Ok(Audit::new(log, policy, Arc::new(SystemClock), Metrics::for_agent().0))
}

fn request() -> RequestKey {
    RequestKey { namespace: "shop".into(), name: "r".into(), uid: "u".into() }
}

fn exec(id: &str) -> ExecRef {
    ExecRef { id: id.into(), container: ContainerRef { id: "c".into(), started_at: None } }
}

#[tokio::test]
async fn an_act_that_is_tried_again_is_recorded_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let audit = audit(folder.path(), false).expect("a log");
    let subject = audit.unread(&request());
    let outcome = |code| {
        let exit = Exit { code, source: ExitCodeSource::Engine };
        Outcome::exited(exit, crate::api::OutputStatus::default(), SystemClock.now())
    };
    let refused = |why: &str| Outcome::refused(Reason::StartingDeadlineExceeded, why, SystemClock.now());
    for _ in 0..3 {
        audit.started(&subject, &exec("e1")).await.expect("recorded");
        audit.ended(&subject, &outcome(3)).await;
        audit.ended(&subject, &refused("10 s ago")).await;
    }
    audit.ended(&subject, &refused("20 s ago")).await;
    audit.ended(&subject, &outcome(4)).await;
    audit.clone().started(&subject, &exec("e2")).await.expect("recorded");
    let text = fs::read_to_string(folder.path().join("audit-000000000001.jsonl")).expect("text");
    let verbs: Vec<_> =
        text.lines().filter_map(|line| Some(serde_json::from_str::<Event>(line).ok()?.verb.as_str())).collect();
    assert_eq!(verbs, ["opened", "started", "finished", "finished", "finished", "started"]);
}

#[tokio::test]
async fn a_head_that_was_published_stands_until_the_chain_tells_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = folder.path().join("audit-000000000001.jsonl");
    fs::create_dir(&taken).expect("a folder");
    let audit = audit(folder.path(), false).expect("a log");
    let log = audit.trail.clone();
    let old: Head = format!("9:{}", "ab".repeat(32)).parse().expect("a head");
    let mut before = Before::Unread;
    before.read(Some(old.clone()));
    assert_eq!(before.head(&log).await, old, "it cannot be told");
    fs::remove_dir(&taken).expect("removed");
    log.flush().await;
    let now = before.head(&log).await;
    assert_eq!((&before, now.sequence < 9), (&Before::Told, true));
    let text = fs::read_to_string(&taken).expect("text");
    let told = |line: &str| serde_json::from_str::<Event>(line).ok()?.note(key::PUBLISHED).map(str::to_owned);
    assert!(text.lines().all(|line| told(line) == Some(old.to_string())), "{text}");
    // What is read later is what this process has published.
    before.read(Some(now.clone()));
    assert_eq!(before.head(&log).await, now);
}

#[tokio::test]
async fn a_head_that_is_known_only_later_is_told_then() {
    let folder = tempfile::tempdir().expect("a folder");
    let audit = audit(folder.path(), false).expect("a log");
    audit.started(&audit.unread(&request()), &exec("e1")).await.expect("recorded");
    let old = audit.trail.head();
    let mut before = Before::Untold(old.clone());
    assert_eq!(before.head(&audit.trail).await.sequence, old.sequence + 1);
    let text = fs::read_to_string(folder.path().join("audit-000000000001.jsonl")).expect("text");
    let last: Event = serde_json::from_str(text.lines().last().expect("a line")).expect("a record");
    assert_eq!((last.verb.as_str(), last.note(key::PUBLISHED)), ("resumed", Some(old.to_string().as_str())));
}

#[tokio::test]
async fn what_could_not_be_recorded_and_must_be_is_not_taken_for_recorded() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = folder.path().join("audit-000000000001.jsonl");
    fs::create_dir(&taken).expect("a folder");
    let audit = audit(folder.path(), true).expect("a log");
    let subject = audit.unread(&request());
    for _ in 0..2 {
        assert!(audit.started(&subject, &exec("e1")).await.is_err());
    }
}

#[tokio::test]
async fn where_records_are_required_nothing_of_a_batch_is_released_without_one_and_it_may_still_end() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("audit-000000000001.jsonl")).expect("a folder");
    let plan = PlanId { number: 1, digest: "d".to_owned() };
    let planned = Act::Planned { plan: plan.clone(), total: 2, approval_required: true };
    let approved = Act::Approved { plan: plan.clone(), by: None };
    let released = Act::Released { plan, from: 0, to: 1, by: None };
    let finished = Act::Finished { reason: "Canceled".into(), message: String::new(), plan: None, counts: Vec::new() };
    let batch = serde_json::from_value(serde_json::json!({
        "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecBatch",
        "metadata": {"name": "b", "namespace": "shop", "uid": "u-b"},
        "spec": {"targets": {"all": true}, "template": {"spec": {"command": ["true"]}}},
    }));
    let batch: ExecBatch = batch.expect("a batch");
    for required in [true, false] {
        let audit = audit(folder.path(), required).expect("a log");
        let subject = audit.batch(&batch).expect("a subject");
        for (act, needs_it) in [(&planned, true), (&approved, true), (&released, true), (&finished, false)] {
            let done = audit.batch_does(&subject, act).await;
            assert_eq!(done.is_err(), required && needs_it, "{act:?}");
        }
    }
}
