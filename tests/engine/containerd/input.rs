//! Input that goes on after its agent was killed.

use execlet::{
    core::{ids::ExecRef, offsets::StreamOffsets},
    engine::{Engine as _, ExecSpec, ExecStream, ReopenedInput, containerd::ContainerdEngine},
};

use super::{
    held::{Holder, POD},
    node::Node,
};
use crate::{
    lab::{on_a_terminal, shell, within},
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

async fn reopen(engine: &ContainerdEngine, exec: &ExecRef) -> (ExecStream, ReopenedInput) {
    let reopened = engine.reopen(exec, false, StreamOffsets::default()).await.expect("opened").expect("an exec");
    assert!(reopened.unbroken);
    (reopened.stream, reopened.input)
}

fn goes_on(input: ReopenedInput) -> usize {
    let ReopenedInput::GoesOn { from } = input else { panic!("{input:?}") };
    usize::try_from(from).expect("a size")
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
    let (stream, found) = reopen(&second, &exec).await;
    let from = goes_on(found);
    assert!(from > 64 * 1024 && from < BYTES, "{from}");
    container.pass();
    write_some(&stream, &all[from..from + 500_000]).await;
    drop((stream, second));
    let third = node.daemon().engine_in(POD);
    let (stream, found) = reopen(&third, &exec).await;
    let to = stream.input().expect("a way in");
    assert!(to.outlives_agent());
    let mut rest = &all[goes_on(found)..];
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
    let (stream, found) = reopen(&holder.node.daemon().engine_in(POD), &exec).await;
    assert_eq!(found, ReopenedInput::Over);
    assert!(stream.input().is_none());
    assert_eq!(holder.node.rest_of(&exec, stream).await.expect("a clean end").stdout, b"half\nended\n");
    assert_eq!(holder.node.code_of(&exec).await, 7);
}

#[tokio::test]
async fn input_that_had_ended_when_the_agent_was_killed_has_ended() {
    let holder = Holder::start(Node::open().await, POD).await;
    let node = &holder.node;
    let engine = node.daemon().engine_in(POD);
    let (container, exec, stream) = start(node, &engine, "read _ < /gate; cat; exit 7").await;
    write_some(&stream, b"all of it\n").await;
    within("the end of the input", stream.input().expect("a way in").close()).await.expect("closed");
    drop((stream, engine));
    let (stream, found) = reopen(&node.daemon().engine_in(POD), &exec).await;
    assert_eq!(found, ReopenedInput::Ended);
    container.pass();
    assert_eq!(node.rest_of(&exec, stream).await.expect("a clean end").stdout, b"all of it\n");
    assert_eq!(node.code_of(&exec).await, 7);
}

#[tokio::test]
async fn a_terminal_of_an_agent_that_was_killed_is_typed_on_at() {
    let holder = Holder::start(Node::open().await, POD).await;
    let node = &holder.node;
    let engine = node.daemon().engine_in(POD);
    let container = node.gated().await;
    let spec = ExecSpec { stdin: true, ..on_a_terminal("read a; read b; echo got $a $b; exit 7") };
    let exec = node.make(&container, &spec).await;
    let mut stream = engine.start(&exec, true).await.expect("started").stream;
    write_some(&stream, b"one\n").await;
    // The terminal has it.
    within("its echo", stream.next()).await.expect("a stream").expect("output");
    drop((stream, engine));
    let next = node.daemon().engine_in(POD);
    let reopened = next.reopen(&exec, true, StreamOffsets::default()).await.expect("opened").expect("an exec");
    assert_eq!(reopened.input, ReopenedInput::GoesOn { from: 4 });
    write_some(&reopened.stream, b"two\n").await;
    let output = node.rest_of(&exec, reopened.stream).await.expect("a clean end");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.ends_with("got one two\r\n"), "{text:?}");
    assert_eq!(node.code_of(&exec).await, 7);
}
