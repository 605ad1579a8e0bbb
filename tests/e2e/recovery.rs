//! Rows of the recovery table: an agent comes back to what its death, or that of its memory, has left at that very point.

use std::{fs, time::Duration};

use execlet::{
    agent::memory::record::Record,
    api::{ExecRequest, ExitCodeSource, names::UID_ENV},
    core::{
        entry::{Entry, Stage},
        ids::{ContainerId, ExecId, ExecRef},
        request::key_of,
        transition::Write,
    },
    engine::{
        Engine as _, EngineError, ExecSpec,
        docker::{DockerEngine, Inspected},
    },
    infra::process,
};
use futures::future::join_all;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::api::DeleteParams;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    agents::{self, Away},
    lab::{Lab, container_id, docker, text, tool, wait_for},
    node::{self, DOCKER as NODE},
    restarts::waits,
    subject::agent_of,
    subresources::Release,
};

/// Notes that it ran.
const SCRIPT: &str = "echo ran >> /tmp/runs";
/// What ran, if ever the wrong thing did.
const OTHER: &str = "echo other >> /tmp/runs";

fn engine() -> DockerEngine {
    DockerEngine::new(tool(&["socket", &NODE]))
}

/// An exec as an agent prepares it.
async fn prepare(pod: &Pod, request: &ExecRequest, script: &str) -> ExecRef {
    let id = ContainerId::from(container_id(pod, "main"));
    let container = engine().container(&id).await.expect("an answer").expect("the container").reference;
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let uid = request.metadata.uid.as_deref().expect("a UID");
    let spec = ExecSpec { command, env: vec![format!("{UID_ENV}={uid}")], ..ExecSpec::default() };
    let id = engine().create_exec(&id, &spec).await.expect("an exec");
    ExecRef { id, container }
}

/// What an agent puts down of an exec that it has prepared.
pub fn prepared(request: &ExecRequest, exec: ExecRef) -> Record {
    let entry = Entry::new(Some(exec), process::boot_id().expect("a boot ID"), Stage::Prepared);
    let created = request.metadata.creation_timestamp.as_ref().expect("a time").0;
    Record::new(key_of(&request.metadata).expect("a key"), created, entry)
}

impl Lab {
    /// A request for the script, bound while the agent is away: its Lease is still fresh.
    pub async fn bound(&self, pod: &str, node: &str) -> (String, ExecRequest) {
        let command = ["sh", "-c", SCRIPT];
        let name = self.create(json!({"target": {"podName": pod}, "command": command, "startingDeadlineSeconds": 300}));
        let request = self.request_when(&name, "to be bound", |status| status.node_name.as_deref() == Some(node)).await;
        (name, request)
    }

    /// Commits a request to an exec, as its agent does.
    pub fn commit(&self, request: &ExecRequest, exec: &ExecRef) {
        let from = request.status.as_ref().expect("a status");
        let node = from.node_name.as_deref().expect("a node");
        let write = Write { from, generation: request.metadata.generation, at: Timestamp::now() };
        let name = request.metadata.name.as_deref().expect("a name");
        let written = agent_of(node).write_status(self, name, &json!(write.committed(exec)), false);
        assert!(written.status.success(), "{}", text(&written.stderr));
    }

    #[track_caller]
    pub fn ran_once(&self, pod: &str) {
        assert_eq!(text(&self.exec(pod, "cat /tmp/runs").0), "ran\n", "{pod}");
    }
}

/// The command that waits in this pod runs on while its agent is away, and is then ended.
async fn goes_on_until_its_agent_is_back(pod: &Pod, away: Away) {
    let container = container_id(pod, "main");
    assert!(waits(&NODE, &container), "whoever could end it is away");
    away.end().await;
    wait_for("the command to be ended", async || (!waits(&NODE, &container)).then_some(())).await;
}

#[tokio::test]
async fn what_was_prepared_when_its_agent_was_killed_is_started_once_committed_or_not() {
    let lab = Lab::alone().await;
    let pods = [lab.pod("bound", &NODE).await, lab.pod("committed", &NODE).await];
    let away = Away::on(&NODE).await;
    let mut all = Vec::new();
    for (pod, committed) in pods.iter().zip([false, true]) {
        let web = pod.metadata.name.clone().expect("a name");
        let (name, request) = lab.bound(&web, &NODE).await;
        let exec = prepare(pod, &request, SCRIPT).await;
        away.write(prepared(&request, exec.clone())).await;
        if committed {
            lab.commit(&request, &exec);
        }
        all.push((web, name, exec));
    }
    away.end().await;
    let ends = join_all(all.iter().map(|(_, name, _)| lab.soon(name))).await;
    for (done, (pod, _, exec)) in ends.iter().zip(&all) {
        assert_eq!(done.status.phase.to_string(), "Succeeded", "{:#?}", done.status);
        assert_eq!(done.status.exec_id.as_deref(), Some(exec.id.as_str()), "no other");
        assert!(done.status.output.as_ref().is_some_and(|output| output.complete), "nobody else has started it");
        lab.ran_once(pod);
    }
}

