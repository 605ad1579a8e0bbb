//! One start in the life of an exec, without a deadline, and nothing deleted before its time: by a recording of the calls.

use execlet::{
    core::offsets::StreamOffsets,
    engine::{Engine as _, EngineError, ExecState, Fenced, StartError, containerd::ContainerdEngine},
};

use super::{
    node::{Boxed, Node},
    recording::{Call, Recording},
};
use crate::{
    lab::{command, read, shell, within},
    stage::{Stage as _, Staged as _},
};

/// An engine whose calls are noted.
fn recorded(node: &Node) -> (ContainerdEngine, Recording) {
    let at = node.daemon().state().join("recording.sock");
    let recording = Recording::begin(&at, node.socket());
    // The state's folder is that of the socket.
    (ContainerdEngine::new(at, node.daemon().base(), None), recording)
}

fn runs(node: &Node, container: &Boxed) -> usize {
    assert_eq!(node.task(container), "RUNNING", "the container lives");
    container.lines("runs").len()
}

#[tokio::test]
async fn no_call_has_a_deadline_and_all_are_in_the_kubelets_namespace() {
    let node = Node::open().await;
    let container = node.gated().await;
    let (engine, recording) = recorded(&node);
    let exec = node.make(&container, &shell("echo out; exit 7")).await;
    let started = engine.start(&exec, false).await.expect("started");
    assert!(started.pid.is_some());
    assert_eq!(read(started.stream).await.expect("a clean end").stdout, b"out\n");
    engine.wait(&exec).await.expect("ended");
    assert!(matches!(engine.state(&exec).await, Ok(ExecState::Ended { .. })));
    engine.release(&exec, StreamOffsets { stdout: 4, stderr: 0 }).await.expect("released");
    engine.forget(&exec).await.expect("forgotten");
    engine.forget(&exec).await.expect("again");
    assert_eq!(engine.state(&exec).await.expect("a state"), ExecState::Absent);
    let calls = recording.calls();
    for call in &calls {
        assert_eq!((call.namespace.as_deref(), &call.deadline), (Some("k8s.io"), &None), "{call:?}");
    }
    let names: Vec<&str> = calls.iter().map(|Call { name, .. }| name.as_str()).collect();
    let place =
        |name: &str| names.iter().position(|other| *other == name).unwrap_or_else(|| panic!("{name}: {names:?}"));
    assert!(place("Start") < place("Wait") && place("Wait") < place("DeleteProcess"), "{names:?}");
    assert_eq!(recording.count("Start"), 1);
}

/// A second start after one that failed would end the whole pod.
#[tokio::test]
async fn an_exec_is_started_once_whatever_came_of_it_and_whoever_asks() {
    let node = Node::open().await;
    let container = node.gated().await;
    let (engine, recording) = recorded(&node);
    let specs = [
        (shell("echo run >> /runs"), 1),
        (command(["/no/such/program"]), 0),
        (
            execlet::engine::ExecSpec { working_dir: Some("/no/such/folder".to_owned()), ..shell("echo run >> /runs") },
            0,
        ),
    ];
    for (round, (spec, expected)) in specs.into_iter().enumerate() {
        let exec = node.make(&container, &spec).await;
        match engine.start(&exec, false).await {
            Ok(started) => drop(read(started.stream).await.expect("a clean end")),
            Err(StartError::Failed(words)) => assert_eq!(expected, 0, "{words}"),
            Err(error) => panic!("{error:?}"),
        }
        // Another agent after it, too.
        for other in [&engine, &node.engine, &node.daemon().engine()] {
            let again = other.start(&exec, false).await.err();
            assert!(matches!(again, Some(StartError::Unclear(EngineError::Failed(_)))), "{again:?}");
        }
        assert_eq!(recording.count("Start"), round + 1);
        if expected == 0 {
            assert_eq!(node.engine.state(&exec).await.expect("a state"), ExecState::Spent);
            assert_eq!(node.engine.fence(&exec).await.expect("an answer"), Fenced::Started);
        }
        node.engine.forget(&exec).await.expect("forgotten");
    }
    assert_eq!(runs(&node, &container), 1);
}

