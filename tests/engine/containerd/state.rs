//! What the engine says of an exec through its life, and after the end of its container.

use execlet::{
    core::{
        execution::Author,
        ids::{ContainerId, ExecName},
    },
    engine::{Engine as _, EngineError, ExecState, StartError, Surroundings},
};

use super::node::Node;
use crate::{
    lab::{command, read, shell, unique, until, within},
    stage::{Stage as _, Staged as _},
};

#[tokio::test]
async fn an_exec_is_untouched_runs_and_has_ended_also_where_its_container_is_paused() {
    let node = Node::open().await;
    let container = node.gated().await;
    let untouched = node.make(&container, &shell("true")).await;
    let (running, stream) = node.begun(&container, &shell("echo begun; read _ < /gate; exit 7")).await;
    let ended = node.make(&container, &shell("exit 3")).await;
    node.rest_of(&ended, node.go(&ended, false).await).await.expect("a clean end");
    assert_eq!(node.code_of(&ended).await, 3);
    for paused in [false, true] {
        if paused {
            node.pause(&container).await;
        }
        let state = async |exec| node.engine.state(exec).await.expect("a state");
        assert_eq!(state(&untouched).await, ExecState::Untouched, "paused: {paused}");
        assert!(matches!(state(&running).await, ExecState::Running { pid: Some(_) }), "paused: {paused}");
        assert!(matches!(state(&ended).await, ExecState::Ended { word, .. } if word.ran && word.testimony.code == 3));
    }
    node.resume(&container).await;
    container.pass();
    drop(read(stream).await.expect("a clean end"));
    assert_eq!(node.code_of(&running).await, 7);
}

#[tokio::test]
async fn an_exec_whose_container_is_killed_ends_with_137_and_one_that_was_not_started_never_is() {
    let node = Node::open().await;
    let container = node.gated().await;
    let untouched = node.make(&container, &shell("echo run >> /runs")).await;
    let (running, stream) = node.begun(&container, &shell("echo begun; sleep 60")).await;
    node.end(&container).await;
    drop(within("the end", read(stream)).await);
    assert_eq!(node.code_of(&running).await, 137);
    let start = node.engine.start(&untouched, false).await.err();
    assert!(matches!(start, Some(StartError::Refused(EngineError::ContainerNotRunning(_)))), "{start:?}");
    node.daemon().ctr(&["task", "rm", "-f", container.id()]);
    assert_eq!(node.engine.state(&running).await.expect("a state"), ExecState::Absent);
    assert_eq!(node.engine.state(&untouched).await.expect("a state"), ExecState::Absent);
    node.engine.forget(&running).await.expect("forgotten");
    node.engine.forget(&untouched).await.expect("forgotten");
    assert_eq!(container.lines("runs"), Vec::<String>::new());
}

#[tokio::test]
async fn a_start_that_failed_is_told_in_the_runtimes_words() {
    let node = Node::open().await;
    let container = node.gated().await;
    std::fs::write(container.root.join("tmp/plain"), "").expect("written");
    for program in ["/no/such/program", "no-such-program", "/tmp/plain", "/tmp", "a \"quoted\" \\ name"] {
        let exec = node.make(&container, &command([program])).await;
        let error = node.engine.start(&exec, false).await.err().expect("no such program");
        assert!(matches!(&error, StartError::Failed(words) if words.contains("exec: ")), "{program}: {error:?}");
        node.engine.forget(&exec).await.expect("forgotten");
    }
    let exec = node.make(&container, &shell("exit 0")).await;
    node.rest_of(&exec, node.go(&exec, false).await).await.expect("the container lives on");
}

/// Then there is a process, and words of the runtime in place of its output.
#[tokio::test]
async fn what_the_kernel_does_not_execute_ends_with_the_runtimes_words_and_code() {
    let node = Node::open().await;
    let container = node.gated().await;
    let path = container.root.join("tmp/bad");
    std::fs::write(&path, "no program\n").expect("written");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("executable");
    let ran = node.all_of(&container, &command(["/tmp/bad"])).await;
    let heard = execlet::core::execution::Heard {
        stdout: ran.output.stdout.clone(),
        stderr: ran.output.stderr.clone(),
        ..Default::default()
    };
    let author = node.engine.author("/tmp/bad", ran.code, Some(&heard));
    assert!(matches!(author, Author::Runtime(_)), "{author:?}: {} {heard:?}", ran.code);
}

#[tokio::test]
async fn where_programs_are_found_is_told_of_a_container_that_runs() {
    let node = Node::open().await;
    let container = node.gated().await;
    let surroundings = node.engine.surroundings(&container.reference()).await.expect("an answer").expect("it runs");
    let Surroundings { main, folder, search_path } = surroundings;
    assert_eq!((folder.as_str(), search_path.as_deref()), ("/", Some("/bin")));
    let name = async || std::fs::read_to_string(format!("/proc/{main}/comm")).ok();
    until("its main process", async || (name().await?.trim() == "sleep").then_some(())).await;
    node.end(&container).await;
    assert_eq!(node.engine.surroundings(&container.reference()).await.expect("an answer"), None);
}

#[tokio::test]
async fn what_is_left_of_execs_is_listed_and_goes_when_it_is_forgotten() {
    let node = Node::open().await;
    let container = node.gated().await;
    let untouched = node.make(&container, &shell("true")).await;
    let ended = node.make(&container, &shell("exit 3")).await;
    node.rest_of(&ended, node.go(&ended, false).await).await.expect("a clean end");
    // As an agent that has just started sees it.
    let later = node.daemon().engine();
    let left = async || {
        let mut left = later.leftovers().await.expect("a list");
        left.sort_by(|one, other| one.id.cmp(&other.id));
        left.into_iter().map(|exec| (exec.container.id, exec.id)).collect::<Vec<_>>()
    };
    let mut expected = [&untouched, &ended].map(|exec| (exec.container.id.clone(), exec.id.clone())).to_vec();
    expected.sort_by(|(_, one), (_, other)| one.cmp(other));
    assert_eq!(left().await, expected);
    for exec in later.leftovers().await.expect("a list") {
        assert!(later.is_own(&exec));
        later.forget(&exec).await.expect("forgotten");
        assert_eq!(later.state(&exec).await.expect("a state"), ExecState::Absent);
    }
    assert_eq!(left().await, []);
}

#[tokio::test]
async fn a_container_of_another_runtime_is_refused_and_nothing_is_made_in_it() {
    let node = Node::open().await;
    let root = tempfile::tempdir().expect("a folder");
    let (runtime, id) = ("io.containerd.kata.v2", unique("sandboxed"));
    let root = root.path().display().to_string();
    node.daemon().ctr(&["container", "create", "--runtime", runtime, "--rootfs", &root, &id, "true"]);
    let container = node.engine.container(&ContainerId::from(id)).await.expect("an answer").expect("a container");
    let name = ExecName { request: "u".into(), number: 1 };
    let made = node.engine.prepare(&container.reference, &name, &shell("true")).await;
    let Err(EngineError::Unsupported(why)) = made else { panic!("{made:?}") };
    assert!(why.contains(runtime) && why.contains("io.containerd.runc.v2"), "{why}");
    assert_eq!(node.engine.leftovers().await.ok().unwrap_or_default(), []);
}
