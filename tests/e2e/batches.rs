//! Batches on a real cluster: planned, released, counted, stopped.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::{
    batch_lab::everywhere,
    lab::{Lab, kubectl_raw, text, wait_for},
    leader,
    leading::managers_rolled_out,
};

/// Notes that it ran.
const NOTE: &str = "echo ran >> /tmp/runs";

#[tokio::test]
async fn a_batch_runs_once_in_each_pod_and_tells_what_came_of_it() {
    let lab = Lab::new().await;
    lab.pods_named("web", 6).await;
    let script = r#"echo ran >> /tmp/runs; echo "$EXECLET_BATCH_TOTAL"; [ "$EXECLET_BATCH_INDEX" != 3 ] || exit 7"#;
    let name = lab.batch(everywhere(script, json!({"parallelism": 3, "failurePolicy": {"maxFailed": "100%"}})));
    let done = lab.batch_ended(&name).await;
    done.ended("Failed", "TargetsFailed", [5, 1, 0, 0, 0]);
    assert_eq!((done.status.succeeded.indexes.as_str(), done.status.failed.indexes.as_str()), ("0-2,4-5", "3"));
    let groups: Vec<_> =
        done.status.groups.iter().map(|group| (group.count, group.indexes.as_str(), group.exit_code)).collect();
    assert_eq!(groups, [(5, "0-2,4-5", Some(0)), (1, "3", Some(7))]);
    let children = lab.children(&done).await;
    for index in 0..6 {
        let pod = format!("web-{index}");
        assert_eq!(lab.runs(&pod), 1, "{pod}");
        let child = &children[&index];
        assert_eq!(child.spec.target.pod_name, pod, "in the order of their names");
        let output = child.status.as_ref().and_then(|status| status.output.as_ref()).expect("output");
        assert_eq!(output.stdout.tail.as_deref(), Some("6\n"), "what EXECLET_BATCH_TOTAL was");
    }
    let row = lab.kubectl(&["get", "xb", &name, "--no-headers"]);
    let cells: Vec<&str> = row.split_whitespace().take(4).collect();
    assert_eq!(cells, [&name, "Failed", "6/6", "1"]);
    let told = lab.kubectl(&["get", "events", "--field-selector", &format!("involvedObject.name={name}")]);
    assert!(told.contains("TargetsFailed") && told.contains("Planned"), "{told}");
    let of_each = lab.kubectl(&["get", "events", "--field-selector", "involvedObject.kind=ExecRequest", "-o", "name"]);
    assert_eq!(of_each.trim(), "", "its requests have none: none was refused");
}

#[tokio::test]
async fn a_preview_runs_nothing_and_each_limit_exactly_what_it_says() {
    let lab = Lab::new().await;
    lab.pods_named("web", 10).await;
    let name = lab.batch(everywhere(NOTE, json!({"releaseLimit": 0, "parallelism": 10})));
    let preview = lab.batch_paused(&name, 0).await;
    assert_eq!((preview.total(), preview.reason()), (10, "ReleaseLimit"));
    for (limit, released) in [(json!(1), 1), (json!("10%"), 1), (json!("50%"), 5), (json!(7), 7)] {
        lab.patch_batch(&name, json!({"releaseLimit": limit})).await;
        let generation = lab.batches().get(&name).await.expect("a batch").metadata.generation;
        let seen = lab
            .batch_when(&name, "to have seen the limit", |seen| {
                seen.status.observed_generation == generation && seen.phase() == "Paused"
            })
            .await;
        assert_eq!((seen.status.released, seen.counts()), (released, [released, 0, 0, 0, 0]), "{limit}");
        let ran: Vec<usize> = (0..10).map(|index| lab.runs(&format!("web-{index}"))).collect();
        let wanted: Vec<usize> = (0..10).map(|index| usize::from(index < released)).collect();
        assert_eq!(ran, wanted, "{limit}");
    }
    for limit in [json!(0), json!("0%")] {
        let patch = json!({"spec": {"releaseLimit": limit}}).to_string();
        let refused = kubectl_raw(&["-n", &lab.namespace, "patch", "xb", &name, "--type=merge", "-p", &patch]);
        let said = text(&refused.stderr);
        assert!(!refused.status.success() && said.contains("set suspend to true to hold it"), "{limit}: {said}");
    }
    lab.patch_batch(&name, json!({"releaseLimit": 1})).await;
    lab.patch_batch(&name, json!({"releaseLimit": "100%"})).await;
    lab.batch_ended(&name).await.ended("Succeeded", "Completed", [10, 0, 0, 0, 0]);
}

