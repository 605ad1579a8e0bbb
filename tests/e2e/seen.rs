//! What people and machines see of a request: Events, metrics, health.

use serde_json::json;

use crate::{
    lab::{Lab, wait_for},
    measured::{get, pods},
};

#[tokio::test]
async fn the_story_of_a_request_is_told_in_events() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let done = lab.sh("web", "exit 3").await;
    let name = done.request.metadata.name.as_deref().expect("a name");
    for (reason, words) in [("Bound", "bound to node n1"), ("NonZeroExitCode", "exit code 3")] {
        wait_for(&format!("the event {reason}"), async || {
            let story = lab.kubectl(&["describe", "execrequest", name]);
            story.lines().any(|line| line.contains(reason) && line.contains(words)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn outcomes_steps_and_running_execs_are_measured() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    lab.sh("web", "exit 3").await.ended_with(3);
    let agents: String = pods("agent").iter().map(|pod| get(pod, "metrics")).collect();
    for metric in [
        "execlet_requests_finished_total{reason=\"NonZeroExitCode\"}",
        "execlet_step_duration_seconds_count{step=\"prepare\"}",
        "execlet_step_duration_seconds_count{step=\"commit\"}",
        "execlet_step_duration_seconds_count{step=\"start\"}",
        "execlet_step_duration_seconds_count{step=\"pump\"}",
        "execlet_step_duration_seconds_count{step=\"settle\"}",
        "execlet_step_duration_seconds_count{step=\"report\"}",
        "execlet_execs_running ",
        "execlet_spool_bytes ",
        "execlet_commands_unheld_total ",
    ] {
        assert!(agents.contains(metric), "{metric} is not in\n{agents}");
    }
    let managers: String = pods("manager").iter().map(|pod| get(pod, "metrics")).collect();
    for metric in ["execlet_leader 1", "execlet_agents_live 2", "execlet_step_duration_seconds_count{step=\"bind\"}"] {
        assert!(managers.contains(metric), "{metric} is not in\n{managers}");
    }
}

#[tokio::test]
async fn every_pod_says_that_it_lives_and_is_ready() {
    let _lab = Lab::new().await;
    let agents = pods("agent");
    assert_eq!(agents.len(), 2, "one on each node");
    for pod in agents {
        assert_eq!(get(&pod, "livez"), "ok\n");
        let ready = get(&pod, "readyz");
        for check in ["engine", "engine-events", "lease", "watch"] {
            assert!(ready.contains(&format!("[+] {check} ok")), "{ready}");
        }
    }
    for pod in pods("manager") {
        assert_eq!(get(&pod, "livez"), "ok\n");
        assert!(get(&pod, "readyz").contains("[+] leader-lease ok"));
    }
}

#[tokio::test]
async fn a_request_is_listed_as_people_expect() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let name = lab.create(json!({"target": {"podName": "web"}, "command": ["sh", "-c", "exit 3"]}));
    lab.kubectl(&["wait", "--for=condition=Finished", "--timeout=180s", &format!("execrequest/{name}")]);
    let words = |args: &[&str]| -> Vec<String> {
        let text = lab.kubectl(args);
        text.lines().nth(1).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let row = words(&["get", "xr", &name]);
    assert_eq!(row[..5], [name.as_str(), "web", "main", "Failed", "3"]);
    let wide = words(&["get", "execrequests", &name, "-o", "wide"]);
    assert_eq!((wide[6].as_str(), wide[7].as_str()), ("n1", "NonZeroExitCode"));
    let category = lab.kubectl(&["get", "execlet", "-o", "name"]);
    assert!(category.contains(&name), "{category}");
    for (selector, found) in [
        ("status.phase=Failed", true),
        ("status.phase=Running", false),
        ("status.nodeName=n1,status.completionTime!=", true),
        ("status.completionTime=", false),
    ] {
        let listed = lab.kubectl(&["get", "xr", "--field-selector", selector, "-o", "name"]);
        assert_eq!(listed.contains(&name), found, "{selector}: {listed}");
    }
}
