//! What no agent can save: a shim that is killed, a node that goes down, a tmpfs without room. And that nothing is left.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use execlet::{
    engine::{ContainerState, Engine as _, EngineError, ExecSpec, ExecState, StartError},
    infra::process,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

use super::{
    node::{Boxed, Node},
    output::{NUMBERS, numbers, read_rest},
};
use crate::{
    lab::{read, shell, until, within},
    stage::{Stage as _, Staged as _},
};

/// Bytes of the tmpfs that is filled. The backlog of one stream may be larger.
const TMPFS: u64 = 256 * 1024;
/// Nothing comes any more, if nothing has come for so long.
const SILENT: Duration = Duration::from_millis(500);
/// Execs of which nothing may be left.
const MANY: usize = 8;

/// The parent of a container's main process.
fn shim(node: &Node, container: &Boxed) -> Pid {
    let status = fs::read_to_string(format!("/proc/{}/status", node.main(container))).expect("a process");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
    Pid::from_raw(parent.trim().parse().expect("a number")).expect("a PID")
}

/// What a process has open that has a name.
fn open_files(pid: Pid) -> Vec<PathBuf> {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process");
    let mut files: Vec<_> = all.filter_map(|file| fs::read_link(file.ok()?.path()).ok()).collect();
    files.sort();
    files
}

/// Files below a folder that are no folders.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(folder) else { return Vec::new() };
    let found = found.map(|entry| entry.expect("an entry").path());
    found.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_shim_that_is_killed_takes_its_container_along_and_that_is_told() {
    let node = Node::open().await;
    let container = node.gated().await;
    let untouched = node.make(&container, &shell("echo run >> /runs")).await;
    let (running, stream) = node.begun(&container, &shell("echo begun; read _ < /gate; exit 7")).await;
    let Ok(ExecState::Running { pid: Some(pid) }) = node.engine.state(&running).await else { panic!("it runs") };
    let leader = process::find(pid).expect("a process");
    kill_process(shim(&node, &container), Signal::KILL).expect("killed");

    until("the end of the container", async || {
        let found = node.engine.container(&container.reference().id).await.ok()??;
        matches!(found.state, ContainerState::Stopped(_)).then_some(())
    })
    .await;
    until("the end of the command", async || (!process::alive(leader)).then_some(())).await;
    // Nobody has its code any more.
    assert_eq!(node.engine.state(&running).await.expect("a state"), ExecState::Absent);
    assert!(within("the end", read(stream)).await.is_err(), "output is not called whole");
    let start = node.engine.start(&untouched, false).await.err();
    assert!(matches!(start, Some(StartError::Refused(EngineError::ContainerNotRunning(_)))), "{start:?}");
    for exec in [&running, &untouched] {
        node.engine.forget(exec).await.expect("forgotten");
    }
    assert_eq!((node.engine.leftovers().await.expect("a list"), container.lines("runs")), (vec![], vec![]));
}

/// As after a loss of power: no process, and nothing that was in memory.
#[tokio::test]
async fn after_a_reboot_nothing_is_known_of_any_exec_and_nothing_is_started() {
    let node = Node::open().await;
    let container = node.gated().await;
    let untouched = node.make(&container, &shell("echo run >> /runs")).await;
    let (running, stream) = node.begun(&container, &shell("echo begun; read _ < /gate; exit 7")).await;
    let (main, shim) = (node.main(&container), shim(&node, &container));
    drop(stream);
    node.daemon().kill();
    for pid in [shim, main] {
        kill_process(pid, Signal::KILL).expect("killed");
    }
    // What the runtime has mounted is the container's root, which is nowhere else here.
    for memory in [node.daemon().state(), node.daemon().base()] {
        fs::remove_dir_all(&memory).expect("removed");
        fs::create_dir(&memory).expect("as the node makes it");
    }
    node.daemon().start();
    node.answers().await;
    let found = node.engine.container(&container.reference().id).await.expect("an answer").expect("it is on the disk");
    assert!(matches!(found.state, ContainerState::Stopped(_)), "{:?}", found.state);
    for exec in [&running, &untouched] {
        assert_eq!(node.engine.state(exec).await.expect("a state"), ExecState::Absent);
        node.engine.start(exec, false).await.err().expect("not started");
        node.engine.forget(exec).await.expect("forgotten");
    }
    assert_eq!(node.engine.leftovers().await.expect("a list"), []);
    assert_eq!(container.lines("runs"), Vec::<String>::new());
}