/// The command would run, and its start fail all the same.
#[tokio::test]
async fn nothing_is_started_whose_output_the_shim_would_not_find() {
    let node = Node::open().await;
    let container = node.gated().await;
    let (engine, recording) = recorded(&node);
    let exec = node.make(&container, &shell("echo run >> /runs; echo out")).await;
    let folder = node.daemon().base().join(container.id()).join(exec.id.as_str());
    std::fs::rename(folder.join("err"), folder.join("elsewhere")).expect("renamed");
    let start = engine.start(&exec, false).await.err();
    assert!(matches!(start, Some(StartError::Refused(_))), "{start:?}");
    assert_eq!(engine.state(&exec).await.expect("a state"), ExecState::Untouched);
    std::fs::rename(folder.join("elsewhere"), folder.join("err")).expect("renamed");
    // Refused is not spent.
    let started = engine.start(&exec, false).await.expect("started");
    assert_eq!(read(started.stream).await.expect("a clean end").stdout, b"out\n");
    assert_eq!((recording.count("Start"), runs(&node, &container)), (1, 1));
    // Without its folder nothing of it is known, and nothing is started.
    let exec = node.make(&container, &shell("echo run >> /runs")).await;
    std::fs::remove_dir_all(node.daemon().base().join(container.id()).join(exec.id.as_str())).expect("removed");
    let start = engine.start(&exec, false).await.err();
    assert!(matches!(start, Some(StartError::Unclear(_))), "{start:?}");
    assert_eq!((recording.count("Start"), runs(&node, &container)), (1, 1));
}

/// What the shim has not handed over by then is cut off, and the FIFO ends as if all were well.
#[tokio::test]
async fn output_that_was_cut_off_by_a_deletion_has_no_clean_end() {
    let node = Node::open().await;
    let container = node.gated().await;
    // More than FIFO, shim and backlog hold: it ends only if somebody reads, or cuts it off.
    let exec = node.make(&container, &shell("echo begun; (head -c 4000000 /dev/zero; sleep 60) & exit 7")).await;
    let mut stream = node.go(&exec, false).await;
    within("first output", stream.next()).await.expect("a stream").expect("output");
    assert_eq!(node.code_of(&exec).await, 7);
    let ending = async {
        let mut bytes = 0;
        loop {
            match stream.next().await {
                Ok(Some(chunk)) => {
                    bytes += chunk.bytes.len() as u64;
                    // All that comes has room.
                    let before = StreamOffsets { stdout: bytes + 6, stderr: 0 };
                    node.engine.release(&exec, before).await.ok();
                }
                end => return end.map(|_| ()),
            }
        }
    };
    let (end, deleted) = tokio::join!(within("the end", ending), node.engine.forget(&exec));
    deleted.expect("deleted");
    assert!(end.is_err(), "it was cut off, and nobody said so");
    drop(container.reference());
}

#[tokio::test]
async fn an_engine_that_is_not_there_has_surely_started_nothing() {
    let node = Node::open().await;
    let container = node.gated().await;
    let exec = node.make(&container, &shell("echo run >> /runs")).await;
    node.daemon().kill();
    let start = node.engine.start(&exec, false).await.err();
    assert!(matches!(start, Some(StartError::Refused(EngineError::Unreachable { .. }))), "{start:?}");
    assert!(matches!(node.engine.state(&exec).await, Err(EngineError::Unreachable { .. })));
    node.daemon().start();
    node.answers().await;
    // It has kept it.
    assert_eq!(node.engine.state(&exec).await.expect("a state"), ExecState::Untouched);
    node.rest_of(&exec, node.go(&exec, false).await).await.expect("a clean end");
    assert_eq!(runs(&node, &container), 1);
}
