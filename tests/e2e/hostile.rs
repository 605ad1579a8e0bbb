//! Bad input and bad weather: clear reasons, nothing lost that was accepted, and the agent lives.

use serde_json::json;

use crate::{
    disk::SmallDisk,
    lab::{IMAGE, Lab, text, wait_for},
};

#[tokio::test]
async fn on_a_full_disk_nothing_new_starts_and_nothing_that_runs_is_lost() {
    let lab = Lab::alone().await;
    lab.pod("web", "n2").await;
    let disk = SmallDisk::on("/var/lib/execlet").await;
    let script = "touch /tmp/ran; until [ -e /tmp/go ]; do sleep 0.1; done; exit 9";
    let running = lab.create(json!({"target": {"podName": "web"}, "command": ["sh", "-c", script]}));
    wait_for("the command to run", async || (lab.exec("web", "test -e /tmp/ran").1 == 0).then_some(())).await;
    disk.fill();
    let refused = lab
        .run(json!({"target": {"podName": "web"}, "command": ["touch", "/tmp/second"], "startingDeadlineSeconds": 5}))
        .await;
    refused.never_ran("NodeDiskFull");
    assert!(refused.message().contains("the disk of the agent's journal is full"), "{}", refused.message());
    assert_eq!(lab.exec("web", "test -e /tmp/second").1, 1);
    let waiting = lab.create(
        json!({"target": {"podName": "web"}, "command": ["sh", "-c", "exit 4"], "startingDeadlineSeconds": 120}),
    );
    wait_for("an Event to say so", async || {
        lab.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"]).contains("NodeDiskFull").then_some(())
    })
    .await;
    assert_eq!(lab.exec("web", "touch /tmp/go").1, 0);
    lab.finished(&running).await.ended_with(9);
    disk.empty();
    lab.finished(&waiting).await.ended_with(4);
    disk.end().await;
}

#[tokio::test]
async fn output_that_the_disk_does_not_take_is_counted_and_said_to_be_missing() {
    let lab = Lab::alone().await;
    lab.pod("web", "n2").await;
    let disk = SmallDisk::on("/var/log/execlet").await;
    let done = lab.sh("web", "seq 1 400000; exit 7").await;
    done.ended_with(7);
    let output = done.status.output.as_ref().expect("output");
    assert_eq!((output.complete, output.incomplete_reason.as_deref()), (false, Some("SpoolFailed")));
    let (whole, _) = lab.exec("web", "seq 1 400000 | wc -c; seq 1 400000 | sha256sum");
    let whole = text(&whole);
    let mut lines = whole.lines();
    assert_eq!(Some(output.stdout.bytes.to_string().as_str()), lines.next(), "all of it was received");
    assert_eq!(output.stdout.sha256.as_deref(), lines.next().and_then(|line| line.split(' ').next()));
    disk.end().await;
    lab.sh("web", "exit 3").await.ended_with(3);
}

#[tokio::test]
async fn a_container_that_restarts_all_the_time_gives_clear_reasons() {
    let lab = Lab::new().await;
    let container =
        json!({"name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "1"]});
    lab.create_pod("web", json!({"nodeName": "n1", "containers": [container]}), json!({})).await;
    let names: Vec<String> = (0..12)
        .map(|_| {
            lab.create(json!({"target": {"podName": "web"}, "command": ["sleep", "30"], "startingDeadlineSeconds": 20}))
        })
        .collect();
    for name in names {
        let done = lab.finished(&name).await;
        let expected = ["ContainerDied", "ContainerNotRunning", "StartingDeadlineExceeded", "StartFailed"];
        assert!(expected.contains(&done.reason()), "{:#?}", done.status);
        assert!(done.message().len() > 20, "{}", done.message());
    }
}

#[tokio::test]
async fn a_command_as_long_as_can_be_runs_and_its_words_arrive_whole() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let word = "x".repeat(120_000);
    let script = "for word; do printf '%s' \"$word\" | wc -c; done";
    let done = lab.run(json!({"target": {"podName": "web"}, "command": ["sh", "-c", script, "sh", word, word]})).await;
    done.ended_with(0);
    assert_eq!(done.stdout(), "120000\n120000\n");
}

#[tokio::test]
async fn three_hundred_requests_at_once_to_one_container_do_not_hold_up_another() {
    let lab = Lab::alone().await;
    lab.pod("busy", "n1").await;
    lab.pod("quiet", "n1").await;
    let items: Vec<_> = (0..300)
        .map(|n| {
            json!({
                "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
                "metadata": {"name": format!("busy-{n}"), "namespace": lab.namespace},
                "spec": {"target": {"podName": "busy"}, "command": ["sleep", "600"], "startingDeadlineSeconds": 600},
            })
        })
        .collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let created = crate::lab::kubectl_with(&["create", "-f", "-"], &list.to_string());
    assert!(created.status.success(), "{}", text(&created.stderr));
    lab.sh("quiet", "exit 3").await.ended_with(3);
    let of_phase = |phase: &str| {
        let phases = lab.kubectl(&["get", "execrequests", "-o", "jsonpath={.items[*].status.phase}"]);
        phases.split(' ').filter(|found| *found == phase).count()
    };
    assert_ne!(of_phase("Bound"), 0, "the busy one still has requests that wait");
    assert_eq!(of_phase("Succeeded"), 0, "none of the busy one has ended");
    // A request that waits and is canceled need not wait for its turn.
    lab.kubectl(&["patch", "execrequest", "busy-299", "--type=merge", "-p", r#"{"spec":{"cancel":true}}"#]);
    lab.finished("busy-299").await.never_ran("Canceled");
}
