use std::{
    future::pending,
    sync::atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};

use super::*;
use crate::cli::{
    batch::{
        children::tests::{child, exited, object},
        words::tests::{batch, object as batch_object, status},
    },
    follow::scripted::{self, Answer, Kept, SILENT},
};

fn requests(items: &[Value]) -> Answer {
    let meta = json!({"resourceVersion": "1"});
    Some((
        200,
        json!({"kind": "ExecRequestList", "apiVersion": "execlet.dev/v1alpha1", "metadata": meta, "items": items}),
    ))
}

fn event(kind: &str, status: Value) -> Answer {
    Some((200, json!({"type": kind, "object": batch_object(status)})))
}

/// Follows a batch that begins so; its watches are answered by `watch`, with the number of those before.
async fn follows(
    first: Value,
    items: Vec<Value>,
    watch: impl Fn(usize) -> Answer + Send + Sync + 'static,
    (group, next): (bool, impl AsyncFnMut() -> SignalKind),
) -> (Exit, String) {
    let watches = AtomicUsize::new(0);
    let (cluster, _) = scripted::cluster(move |call| match call {
        call if call.contains("/execrequests/") => items
            .iter()
            .find(|item| call.ends_with(item["metadata"]["name"].as_str().unwrap_or("?")))
            .map(|item| (200, item.clone())),
        call if call.contains("spec.batch.uid") && call.contains("watch=true") => Some((SILENT, Value::Null)),
        call if call.contains("spec.batch.uid") => requests(&items),
        call if call.contains("/execbatches") && call.contains("watch=true") => {
            watch(watches.fetch_add(1, Ordering::Relaxed))
        }
        call => panic!("{call}"),
    });
    let heard = Kept::default();
    let stage = Stage::to(&Speech::to(false, heard.clone()), group, heard.clone());
    let (_resizes, sizes) = tokio::sync::watch::channel(None);
    let exit = Following::of(&cluster, batch(first), stage).run(next, sizes).await;
    (exit.expect("an exit code"), heard.text())
}

fn nobody() -> (bool, impl AsyncFnMut() -> SignalKind) {
    (false, async || pending().await)
}

fn ends(count: i32, indexes: &str) -> Value {
    json!({"count": count, "indexes": indexes})
}

fn finished() -> Value {
    let more = json!({"released": 3, "succeeded": ends(2, "0-1"), "failed": ends(1, "2"), "notRun": ends(1, "3")});
    status("Failed", "TooManyFailed", "too many: of 4 targets 2 succeeded", &more)
}

fn four() -> Vec<Value> {
    let mut held = exited(0, "");
    held["phase"] = json!("Failed");
    for condition in held["conditions"].as_array_mut().into_iter().flatten() {
        condition["reason"] = json!("TooManyFailed");
        if condition["type"] == "Started" {
            condition["status"] = json!("False");
        }
    }
    held["output"] = Value::Null;
    held["exitCode"] = Value::Null;
    vec![
        object(0, exited(0, "same\n")),
        object(1, exited(0, "same\n")),
        object(2, exited(3, "other\n")),
        object(3, held),
    ]
}

#[tokio::test]
async fn each_end_is_a_line_with_what_was_written_and_the_rest_is_told_together() {
    let (exit, text) = follows(finished(), four(), |_| scripted::status(500, "not now"), nobody()).await;
    assert_eq!(exit, Exit::NOT_SUCCESS);
    assert_eq!(
        text,
        "\
execlet: db-0 succeeded
db-0: same
execlet: db-1 succeeded
db-1: same
execlet: db-2 failed: NonZeroExitCode: the command ended with exit code 3
db-2: other
execlet: xb/b: Failed (TooManyFailed): too many: of 4 targets 2 succeeded
execlet: 1 failed (NonZeroExitCode, exit code 3): db-2
execlet: 1 never ran (TooManyFailed): db-3
execlet: read its output: kubectl execlet -n shop logs xb/b; run it again there: kubectl execlet -n shop rerun xb/b --failed --not-run
"
    );
}