#[tokio::test]
async fn a_container_restarted_between_prepare_and_commit_ends_the_request() {
    let lab = Lab::alone().await;
    let pod = lab.pod("web", &NODE).await;
    let away = Away::on(&NODE).await;
    let (name, request) = lab.bound("web", &NODE).await;
    let exec = prepare(&pod, &request, SCRIPT).await;
    away.write(prepared(&request, exec)).await;
    docker(&NODE, &["restart", "--time=0", &container_id(&pod, "main")]);
    away.end().await;
    let done = lab.soon(&name).await;
    done.never_ran("ContainerDied");
    assert_eq!(done.status.exec_id, None, "nothing was committed");
    assert_eq!(lab.exec("web", "test -e /tmp/runs").1, 1);
}

#[tokio::test]
async fn a_command_whose_record_is_lost_or_torn_is_adopted_and_ends_with_its_true_code() {
    let lab = Lab::alone().await;
    let mut all = Vec::new();
    for pod in ["lost", "torn"] {
        lab.pod(pod, &NODE).await;
        let name = lab.waiting(pod, json!({})).await;
        let uid = lab.noted(&name).await;
        all.push((pod, name, agents::record(&NODE, &uid)));
    }
    let away = Away::on(&NODE).await;
    let [(_, _, lost), (_, _, torn)] = &all[..] else { panic!("two") };
    fs::remove_file(lost).expect("removed");
    // The middle of the text, not of what fills the file up.
    let whole = fs::read_to_string(torn).expect("a record");
    fs::write(torn, &whole[..whole.trim_end().len() / 2]).expect("written");
    away.end().await;
    let agent = agents::containers(&NODE);
    fs::remove_file(torn.with_extension("damaged")).expect("it was put aside");
    for (pod, name, _) in &all {
        let status = lab.requests().get(name).await.expect("the request").status.expect("a status");
        assert_eq!(status.phase.to_string(), "Running", "{status:#?}");
        assert_eq!(lab.exec(pod, "touch /tmp/go").1, 0);
    }
    let ends = join_all(all.iter().map(|(_, name, _)| lab.soon(name))).await;
    for (done, (pod, _, _)) in ends.iter().zip(&all) {
        done.ended_with(9);
        let output = done.status.output.as_ref().expect("output");
        assert_eq!((output.complete, output.incomplete_reason.as_deref()), (false, Some("StreamLost")));
        assert_eq!(done.stdout(), "begun\n", "what was received before is kept");
        lab.ran_once(pod);
    }
    assert_eq!(agents::containers(&NODE), agent, "the agent lives");
}

#[tokio::test]
async fn of_what_the_engine_has_forgotten_its_events_tell_the_code_also_without_any_record() {
    let lab = Lab::alone().await;
    for records in ["kept", "lost"] {
        let [ended, killed] = [format!("ended-{records}"), format!("killed-{records}")];
        let mut all = Vec::new();
        for pod in [&ended, &killed] {
            let container = container_id(&lab.pod(pod, &NODE).await, "main");
            let name = lab.waiting(pod, json!({})).await;
            let uid = lab.noted(&name).await;
            all.push((name, uid, container));
        }
        let away = Away::on(&NODE).await;
        if records == "lost" {
            for (_, uid, _) in &all {
                fs::remove_file(agents::record(&NODE, uid)).expect("removed");
            }
        }
        let [(ended, _, in_ended), (killed, _, in_killed)] = &all[..] else { panic!("two") };
        node::exec(&NODE, in_ended, &["touch", "/tmp/go"]);
        let status = lab.requests().get(ended).await.expect("the request").status.expect("a status");
        let exec = ExecId::from(status.exec_id.expect("an exec"));
        let code = async || engine().inspect_exec(&exec).await.expect("it is still there").code;
        assert_eq!(wait_for("the command to end", code).await, 9);
        docker(&NODE, &["rm", "--force", in_ended, in_killed]);
        let state = engine().inspect_exec(&exec).await;
        assert!(matches!(state, Err(EngineError::NoSuchExec(_))), "{state:?}");
        // Longer ago than an agent looks back that asks for what is new alone.
        sleep(Duration::from_secs(12)).await;
        away.end().await;
        let (ended, killed) = tokio::join!(lab.soon(ended), lab.soon(killed));
        // Of what was killed and is not on record as seen to run, the code may be that of the runtime that was to run it.
        let of_killed = (records == "kept").then_some(137);
        for (done, reason, code) in [(ended, "NonZeroExitCode", Some(9)), (killed, "ContainerDied", of_killed)] {
            assert_eq!((done.reason(), done.status.exit_code), (reason, code), "{records}: {:#?}", done.status);
            if let Some(code) = code {
                done.ended_with(code);
                assert_eq!(done.status.exit_code_source, Some(ExitCodeSource::Event));
            }
        }
    }
}

