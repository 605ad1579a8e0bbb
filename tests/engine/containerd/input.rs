//! Input that goes on after its agent was killed.

use execlet::{
    core::{ids::ExecRef, offsets::StreamOffsets},
    engine::{Engine as _, ExecSpec, ExecStream, containerd::ContainerdEngine},
};

use super::{
    held::{Holder, POD},
    node::Node,
};
use crate::{
    lab::{shell, within},
    stage::{Stage as _, Staged as _},
};

/// More than FIFO, shim and backlog hold.
const BYTES: usize = 2_000_000;

fn input() -> Vec<u8> {
    (0..BYTES / 8).flat_map(|number| format!("{number:>7}\n").into_bytes()).collect()
}

async fn start(node: &Node, engine: &ContainerdEngine, script: &str) -> (super::node::Boxed, ExecRef, ExecStream) {
    let container = node.gated().await;
    let exec = node.make(&container, &ExecSpec { stdin: true, ..shell(script) }).await;
    let started = engine.start(&exec, false).await.expect("started");
    assert_eq!(started.unheld, None);
    (container, exec, started.stream)
}

/// Hands over what goes in within a moment.
async fn write_some(stream: &ExecStream, mut bytes: &[u8]) {
    let to = stream.input().expect("a way in");
    let writing = async {
        while !bytes.is_empty() {
            bytes = &bytes[to.write(bytes).await.expect("written")..];
        }
    };
    tokio::time::timeout(std::time::Duration::from_millis(500), writing).await.ok();
}

async fn reopen(engine: &ContainerdEngine, exec: &ExecRef) -> (ExecStream, Option<u64>) {
    let reopened = engine.reopen(exec, false, StreamOffsets::default(), true).await.expect("opened").expect("an exec");
    assert!(reopened.unbroken);
    (reopened.stream, reopened.input_from)
}

#[tokio::test]
async fn input_of_an_agent_that_was_killed_goes_on_where_it_was() {
    let holder = Holder::start(Node::open().await, POD).await;
    let node = &holder.node;
    let engine = node.daemon().engine_in(POD);
    // Its digest shows that each byte came, once, and in its place.
    let (container, exec, stream) = start(node, &engine, "read _ < /gate; cat | sha256sum; exit 7").await;
    assert_eq!(holder.names(POD).await.len(), 3, "also the place of the input");
    let all = input();
    write_some(&stream, &all).await;
    drop((stream, engine));
    // Killed before the command has read, and while it does.
    let second = node.daemon().engine_in(POD);
    let (stream, from) = reopen(&second, &exec).await;
    let from = usize::try_from(from.expect("it goes on")).expect("a size");
    assert!(from > 64 * 1024 && from < BYTES, "{from}");
    container.pass();
    write_some(&stream, &all[from..from + 500_000]).await;
    drop((stream, second));
    let third = node.daemon().engine_in(POD);
    let (stream, from) = reopen(&third, &exec).await;
    let to = stream.input().expect("a way in");
    let mut rest = &all[usize::try_from(from.expect("it goes on")).expect("a size")..];
    while !rest.is_empty() {
        rest = &rest[within("input", to.write(rest)).await.expect("written")..];
    }
    within("the end of the input", to.close()).await.expect("closed");
    let output = node.rest_of(&exec, stream).await.expect("a clean end");
    let digest = execlet::core::digest::sha256(&all);
    assert_eq!(String::from_utf8(output.stdout).expect("text"), format!("{digest}  -\n"));
    assert_eq!(node.code_of(&exec).await, 7);
}

#[tokio::test]
async fn input_whose_place_was_lost_with_its_holder_ends() {
    let mut holder = Holder::start(Node::open().await, POD).await;
    let engine = holder.node.daemon().engine_in(POD);
    let (_container, exec, mut stream) = start(&holder.node, &engine, "cat; echo ended; exit 7").await;
    write_some(&stream, b"half\n").await;
    within("its echo", stream.next()).await.expect("a stream").expect("output");
    drop((stream, engine));
    holder.restart().await;
    let (stream, from) = reopen(&holder.node.daemon().engine_in(POD), &exec).await;
    assert_eq!(from, None);
    assert!(stream.input().is_none());
    assert_eq!(holder.node.rest_of(&exec, stream).await.expect("a clean end").stdout, b"half\nended\n");
    assert_eq!(holder.node.code_of(&exec).await, 7);
}
