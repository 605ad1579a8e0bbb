//! An exec is taken away from under a start that may be on its way.

use std::{fs, time::Duration};

use execlet::{
    core::ids::{ExecName, ExecRef},
    engine::{
        Engine as _, ExecState, Fenced, Prepared,
        containerd::{
            connection::{Channel, Connection},
            folder::Folder,
            messages::{ProcessId, Started},
        },
    },
};
use futures::future::join_all;
use tokio::time::sleep;
use tonic::Status;

use super::node::{Boxed, Node};
use crate::{
    lab::{command, shell, unique, within},
    stage::{Stage as _, Staged as _},
};

const START: &str = "/containerd.services.tasks.v1.Tasks/Start";

/// A start as of an agent that has ended meanwhile: nobody waits for its answer.
pub async fn late_start(channel: &Channel, exec: &ExecRef) -> Result<Started, Status> {
    let id = ProcessId { container_id: exec.container.id.to_string(), exec_id: exec.id.to_string() };
    channel.call(START, id).await
}

/// Holds what it writes to, as whoever reads it would.
fn read_outputs(node: &Node, exec: &ExecRef) -> Vec<fs::File> {
    let folder = Folder::of(&node.daemon().base(), exec).expect("names");
    let held = folder.hold_outputs();
    assert_eq!(held.len(), 2);
    held
}

pub async fn channel(node: &Node) -> Channel {
    Connection::new(node.socket()).open().await.expect("a connection")
}

/// As an agent leaves it that has ended when it was about to start it.
pub fn claim(node: &Node, container: &Boxed, exec: &ExecRef) {
    let folder = node.daemon().base().join(container.id()).join(exec.id.as_str());
    fs::write(folder.join("started"), "").expect("claimed");
}

#[tokio::test]
async fn what_was_never_started_is_taken_away_and_another_name_takes_its_place() {
    let node = Node::open().await;
    let container = node.gated().await;
    let name = ExecName { request: unique("request").into(), number: 1 };
    let prepare = async |name: &ExecName| {
        node.engine.prepare(&container.reference(), name, &shell("echo run >> /runs")).await.expect("an answer")
    };
    let Prepared::Created(exec) = prepare(&name).await else { panic!("there was none") };
    assert_eq!(prepare(&name).await, Prepared::Existed);
    assert_eq!(node.engine.state(&exec).await.expect("a state"), ExecState::Untouched);
    claim(&node, &container, &exec);
    // By all that a start leaves behind.
    assert_eq!(node.engine.state(&exec).await.expect("a state"), ExecState::Untouched);
    for _ in 0..2 {
        assert_eq!(node.engine.fence(&exec).await.expect("an answer"), Fenced::NeverRan);
    }
    assert_eq!(node.engine.state(&exec).await.expect("a state"), ExecState::Absent);
    let late = within("an answer", late_start(&channel(&node).await, &exec)).await;
    assert!(late.is_err(), "{late:?}");
    let Prepared::Created(next) = prepare(&name.next()).await else { panic!("there was none") };
    node.rest_of(&next, node.go(&next, false).await).await.expect("a clean end");
    assert_eq!(container.lines("runs").len(), 1);
}

/// The measured danger: a start that races the deletion, of a command that runs and of one that fails.
#[tokio::test]
async fn a_start_that_comes_late_runs_before_the_fence_or_not_at_all() {
    let node = Node::open().await;
    let container = node.gated().await;
    let mut fenced = 0;
    for round in 0..40_u64 {
        let fails = round % 4 == 3;
        let script = format!("echo {round} >> /runs");
        let spec = if fails { command(["/no/such/program"]) } else { shell(&script) };
        let exec = node.make(&container, &spec).await;
        claim(&node, &container, &exec);
        let channel = channel(&node).await;
        // Nobody reads its output: that agent has ended.
        let starting = async {
            // The fence looks, then waits, each time for half a second, and then deletes.
            sleep(Duration::from_millis(850 + round * 10)).await;
            late_start(&channel, &exec).await
        };
        let (started, fence) = tokio::join!(starting, node.engine.fence(&exec));
        let runs = container.lines("runs").iter().filter(|line| **line == round.to_string()).count();
        match fence {
            Ok(Fenced::NeverRan) => {
                fenced += 1;
                // Whoever was late found nothing.
                sleep(Duration::from_millis(50)).await;
                let runs = container.lines("runs").iter().filter(|line| **line == round.to_string()).count();
                assert_eq!(runs, 0, "round {round}: {started:?}");
            }
            Ok(Fenced::Started) | Err(_) => assert!(runs <= 1, "round {round}"),
        }
        assert_eq!(node.task(&container), "RUNNING", "round {round}: the container lives");
    }
    assert!(fenced > 0, "no start came too late");
}

#[tokio::test]
async fn a_start_that_failed_or_ran_unseen_is_spent_and_never_fenced() {
    let node = Node::open().await;
    let container = node.gated().await;
    let channel = channel(&node).await;
    // The runtime failed: who waits for it is answered.
    let failed = node.make(&container, &command(["/no/such/program"])).await;
    claim(&node, &container, &failed);
    let _reading = read_outputs(&node, &failed);
    assert!(late_start(&channel, &failed).await.is_err());
    // The command ran, and the shim found no FIFO: who waits for it waits on.
    let unseen = node.make(&container, &shell("echo run >> /runs")).await;
    claim(&node, &container, &unseen);
    let folder = node.daemon().base().join(container.id()).join(unseen.id.as_str());
    for fifo in ["out", "err"] {
        fs::remove_file(folder.join(fifo)).expect("removed");
    }
    let started = late_start(&channel, &unseen).await;
    crate::lab::until("the command", async || (container.lines("runs").len() == 1).then_some(())).await;
    for (what, exec) in [("failed", &failed), ("unseen", &unseen)] {
        let state = node.engine.state(exec).await.expect("a state");
        let ran = matches!(state, ExecState::Spent | ExecState::Ended { .. } | ExecState::Running { .. });
        assert!(ran, "{what}: {state:?} after {started:?}");
        assert_eq!(node.engine.fence(exec).await.expect("an answer"), Fenced::Started, "{what}");
    }
    assert_eq!(container.lines("runs").len(), 1);
}

/// Of good commands; of one that fails, two at once end the pod.
#[tokio::test]
async fn eight_racing_starts_run_each_of_ten_execs_once() {
    let node = Node::open().await;
    let container = node.gated().await;
    let channel = channel(&node).await;
    for round in 0..10 {
        let exec = node.make(&container, &shell(&format!("echo {round} >> /runs"))).await;
        claim(&node, &container, &exec);
        let _reading = read_outputs(&node, &exec);
        let started = join_all((0..8).map(|_| late_start(&channel, &exec))).await;
        assert_eq!(started.iter().filter(|answer| answer.is_ok()).count(), 1, "{started:?}");
        assert_eq!(node.code_of(&exec).await, 0);
    }
    let mut runs = container.lines("runs");
    runs.sort();
    assert_eq!(runs, (0..10).map(|round| round.to_string()).collect::<Vec<_>>());
}