#[tokio::test]
async fn equal_results_are_shown_once_at_the_end() {
    let never = async || pending().await;
    let (exit, text) = follows(finished(), four(), |_| scripted::status(500, "not now"), (true, never)).await;
    assert_eq!(exit, Exit::NOT_SUCCESS);
    assert!(text.contains("db-[0-1] (2): Completed, exit code 0\n----------------\n  same\n---"), "{text}");
    assert!(text.contains("  -same\n  +other\n") && !text.contains("db-0: same"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_end_that_was_missed_is_read_and_a_broken_watch_is_opened_again() {
    let running = status("Running", "Running", "", &json!({"released": 4, "active": 4}));
    let watch = |at: usize| match at {
        0 => None,
        1 => scripted::status(503, "not now"),
        _ => event("MODIFIED", finished()),
    };
    let (exit, text) = follows(running, four(), watch, nobody()).await;
    assert_eq!(exit, Exit::NOT_SUCCESS);
    assert_eq!(text.matches("db-2 failed").count(), 1, "{text}");
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_before_anything_was_released_never_ran_and_else_it_may_have() {
    for (released, exit) in [(0, Exit::NEVER_RAN), (1, Exit::UNKNOWN)] {
        let running = || status("Running", "Running", "", &json!({"released": released}));
        let watch = move |_| event("DELETED", status("Running", "Running", "", &json!({"released": released})));
        let (ended, text) = follows(running(), Vec::new(), watch, nobody()).await;
        assert_eq!(ended, exit, "{text}");
    }
    // Nobody saw its end.
    let mut other = batch_object(status("Running", "Running", "", &Value::Null));
    other["metadata"]["uid"] = json!("v");
    let watch = move |_| Some((200, json!({"type": "ADDED", "object": other.clone()})));
    let planned = status("Planned", "Planned", "", &Value::Null);
    let (ended, text) = follows(planned, Vec::new(), watch, nobody()).await;
    assert_eq!(ended, Exit::UNKNOWN, "{text}");
}

#[tokio::test]
async fn a_preview_and_a_canary_end_at_their_limit_with_the_code_of_what_ran() {
    for (more, exit) in [
        (json!({"released": 0}), Exit::SUCCESS),
        (json!({"released": 1, "succeeded": ends(1, "0")}), Exit::SUCCESS),
        (json!({"released": 1, "failed": ends(1, "0")}), Exit::NOT_SUCCESS),
        (json!({"released": 1, "unknown": ends(1, "0")}), Exit::UNKNOWN),
        (json!({"released": 1, "notRun": ends(1, "0")}), Exit::NEVER_RAN),
    ] {
        let paused = status("Paused", "ReleaseLimit", "raise releaseLimit to go on", &more);
        let (ended, text) = follows(paused, Vec::new(), |_| None, nobody()).await;
        assert_eq!(ended, exit, "{text}");
        assert!(text.contains("kubectl execlet -n shop resume xb/b"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_follows_without_a_view_is_told_once_whom_it_waits_for() {
    for (reason, wanted) in [
        (
            "ApprovalRequired",
            "execlet: xb/b waits: Paused (ApprovalRequired): somebody; somebody else lets it run: kubectl execlet -n shop \
             approve xb/b; or end it: kubectl execlet -n shop cancel xb/b\n",
        ),
        ("Suspended", "let more run: kubectl execlet -n shop resume xb/b"),
    ] {
        let paused = move || status("Paused", reason, "somebody", &json!({"released": 0}));
        let watch = move |at: usize| if at < 3 { event("MODIFIED", paused()) } else { event("MODIFIED", finished()) };
        let (_, text) = follows(paused(), four(), watch, nobody()).await;
        assert!(text.contains(wanted), "{text}");
        assert_eq!(text.matches(" waits: ").count(), 1, "{text}");
    }
}

#[tokio::test]
async fn where_nobody_can_be_asked_the_first_ctrl_c_leaves_and_the_batch_goes_on() {
    for (signal, exit) in [(SignalKind::interrupt(), Exit::LEFT), (SignalKind::terminate(), Exit(143))] {
        let running = status("Running", "Running", "", &Value::Null);
        let watch = |_| Some((SILENT, Value::Null));
        let (ended, text) = follows(running, Vec::new(), watch, (false, async || signal)).await;
        assert_eq!(ended, exit);
        let left = "execlet: xb/b goes on: kubectl execlet -n shop attach xb/b, wait xb/b or cancel xb/b\n";
        assert_eq!(text, left);
    }
}

#[test]
fn what_a_command_wrote_ends_up_in_no_other_line() {
    let mut status = exited(0, "");
    status["output"]["stdout"] = json!({"tailBase64": "eBtbMkoKZXhlY2xldDogZG9uZQ==", "bytes": 20});
    let heard = Kept::default();
    let mut stage = Stage::to(&Speech::to(true, heard.clone()), false, heard.clone());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let (cluster, _) = scripted::cluster(|_| None);
    let (mut children, child) = (Children::of("u"), child(0, status));
    children.count_only(1);
    children.see(child.clone());
    stage.ended(&cluster, &child, &children.ended[&0], false).expect("printed");
    assert_eq!(heard.text(), "db-0: x\u{fffd}[2J\ndb-0: execlet: done\n");
}