#[tokio::test]
async fn too_many_failures_stop_the_rest() {
    let lab = Lab::new().await;
    lab.pods_named("web", 12).await;
    // One may fail; the second one stops it. What runs beside may still end.
    let fields = json!({"parallelism": 3, "failurePolicy": {"maxFailed": "10%"}});
    let name = lab.batch(everywhere(&format!("{NOTE}; exit 1"), fields));
    let done = lab.batch_ended(&name).await;
    assert_eq!((done.phase().as_str(), done.reason()), ("Failed", "TooManyFailed"), "{}", done.message());
    let [_, failed, not_run, ..] = done.counts();
    assert!((2..=4).contains(&failed) && failed + not_run == 12, "{:?}", done.counts());
    for index in 0..12 {
        assert_eq!(lab.runs(&format!("web-{index}")), usize::from(index < failed), "web-{index}");
    }
}

#[tokio::test]
async fn a_suspended_batch_goes_on_where_it_was_and_a_canceled_one_ends_what_runs() {
    let lab = Lab::new().await;
    lab.pods_named("web", 6).await;
    let script = format!("{NOTE}; until [ -e /tmp/go ]; do sleep 0.1; done");
    let name = lab.batch(everywhere(&script, json!({"parallelism": 2})));
    wait_for("two to run", async || (lab.runs("web-0") == 1 && lab.runs("web-1") == 1).then_some(())).await;
    lab.patch_batch(&name, json!({"suspend": true})).await;
    lab.batch_when(&name, "to be seen as suspended", |seen| {
        seen.status.observed_generation == seen.batch.metadata.generation
    })
    .await;
    for pod in ["web-0", "web-1"] {
        assert_eq!(lab.exec(pod, "touch /tmp/go").1, 0);
    }
    let held = lab.batch_paused(&name, 2).await;
    assert_eq!((held.counts(), held.reason()), ([2, 0, 0, 0, 0], "Suspended"), "nothing is NotRun by that");
    lab.patch_batch(&name, json!({"suspend": false})).await;
    wait_for("two more to run", async || (lab.runs("web-2") == 1 && lab.runs("web-3") == 1).then_some(())).await;
    lab.patch_batch(&name, json!({"cancel": true})).await;
    let done = lab.batch_ended(&name).await;
    done.ended("Failed", "Canceled", [2, 2, 2, 0, 0]);
    assert_eq!([lab.runs("web-4"), lab.runs("web-5")], [0, 0]);
    let left = "ps | grep -c '[u]ntil' || true";
    assert_eq!(text(&lab.exec("web-2", left).0).trim(), "0", "nothing of it is left");
}

#[tokio::test]
async fn a_batch_deleted_in_the_middle_leaves_nothing_running_and_starts_nothing_later() {
    let lab = Lab::new().await;
    lab.pods_named("web", 4).await;
    for how in ["background", "foreground", "orphan"] {
        let script = format!("echo {how} >> /tmp/runs; sleep 1000");
        let name = lab.batch(everywhere(&script, json!({"parallelism": 2})));
        let seen =
            lab.batch_when(&name, "to run two", |seen| seen.status.released == 2 && seen.status.active == 2).await;
        wait_for("both to run", async || {
            let all = lab.children(&seen).await;
            let runs = |index| all.get(&index).and_then(|child| child.status.as_ref()).map(|s| s.phase.to_string());
            [0, 1].iter().all(|index| runs(*index).as_deref() == Some("Running")).then_some(())
        })
        .await;
        lab.kubectl(&["delete", "execbatch", &name, &format!("--cascade={how}"), "--wait=false"]);
        // Whoever orphans its requests has those that are held removed by the manager, and those that run ended.
        crate::lab::wait_within(Duration::from_secs(150), "nothing to be left", async || {
            let all = lab.children(&seen).await;
            all.values().all(|child| child.status.as_ref().is_some_and(|s| s.completion_time.is_some())).then_some(())
        })
        .await;
        for pod in ["web-0", "web-1"] {
            assert_eq!(text(&lab.exec(pod, "ps | grep -c '[s]leep 1000$' || true").0).trim(), "0", "{how}: {pod}");
        }
        for pod in ["web-2", "web-3"] {
            assert_eq!(lab.runs(pod), 0, "{how}: {pod}");
        }
    }
}