#[tokio::test]
async fn a_command_adopted_without_a_record_has_one_again_and_does_not_outlive_its_request() {
    let lab = Lab::alone().await;
    let pod = lab.pod("web", &NODE).await;
    let name = lab.waiting("web", json!({})).await;
    let uid = lab.noted(&name).await;
    let away = Away::on(&NODE).await;
    fs::remove_file(agents::record(&NODE, &uid)).expect("removed");
    away.end().await;
    let noted = async || agents::noted(&NODE, &uid).contains("\"running\"").then_some(());
    wait_for("another record", noted).await;
    let away = Away::on(&NODE).await;
    lab.requests().delete(&name, &DeleteParams::default()).await.expect("deleted");
    goes_on_until_its_agent_is_back(&pod, away).await;
}

#[tokio::test]
async fn what_runs_on_a_node_that_was_given_up_is_ended_when_its_agent_is_back() {
    let lab = Lab::alone().await;
    let release = Release::found();
    release.with("manager.nodeLostSeconds=40");
    let pod = lab.pod("web", &NODE).await;
    let name = lab.waiting("web", json!({})).await;
    lab.noted(&name).await;
    let away = Away::on(&NODE).await;
    let given_up = lab.finished(&name).await;
    assert_eq!((given_up.status.phase.to_string().as_str(), given_up.reason()), ("Unknown", "NodeLost"));
    assert_eq!(given_up.status.exit_code, None);
    goes_on_until_its_agent_is_back(&pod, away).await;
    let request = lab.requests().get(&name).await.expect("the request");
    assert_eq!(request.status, Some(given_up.status), "what was said stands");
}

#[tokio::test]
async fn an_end_that_only_the_journal_has_is_told_when_agent_and_api_server_are_back() {
    let lab = Lab::alone().await;
    let pod = lab.pod("web", &NODE).await;
    let name = lab.waiting("web", json!({})).await;
    let uid = lab.noted(&name).await;
    tool(&["kill", "control", "apiserver"]);
    node::exec(&NODE, &container_id(&pod, "main"), &["touch", "/tmp/go"]);
    let ended = || agents::noted(&NODE, &uid).contains("\"ended\"");
    wait_for("the end to be noted", async || ended().then_some(())).await;
    let away = Away::on(&NODE).await;
    tool(&["start", "control", "apiserver"]);
    let request = wait_for("the API server", async || lab.requests().get(&name).await.ok()).await;
    let status = request.status.expect("a status");
    assert!(ended() && status.completion_time.is_none(), "only the journal has it: {status:#?}");
    away.end().await;
    let done = lab.soon(&name).await;
    done.ended_with(9);
    let output = done.status.output.as_ref().expect("output");
    assert!(output.complete, "the agent that stayed to the end saw all of it: {output:#?}");
    lab.ran_once("web");
}

#[tokio::test]
async fn where_journal_and_status_name_different_execs_that_of_the_journal_never_starts() {
    let lab = Lab::alone().await;
    let [runs, waits] = [lab.pod("runs", &NODE).await, lab.pod("waits", &NODE).await];
    let running = lab.waiting("runs", json!({})).await;
    let uid = lab.noted(&running).await;
    let away = Away::on(&NODE).await;
    let request = lab.requests().get(&running).await.expect("the request");
    let mut others = vec![prepare(&runs, &request, OTHER).await];
    away.edit(&uid, |entry| (entry.exec, entry.stage) = (Some(others[0].clone()), Stage::Prepared)).await;
    let (waiting, request) = lab.bound("waits", &NODE).await;
    lab.commit(&request, &prepare(&waits, &request, SCRIPT).await);
    others.push(prepare(&waits, &request, OTHER).await);
    away.write(prepared(&request, others[1].clone())).await;
    away.end().await;
    assert_eq!(lab.exec("runs", "touch /tmp/go").1, 0);
    let (running, waiting) = tokio::join!(lab.soon(&running), lab.soon(&waiting));
    running.ended_with(9);
    waiting.ended_with(0);
    for pod in ["runs", "waits"] {
        lab.ran_once(pod);
    }
    for other in others {
        let state = engine().inspect_exec(&other.id).await.expect("it is still there");
        assert_eq!(state, Inspected { running: false, code: None, pid: None });
    }
}
