//! A node that was given another container engine: what its journal has of the old one's commands ends by what is known of
//! it, and nothing runs twice.

use crate::{
    agents::Away,
    lab::{Lab, container_id, tool, wait_for},
    node::{self, Kind},
    recovery::prepared,
    restarts::SCRIPT,
};
use execlet::{
    api::{ExecRequest, ExitCodeSource, names::UID_ENV},
    core::{
        entry::Stage,
        ids::{ContainerId, ContainerRef, ExecRef, ProcessRef},
    },
    infra::process,
};
use k8s_openapi::api::core::v1::Pod;

/// An exec as the engine names it that a node of this kind had before.
fn of_the_old_engine(kind: Kind, request: &ExecRequest, container: ContainerId) -> ExecRef {
    let id = match kind {
        Kind::Docker => format!("{}.1", request.metadata.uid.as_deref().expect("a UID")),
        Kind::Containerd => "e".repeat(64),
    };
    ExecRef { id: id.into(), container: ContainerRef { id: container, started_at: None } }
}

/// The request's command, started by somebody else than the engine's agent: an engine that is gone has left it running.
async fn left_running(node: &str, pod: &Pod, request: &ExecRequest) -> ProcessRef {
    let container = container_id(pod, "main");
    let tag = format!("{UID_ENV}={}", request.metadata.uid.as_deref().expect("a UID"));
    let script = format!("({tag} setsid sh -c '{SCRIPT}' >/dev/null 2>&1 &)");
    node::exec(node, &container, &["sh", "-c", &script]);
    let process = async || {
        let all = tool(&["container", node, "processes", &container]);
        let line = all.lines().find(|line| line.contains("/tmp/go"))?;
        process::find(line.split_whitespace().next()?.parse().ok()?)
    };
    wait_for("the command that was left running", process).await
}

#[tokio::test]
async fn what_is_left_of_another_engine_ends_by_what_is_known_of_it_and_runs_once_at_most() {
    let lab = Lab::alone().await;
    for node in ["n1", "n2"] {
        let kind = node::kind(node);
        let pod = |what: &str| format!("{what}-{node}");
        let whats = ["prepared", "committed", "starting", "running"];
        let mut pods = Vec::new();
        for what in whats {
            pods.push(lab.pod(&pod(what), node).await);
        }
        let away = Away::on(node).await;
        let mut names = Vec::new();
        for (what, in_pod) in whats.into_iter().zip(&pods) {
            let (name, request) = lab.bound(&pod(what), node).await;
            let container = container_id(in_pod, "main").into();
            let mut record = prepared(&request, of_the_old_engine(kind, &request, container));
            let exec = record.entry.exec.clone().expect("an exec");
            record.entry.stage = match what {
                "starting" => Stage::Starting,
                "running" => {
                    let process = left_running(node, in_pod, &request).await;
                    Stage::Running { process, pipes: Vec::new(), executed: true }
                }
                _ => Stage::Prepared,
            };
            if what != "prepared" {
                lab.commit(&request, &exec);
            }
            away.write(record).await;
            names.push(name);
        }
        away.end().await;
        let [new, committed, starting, running] = &names[..] else { panic!("four") };
        let done = lab.soon(new).await;
        done.ended_with(0);
        lab.ran_once(&pod("prepared"));
        lab.soon(committed).await.never_ran("ContainerDied");
        let lost = lab.soon(starting).await;
        assert_eq!((lost.status.phase.to_string().as_str(), lost.reason()), ("Unknown", "OutcomeLost"));
        assert!(lost.message().contains("another container engine"), "{}", lost.message());
        for what in ["committed", "starting"] {
            assert_eq!(lab.exec(&pod(what), "test -e /tmp/runs").1, 1, "{what} on {node}");
        }
        let status = lab.requests().get(running).await.expect("the request").status.expect("a status");
        assert_eq!(status.phase.to_string(), "Running", "{status:#?}");
        assert_eq!(lab.exec(&pod("running"), "touch /tmp/go").1, 0);
        let done = lab.soon(running).await;
        lab.ran_once(&pod("running"));
        // Which code it was only the kernel still knows.
        match done.status.exit_code {
            Some(code) => assert_eq!((code, done.status.exit_code_source), (9, Some(ExitCodeSource::Kernel))),
            None => assert_eq!(done.reason(), "OutcomeLost", "{:#?}", done.status),
        }
    }
}