#[tokio::test]
async fn only_the_pods_of_the_plan_are_touched() {
    let lab = Lab::new().await;
    lab.pods_named("web", 3).await;
    let name = lab.batch(everywhere(NOTE, json!({"releaseLimit": 0, "failurePolicy": {"maxFailed": "100%"}})));
    lab.batch_paused(&name, 0).await;
    lab.delete_pod("web-1").await;
    lab.pod("web-1", "n1").await;
    lab.pod("web-9", "n1").await;
    lab.patch_batch(&name, json!({"releaseLimit": "100%"})).await;
    let done = lab.batch_ended(&name).await;
    done.ended("Failed", "TargetsFailed", [2, 0, 1, 0, 0]);
    let child = &lab.children(&done).await[&1];
    let why = child.status.as_ref().and_then(|s| s.conditions.iter().find(|c| c.type_ == "Finished").cloned());
    assert_eq!(why.expect("an end").reason, "PodReplaced");
    assert_eq!([lab.runs("web-1"), lab.runs("web-9")], [0, 0]);
}

#[tokio::test]
async fn what_cannot_be_planned_is_refused_whole() {
    let lab = Lab::new().await;
    lab.pods_named("web", 3).await;
    let refused = async |spec, reason: &str, words: &str| {
        let done = lab.batch_ended(&lab.batch(spec)).await;
        assert_eq!((done.phase().as_str(), done.reason()), ("Failed", reason), "{}", done.message());
        assert!(done.message().contains(words), "{}", done.message());
        assert_eq!(done.counts(), [0; 5]);
        // The refusal is told first.
        wait_for("nothing to be left", async || lab.children(&done).await.is_empty().then_some(())).await;
    };
    refused(everywhere(NOTE, json!({"targets": {"maxTargets": 2}})), "TooManyTargets", "3 pods were found").await;
    let none = json!({"targets": {"selector": {"matchLabels": {"app": "none"}}},
        "template": {"spec": {"command": ["true"]}}});
    refused(none, "NoTargets", "no pod was found").await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"},
        "spec": {"hard": {"count/execrequests.execlet.dev": "2"}}});
    let applied = crate::lab::kubectl_with(&["-n", &lab.namespace, "apply", "-f", "-"], &quota.to_string());
    assert!(applied.status.success(), "{}", text(&applied.stderr));
    wait_for("the quota to count", async || {
        lab.kubectl(&["get", "quota", "few", "-o", "jsonpath={.status.used}"]).contains("execrequests").then_some(())
    })
    .await;
    refused(everywhere(NOTE, json!({})), "PlanRefused", "exceeded quota").await;
    for index in 0..3 {
        assert_eq!(lab.runs(&format!("web-{index}")), 0, "web-{index}");
    }
}

#[tokio::test]
async fn a_batch_with_a_time_to_live_is_deleted_with_its_requests() {
    let lab = Lab::new().await;
    lab.pods_named("web", 2).await;
    let name = lab.batch(everywhere("true", json!({"ttlSecondsAfterFinished": 0})));
    let path = ["get", "execbatches,execrequests", "-o", "name"];
    wait_for("nothing to be left", async || {
        let left = lab.kubectl(&path);
        (left.trim().is_empty()).then_some(())
    })
    .await;
    assert!(lab.batches().get_opt(&name).await.expect("an answer").is_none());
}

#[tokio::test]
async fn a_leader_that_is_killed_again_and_again_runs_nothing_twice() {
    let lab = Lab::alone().await;
    lab.pods_named("web", 20).await;
    let name = lab.batch(everywhere(&format!("{NOTE}; sleep 0.5"), json!({"parallelism": 3})));
    for _ in 0..4 {
        sleep(Duration::from_secs(2)).await;
        leader::kill();
    }
    let done = lab.batch_ended(&name).await;
    done.ended("Succeeded", "Completed", [20, 0, 0, 0, 0]);
    for index in 0..20 {
        assert_eq!(lab.runs(&format!("web-{index}")), 1, "web-{index}");
    }
    managers_rolled_out();
}
