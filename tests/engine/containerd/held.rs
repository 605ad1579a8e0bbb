//! Output of commands that end while there is no agent, and a holder.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::Arc,
};

use execlet::{
    core::{ids::ExecRef, offsets::StreamOffsets},
    engine::{
        Engine as _, ExecStream, Reopened,
        containerd::{
            ContainerdEngine,
            holder::{self, client::Client},
        },
    },
    wire::OutputStream,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinHandle;

use super::node::{Boxed, Node};
use crate::{
    lab::{Output, shell, until, within},
    stage::{Stage as _, Staged as _},
};

pub const POD: &str = "pod-1";
/// Less than a FIFO holds.
const BYTES: usize = 40_000;
/// Waits at the gate, writes that much to both streams, and ends.
const SCRIPT: &str = "echo begun; read _ < /gate; head -c 40000 /dev/zero | tr '\\0' o; head -c 40000 /dev/zero | tr '\\0' e >&2; exit 7";

/// A holder as it runs in a pod.
pub struct Holder {
    process: Child,
    pub node: Node,
}

impl Holder {
    pub async fn start(node: Node, pod: &str) -> Self {
        let holder = Self { process: spawn(&node, pod), node };
        holder.answers(pod).await;
        holder
    }

    async fn client(&self, pod: &str) -> Client {
        let socket = holder::socket(&self.node.daemon().base(), pod);
        until("a holder", async || Client::connect(&socket).ok()).await
    }

    async fn answers(&self, pod: &str) {
        until("a holder that answers", async || self.client(pod).await.list().await.ok()).await;
    }

    pub async fn names(&self, pod: &str) -> Vec<String> {
        self.client(pod).await.list().await.expect("a list")
    }

    fn kill(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("reaped");
    }

    pub async fn restart(&mut self) {
        self.kill();
        self.process = spawn(&self.node, POD);
        self.answers(POD).await;
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(node: &Node, pod: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_execlet"));
    command.args(["holder", "--name", pod, "--run-dir"]).arg(node.daemon().base());
    command.spawn().expect("a holder")
}

/// What an agent does beside its commands.
fn follow(engine: &Arc<ContainerdEngine>) -> JoinHandle<()> {
    let engine = Arc::clone(engine);
    tokio::spawn(async move { engine.hold_output().await })
}

async fn begun(node: &Node, engine: &ContainerdEngine, container: &Boxed) -> (ExecRef, ExecStream) {
    let exec = node.make(container, &shell(SCRIPT)).await;
    let started = engine.start(&exec, false).await.expect("started");
    assert_eq!(started.unheld, None);
    let mut stream = started.stream;
    within("first output", stream.next()).await.expect("a stream").expect("output");
    assert!(writers(&fifo(node, container, &exec, "out")) > 0, "the shim has it open");
    (exec, stream)
}

/// Its process has ended, and the shim has let go of its output.
async fn ended(node: &Node, container: &Boxed, exec: &ExecRef) {
    container.pass();
    assert_eq!(node.code_of(exec).await, 7);
    for fifo in ["out", "err"].map(|name| fifo(node, container, exec, name)) {
        until("the shim to let go of it", async || (writers(&fifo) == 0).then_some(())).await;
    }
}

fn fifo(node: &Node, container: &Boxed, exec: &ExecRef, name: &str) -> PathBuf {
    node.daemon().base().join(container.id()).join(exec.id.as_str()).join(name)
}

/// How many descriptors of all processes write to it.
fn writers(fifo: &Path) -> usize {
    let all = fs::read_dir("/proc").expect("processes").filter_map(Result::ok);
    let descriptors = all.filter_map(|process| fs::read_dir(process.path().join("fd")).ok()).flatten();
    // The mode of the link tells how it was opened.
    let writes = |link: &Path| fs::symlink_metadata(link).is_ok_and(|link| link.permissions().mode() & 0o200 != 0);
    let is_it = |link: &Path| fs::read_link(link).is_ok_and(|file| file == fifo);
    descriptors.filter_map(Result::ok).filter(|link| is_it(&link.path()) && writes(&link.path())).count()
}

async fn rest(node: &Node, engine: &ContainerdEngine, exec: &ExecRef) -> Output {
    let from = StreamOffsets { stdout: 6, stderr: 0 };
    let Reopened { mut stream, unbroken, .. } =
        engine.reopen(exec, false, from).await.expect("opened").expect("an exec");
    assert!(unbroken);
    let mut output = Output::default();
    while let Some(chunk) = within("output", stream.next()).await.expect("a clean end") {
        match chunk.stream {
            OutputStream::Stdout => output.stdout.extend_from_slice(&chunk.bytes),
            OutputStream::Stderr => output.stderr.extend_from_slice(&chunk.bytes),
        }
    }
    assert_eq!(node.code_of(exec).await, 7);
    output
}

fn assert_whole(output: &Output) {
    let whole = output.stdout == vec![b'o'; BYTES] && output.stderr == vec![b'e'; BYTES];
    assert!(whole, "{} and {} bytes", output.stdout.len(), output.stderr.len());
}

#[tokio::test]
async fn output_of_a_command_that_ended_unread_is_whole_if_it_was_held() {
    let holder = Holder::start(Node::open().await, POD).await;
    let node = &holder.node;
    let container = node.gated().await;
    let engine = node.daemon().engine_in(POD);
    let (exec, stream) = begun(node, &engine, &container).await;
    // The agent is killed.
    drop((stream, engine));
    ended(node, &container, &exec).await;
    let next = node.daemon().engine_in(POD);
    assert_whole(&rest(node, &next, &exec).await);
    next.forget(&exec).await.expect("forgotten");
    assert!(holder.names(POD).await.is_empty());
}

#[tokio::test]
async fn output_that_the_holder_of_another_pod_has_is_taken_over_and_that_one_ends() {
    let mut before = Holder::start(Node::open().await, "before").await;
    let node = &before.node;
    let container = node.gated().await;
    let engine = node.daemon().engine_in("before");
    let (exec, stream) = begun(node, &engine, &container).await;
    drop((stream, engine));
    ended(node, &container, &exec).await;
    let told = Pid::from_raw(before.process.id().try_into().expect("a PID")).expect("a PID");
    kill_process(told, Signal::TERM).expect("told to stop");
    let mut after = spawn(node, "after");
    let next = node.daemon().engine_in("after");
    let following = follow(&next);
    let socket = holder::socket(&node.daemon().base(), "after");
    until("all to be taken over", async || {
        let names = Client::connect(&socket).ok()?.list().await.ok()?;
        (names.len() == 2).then_some(())
    })
    .await;
    // This one is killed as well.
    following.abort();
    assert!(following.await.is_err());
    drop(next);
    until("the holder before to end", async || before.process.try_wait().expect("its state")).await;
    let node = &before.node;
    assert_whole(&rest(node, &node.daemon().engine_in("after"), &exec).await);
    after.kill().expect("killed");
    after.wait().expect("reaped");
}

#[tokio::test]
async fn a_holder_that_is_killed_costs_nothing_and_has_all_again_when_it_is_back() {
    let mut holder = Holder::start(Node::open().await, POD).await;
    let container = holder.node.gated().await;
    let engine = holder.node.daemon().engine_in(POD);
    let following = follow(&engine);
    let (exec, mut stream) = begun(&holder.node, &engine, &container).await;
    holder.restart().await;
    until("it to have all again", async || (holder.names(POD).await.len() == 2).then_some(())).await;
    holder.restart().await;
    // A command that is started while there is none runs, and that is said.
    holder.kill();
    let other = holder.node.make(&container, &shell("echo unheld")).await;
    let started = engine.start(&other, false).await.expect("started");
    assert!(started.unheld.is_some());
    assert_eq!(holder.node.rest_of(&other, started.stream).await.expect("a clean end").stdout, b"unheld\n");
    engine.forget(&other).await.expect("forgotten");
    holder.process = spawn(&holder.node, POD);
    until("it to have all again", async || (holder.names(POD).await.len() == 2).then_some(())).await;
    // Nothing was lost to the agent, and nothing is when it is killed now.
    let node = &holder.node;
    assert!(futures::poll!(std::pin::pin!(stream.next())).is_pending());
    following.abort();
    assert!(following.await.is_err());
    drop((stream, engine));
    ended(node, &container, &exec).await;
    assert_whole(&rest(node, &node.daemon().engine_in(POD), &exec).await);
}

#[tokio::test]
async fn output_whose_holder_was_killed_with_the_agent_is_not_called_whole() {
    let mut holder = Holder::start(Node::open().await, POD).await;
    let container = holder.node.gated().await;
    let engine = holder.node.daemon().engine_in(POD);
    let (exec, stream) = begun(&holder.node, &engine, &container).await;
    drop((stream, engine));
    holder.restart().await;
    let node = &holder.node;
    ended(node, &container, &exec).await;
    let next = node.daemon().engine_in(POD);
    let from = StreamOffsets { stdout: 6, stderr: 0 };
    let Reopened { mut stream, unbroken, .. } =
        next.reopen(&exec, false, from).await.expect("opened").expect("an exec");
    assert!(unbroken, "nothing is missing before");
    assert!(within("the end", stream.next()).await.is_err());
}
