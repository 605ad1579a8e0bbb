use std::{fs, io, path::Path};

use super::{
    file::Retention,
    writer::{Log, Sink},
    *,
};
use crate::{
    api::{ExitCodeSource, Reason},
    core::{ids::ContainerRef, outcome::Exit},
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
    ExecRef { id: id.into(), container: ContainerRef { id: "c".into(), started_at: String::new() } }
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