/// A tmpfs where the folders of execs are.
struct Small(PathBuf);

impl Small {
    fn at(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).expect("a folder");
        let size = format!("size={TMPFS}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder).status();
        assert!(mounted.expect("mount").success());
        Self(folder)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let gone = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(gone.is_ok_and(|status| status.success()) || std::thread::panicking(), "{}", self.0.display());
    }
}

#[tokio::test]
async fn a_tmpfs_without_room_holds_commands_up_and_costs_no_byte() {
    let node = Node::open().await;
    let small = Small::at(node.daemon().base());
    let container = node.gated().await;
    let script = format!("seq {NUMBERS}; exit 7");
    let exec = node.make(&container, &shell(&script)).await;
    let silent = node.make(&container, &shell("read _ < /gate; exit 3")).await;
    let mut stream = node.go(&exec, false).await;
    let silent_stream = node.go(&silent, false).await;
    // Whoever else writes there.
    let filler = small.0.join("filler");
    let room = fs::write(&filler, vec![0; usize::try_from(TMPFS).unwrap()]);
    assert!(room.is_err(), "it is full");
    let mut all = Vec::new();
    // What had room is there, and then nothing comes, and nothing fails.
    while let Ok(chunk) = timeout(SILENT, stream.next()).await {
        all.extend_from_slice(&chunk.expect("a stream").expect("output").bytes);
    }
    assert!(matches!(node.engine.state(&exec).await, Ok(ExecState::Running { .. })), "it waits");
    // One that writes nothing needs none.
    container.pass();
    assert_eq!(node.code_of(&silent).await, 3);
    drop(silent_stream);
    fs::remove_file(&filler).expect("removed");
    read_rest(&node, &exec, stream, &mut all).await;
    assert!(all == numbers().as_bytes(), "{} bytes", all.len());
    assert_eq!(node.code_of(&exec).await, 7);
    node.engine.forget(&exec).await.expect("forgotten");
}

#[tokio::test]
async fn nothing_is_left_of_execs_that_were_forgotten_neither_files_nor_descriptors_of_the_shim() {
    let node = Node::open().await;
    let container = node.gated().await;
    let shim = shim(&node, &container);
    // What the shim opens once stays.
    let first = node.make(&container, &shell("exit 3")).await;
    node.rest_of(&first, node.go(&first, false).await).await.expect("a clean end");
    node.code_of(&first).await;
    node.engine.forget(&first).await.expect("forgotten");
    let before = open_files(shim);
    let mut all = Vec::new();
    for number in 0..MANY {
        let spec = ExecSpec { tty: number % 2 == 0, stdin: true, ..shell("echo begun; cat; exit 7") };
        let exec = node.make(&container, &spec).await;
        // The others are never started.
        if number % 4 != 3 {
            let stream = node.go(&exec, spec.tty).await;
            // Its agent is killed.
            drop(stream);
            node.daemon().ctr(&["task", "kill", "-s", "SIGKILL", "--exec-id", exec.id.as_str(), container.id()]);
            node.code_of(&exec).await;
        }
        all.push(exec);
    }
    assert!(!files(&node.daemon().base()).is_empty());
    // The next agent finds them, and forgets them: between, it could have been killed again.
    let next = node.daemon().engine();
    for exec in next.leftovers().await.expect("a list") {
        next.forget(&exec).await.expect("forgotten");
    }
    assert_eq!(files(&node.daemon().base()), Vec::<PathBuf>::new());
    until("the shim to let go of all", async || (open_files(shim).len() <= before.len()).then_some(())).await;
    for exec in &all {
        assert_eq!(next.state(exec).await.expect("a state"), ExecState::Absent);
    }

    // With its container, or its pod, gone in the middle.
    let (exec, stream) = node.begun(&container, &shell("echo begun; read _ < /gate; exit 7")).await;
    node.end(&container).await;
    drop(within("the end", read(stream)).await);
    node.daemon().ctr(&["task", "rm", "-f", container.id()]);
    node.daemon().ctr(&["container", "rm", container.id()]);
    assert_eq!(next.leftovers().await.expect("a list").len(), 1);
    next.forget(&exec).await.expect("forgotten");
    assert_eq!((files(&node.daemon().base()), next.leftovers().await.expect("a list")), (vec![], vec![]));
}
