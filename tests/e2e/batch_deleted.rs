//! Requests of a batch that somebody deletes in the middle: each is accounted for, and none is made or run again.

use std::time::Duration;

use execlet::api::ExecRequest;
use serde_json::json;

use crate::{
    batch_lab::everywhere,
    lab::{Lab, container, text, wait_for, wait_within},
};

/// Requests without a batch are swept once a minute.
const GONE_WITHIN: Duration = Duration::from_secs(150);

#[tokio::test]
async fn requests_that_are_deleted_in_the_middle_are_accounted_for_and_none_runs_later() {
    let lab = Lab::new().await;
    for index in [0, 2, 3, 4, 5, 6] {
        let node = ["n1", "n2"][index % 2];
        let spec = json!({"nodeName": node, "containers": [container("main")]});
        lab.create_pod(&format!("web-{index}"), spec, json!({})).await;
    }
    // Its request is released, and waits for the pod.
    let gated = json!({"schedulingGates": [{"name": "execlet.test/wait"}], "containers": [container("main")]});
    lab.create_pod("web-1", gated, json!({})).await;
    for index in [0, 2, 3, 4, 5, 6] {
        lab.ready(&format!("web-{index}")).await;
    }
    let script = r#"echo ran >> /tmp/runs; [ "$EXECLET_BATCH_INDEX" != 0 ] || sleep 1000"#;
    let template = json!({"spec": {"startingDeadlineSeconds": 600, "terminationGracePeriodSeconds": 0}});
    let fields = json!({"parallelism": 2, "failurePolicy": {"maxFailed": "100%"}, "template": template});
    let name = lab.batch(everywhere(script, fields));
    let seen = lab.batch_when(&name, "to be released", |seen| seen.status.released == 2).await;
    let child = async |index: i32| lab.children(&seen).await[&index].metadata.name.clone().expect("a name");
    let status_of = async |index: i32| lab.children(&seen).await[&index].status.clone().expect("a status");
    wait_for("the first to run", async || (status_of(0).await.phase.to_string() == "Running").then_some(())).await;
    wait_for("the second to wait", async || {
        status_of(1).await.conditions.iter().any(|condition| condition.reason == "PodNotRunning").then_some(())
    })
    .await;
    // Held, in every way in which one can be deleted.
    for (index, how) in [(3, "background"), (4, "foreground"), (5, "orphan")] {
        lab.kubectl(&["delete", "xr", &child(index).await, &format!("--cascade={how}"), "--wait=false"]);
    }
    // One that runs, and one that is released and was never bound.
    for index in [0, 1] {
        lab.kubectl(&["delete", "xr", &child(index).await, "--wait=false"]);
    }
    let done = lab.batch_ended(&name).await;
    done.ended("Failed", "TargetsFailed", [2, 0, 3, 2, 0]);
    let indexes =
        [&done.status.succeeded, &done.status.not_run, &done.status.unknown].map(|ends| ends.indexes.as_str());
    assert_eq!(indexes, ["2,6", "3-5", "0-1"]);
    let left: Vec<i32> = lab.children(&done).await.into_keys().filter(|index| ![3, 4, 5].contains(index)).collect();
    assert_eq!(left, [2, 6], "none is made again");
    wait_for("the command of a request that is gone to end", async || {
        (text(&lab.exec("web-0", "ps | grep -c '[s]leep 1000$' || true").0).trim() == "0").then_some(())
    })
    .await;
    // The pod that was waited for runs at last.
    let open = json!([{"op": "remove", "path": "/spec/schedulingGates"}]).to_string();
    lab.kubectl(&["patch", "pod", "web-1", "--type=json", "-p", &open]);
    lab.ready("web-1").await;
    let ran: Vec<usize> = (0..7).map(|index| lab.runs(&format!("web-{index}"))).collect();
    assert_eq!(ran, [1, 0, 1, 0, 0, 0, 1]);
}

#[tokio::test]
async fn of_a_deleted_batch_nothing_is_left_to_run_and_what_has_ended_stays_where_it_is_to_be_kept() {
    let lab = Lab::new().await;
    lab.pods_named("web", 2).await;
    for how in ["background", "foreground", "orphan"] {
        let name = lab.batch(everywhere(&format!("echo {how} >> /tmp/runs"), json!({"releaseLimit": 1})));
        let seen = lab.batch_paused(&name, 1).await;
        lab.kubectl(&["delete", "execbatch", &name, &format!("--cascade={how}"), "--wait=false"]);
        wait_within(GONE_WITHIN, "nothing to be left that could run", async || {
            let gone = lab.batches().get_opt(&name).await.ok()?.is_none();
            let left = lab.children(&seen).await;
            let ended =
                |child: &ExecRequest| child.status.as_ref().is_some_and(|status| status.completion_time.is_some());
            let kept = how == "orphan" && left.get(&0).is_some_and(ended);
            (gone && left.values().all(ended) && (kept || left.is_empty())).then_some(())
        })
        .await;
    }
    assert_eq!(text(&lab.exec("web-0", "cat /tmp/runs").0), "background\nforeground\norphan\n");
    assert_eq!(lab.runs("web-1"), 0);
}
